"""The sizes of the challenge's categories, and rows in a random order that have exactly these sizes."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# Of the challenge's train.csv: places in the ascending order of sizes, and rows of the category there.
# A quartile between two places is the size of both.
_KNOTS = {0: 109, 396: 5_043, 397: 5_043, 793: 12_400, 794: 12_400, 1190: 19_105, 1191: 19_105}
_KNOTS |= {1587: 35_973}
_ROWS = 20_000_000
_CATEGORIES = 1588
_STRAIGHT = 1000  # of the weights of a straight line and a parabola between two knots
_ROUNDS = 6


def _curve(parabola: int) -> list[int]:
    """Sizes in ascending order, with `parabola` thousandths of a parabola between the knots."""
    found = [0] * _CATEGORIES
    for (start, low), (stop, high) in pairwise(_KNOTS.items()):
        width = stop - start
        for step in range(width + 1):
            share = step * ((_STRAIGHT - parabola) * width + parabola * step)
            found[start + step] = low + (high - low) * share // (_STRAIGHT * width * width)
    return found


def sizes() -> list[int]:
    """Rows of each category of the challenge, the largest first: 20 million, its quartiles and range.

    Whole numbers throughout, so that no platform's rounding can move a row to another category.
    """
    parabola = bisect_left(range(_STRAIGHT), -_ROWS, key=lambda share: -sum(_curve(share)))
    found = _curve(parabola)
    inner = [place for place in range(_CATEGORIES) if place not in _KNOTS]
    # One row each, from the largest categories, whose neighbours are further than that.
    for place in inner[-(_ROWS - sum(found)) :] if sum(found) < _ROWS else []:
        found[place] += 1
    return found[::-1]


def by_language(totals: list[int], sold: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Share the rows of each category among two languages, which have half of all rows each.

    Args:
        totals: rows of each category, the largest first.
        sold: categories x 2: whether a category is sold in a language.

    Returns:
        Rows, categories x 2. A category in both languages has 30 to 70 % of its rows in either.
    """
    found = np.zeros((len(totals), 2), np.int64)
    both = np.flatnonzero(sold.all(1))
    of = np.array(totals)
    for language in (0, 1):
        only = sold[:, language] & ~sold[:, 1 - language]
        found[only, language] = of[only]
    # Neighbours in the order of sizes get shares that even out.
    shares = 35 + np.arange(len(both)) // 2 * 7 % 31
    shares[1::2] = 100 - shares[1::2]
    found[both, 0] = of[both] * shares // 100
    rest = of.sum() // 2 - found[:, 0].sum()
    each, more = divmod(int(rest), len(both))
    found[both, 0] += each
    found[both[:more], 0] += 1
    found[both, 1] = of[both] - found[both, 0]
    return found


def scaled(weights: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """`rows` shared out in proportion to `weights`, by largest remainders.

    Each column of `weights` gets an equal part of the rows, to the row.
    """
    parts = []
    for number, column in enumerate(weights.T, 1):
        share = rows * number // weights.shape[1] - rows * (number - 1) // weights.shape[1]
        whole, rest = np.divmod(column * np.int64(share), column.sum())
        whole[np.argsort(-rest, kind="stable")[: share - whole.sum()]] += 1
        parts.append(whole)
    return np.stack(parts, 1)


class Order:
    """A random order of `rows` numbers, any part of which is worked out without the others.

    A Feistel network on the two digits of a number in mixed radix (Black and Rogaway 2002, "Ciphers with
    arbitrary finite domains"): each round adds a hash of one digit to the other, and numbers
    outside the range are moved on until they are inside.
    """

    def __init__(self, rows: int, seed: int) -> None:
        self._rows = rows
        self._base = int(rows**0.5) + 1
        high = -(-rows // self._base)
        keys = np.random.SeedSequence((seed, rows)).generate_state(_ROUNDS, np.uint64)
        self._rounds = [(key, (self._base, high)[turn % 2]) for turn, key in enumerate(keys)]

    def part(self, start: int, stop: int) -> NDArray[np.int64]:
        """The numbers at the places `start` to `stop` of the order."""
        found = self._move(np.arange(start, stop, dtype=np.int64))
        while (outside := np.flatnonzero(found >= self._rows)).size:
            found[outside] = self._move(found[outside])
        return found

    def _move(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        changed, other = numbers % self._base, numbers // self._base
        for key, radix in self._rounds:
            mixed = (other.astype(np.uint64) + key) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
            added = (mixed >> np.uint64(32)).astype(np.int64)
            changed, other = other, (changed + added) % radix
        return other * self._base + changed if _ROUNDS % 2 else changed + other * self._base
