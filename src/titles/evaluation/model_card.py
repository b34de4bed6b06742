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
from pydantic import BaseModel
from tabulate import tabulate

from titles.data.contract import LABELS, PREPARED, SPLITS, VOCABULARY, atomic_file
from titles.data.encoded import EncodedTitles
from titles.models.parts.saved import SavedModel, weights
from titles.models.registry import AVERAGE, NETWORKS
from titles.params import Params

SAMPLE = "data/raw/sample.csv.gz"
_AVERAGE_SUMMARY = "weighted mean of the networks' logits"


def write(
    path: Path,
    models: Mapping[str, SavedModel],
    details: Mapping[str, Mapping[str, Mapping[str, Any]]],
    params: Params,
) -> None:
    """Write the card, in Markdown, from the stage's results and the prepared data.

    Args:
        details: the content of metrics/details.json.

    Raises:
        ValueError: a split is missing or damaged, or the place cannot be written to.
    """
    parts = (
        _opening(models),
        _uses(),
        _data(models, params),
        _results(models, details),
        _confidence(models, details["models"], params),
        _limits(params),
        _parameters(models, params),
    )
    with atomic_file(path) as partial:
        partial.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def digest(path: Path) -> str:
    """MD5 of a file or of a folder of files, as DVC counts it and writes it into dvc.lock."""
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "md5").hexdigest()
    files = [{"md5": digest(file), "relpath": file.name} for file in sorted(path.iterdir())]
    text = json.dumps(files, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return str(tabulate(list(rows), header, "pipe", disable_numparse=True))


def _opening(models: Mapping[str, SavedModel]) -> str:
    rows = [(name, f"`models/{name}`", NETWORKS[name].summary) for name in models]
    rows.append((AVERAGE, "all of them", _AVERAGE_SUMMARY))
    return (
        "# Model card: titles of listings into categories\n\n"
        "Networks that predict the category of a listing from its title, and their average.\n\n"
        + _table(("model", "folder", "how it works"), rows)
    )


def _uses() -> str:
    return """## Intended use

- To suggest categories to a seller, or to classify titles in bulk and leave uncertain ones to people.
- To find listings in a wrong category.

Not meant for texts other than titles of listings, for categories that are not in `labels.txt`, or for
decisions about people."""


def _data(models: Mapping[str, SavedModel], params: Params) -> str:
    model = next(iter(models.values()))
    splits = {split: f"{len(EncodedTitles.open(PREPARED / split)):,} titles" for split in SPLITS}
    sizes = {
        **{PREPARED / split: size for split, size in splits.items()},
        VOCABULARY: f"{len(model.vocabulary):,} words",
        LABELS: f"{len(model.labels):,} categories",
    }
    rows = [(f"`{path.as_posix()}`", size, f"`{digest(path)}`") for path, size in sizes.items()]
    synthetic = (
        "\n\nThese listings are synthetic: `titles sample` wrote them, to be as hard as real ones. No "
        "real listing is among them, and scores on real listings will differ."
        if params.prepare.source == SAMPLE
        else ""
    )
    return (
        f"## Data\n\nRead from `{params.prepare.source}`, language: {params.prepare.language}.\n\n"
        f"{_table(('prepared', 'holds', 'md5, as in dvc.lock'), rows)}\n\n"
        "Networks are trained on train; the best epoch, temperatures and thresholds are chosen on "
        f"validation; all scores here are on test.{synthetic}"
    )


def _results(models: Iterable[str], details: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    shown = ("accuracy", "macro_f1", "top_3", "top_5", "loss")
    rows = []
    names = (*models, AVERAGE)
    for name in names:
        score = details["models"][name]
        interval = f"{score['balanced_accuracy_low']:.4f} to {score['balanced_accuracy_high']:.4f}"
        measures = (f"{score[measure]:.4f}" for measure in shown)
        rows.append((name, f"{score['balanced_accuracy']:.4f}", interval, *measures))
    header = ("model", "balanced accuracy", "95 % interval", *(m.replace("_", " ") for m in shown))
    members = [
        (kind.replace("_", " "), group, f"{found['rows']:,}", *(f"{found[name]:.4f}" for name in names))
        for kind, members in details["groups"].items()
        for group, found in members.items()
    ]
    differences = [
        (
            pair.replace("_", " "),
            f"{test['difference']:.4f}",
            f"{test['difference_low']:.4f} to {test['difference_high']:.4f}",
        )
        for pair, test in details["pairs"].items()
    ]
    return (
        f"## Results\n\n{_table(header, rows)}\n\n"
        "Balanced accuracy is the mean recall of the categories; its interval is a bootstrap within "
        "categories. The loss is in nats per title.\n\n"
        "Differences in balanced accuracy on the same titles:\n\n"
        f"{_table(('networks', 'difference', '95 % interval'), differences)}\n\n"
        "Balanced accuracy of groups of titles:\n\n" + _table(("by", "group", "titles", *names), members)
    )


def _confidence(
    models: Mapping[str, SavedModel], scores: Mapping[str, Mapping[str, Any]], params: Params
) -> str:
    weight = dict(zip(models, weights(list(models.values())).tolist(), strict=True))
    rows = []
    for name in (*models, AVERAGE):
        score = scores[name]
        before, kept = score.get("calibration_error_before"), score.get("precision_kept")
        rows.append(
            (
                name,
                f"{models[name].temperature:g}" if name in models else "-",
                f"{weight[name]:.4f}" if name in models else "-",
                "-" if before is None else f"{before:.4f}",
                f"{score['calibration_error']:.4f}",
                f"{score['threshold']:.4f}",
                f"{score['coverage']:.4f}",
                "-" if kept is None else f"{kept:.4f}",
            )
        )
    header = (
        *("model", "temperature", "weight in the average", "calibration error before", "after"),
        *("threshold", "coverage", "precision of what is kept"),
    )
    return (
        f"## Confidence\n\n{_table(header, rows)}\n\n"
        "Logits are divided by a temperature that was fitted on validation (Guo et al., 2017). The "
        "average weights networks by the inverse of the validation loss after that. The calibration "
        "error is the mean difference between confidence and accuracy over bins of confidence. The "
        "threshold is the lowest confidence from which the precision on validation is at least "
        f"{params.evaluate.target_precision:g}, by the lower end of a one-sided 95 % interval; coverage "
        "and precision are those of test. Threshold 1 with coverage 0 means that there is none."
    )


def _limits(params: Params) -> str:
    rows_held_out = {
        "reliable": "validation and test take reliable rows wherever a category has any",
        "any": "validation and test have such labels too, so that no score can reach 1",
    }[params.prepare.holdout_quality]
    return f"""## Limits

- Sellers chose the labels: some are wrong where label quality is unreliable or unknown. Train has all
  of them; {rows_held_out}.
- The languages are those of the data above. Of words that are not in train, only letters are read.
- Probabilities are calibrated on average over titles like those of validation: not for each category by
  itself, and not for data with other titles or other shares of categories.
- A title of an item outside the known categories gets a known category all the same."""


def _parameters(models: Iterable[str], params: Params) -> str:
    sections: dict[str, BaseModel] = {
        "compute": params.compute,
        "prepare": params.prepare,
        "embed": params.embed,
        **{name: params.network(name) for name in models},
        "evaluate": params.evaluate,
    }
    values = {"seed": params.seed} | {name: s.model_dump(mode="json") for name, s in sections.items()}
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip()
    return f"## Parameters\n\n```yaml\n{text}\n```"
