"""README.md of a folder for the Hugging Face Hub: a model card whose header the Hub reads.

The header follows huggingface_hub's ModelCardData; results are its model-index. The same results give
the same bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from tabulate import tabulate

from titles.data.contract import METRICS, MODELS
from titles.data.documents import DocumentError, read_json, read_yaml
from titles.data.messages import printable
from titles.models.parts.saved import SavedModel, weights
from titles.models.registry import AVERAGE, NETWORKS

_LANGUAGES = {"spanish": "es", "portuguese": "pt"}
_SAMPLE = "data/raw/sample.csv.gz"
_SYNTHETIC = "Synthetic marketplace listings"
# Measures of metrics/details.json: the metric's name on the Hub, its name for people, its arguments.
_MEASURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "balanced_accuracy": ("balanced_accuracy", "Balanced accuracy", {}),
    "accuracy": ("accuracy", "Accuracy", {}),
    "macro_f1": ("f1", "Macro F1", {"average": "macro"}),
    "top_3": ("top_k_accuracy", "Top 3 accuracy", {"k": 3}),
    "top_5": ("top_k_accuracy", "Top 5 accuracy", {"k": 5}),
}


@dataclass(frozen=True)
class Project:
    """What a project says of its models.

    source: prepare.source; "" where it is not known. details: of metrics/details.json; empty where
        nothing was measured.
    """

    source: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(models: Path) -> Project:
        """The project of the folder of models; nothing for models that were copied elsewhere. Files that
        cannot be read are told on the standard error."""
        folder = models.resolve()
        file = folder.parent / METRICS / "details.json"
        if folder.name != MODELS.name or not file.is_file():
            print(f"note: {file} is not there: the model card has no results", file=sys.stderr)
            return Project()
        try:
            source = str(read_yaml(folder.parent / "params.yaml")["prepare"]["source"])
            details = read_json(file)
            for measured in details["models"].values():
                for name in (*_MEASURES, "balanced_accuracy_low", "balanced_accuracy_high", "threshold"):
                    float(measured[name])
            languages = details["groups"]["language"]
            _ = {name: int(found["rows"]) for name, found in languages.items()}
        except (DocumentError, OSError, AttributeError, LookupError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"[:200]
            print(f"warning: the model card has no results ({reason})", file=sys.stderr)
            return Project()
        return Project(source, details)

    @property
    def dataset(self) -> str:
        """The name of the data."""
        if self.source == _SAMPLE:
            return _SYNTHETIC
        return printable(Path(self.source).name) or "Listings"


def header(chosen: str, models: Sequence[SavedModel], project: Project) -> dict[str, Any]:
    """The metadata of the card. It has no licence: the project has none.

    Args:
        chosen: the network, or the average, that the folder predicts with.
    """
    languages = project.details.get("groups", {}).get("language", {})
    codes = sorted(_LANGUAGES[name] for name in languages if name in _LANGUAGES)
    found: dict[str, Any] = {"language": codes} if codes else {}
    found |= {
        "pipeline_tag": "text-classification",
        "tags": ["pytorch", "safetensors", "e-commerce", "listing-titles", *(m.name for m in models)],
    }
    if measured := project.details.get("models", {}).get(chosen):
        found["metrics"] = sorted({name for name, _, _ in _MEASURES.values()})
        metrics = [
            {"type": kind, "value": measured[key], "name": name + _interval(measured, key)}
            | ({"args": arguments} if arguments else {})
            for key, (kind, name, arguments) in _MEASURES.items()
        ]
        kind = "".join(c if c.isalnum() else "-" for c in project.dataset.lower())
        result = {
            "task": {"type": "text-classification", "name": "Category of a listing from its title"},
            "dataset": {"name": project.dataset, "type": kind, "split": "test"},
            "metrics": metrics,
        }
        found["model-index"] = [{"name": f"titles-{chosen}", "results": [result]}]
    return found


def text(chosen: str, models: Sequence[SavedModel], project: Project) -> str:
    """The card, in Markdown."""
    environment = Environment(  # noqa: S701, Markdown
        loader=PackageLoader("titles.serve"),
        trim_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    measured = project.details.get("models", {})
    names = [*(m.name for m in models), *([AVERAGE] if chosen == AVERAGE else [])]
    results = [
        [name, *(f"{measured[name][key]:.4f}{_interval(measured[name], key)}" for key in _MEASURES)]
        for name in names
        if name in measured
    ]
    languages = project.details.get("groups", {}).get("language", {})
    columns = ["network", "how it works", "saved weights"]
    networks = [[m.name, NETWORKS[m.name].summary, m.saved_weights] for m in models]
    if chosen == AVERAGE:
        columns.append("weight in the average")
        for row, share in zip(networks, weights(models).tolist(), strict=True):
            row.append(f"{share:.4f}")
    body = environment.get_template("hub_card.md").render(
        average=chosen == AVERAGE,
        networks=_table(columns, networks),
        results=_table(["model", *(name for _, name, _ in _MEASURES.values())], results),
        measured=bool(results),
        by_language=_table(
            ["language", "titles", chosen],
            [
                [name, f"{v['rows']:,}", f"{v[chosen]:.4f}"]
                for name, v in languages.items()
                if v.get(chosen) is not None
            ],
        ),
        categories=len(models[0].labels),
        words=len(models[0].vocabulary),
        dataset=project.dataset,
        synthetic=project.source == _SAMPLE,
        threshold=measured.get(chosen, {}).get("threshold"),
    )
    head = yaml.safe_dump(header(chosen, models, project), sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n{body}"


def _interval(measured: Mapping[str, Any], key: str) -> str:
    """The 95 % interval of a measure that has one."""
    if f"{key}_low" not in measured:
        return ""
    return f" (95 % interval {measured[f'{key}_low']:.4f} to {measured[f'{key}_high']:.4f})"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return str(tabulate(rows, columns, "pipe", disable_numparse=True))
