"""A synthetic catalogue of marketplace listings, to try the pipeline without the challenge's data.

The vocabulary is in ``catalogue.yaml``; this module is the grammar that builds titles from it, the
way sellers do: brands shared by unlike products, accessories named after the thing they are for,
bundles, dropped heads, typos, lost accents, sales talk, titles cut short, and wrong labels.
"""

import csv
import gzip
import io
import random
import string
from bisect import bisect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from itertools import accumulate, chain, count, islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeVar

import yaml
from tqdm import tqdm

from titles.data.files import atomic_file, is_one_file

T = TypeVar("T")

BLOCK = 10_000  # rows that share one random stream
LANGUAGES = {"es": "spanish", "pt": "portuguese"}

RELIABLE = 0.25  # share of rows whose label was checked
WRONG = 0.18  # share of the other rows that carry a wrong label
EXACT, NEAR = 0.025, 0.03  # shares of rows that repeat an earlier title of their block
VAGUE = 0.025  # share of titles that never say what is sold
SHORTEST, CUT, LONGEST = 3, 60, 120  # characters of a title; the site cuts at the middle one
# What follows the core of a title, in percent.
FILLERS = {"attribute": 27, "shared": 16, "spec": 14, "colour": 14, "generic": 13, "noise": 11}
FILLERS |= {"code": 3, "shop": 2}

ACCENTS = str.maketrans("áàâãéêíóôõúüñçÁÀÂÃÉÊÍÓÔÕÚÜÑÇ", "aaaaeeiooouuncAAAAEEIOOOUUNC")
NEIGHBOURS = dict(zip("abcdefghijklmnopqrstuvwxyz", "svvfrgjjokklnmipqetyibqcux", strict=True))


class SampleRow(NamedTuple):
    title: str
    label_quality: str
    language: str
    category: str  # the given label, which in unreliable rows may be wrong
    true_category: str


@dataclass(frozen=True, slots=True)
class _Kind:
    """Words of the listings of one category in one language."""

    heads: list[str]
    attributes: list[str]
    brands: list[str]
    products: list[tuple[str, str]]  # of the line it belongs to: brand and model
    nouns: list[str]  # what a part calls the thing it is for
    is_part: bool
    words: dict[str, list[str]]
    fillers: list[list[str]]  # lists that the end of a title draws from, by weight
    extras: "list[_Kind]" = field(default_factory=list)  # what it is bundled with


HEADER = SampleRow._fields[:4]


class _Catalogue(NamedTuple):
    names: list[str]
    sizes: list[int]  # cumulative, as bisect wants them
    confusions: list[list[int]]  # of a category: cumulative weights of the wrong labels
    kinds: dict[str, list[_Kind]]


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _kind(spec: dict[str, str], cluster: dict[str, Any], data: dict[str, Any], lang: str) -> _Kind:
    heads, attributes = map(_items, spec[lang].split(";"))
    lines = [data["lines"][line] for line in _items(spec.get("of") or spec.get("for", ""))]
    words = data["words"][lang]
    pools = {
        **words,
        "attribute": attributes,
        "shared": _items(cluster[lang]),
        "spec": _items(spec.get("spec", cluster["spec"])),
        "code": [a + b + "____" for a in string.ascii_lowercase for b in string.ascii_lowercase],
    }
    return _Kind(
        heads,
        attributes,
        brands=_items(spec.get("brands", cluster["brands"])),
        products=[
            (brand, model)
            for line in lines
            for brand, models in line.items()
            if not brand.startswith("noun_")
            for model in _items(models)
        ],
        nouns=[noun for line in lines for noun in _items(line["noun_" + lang])],
        is_part="for" in spec,
        words=words,
        fillers=[pools[name] for name, weight in FILLERS.items() for _ in range(weight)],
    )


@cache
def _catalogue() -> _Catalogue:
    """Read the vocabulary and work out category sizes and confusions, once."""
    data = yaml.safe_load(files("titles.datasets").joinpath("catalogue.yaml").read_text("utf-8"))
    clusters = list(data["clusters"].values())
    # Every cluster lists its categories largest first; deal them together into one ranking.
    ranking = sorted(
        ((place + 0.5) / len(cluster["categories"]), home, name)
        for home, cluster in enumerate(clusters)
        for place, name in enumerate(cluster["categories"])
    )
    names, homes = [name for _, _, name in ranking], [home for _, home, _ in ranking]
    specs = [clusters[home]["categories"][name] for _, home, name in ranking]
    every = range(len(names))
    # Zipf-Mandelbrot: a tail like the challenge's, without one category drowning the others.
    # Whole numbers, so that no platform's rounding can move a row to another category.
    sizes: list[int] = [round(1e7 * (rank + 11) ** -1.34) for rank in every]
    kinds = {
        lang: [_kind(specs[i], clusters[homes[i]], data, lang) for i in every] for lang in LANGUAGES
    }

    def bundled(one: int, other: int) -> bool:
        """Whether they are a thing and its part, two parts of one thing, or named together."""
        own, its = specs[one], specs[other]
        lines = _items(own.get("of") or own.get("for", ""))
        shared = one != other and set(lines).intersection(_items(its.get("for", "")))
        return bool(shared) or names[other] in _items(own.get("with", ""))

    partners = [{other for other in every if bundled(one, other)} for one in every]
    heads = [{head for lang in LANGUAGES for head in kinds[lang][i].heads} for i in every]

    def confusion(one: int, other: int) -> int:
        """How often a seller who sells ``one`` picks ``other``: alike, related, or large."""
        related = (other in partners[one]) + (one in partners[other])
        alike = len(heads[one] & heads[other])
        near = 1 + 100 * (homes[one] == homes[other]) + 200 * related + 400 * alike
        return sizes[other] * near * (one != other)

    for lang in LANGUAGES:
        for one in every:
            kinds[lang][one].extras.extend(kinds[lang][other] for other in sorted(partners[one]))
    confusions = [list(accumulate(confusion(one, other) for other in every)) for one in every]
    return _Catalogue(names, list(accumulate(sizes)), confusions, kinds)


