"""The model card: the networks, their data, results and limits.

After Mitchell et al. (2019), "Model Cards for Model Reporting", arXiv:1810.03993. The same results give
the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel
from tabulate import tabulate

from titles.data.contract import LABELS, PREPARED, SPLITS, VOCABULARY, atomic_file
from titles.data.encoded import EncodedTitles
from titles.models.parts.saved import SavedModel, weights
from titles.models.registry import AVERAGE, NETWORKS
from titles.params import Params

SAMPLE = "data/raw/sample.csv.gz"
_SHOWN = ("accuracy", "macro_f1", "top_3", "top_5", "loss")
_CONFIDENCE = (
    *("model", "temperature", "weight in the average", "calibration error before", "after"),
    *("threshold", "coverage", "precision of what is kept"),
)


def write(
    path: Path,
    models: Mapping[str, SavedModel],
    details: Mapping[str, Mapping[str, Mapping[str, Any]]],
    params: Params,
) -> None:
    """Write the card, in Markdown, from the results of the stage and the prepared data.

    Args:
        details: the content of metrics/details.json.

    Raises:
        ValueError: a split is missing or damaged, or the path is not writable.
    """
    environment = Environment(  # noqa: S701, Markdown
        loader=PackageLoader("titles.evaluation"),
        trim_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    text = environment.get_template("model_card.md").render(
        params=params,
        synthetic=params.prepare.source == SAMPLE,
        networks=_table(
            ("model", "folder", "how it works"),
            [
                *((name, f"`models/{name}`", NETWORKS[name].summary) for name in models),
                (AVERAGE, "all of them", "weighted mean of the networks' logits"),
            ],
        ),
        data=_data(next(iter(models.values()))),
        parameters=_parameters(models, params),
        **_results((*models, AVERAGE), details),
        confidence=_table(_CONFIDENCE, _confidence(models, details["models"])),
    )
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def digest(path: Path) -> str:
    """MD5 of a file or of a folder of files, as DVC computes it for dvc.lock."""
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "md5").hexdigest()
    files = [{"md5": digest(file), "relpath": file.name} for file in sorted(path.iterdir())]
    text = json.dumps(files, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return str(tabulate(list(rows), header, "pipe", disable_numparse=True))


def _data(model: SavedModel) -> str:
    sizes = {
        PREPARED / split: f"{len(EncodedTitles.open(PREPARED / split)):,} titles" for split in SPLITS
    }
    sizes[VOCABULARY] = f"{len(model.vocabulary):,} words"
    sizes[LABELS] = f"{len(model.labels):,} categories"
    rows = [(f"`{path.as_posix()}`", size, f"`{digest(path)}`") for path, size in sizes.items()]
    return _table(("prepared", "holds", "md5, as in dvc.lock"), rows)


def _results(
    names: Sequence[str], details: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> dict[str, str]:
    number = "{:.4f}".format

    def interval(values: Mapping[str, float], measure: str) -> str:
        return f"{values[f'{measure}_low']:.4f} to {values[f'{measure}_high']:.4f}"

    scores = [
        (
            *(name, number(score["balanced_accuracy"]), interval(score, "balanced_accuracy")),
            *(number(score[measure]) for measure in _SHOWN),
        )
        for name in names
        for score in [details["models"][name]]
    ]
    differences = [
        (pair.replace("_", " "), number(test["difference"]), interval(test, "difference"))
        for pair, test in details["pairs"].items()
    ]
    groups = [
        (kind.replace("_", " "), group, f"{found['rows']:,}", *(number(found[name]) for name in names))
        for kind, members in details["groups"].items()
        for group, found in members.items()
    ]
    shown = (measure.replace("_", " ") for measure in _SHOWN)
    return {
        "results": _table(("model", "balanced accuracy", "95 % interval", *shown), scores),
        "differences": _table(("networks", "difference", "95 % interval"), differences),
        "groups": _table(("by", "group", "titles", *names), groups),
    }


def _confidence(
    models: Mapping[str, SavedModel], scores: Mapping[str, Mapping[str, Any]]
) -> Iterable[Sequence[str]]:
    weight = dict(zip(models, weights(list(models.values())).tolist(), strict=True))
    for name in (*models, AVERAGE):
        score = scores[name]
        values = (
            weight.get(name),
            score.get("calibration_error_before"),
            *(score[measure] for measure in ("calibration_error", "threshold", "coverage")),
            score.get("precision_kept"),
        )
        temperature = f"{models[name].temperature:g}" if name in models else "-"
        yield (name, temperature, *("-" if value is None else f"{value:.4f}" for value in values))


def _parameters(models: Iterable[str], params: Params) -> str:
    sections: dict[str, BaseModel] = {
        "compute": params.compute,
        "prepare": params.prepare,
        "embed": params.embed,
        **{name: params.network(name) for name in models},
        "evaluate": params.evaluate,
    }
    values = {"seed": params.seed} | {name: s.model_dump(mode="json") for name, s in sections.items()}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip()
