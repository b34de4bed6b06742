"""What networks say of titles in memory, a row for each, in the objects of Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from titles.listings import listing

if TYPE_CHECKING:  # loads torch
    from titles.predict.classifier import CategorySets, Classifier, Ranked


class Answer(NamedTuple):
    """The categories of a title.

    title: as it was given. categories: names, the most likely first. probabilities: of each. problem:
    why there are none, or "".
    """

    title: Any
    categories: list[str]
    probabilities: list[float]
    problem: str


def answers(
    classifier: Classifier,
    titles: Sequence[Any],
    wanted: int | NDArray[np.float32],
    at_least: float = 0.0,
) -> Iterator[Answer]:
    """Yield the answer to each title, in their order; what is no text has a problem.

    Args:
        wanted: categories per title, or for sets the threshold of each category, see `Classifier.sets`.
        at_least: see `Ranked.abstentions`; without effect on sets.

    Raises:
        ValueError: at_least is no probability; and as `Classifier.top` and `Classifier.sets`.
    """
    if not 0 <= at_least <= 1:
        raise ValueError(f"at_least is {at_least:g}: a probability from 0 to 1 is expected")
    labels = classifier.labels
    for chunk in listing.of_titles(titles).chunks:
        found: Ranked | CategorySets
        doubts: dict[int, str] = {}
        if isinstance(wanted, int):
            found = classifier.top(chunk.titles, wanted)
            doubts = found.abstentions(labels, at_least)
        else:
            found = classifier.sets(chunk.titles, wanted)
        rows = zip(titles, found.empty_N.tolist(), found.rows(), strict=True)
        for place, (title, empty, (codes, shares)) in enumerate(rows):
            problem = chunk.problems.get(place, "no word") if empty else doubts.get(place, "")
            if problem:
                yield Answer(title, [], [], problem)
            else:
                yield Answer(title, [labels[code] for code in codes], shares, "")
