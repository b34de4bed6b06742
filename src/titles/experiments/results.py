"""Results of trainings and evaluations at a revision, whether they ran here or were pulled.

Only what fits together is read. Left out are a metrics file that differs from the one in dvc.lock, and a
stage whose inputs were made anew since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from titles.data.contract import METRICS, PREPARED
from titles.data.documents import parse_json
from titles.experiments.commands import warn
from titles.experiments.store import (
    DETAILS,
    OLDER_DETAILS,
    Revision,
    Stages,
    canonical,
    older_details,
)
from titles.models.registry import AVERAGE, parse_params
from titles.tracking.provenance import data_hashes, flat_text

VALIDATION = (PREPARED / "validation").as_posix()
_TRAIN = "train_"
_EVALUATE = "evaluate"


@dataclass(frozen=True)
class Result:
    """The result of a stage at a revision.

    model: the network that was trained, or AVERAGE for an evaluation. params: all there were, flat.
    read: those that the stage depends on. data: hashes of its inputs other than code. scores: its
    metrics; of an evaluation metrics/details.json. used: what the training used where a parameter
    leaves it open. hashes: of all data up to the training.
    """

    revision: Revision
    stage: str
    model: str
    params: dict[str, str]
    read: dict[str, str]
    data: dict[str, str]
    scores: dict[str, Any]
    used: dict[str, Any]
    hashes: dict[str, str]

    @property
    def split(self) -> str:
        """The hash of the validation split, on which results are compared; "" if it is unknown."""
        return self.data.get(VALIDATION) or self.hashes.get(VALIDATION, "")

    @cached_property
    def key(self) -> str:
        """The same for results with equal parameters, data and metrics.

        Code is left out: if it changed and these did not, the change had no effect.
        """
        read = {name: str(canonical(value)) for name, value in self.read.items()}
        parts = [self.stage, read, self.data, self.scores]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def results_at(revision: Revision) -> list[Result]:
    """The trainings at a revision, then their evaluation, as far as they have run."""
    try:
        stages = revision.stages
        sections: dict[str, Any] = {}
        for stage in stages.values():
            for name, value in _sections(stage).items():
                # Sections in several stages are equal, except in the middle of a run; some have a part.
                whole = isinstance(value, dict) and isinstance(sections.get(name), dict)
                sections[name] = sections[name] | value if whole else value
        hashes = data_hashes(stages)
    except ValueError as error:
        warn(f"{revision.name} is left out: {error}")
        return []
    except (KeyError, TypeError, AttributeError):
        warn(f"{revision.name} is left out: its dvc.lock lacks stages, or parts of them")
        return []
    found = []
    for name in sorted(stages, key=lambda name: name == _EVALUATE):
        stage, model = stages[name], name.removeprefix(_TRAIN)
        if not (name.startswith(_TRAIN) or name == _EVALUATE) or not _is_current(stage, stages):
            continue
        if name == _EVALUATE:
            model, scores, used = AVERAGE, _evaluation(revision, stage), {}
        else:
            written = _metrics(revision, stage, METRICS / f"{model}.json")
            parts = written.get(model), written.get("used")
            scores, used = (part if isinstance(part, dict) else {} for part in parts)
        if not scores:
            continue
        own = _sections(stage)
        params = _as_logged({**sections, **own})
        found.append(
            Result(
                revision=revision,
                stage=name,
                model=model,
                params=params,
                read={key: value for key, value in params.items() if key.partition(".")[0] in own},
                data={
                    dep["path"]: dep["md5"]
                    for dep in stage["deps"]
                    if "md5" in dep and not dep["path"].startswith("src/")
                },
                scores=scores,
                used=used,
                hashes=hashes,
            )
        )
    return found


def prepared_at(revision: Revision) -> dict[str, Any]:
    """The counts of rows and categories that prepare wrote; {} if they are not at hand."""
    stage = revision.stages.get("prepare", {})
    path = METRICS / "prepare.json"
    written = any(out["path"] == path.as_posix() for out in stage.get("outs", []))
    return _metrics(revision, stage, path) if written else {}


def _sections(stage: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a stage by section, of which it may read a part, such as compute.portable."""
    found: dict[str, Any] = {}
    for values in stage.get("params", {}).values():
        for name, value in values.items():
            section, dot, key = name.partition(".")
            found[section] = found.get(section, {}) | {key: value} if dot else value
    return found


def _is_current(stage: Mapping[str, Any], stages: Stages) -> bool:
    made = {out["path"]: out.get("md5") for s in stages.values() for out in s.get("outs", [])}
    return all(made.get(dep["path"], dep.get("md5")) == dep.get("md5") for dep in stage.get("deps", []))


def _evaluation(revision: Revision, stage: Mapping[str, Any]) -> dict[str, Any]:
    if any(out["path"] == DETAILS.as_posix() for out in stage.get("outs", [])):
        return _metrics(revision, stage, DETAILS)
    return older_details(_metrics(revision, stage, OLDER_DETAILS))


def _metrics(revision: Revision, stage: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The metrics in a file; {} if it is not the file that the stage wrote."""
    hashes = {out["path"]: out.get("md5") for out in stage.get("outs", [])}
    try:
        content = revision.read(path)
    except ValueError as error:
        warn(f"{revision.name} is left out in part: {error}")
        return {}
    if hashes.get(path.as_posix()) != hashlib.md5(content, usedforsecurity=False).hexdigest():
        return {}
    try:
        metrics = parse_json(content)
    except ValueError:
        metrics = None
    if not isinstance(metrics, dict):
        warn(f"{revision.name} is left out in part: its {path} is damaged")
        return {}
    return metrics


def _as_logged(sections: dict[str, Any]) -> dict[str, str]:
    """Parameters as a training logs them, if this version knows them all."""
    try:
        return flat_text(parse_params(sections).model_dump(mode="json"))
    except ValueError:
        return flat_text(sections)
