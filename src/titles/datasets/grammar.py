"""The grammar that builds titles from the vocabulary, the way sellers do.

Brands shared by unlike products, accessories named after the thing they are for, bundles, dropped heads,
typos, lost accents, sales talk, titles cut short, and wrong labels.
"""

from __future__ import annotations

import random
import string
from bisect import bisect
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import NamedTuple, TypeVar

from titles.datasets import catalogue
from titles.datasets.catalogue import FILLERS, LANGUAGES, Kind

T = TypeVar("T")

BLOCK = 10_000  # rows that share one random stream

RELIABLE = 0.25  # share of rows whose label was checked
WRONG = 0.18  # share of the other rows that carry a wrong label
EXACT, NEAR = 0.025, 0.03  # shares of rows that repeat an earlier title of their block
VAGUE = 0.025  # share of titles that never say what is sold
SHORTEST, CUT, LONGEST = 3, 60, 120  # characters of a title; the site cuts at the middle one
QUOTED, TYPO, UNACCENTED = 0.02, 0.1, 0.5  # shares of titles
_FILLERS = [name for name, weight in FILLERS.items() for _ in range(weight)]

ACCENTS = str.maketrans("áàâãéêíóôõúüñçÁÀÂÃÉÊÍÓÔÕÚÜÑÇ", "aaaaeeiooouuncAAAAEEIOOOUUNC")
NEIGHBOURS = dict(zip("abcdefghijklmnopqrstuvwxyz", "svvfrgjjokklnmipqetyibqcux", strict=True))


class SampleRow(NamedTuple):
    title: str
    label_quality: str
    language: str
    category: str  # the given label, which in unreliable rows may be wrong
    true_category: str


class Grammar:
    """Draws titles of one language from one random stream."""

    def __init__(self, rng: random.Random, kinds: Sequence[Kind]) -> None:
        self.random, self.shuffle, self.kinds = rng.random, rng.shuffle, kinds

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.random() * len(items))]

    def early(self, items: Sequence[T]) -> T:
        """Pick with a long tail: the first items come most often."""
        draw = self.random()
        return items[int(draw * draw * len(items))]

    def name(self, kind: Kind) -> list[str]:
        """Brand and model, or either; a part also names the thing it is for, sometimes."""
        draw = self.random()
        if not kind.products:
            return [self.early(kind.brands)] if draw < 0.6 else []
        brand, model = self.pick(kind.products)
        name = [brand, model] if draw < 0.55 else [model] if draw < 0.85 else [brand]
        return [self.early(kind.nouns), *name] if kind.is_part and self.random() < 0.45 else name

    def core(self, kind: Kind) -> list[str]:
        """The part of a title that says what is sold, in selling order."""
        head = [self.early(kind.heads)]
        if self.random() < 0.35:
            head.insert(self.random() > 0.15, self.pick(kind.attributes))
        name = self.name(kind)
        draw = self.random()
        if kind.is_part and draw < 0.5:
            core = [*head, self.pick(kind.words["link"]), *name]
        elif kind.is_part and draw < 0.65:
            core = head
        elif draw < 0.14 and kind.products:
            core = [*name, self.pick(kind.attributes)]
        elif draw < 0.28 or (kind.is_part and draw > 0.85):
            core = [*name, *head]
        else:
            core = [*head, *name]
        if self.random() < 0.16:
            core.insert(0, self.pick(kind.words["lead"]))
        bundled = kind.extras and self.random() < (0.14 if kind.is_part else 0.3)
        return self.bundle(core, self.kinds[self.pick(kind.extras)]) if bundled else core

    def bundle(self, core: list[str], extra: Kind) -> list[str]:
        """Add a second article, the one that is not what the listing is about."""
        other = self.early(extra.heads)
        if self.random() < 0.12:
            return [*core, self.pick(extra.words["without"]), other]
        if self.random() < 0.5:
            other += " " + self.pick(extra.attributes)
        other += " " + self.pick(extra.words["gift"])
        if self.random() < 0.08:
            return [other, "+", *core]
        return [*core, self.pick(extra.words["with"]), other]

    def draft(self, kind: Kind) -> tuple[list[str], list[str]]:
        """What a title says: its core, and the attributes and sales talk that follow."""
        if self.random() < VAGUE:
            brand = self.pick(kind.products)[0] if kind.products else self.early(kind.brands)
            words = [self.pick(kind.words[name]) for name in ("lead", "colour", "generic")]
            return [brand if self.random() < 0.7 else words[0]], words[1:]
        core = self.core(kind)
        # Most sellers fill the line; a few old listings are longer than today's limit.
        draw = self.random()
        length = 46 + 21 * draw if draw < 0.62 else 3 + 48 * (draw - 0.62) / 0.37
        room = (length if draw < 0.99 else 85 + 3500 * (draw - 0.99)) - sum(map(len, core))
        room -= len(core)
        tail: list[str] = []
        while room > 0:
            phrase = self.pick(kind.fillers[self.pick(_FILLERS)])
            if phrase not in tail and phrase not in core:
                tail.append(phrase)
                room -= len(phrase) + 1
        return core, tail

    def title(self, core: list[str], tail: list[str]) -> str:
        """Spell a draft: joint, digits, case, accents, typos, and the site's cut."""
        draw = self.random()
        joint = " - " if draw < 0.06 else ", " if draw < 0.1 else " + " if draw < 0.11 else " "
        text = joint.join([" ".join(core), *tail[:1]]) + " " + " ".join(tail[1:])
        while "_" in text:
            text = text.replace("_", self.pick("123456789"), 1)
        draw = self.random()
        if draw < 0.78:
            text = string.capwords(text)
        else:
            text = " ".join(text.split())
            text = text.upper() if draw < 0.85 else text.capitalize() if draw < 0.9 else text
        if self.random() < UNACCENTED and not text.isascii():
            text = text.translate(ACCENTS)
        while self.random() < TYPO:
            text = self.typo(text)
        if self.random() < QUOTED:
            text = f'"{text}"'
        return text[: CUT if len(text) < 85 else LONGEST].strip().ljust(SHORTEST, "!")

    def typo(self, text: str) -> str:
        """Swap, drop, double or replace one letter."""
        at = int(self.random() * len(text))
        letter, rest, draw = text[at], text[at + 1 :], self.random()
        if not letter.isalpha():
            return text
        if draw < 0.3:
            return text[:at] + rest[:1] + letter + rest[1:]
        doubled = 2 * letter if draw < 0.8 else NEIGHBOURS.get(letter.lower(), letter)
        return text[:at] + ("" if draw < 0.6 else doubled) + rest


