"""The vocabulary of the wide sample as arrays: numbered phrases in all spellings, and lists of them."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from titles.datasets import catalogue, shape
from titles.datasets.catalogue import FILLERS, LANGUAGES
from titles.datasets.grammar import ACCENTS

Ints: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]

NONE = -1  # no phrase

CASES = (
    string.capwords,
    str.upper,
    lambda text: text[:1].upper() + text[1:].lower(),
    str,
    str.lower,
)
CAPITAL, LOWER = 2, 4
MERGED = "\x00"  # before a comma: no space


class Lists(NamedTuple):
    """Lists of phrases, one after the other: where each begins and how long it is."""

    starts: Ints
    lengths: Ints
    items: Ints


@dataclass(frozen=True, slots=True)
class Tables:
    """The vocabulary as arrays. Those over kinds have one entry for each category in each language."""

    names: list[str]
    spellings: pa.StringArray  # by case, by accents, by phrase
    lengths: Ints  # characters of a phrase and the space after it; 0 at the end, for NONE
    shortened: Ints  # a phrase's first word
    plus: int
    joints: Ints
    lists: Lists
    chosen: dict[str, Ints]  # by purpose: the list of each kind
    fillers: Ints  # kinds x 100: lists that the end of a title draws from
    brands: Ints  # of products: brand and model, in lists as long as `products`
    products: Lists
    extras: Lists
    is_part: Flags
    sizes: Ints  # rows in the challenge, categories x languages
    confusions: Ints  # cumulative over the flattened table, with one row a category


class _Pool:
    """Numbers phrases, and lists of them."""

    def __init__(self) -> None:
        self.phrases: dict[str, int] = {}
        self.lists: dict[tuple[str, ...], int] = {}

    def number(self, phrase: str) -> int:
        return self.phrases.setdefault(phrase, len(self.phrases)) if phrase else NONE

    def of(self, phrases: Iterable[str]) -> int:
        return self.lists.setdefault(tuple(phrases), len(self.lists))


def _lists(content: Iterable[Sequence[int]]) -> Lists:
    content = list(content)
    lengths = np.array([len(items) for items in content], np.int64)
    items = np.array([item for items in content for item in items], np.int64)
    return Lists(lengths.cumsum() - lengths, lengths, items)


@cache
def tables() -> Tables:
    found = catalogue.wide()
    count = len(found.names)
    kinds = [kind for lang in LANGUAGES for kind in found.kinds[lang]]
    pool = _Pool()
    purposes = ("lead", "colour", "generic", "noise", "link", "with", "without", "gift")
    chosen = {name: [pool.of(kind.words[name]) for kind in kinds] for name in purposes}
    for name in ("heads", "attributes", "brands", "nouns"):
        chosen[name] = [pool.of(getattr(kind, name)) for kind in kinds]
    fillers = np.array([[pool.of(kind.fillers[name]) for name in FILLERS] for kind in kinds])
    products = _lists([[pool.number(m) for _, m in kind.products] for kind in kinds])
    brands = [pool.number(brand) for kind in kinds for brand, _ in kind.products]
    lists = _lists([[pool.number(item) for item in items] for items in pool.lists])
    plus, *joints = (pool.number(text) for text in ("+", "-", MERGED + ","))
    shortened = [pool.number(phrase.split()[0]) for phrase in list(pool.phrases)]
    shortened += range(len(shortened), len(pool.phrases))
    phrases = list(pool.phrases)
    variants = [case(phrase) for case in CASES for phrase in phrases]
    sold = np.array([bool(kind.heads) for kind in kinds]).reshape(2, count).T
    # One row of the table after the other, so that one search finds a row's category.
    confusions = found.confusions
    return Tables(
        names=found.names,
        spellings=pa.array([*variants, *(text.translate(ACCENTS) for text in variants)]),
        lengths=np.array([*(len(phrase) + 1 for phrase in phrases), 0]),
        shortened=np.array(shortened),
        plus=plus,
        joints=np.array([joints[0]] * 6 + [joints[1]] * 4 + [plus]),
        lists=lists,
        chosen={name: np.array(numbers) for name, numbers in chosen.items()},
        fillers=fillers.repeat(list(FILLERS.values()), axis=1),
        brands=np.array(brands),
        products=products,
        extras=_lists([[e + count * (i >= count) for e in k.extras] for i, k in enumerate(kinds)]),
        is_part=np.array([kind.is_part for kind in kinds]),
        sizes=shape.by_language(found.sizes, sold),
        confusions=confusions.ravel().cumsum(),
    )
