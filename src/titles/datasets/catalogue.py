"""The vocabulary of the sample: the categories, their sizes, the words of their listings.

``catalogue.yaml`` has 246 categories by hand. ``wide.yaml`` adds the nouns of the others that the
challenge has, and ``categories.txt`` names all of them, the largest first.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from titles.data.documents import parse_yaml
from titles.datasets import shape

LANGUAGES = {"es": "spanish", "pt": "portuguese"}

# What follows the core of a title, in percent.
FILLERS = {"attribute": 27, "shared": 16, "spec": 14, "colour": 14, "generic": 13, "noise": 11}
FILLERS |= {"code": 3, "shop": 2}

_CODES = [a + b + "____" for a in string.ascii_lowercase for b in string.ascii_lowercase]

BUNDLED = 3  # categories of its cluster that one of wide.yaml is bundled with


@dataclass(frozen=True, slots=True)
class Kind:
    """Words of the listings of one category in one language."""

    heads: list[str]
    attributes: list[str]
    brands: list[str]
    products: list[tuple[str, str]]  # of the line it belongs to: brand and model
    nouns: list[str]  # what a part calls the thing it is for
    is_part: bool
    words: dict[str, list[str]]
    fillers: dict[str, list[str]]  # lists that the end of a title draws from
    extras: list[int] = field(default_factory=list)  # categories it is bundled with


class Catalogue(NamedTuple):
    """Categories, the largest first.

    `sizes` has the weight of each. `confusions[one, other]` is the weight of `other` among the wrong
    labels of `one`. `kinds` has the words by language, one entry per category; a category without heads
    is not sold in that language.
    """

    names: list[str]
    sizes: list[int]
    confusions: NDArray[np.int64]
    kinds: dict[str, list[Kind]]


@cache
def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _lines(spec: dict[str, str]) -> list[str]:
    return _items(spec.get("of") or spec.get("for", ""))


def _kind(spec: dict[str, str], cluster: dict[str, Any], data: dict[str, Any], lang: str) -> Kind:
    heads, attributes = map(_items, spec[lang].split(";"))
    lines = [data["lines"][line] for line in _lines(spec)]
    words = data["words"][lang]
    pools = {
        **words,
        "attribute": attributes,
        "shared": _items(cluster[lang]),
        "spec": _items(spec.get("spec", cluster["spec"])),
        "code": _CODES,
    }
    return Kind(
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
        fillers={name: pools[name] for name in FILLERS},
    )


def _read(name: str) -> Any:
    return parse_yaml(files("titles.datasets").joinpath(name).read_bytes())


def _shared(some: Sequence[set[str]], others: Sequence[set[str]]) -> NDArray[np.int64]:
    """The number of items that each of `some` has in common with each of `others`."""
    holders: dict[str, list[int]] = {}
    for place, items in enumerate(others):
        for item in items:
            holders.setdefault(item, []).append(place)
    found = np.zeros((len(some), len(others)), np.int64)
    for row, items in zip(found, some, strict=True):
        for item in items:
            row[holders.get(item, [])] += 1
    return found


def _assemble(data: dict[str, Any], places: Sequence[tuple[str, str]], sizes: list[int]) -> Catalogue:
    """Work out kinds and confusions. `places` has the cluster and the name of each category."""
    clusters = data["clusters"]
    names = [name for _, name in places]
    specs = [clusters[home]["categories"][name] for home, name in places]
    kinds = {
        lang: [
            _kind(spec, clusters[home], data, lang)
            for spec, (home, _) in zip(specs, places, strict=True)
        ]
        for lang in LANGUAGES
    }
    # Bundled are a thing and its part, two parts of one thing, and what is named together.
    of, parts, named = (
        [set(items) for items in found]
        for found in (
            map(_lines, specs),
            (_items(spec.get("for", "")) for spec in specs),
            (_items(spec.get("with", "")) for spec in specs),
        )
    )
    bundled = (_shared(of, parts) + _shared(named, [{name} for name in names])).astype(bool)
    np.fill_diagonal(bundled, False)
    heads = [set(es.heads) | set(pt.heads) for es, pt in zip(kinds["es"], kinds["pt"], strict=True)]
    homes = np.array([home for home, _ in places])
    # How often a seller of one category picks another: because it is alike, related, or large.
    near = 1 + 100 * (homes[:, None] == homes) + 200 * (bundled + bundled.T.astype(int))
    confusions = np.array(sizes) * (near + 400 * _shared(heads, heads))
    np.fill_diagonal(confusions, 0)
    for lang in LANGUAGES:
        for kind, others in zip(kinds[lang], bundled, strict=True):
            kind.extras.extend(i for i in np.flatnonzero(others).tolist() if kinds[lang][i].heads)
    return Catalogue(names, sizes, confusions, kinds)


@cache
def by_hand() -> Catalogue:
    """The 246 categories of catalogue.yaml."""
    data = _read("catalogue.yaml")
    # Every cluster lists its categories largest first; deal them together into one ranking.
    homes = {home: order for order, home in enumerate(data["clusters"])}
    ranking = sorted(
        ((place + 0.5) / len(cluster["categories"]), homes[home], home, name)
        for home, cluster in data["clusters"].items()
        for place, name in enumerate(cluster["categories"])
    )
    # Zipf-Mandelbrot: a tail like the challenge's, without one category drowning the others.
    # Whole numbers, so that no platform's rounding can move a row to another category.
    sizes: list[int] = [round(1e7 * (rank + 11) ** -1.34) for rank in range(len(ranking))]
    return _assemble(data, [(home, name) for *_, home, name in ranking], sizes)


@cache
def wide() -> Catalogue:
    """All 1,588 categories of the challenge, in sizes of its shape."""
    data, more = _read("catalogue.yaml"), _read("wide.yaml")["clusters"]
    names = files("titles.datasets").joinpath("categories.txt").read_text("utf-8").split()
    for home, added in more.items():
        cluster = data["clusters"].setdefault(home, {"categories": {}, **added} | {"categories": {}})
        order = list(added["categories"])
        for place, (name, nouns) in enumerate(added["categories"].items()):
            heads = dict(zip(LANGUAGES, nouns.split(";"), strict=True))
            spec = {lang: f"{heads[lang]} ; {cluster[lang]}" for lang in LANGUAGES}
            spec |= {"for": added["for"]} if "for" in added else {}
            spec["with"] = ", ".join((order[place + 1 :] + order)[:BUNDLED])
            cluster["categories"][name] = spec
    homes = {name: home for home, cluster in data["clusters"].items() for name in cluster["categories"]}
    return _assemble(data, [(homes[name], name) for name in names], shape.sizes())