@cache
def _ranges() -> tuple[list[int], list[list[int]]]:
    """Cumulative sizes and confusions, as bisect wants them."""
    found = catalogue.by_hand()
    return list(accumulate(found.sizes)), found.confusions.cumsum(1).tolist()


def block(seed: int, number: int) -> Iterator[SampleRow]:
    """The rows of one block; another block needs nothing of it."""
    found = catalogue.by_hand()
    names, kinds = found.names, found.kinds
    sizes, confusions = _ranges()
    rng = random.Random((seed << 40) + number)
    grammars = {lang: Grammar(rng, kinds[lang]) for lang in LANGUAGES}
    draw, pick = rng.random, grammars["es"].pick
    seen: list[tuple[int, str, list[str], list[str], str]] = []
    for _ in range(BLOCK):
        again = draw() if seen else 1.0
        if again < EXACT + NEAR:
            true, lang, core, tail, title = pick(seen)
            if again >= EXACT:
                tail = [*tail, pick(kinds[lang][true].words["noise"])]
                rng.shuffle(tail)
                title = grammars[lang].title(core, tail)
        else:
            true = bisect(sizes, draw() * sizes[-1])
            lang = "es" if draw() < 0.5 else "pt"
            core, tail = grammars[lang].draft(kinds[lang][true])
            title = grammars[lang].title(core, tail)
            seen.append((true, lang, core, tail, title))
        given, reliable = true, draw() < RELIABLE
        if not reliable and draw() < WRONG:
            given = bisect(confusions[true], draw() * confusions[true][-1])
        quality = "reliable" if reliable else "unreliable"
        yield SampleRow(title, quality, LANGUAGES[lang], names[given], names[true])
