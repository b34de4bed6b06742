"""The model card: what the networks are, what they learnt from, how good they are and where not.

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
from tabulate import tabulate

from titles.data.contract import LABELS, PREPARED, SPLITS, VOCABULARY, atomic_file
from titles.data.encoded import EncodedTitles
from titles.models.parts.saved import SavedModel, weights
from titles.params import Params

SAMPLE = "data/raw/sample.csv.gz"
_KINDS = {
    "cnn": "filters over windows of words, maximum over the title (Kim, 2014)",
    "mlp": "means of word vectors, hidden layers",
    "average": "weighted mean of both networks' logits",
}


def write(
    path: Path,
    models: Mapping[str, SavedModel],
    scores: Mapping[str, Mapping[str, float]],
    groups: Mapping[str, Mapping[str, Mapping[str, float]]],
    params: Params,
) -> None:
    """Write the card, in Markdown, from the stage's results and the prepared data.

    Args:
        scores, groups: see `evaluation.headline` and `evaluation.by_group`.

    Raises:
        ValueError: a split is missing or damaged, or the place cannot be written to.
    """
    parts = (
        _opening(models),
        _uses(),
        _data(models, params),
        _results(scores, groups),
        _confidence(models, scores, params),
        _limits(params),
        _parameters(params),
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
    rows = [
        (name, f"`models/{name}`" if name in models else "both", kind) for name, kind in _KINDS.items()
    ]
    return (
        "# Model card: titles of listings into categories\n\n"
        "Two networks that give a listing its category by its title alone, and their average.\n\n"
        + _table(("model", "folder", "how it works"), rows)
    )


def _uses() -> str:
    return """## Intended use

- To suggest categories to somebody who lists an item, or to sort titles in bulk and leave to people
  those that the networks are not sure of.
- To find listings that stand in a wrong category.

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
    made_up = (
        "\n\nThese listings are made up: `titles sample` wrote them, to be as hard as real ones. No "
        "real listing is among them, and figures on real listings will differ."
        if params.prepare.source == SAMPLE
        else ""
    )
    return (
        f"## Data\n\nRead from `{params.prepare.source}`, language: {params.prepare.language}.\n\n"
        f"{_table(('prepared', 'holds', 'md5, as in dvc.lock'), rows)}\n\n"
        "Networks learn from train; the best epoch, temperatures and thresholds are chosen on "
        f"validation; all figures here are of test.{made_up}"
    )


def _results(scores: Mapping[str, Mapping[str, float]], groups: Mapping[str, Any]) -> str:
    shown = ("accuracy", "macro_f1", "top_3", "top_5", "loss")
    rows = []
    for name in _KINDS:
        score = scores[name]
        interval = f"{score['balanced_accuracy_low']:.4f} to {score['balanced_accuracy_high']:.4f}"
        measures = (f"{score[measure]:.4f}" for measure in shown)
        rows.append((name, f"{score['balanced_accuracy']:.4f}", interval, *measures))
    header = ("model", "balanced accuracy", "95 % interval", *(m.replace("_", " ") for m in shown))
    test = scores["cnn_minus_mlp"]
    members = [
        (kind.replace("_", " "), group, f"{found['rows']:,}", *(f"{found[name]:.4f}" for name in _KINDS))
        for kind, members in groups.items()
        for group, found in members.items()
    ]
    return (
        f"## Results\n\n{_table(header, rows)}\n\n"
        "Balanced accuracy is the mean over categories of the share that is right; its interval is a "
        "bootstrap within categories. The loss is in nats a title. The CNN's balanced "
        f"accuracy less the MLP's is {test['difference']:.4f} "
        f"({test['difference_low']:.4f} to {test['difference_high']:.4f}).\n\n"
        "Balanced accuracy of groups of titles:\n\n"
        + _table(("by", "group", "titles", *_KINDS), members)
    )


def _confidence(
    models: Mapping[str, SavedModel], scores: Mapping[str, Mapping[str, float]], params: Params
) -> str:
    weight = dict(zip(models, weights(list(models.values())).tolist(), strict=True))
    rows = []
    for name in _KINDS:
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
        "Logits were divided by a temperature that was fitted on validation (Guo et al., 2017); "
        "they count in the average in inverse proportion to the loss that is then left there. The "
        "calibration error is the mean distance between confidence and share right, over bins of "
        "confidence. Of validation's titles from the threshold on, a share of "
        f"{params.evaluate.target_precision:g} or more is right, by the lower end of a one-sided 95 % "
        "interval; coverage and precision are those of test. A threshold of 1 with a coverage of 0 "
        "means that none was found."
    )


def _limits(params: Params) -> str:
    rows_held_out = {
        "reliable": "validation and test take reliable ones wherever a category has any",
        "any": "validation and test hold such labels too, so that no figure can reach 1",
    }[params.prepare.holdout_quality]
    return f"""## Limits

- Labels are what sellers chose: some are wrong where label quality is unreliable or unknown. Train has
  all of them; {rows_held_out}.
- The languages are those of the data above. Of words that train never had, letters at best are known.
- Probabilities are right on average over titles like those of validation. Where categories are more or
  less frequent, or titles are others, they are not; nor need they be for each category alone.
- A title of an item of no known category gets a known one all the same."""


def _parameters(params: Params) -> str:
    sections = {
        "compute": params.compute,
        "prepare": params.prepare,
        "embed": params.embed,
        "cnn": params.cnn,
        "mlp": params.mlp,
        "evaluate": params.evaluate,
    }
    values = {"seed": params.seed} | {name: s.model_dump(mode="json") for name, s in sections.items()}
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip()
    return f"## Parameters\n\n```yaml\n{text}\n```"
