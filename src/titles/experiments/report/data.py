"""The prepared data in figures: rows by reason, categories, languages, lengths, drift."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from titles.data.contract import LABELS, LANGUAGES, METRICS, PREPARED, QUALITIES, SPLITS
from titles.data.documents import read_json
from titles.data.encoded import EncodedTitles
from titles.data.messages import printable
from titles.data.vocabulary import read_labels
from titles.params import Prepare

QUANTILES = (0, 5, 25, 50, 75, 95, 100)  # per cent
_METRICS = METRICS / "prepare.json"


class Category(NamedTuple):
    """A category and its titles in each split, in the order of SPLITS."""

    name: str
    titles: tuple[int, ...]


class Measure(NamedTuple):
    """A figure of drift, and the threshold that `prepare` warns past; None where it has none."""

    name: str
    value: float
    threshold: float | None

    @property
    def past(self) -> bool:
        return self.threshold is not None and self.value > self.threshold


class Data(NamedTuple):
    """What `titles data` shows. Names are printable.

    rows: by use, the splits first, then reasons for not being used. languages, qualities: titles of each
    split, by name. words: quantiles of the words per title, by split. lengths: titles of each number of
    words, by split. unknown: share of words outside the vocabulary, by split. corrections: as in
    metrics/prepare.json; None without a table.
    """

    source: str
    read: int
    rows: dict[str, int]
    other_category: int  # duplicates of a title with another category
    vocabulary: int
    categories: list[Category]  # the largest first
    languages: dict[str, tuple[int, ...]]
    qualities: dict[str, tuple[int, ...]]
    words: dict[str, tuple[int, ...]]
    lengths: dict[str, list[int]]
    unknown: dict[str, float | None]
    corrections: dict[str, Any] | None
    drift: list[Measure]


def load(settings: Prepare) -> Data:
    """Read metrics/prepare.json and data/prepared.

    Raises:
        ValueError: they are missing, damaged, or of different runs.
    """
    try:
        metrics = read_json(_METRICS)
        counts, rejected = metrics["rows"], metrics["rejected"]
        read, others = counts["read"], counts.get("other_language", 0)
        figures = dict(metrics.get("drift", {}))
        vocabulary, other_category = metrics["vocabulary"], metrics["duplicates_of_another_category"]
        unknown = {split: metrics["unknown_words"][split] for split in SPLITS}
        recorded = [counts[split] for split in SPLITS]
    except FileNotFoundError:
        raise ValueError(f"{_METRICS} is missing: run `dvc repro prepare`, or `dvc pull`") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{_METRICS} is damaged ({type(error).__name__}: {error}): `dvc repro prepare`"
        ) from None
    titles = {split: EncodedTitles.open(PREPARED / split) for split in SPLITS}
    labels = read_labels(LABELS)
    if recorded != [len(found) for found in titles.values()]:
        raise ValueError(f"{_METRICS} and {PREPARED} are of different runs: `dvc repro prepare`")

    def by_name(names: list[str] | tuple[str, ...], column: str) -> dict[str, tuple[int, ...]]:
        counted = [
            np.bincount(getattr(found, column), minlength=len(names)) for found in titles.values()
        ]
        if max(map(len, counted)) > len(names):
            raise ValueError(f"{PREPARED} is damaged: it has {column} without a name")
        return {
            name: tuple(int(count[code]) for count in counted)
            for code, name in enumerate(names)
            if any(count[code] for count in counted)
        }

    # By code: two names can look the same once they are printable.
    categories = [Category(printable(name), found) for name, found in by_name(labels, "labels").items()]
    lengths = {split: found.lengths for split, found in titles.items()}
    longest = max((int(found.max(initial=0)) for found in lengths.values()), default=0)
    return Data(
        source=printable(settings.source),
        read=read,
        rows=dict(zip(SPLITS, recorded, strict=True))
        | dict(sorted(rejected.items(), key=lambda item: -item[1]))
        | ({"other_language": others} if others else {}),
        other_category=other_category,
        vocabulary=vocabulary,
        categories=sorted(categories, key=lambda category: (-sum(category.titles), category.name)),
        languages=by_name(LANGUAGES, "languages"),
        qualities=by_name(QUALITIES, "qualities"),
        words={
            split: tuple(int(value) for value in np.percentile(found, QUANTILES, method="inverted_cdf"))
            for split, found in lengths.items()
            if len(found)
        },
        lengths={
            split: np.bincount(found, minlength=longest + 1).tolist() for split, found in lengths.items()
        },
        unknown=unknown,
        corrections=metrics.get("corrections"),
        drift=[
            Measure(name, value, getattr(settings, f"drift_{name}", None))
            for name, value in figures.items()
        ],
    )