class _Grammar:
    """Draws titles from one random stream."""

    def __init__(self, rng: random.Random) -> None:
        self.random, self.shuffle = rng.random, rng.shuffle

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.random() * len(items))]

    def early(self, items: Sequence[T]) -> T:
        """Pick with a long tail: the first items come most often."""
        draw = self.random()
        return items[int(draw * draw * len(items))]

    def name(self, kind: _Kind) -> list[str]:
        """Brand and model, or either; a part also names the thing it is for, sometimes."""
        draw = self.random()
        if not kind.products:
            return [self.early(kind.brands)] if draw < 0.6 else []
        brand, model = self.pick(kind.products)
        name = [brand, model] if draw < 0.55 else [model] if draw < 0.85 else [brand]
        return [self.early(kind.nouns), *name] if kind.is_part and self.random() < 0.45 else name

    def core(self, kind: _Kind) -> list[str]:
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
        return self.bundle(core, self.pick(kind.extras)) if bundled else core

    def bundle(self, core: list[str], extra: _Kind) -> list[str]:
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

    def draft(self, kind: _Kind) -> tuple[list[str], list[str]]:
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
            phrase = self.pick(self.pick(kind.fillers))
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
        if self.random() < 0.5 and not text.isascii():
            text = text.translate(ACCENTS)
        while self.random() < 0.1:
            text = self.typo(text)
        if self.random() < 0.02:
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


def _block(seed: int, number: int) -> Iterator[SampleRow]:
    """The rows of one block; another block needs nothing of it."""
    names, sizes, confusions, kinds = _catalogue()
    grammar = _Grammar(random.Random((seed << 40) + number))
    draw = grammar.random
    seen: list[tuple[int, str, list[str], list[str], str]] = []
    for _ in range(BLOCK):
        again = draw() if seen else 1.0
        if again < EXACT + NEAR:
            true, lang, core, tail, title = grammar.pick(seen)
            if again >= EXACT:
                tail = [*tail, grammar.pick(kinds[lang][true].words["noise"])]
                grammar.shuffle(tail)
                title = grammar.title(core, tail)
        else:
            true = bisect(sizes, draw() * sizes[-1])
            lang = "es" if draw() < 0.5 else "pt"
            core, tail = grammar.draft(kinds[lang][true])
            title = grammar.title(core, tail)
            seen.append((true, lang, core, tail, title))
        given, reliable = true, draw() < RELIABLE
        if not reliable and draw() < WRONG:
            given = bisect(confusions[true], draw() * confusions[true][-1])
        quality = "reliable" if reliable else "unreliable"
        yield SampleRow(title, quality, LANGUAGES[lang], names[given], names[true])


_MOST_ROWS = 1_000_000_000


def generate(rows: int, seed: int) -> Iterator[SampleRow]:
    """Listings that depend on the seed only: fewer ``rows`` are the first of more.

    At most one block of titles is kept in memory. Raises ValueError at once for ``rows`` out of range or
    a negative ``seed``.
    """
    if rows < 1:
        raise ValueError(f"rows must be at least 1, not {rows}")
    if rows > _MOST_ROWS:
        raise ValueError(f"rows must be at most {_MOST_ROWS:,}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, but is {seed}")
    return islice(chain.from_iterable(_block(seed, number) for number in count()), rows)


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    """Open a text file, gzipped if its name ends in .gz, that takes the place of ``path`` when whole."""
    with atomic_file(path) as partial, ExitStack() as stack:
        raw: Any = stack.enter_context(partial.open("wb"))
        if path.suffix == ".gz":
            # No name and no time in the header, so that equal rows make equal bytes.
            raw = stack.enter_context(gzip.GzipFile("", "wb", 6, raw, mtime=0))
        yield stack.enter_context(io.TextIOWrapper(raw, encoding="utf-8", newline=""))


def write_csv(
    rows: int, seed: int, path: Path, truth: Path | None = None, progress: bool = True
) -> None:
    """Write ``rows`` listings to ``path`` as CSV, gzipped if its name ends in ``.gz``.

    ``truth`` names a second CSV file for the true categories, in the same order. No file appears or
    changes unless all rows were written. Raises ValueError as `generate` does, if a file cannot be
    written, and if both are one.
    """
    if truth and is_one_file(path, truth):
        raise ValueError(f"{truth} cannot take both the listings and their true categories")
    listings = generate(rows, seed)
    # disable=None: unless stderr is a terminal.
    bar = tqdm(total=rows, unit="row", unit_scale=True, disable=None if progress else True)
    parts = [(path, slice(4)), *([(truth, slice(4, 5))] if truth else [])]
    with bar, ExitStack() as stack:
        writers = [
            (csv.writer(stack.enter_context(_text(file)), lineterminator="\n"), part)
            for file, part in parts
        ]
        for writer, part in writers:
            writer.writerow(SampleRow._fields[part])
        while block := list(islice(listings, BLOCK)):
            for writer, part in writers:
                writer.writerows(row[part] for row in block)
            bar.update(len(block))
