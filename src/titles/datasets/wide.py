"""Listings of all categories of the challenge, drawn and spelled a block at a time.

The grammar is that of `titles.datasets.grammar`, with every decision taken for all rows of a block at
once. A title is a row of phrases in selling order; a phrase is a number in a pool that has each
phrase in all cases, with and without accents.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from titles.datasets import phrases, shape
from titles.datasets.catalogue import LANGUAGES
from titles.datasets.grammar import (
    CUT,
    EXACT,
    LONGEST,
    NEAR,
    NEIGHBOURS,
    QUOTED,
    SHORTEST,
    TYPO,
    UNACCENTED,
    VAGUE,
    WRONG,
)
from titles.datasets.phrases import CAPITAL, CASES, LOWER, MERGED, NONE, Flags, Ints, Lists

BLOCK = 50_000  # rows that share one random stream
RELIABLE = 0.0592  # share of rows whose label was checked, as in the challenge
SHORTENED = 0.2  # share of heads of several words of which only the first is left

# Places of a title, in selling order. The name stands before or after the head.
_FIRST, _PLUS, _LEAD, _NAME, _BEFORE, _HEAD, _AFTER, _LINK, _LATE_NAME = 0, 2, 3, 4, 7, 8, 9, 10, 11
_WITH, _OTHER, _JOINT, _TAIL = 14, 15, 17, 18
_FILLED = 14  # phrases after the core, at most
_WIDTH = _TAIL + _FILLED + 1  # and one more for what a near duplicate adds


class _Block:
    """Draws the rows of one block. `kinds` has the kind of each row, by its given label."""

    def __init__(self, rng: np.random.Generator, kinds: Ints) -> None:
        self.tables = phrases.tables()
        self.rng, self.kinds = rng, kinds
        # By place: most decisions are about one place in all rows.
        self.phrases = np.full((_WIDTH, len(kinds)), NONE, np.int32)

    def below(self, share: Any) -> Flags:
        """Whether each row is among a random share of them."""
        drawn: Flags = self.rng.random(len(self.kinds)) < share
        return drawn

    def pick(self, which: Ints, lists: Lists | None = None, early: bool = False) -> Ints:
        """One place in the items of a list for each of the lists `which`; `early` prefers the first.

        Empty lists give NONE.
        """
        lists = lists or self.tables.lists
        draw = self.rng.random(len(which))
        draw = draw * draw if early else draw
        lengths = lists.lengths[which]
        places = lists.starts[which] + (draw * lengths).astype(np.int64)
        return np.where(lengths > 0, places, NONE)

    def word(self, purpose: str, kinds: Ints | None = None, early: bool = False) -> Ints:
        """A phrase for each row from its kind's list, NONE where that is empty."""
        lists = self.tables.chosen[purpose][self.kinds if kinds is None else kinds]
        places = self.pick(lists, early=early)
        return np.where(places == NONE, NONE, self.tables.lists.items[places])

    def head(self, kinds: Ints) -> Ints:
        heads = self.word("heads", kinds, early=True)
        return np.where(self.below(SHORTENED), self.tables.shortened[heads], heads)

    def put(self, place: int, words: Ints | int, where: Flags) -> None:
        np.copyto(self.phrases[place], words, "same_kind", where=where)

    def core(self) -> None:
        """What is sold: lead, head, attribute, brand and model, in selling order."""
        tables, put, below = self.tables, self.put, self.below
        part = tables.is_part[self.kinds]
        has_products = tables.products.lengths[self.kinds] > 0
        draw = self.rng.random(len(self.kinds))
        joined = part & (draw < 0.5)
        headless = ~part & has_products & (draw < 0.14)
        unnamed = part & (draw >= 0.5) & (draw < 0.65)
        early = headless | (~part & (draw < 0.28)) | (part & (draw > 0.85))
        attributed = below(0.35)
        before = below(0.15)
        attributes = self.word("attributes")
        put(_HEAD, self.head(self.kinds), ~headless)
        put(_BEFORE, attributes, attributed & before & ~headless)
        put(_AFTER, attributes, (attributed & ~before) | headless)
        put(_LINK, self.word("link"), joined)
        for place, words in enumerate(self.name(part, has_products)):
            put(_NAME + place, words, early & ~unnamed)
            put(_LATE_NAME + place, words, ~early & ~unnamed)
        put(_LEAD, self.word("lead"), below(0.16))
        self.bundle(below(np.where(part, 0.14, 0.3)))

    def name(self, part: Flags, has_products: Flags) -> tuple[Ints, Ints, Ints]:
        """The thing that a part is for, brand and model."""
        tables, draw = self.tables, self.rng.random(len(self.kinds))
        products = self.pick(self.kinds, tables.products)
        brands = np.where(has_products, tables.brands[products], self.word("brands", early=True))
        branded = np.where(has_products, (draw < 0.55) | (draw >= 0.85), draw < 0.6)
        nouns = np.where(part & self.below(0.45), self.word("nouns", early=True), NONE)
        models = np.where(has_products & (draw < 0.85), tables.products.items[products], NONE)
        return nouns, np.where(branded, brands, NONE), models

    def bundle(self, where: Flags) -> None:
        """Add a second article, the one that is not what the listing is about."""
        tables, put = self.tables, self.put
        places = self.pick(self.kinds, tables.extras)
        where = where & (places != NONE)
        extras = np.where(where, tables.extras.items[places], self.kinds)
        others = self.head(extras)
        without = self.below(0.12)
        first = self.below(0.08) & where & ~without
        late = where & ~first
        link = np.where(without, self.word("without", extras), self.word("with", extras))
        put(_FIRST, others, first)
        put(_PLUS, tables.plus, first)
        put(_WITH, link, late)
        put(_OTHER, others, late)
        put(_OTHER + 1, self.word("attributes", extras), late & ~without & self.below(0.5))
        put(_FIRST + 1, self.word("gift", extras), first)

    def vague(self) -> None:
        """Titles that never say what is sold."""
        where = self.below(VAGUE)
        brands = np.where(self.below(0.7), self.word("brands", early=True), self.word("lead"))
        self.phrases[:, where] = NONE
        self.put(_HEAD, brands, where)
        self.put(_TAIL, self.word("colour"), where)
        self.put(_TAIL + 1, self.word("generic"), where)
        self.said = ~where

    def tail(self) -> None:
        """Attributes and sales talk, until the line is full."""
        tables = self.tables
        draw = self.rng.random(len(self.kinds))
        # Most sellers fill the line; a few old listings are longer than today's limit.
        length = np.where(draw < 0.62, 46 + 21 * draw, 3 + 48 * (draw - 0.62) / 0.37)
        length = np.where(draw < 0.99, length, 85 + 3500 * (draw - 0.99))
        # The entry after the last phrase is that of NONE.
        room = length - tables.lengths[self.phrases[:_JOINT]].sum(0)
        rows = np.flatnonzero(self.said & (room > 0))
        for place in range(_TAIL, _TAIL + _FILLED):
            turns = self.rng.integers(0, tables.fillers.shape[1], len(rows))
            drawn = tables.lists.items[self.pick(tables.fillers[self.kinds[rows], turns])]
            new = np.ones(len(rows), bool)
            for other in (_BEFORE, _HEAD, _AFTER, *range(_TAIL, place)):
                new &= self.phrases[other][rows] != drawn
            self.phrases[place, rows[new]] = drawn[new]
            room[rows] -= tables.lengths[drawn] * new
            rows = rows[room[rows] > 0]
        joints = tables.joints[self.rng.integers(0, len(tables.joints), len(self.kinds))]
        self.put(_JOINT, joints, self.below(0.11) & (self.phrases[_TAIL] != NONE))

    def repeat(self) -> tuple[Ints, Flags]:
        """Copy the phrases of earlier rows of the same kind to some rows, whatever their labels.

        Returns:
            The row that each row repeats, itself for most, and whether it repeats it to the letter.
        """
        count = len(self.kinds)
        draw = self.rng.random(count)
        order = np.argsort(self.kinds, kind="stable")
        first = np.diff(self.kinds[order], prepend=NONE) != 0
        origin = first | (draw[order] >= EXACT + NEAR)
        sources = np.empty(count, np.int64)
        sources[order] = order[np.maximum.accumulate(np.where(origin, np.arange(count), 0))]
        repeats = sources != np.arange(count)
        exact = repeats & (draw < EXACT)
        near = np.flatnonzero(repeats & ~exact)
        self.phrases[:, repeats] = self.phrases[:, sources[repeats]]
        ends = self.phrases[_TAIL:, near]
        ends[-1] = self.word("noise")[near]
        self.phrases[_TAIL:, near] = self.rng.permuted(ends, axis=0)
        return sources, exact

    def spell(self) -> pa.StringArray:
        """The titles: joint, digits, case, accents, typos, and the site's cut."""
        count = len(self.kinds)
        draw = self.rng.random(count)
        case = np.searchsorted([0.78, 0.85, 0.9], draw, "right")
        pool = len(self.tables.lengths) - 1
        bases = pool * (case + len(CASES) * self.below(UNACCENTED))
        spelled = np.ascontiguousarray(self.phrases.T)
        used = spelled != NONE
        # A sentence has only its first phrase with a capital.
        sentences = np.flatnonzero(case == CAPITAL)
        firsts = used[sentences].argmax(1)
        spelled[sentences] += pool * (LOWER - CAPITAL)
        spelled[sentences, firsts] -= pool * (LOWER - CAPITAL)
        spelled += bases[:, None].astype(np.int32)
        parts = self.tables.spellings.take(pa.array(spelled[used]))
        offsets = np.concatenate([[0], used.sum(1).cumsum()]).astype(np.int32)
        titles = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), parts), " ")
        titles = pc.replace_substring(titles, " " + MERGED, "")
        titles = self.scribble(titles)
        quoted = pc.binary_join_element_wise('"', titles, '"', "")
        titles = pc.if_else(pa.array(self.below(QUOTED)), quoted, titles)
        long = pc.greater_equal(pc.utf8_length(titles), 85)
        titles = pc.if_else(
            long, pc.utf8_slice_codeunits(titles, 0, LONGEST), pc.utf8_slice_codeunits(titles, 0, CUT)
        )
        return pc.utf8_rpad(pc.utf8_trim_whitespace(titles), SHORTEST, "!")

    def scribble(self, titles: pa.StringArray) -> pa.StringArray:
        """Digits in the place of underscores, and typos: letters swapped, dropped, doubled, replaced."""
        _, offsets, content = titles.buffers()
        ends = np.frombuffer(offsets, np.int32)[: len(titles) + 1].astype(np.int64)
        text = np.frombuffer(content, np.uint8)[: ends[-1]].copy()
        blanks = np.flatnonzero(text == ord("_"))
        text[blanks] = self.rng.integers(ord("1"), ord("9") + 1, len(blanks), np.uint8)
        rows = np.flatnonzero(self.below(TYPO))
        lengths = ends[rows + 1] - ends[rows]
        at = ends[rows] + (self.rng.random(len(rows)) * lengths).astype(np.int64)
        draw = self.rng.random(len(rows))
        ok = (
            (at + 1 < ends[rows + 1])
            & _LETTERS[text[at]]
            & _ASCII[text[np.minimum(at + 1, len(text) - 1)]]
        )
        at, draw = at[ok], draw[ok]
        swapped = at[draw < 0.3]
        text[swapped], text[swapped + 1] = text[swapped + 1], text[swapped].copy()
        replaced = at[draw >= 0.8]
        text[replaced] = _NEXT[text[replaced]]
        changed = (draw >= 0.3) & (draw < 0.8)
        at, added = at[changed], np.where(draw[changed] < 0.6, -1, 1)
        # Everything up to a dropped letter, and from a doubled letter on once more.
        stops = [*(at + (added > 0)).tolist(), len(text)]
        starts = [0, *(at + (added < 0)).tolist()]
        pieces = [text[start:stop] for start, stop in zip(starts, stops, strict=True)]
        moved = ends + np.concatenate([[0], added.cumsum()])[np.searchsorted(at, ends)]
        return pa.StringArray.from_buffers(
            len(titles), pa.py_buffer(moved.astype(np.int32)), pa.py_buffer(np.concatenate(pieces))
        )


