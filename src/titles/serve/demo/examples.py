"""Titles to try, from the data that the networks learnt from, and the languages of those data."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import chain, zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np

from titles.data.contract import LABELS, LANGUAGES, PREPARED, VOCABULARY
from titles.data.encoded import EncodedTitles
from titles.data.vocabulary import Vocabulary, read_labels
from titles.models.parts.saved import SavedModel
from titles.models.registry import load_params
from titles.predict.source_titles import as_in_source, as_read

_EXAMPLES = 4
_SHORTEST, _LONGEST = 3, 8  # words of an example
_SEARCHED = 5000  # titles of the test split, its first


class Examples(NamedTuple):
    """Titles, and names from `contract.LANGUAGES`: none where the data do not tell their language."""

    titles: list[str]
    languages: list[str]


NONE = Examples([], [])


def examples(models: Path, model: SavedModel) -> Examples:
    """The first titles of the test split with a usual number of words, in turns by language, each of
    another category.

    NONE unless the data beside the folder `models` are those of the model: exported and copied models
    have no data, and another experiment can have left its own.
    """
    project = models.resolve().parent
    try:
        if (
            read_labels(project / LABELS) != model.labels
            or Vocabulary.read(project / VOCABULARY).words != model.vocabulary.words
        ):
            return NONE
        test = EncodedTitles.open(project / PREPARED / "test")
    except (ValueError, OSError):  # a demo needs no data
        return NONE
    counts = np.bincount(test.languages, minlength=len(LANGUAGES))
    codes = [code for code in np.argsort(-counts, kind="stable").tolist() if counts[code]]
    chosen = np.array(_chosen(test, codes), np.int64)
    titles = dict(zip(chosen.tolist(), as_read(test, chosen, model.vocabulary.words), strict=True))
    with suppress(ValueError, OSError):  # parameters that cannot be read; their words will do
        settings = load_params(project / "params.yaml").prepare
        source = project / settings.source
        if source.exists():
            titles |= as_in_source(test, chosen, settings.model_copy(update={"source": str(source)}))
    return Examples(list(titles.values()), [LANGUAGES[code] for code in codes if code])


def _chosen(test: EncodedTitles, codes: Sequence[int]) -> list[int]:
    """Rows of the test split, in turns by language."""
    lengths = test.lengths[:_SEARCHED]
    usual = np.flatnonzero((lengths >= _SHORTEST) & (lengths <= _LONGEST)).tolist()
    by_code: dict[int, list[int]] = {code: [] for code in codes}
    seen: set[int] = set()
    for row in usual:
        of_language, category = by_code[int(test.languages[row])], int(test.labels[row])
        if category not in seen and len(of_language) < _EXAMPLES:
            seen.add(category)
            of_language.append(row)
    in_turns = chain.from_iterable(zip_longest(*by_code.values()))
    return [row for row in in_turns if row is not None][:_EXAMPLES]
