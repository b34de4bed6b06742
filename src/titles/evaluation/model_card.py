"""The model card: the networks, their data, results and limits.

After Mitchell et al. (2019), "Model Cards for Model Reporting", arXiv:1810.03993. The same results give
the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel
from tabulate import tabulate

from titles.data.contract import LABELS, NO_CORRECTIONS, PREPARED, SPLITS, VOCABULARY
from titles.data.encoded import EncodedTitles
from titles.data.files import atomic_file
from titles.models.parts.saved import SavedModel, weights
from titles.models.registry import AVERAGE, NETWORKS
from titles.params import Params

SAMPLE = "data/raw/sample.csv.gz"


def write(
    path: Path, models: Mapping[str, SavedModel], details: Mapping[str, Any], params: Params
) -> None:
    """Write the card, in Markdown, from metrics/details.json (`details`), the prepared data and the
    folders of the models beside it.

    Raises:
        ValueError: a split is missing or damaged, or the path is not writable.
    """
    environment = Environment(  # noqa: S701, Markdown
        loader=PackageLoader("titles.evaluation"),
        trim_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {"table": _table, "number": _number}
    model = next(iter(models.values()))
    holds = {
        PREPARED / split: f"{len(EncodedTitles.open(PREPARED / split)):,} titles" for split in SPLITS
    }
    holds |= {
        VOCABULARY: f"{len(model.vocabulary):,} words",
        LABELS: f"{len(model.labels):,} categories",
    }
    text = environment.get_template("model_card.md").render(
        params=params,
        synthetic=params.prepare.source == SAMPLE,
        models=models,
        sizes={name: _size(path.parent / name) for name in models},
        summaries={name: NETWORKS[name].summary for name in models},
        weights=dict(zip(models, weights(list(models.values())).tolist(), strict=True)),
        classifiers=(*models, AVERAGE),
        average=AVERAGE,
        holds=holds,
        digest=digest,
        details=details,
        parameters=_parameters(list(models), params),
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


def _size(folder: Path) -> int:
    """Bytes of the files of a folder."""
    return sum(file.stat().st_size for file in folder.iterdir())


def _table(text: str) -> str:
    """A Markdown table of lines of cells, which " | " separates; the first line is the header."""
    rows = [line.split(" | ") for line in text.splitlines()]
    return str(tabulate(rows, "firstrow", "pipe", disable_numparse=True)) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _parameters(models: list[str], params: Params) -> str:
    sections: dict[str, BaseModel] = {
        **{"compute": params.compute, "prepare": params.prepare, "embed": params.embed},
        **{name: params.network(name) for name in models},
        "evaluate": params.evaluate,
    }
    values: dict[str, Any] = {"seed": params.seed} | {
        name: s.model_dump(mode="json") for name, s in sections.items()
    }
    if params.prepare.corrections == NO_CORRECTIONS:  # a run without them keeps the card that it had
        del values["prepare"]["corrections"]
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip()