_ASCII = np.arange(256) < 128
_LETTERS = np.array([chr(code).isalpha() for code in range(128)] + [False] * 128)
_NEXT = np.arange(256, dtype=np.uint8)
_NEXT[[ord(letter) for letter in NEIGHBOURS]] = [ord(letter) for letter in NEIGHBOURS.values()]
_NEXT[[ord(a.upper()) for a in NEIGHBOURS]] = [ord(letter) for letter in NEIGHBOURS.values()]


def block(rows: int, seed: int, number: int) -> pa.RecordBatch:
    """Block `number` of a sample of `rows` rows; another block needs nothing of it."""
    tables = phrases.tables()
    count = len(tables.names)
    start = number * BLOCK
    sizes = shape.scaled(tables.sizes, rows).T
    places = shape.Order(rows, seed).part(start, min(start + BLOCK, rows))
    labels = np.searchsorted(sizes.cumsum(), places, "right")
    rng = np.random.default_rng(np.random.SeedSequence((seed, rows, number)))
    reliable = rng.random(len(labels)) < RELIABLE
    given, language = labels % count, labels // count
    draw = rng.random(len(labels))
    wrong = np.flatnonzero(~reliable & (rng.random(len(labels)) < WRONG))
    # Of a wrong label, what the listing truly is: as likely as its sellers would pick the label.
    of = given[wrong]
    before = np.where(of > 0, tables.confusions[of * count - 1], 0)
    weights = tables.confusions[of * count + count - 1] - before
    sought = before + (draw[wrong] * weights).astype(np.int64)
    order = np.argsort(sought)  # a sorted search stays in the processor's caches
    true = given.copy()
    true[wrong[order]] = np.searchsorted(tables.confusions, sought[order], "right") - of[order] * count
    kinds = true + language * count
    kinds = np.where(tables.sizes[true, language] > 0, kinds, labels)  # not sold in this language
    made = _Block(rng, kinds)
    made.core()
    made.vague()
    made.tail()
    sources, exact = made.repeat()
    titles = made.spell()
    titles = titles.take(pa.array(np.where(exact, sources, np.arange(len(labels)))))
    names = pa.array(tables.names)
    return pa.RecordBatch.from_arrays(
        [
            titles,
            pa.array(["unreliable", "reliable"]).take(pa.array(reliable.astype(np.int8))),
            pa.array(list(LANGUAGES.values())).take(pa.array(language)),
            names.take(pa.array(given)),
            names.take(pa.array(kinds % count)),
        ],
        ["title", "label_quality", "language", "category", "true_category"],
    )
