"""The words of a title as they were written: `J7`, `Ação` or `55''` beside the tokens j7, acao and 55.

Rules of prepare/text.py can look at more than one word (phrases of sellers) and change letters and
their number. They are not repeated here: tokens of the title cut at each place show where words stand.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import accumulate, takewhile

from titles.params import Text
from titles.prepare.text import tokenise

# Characters. The time grows with their square: a tenth of a second for so many.
_LONGEST = 500


def written(title: str, settings: Text) -> list[str]:
    """What stands in the title for each of its tokens; the tokens themselves of a very long title."""
    title = title[: settings.max_title_chars]
    (words,) = tokenise([title], settings)
    if len(title) > _LONGEST:
        return words
    unlimited = settings.model_copy(update={"max_words": len(title) + 1})
    found = []
    for word, (start, end) in zip(words, _spans(title, unlimited), strict=False):
        text = title[start:end]
        # Two words, one of which is left out only beside the other: a phrase of sellers.
        if len(parts := text.split()) > 1:
            text = next((part for part in parts if tokenise([part], unlimited) == [[word]]), text)
        found.append(text or word)
    return found


def _spans(title: str, unlimited: Text) -> list[tuple[int, int]]:
    """Where each token of a title begins and ends.

    A token ends where all longer beginnings of the title have it and those before it, and begins where
    all longer endings have it and those after it.
    """
    places = range(len(title) + 1)
    (words,) = tokenise([title], unlimited)
    beginnings = tokenise([title[:place] for place in places], unlimited)
    endings = tokenise([title[place:] for place in places], unlimited)
    first = [_common(words, found) for found in beginnings]
    last = [_common(words[::-1], found[::-1]) for found in endings]
    # Tokens that stay from each place on: to the right of it for ends, to the left for starts.
    kept_to = [*accumulate(reversed(first), min)][::-1]
    kept_from = [*accumulate(last, min)]
    spans = []
    for number in range(len(words)):
        end = next(place for place in places if kept_to[place] > number)
        start = next(p for p in reversed(places) if kept_from[p] >= len(words) - number)
        while end < len(title) and unicodedata.category(title[end]).startswith("M"):
            end += 1  # an accent that is a character of its own
        spans.append((start, end))
    return spans


def _common(words: Sequence[str], found: Sequence[str]) -> int:
    """How many of the first are equal."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(words, found, strict=False)))
