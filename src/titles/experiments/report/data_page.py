"""The prepared data as tables for a terminal, and as a page: one file without scripts, which needs no
network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from tabulate import tabulate

from titles.data.contract import SPLITS
from titles.data.files import atomic_file
from titles.experiments.report.charts import svg
from titles.experiments.report.data import QUANTILES, Data
from titles.experiments.report.page import templates

LARGEST, SMALLEST = 30, 15  # categories in the page's tables
_MOST_LETTERS = 60  # of a category's name in a terminal
_POINTS = 400  # of the curve of categories
_COLOURS = ["var(--series-1)", "var(--series-2)", "var(--series-3)"]
_DASHES = [[1, 0], [6, 3], [2, 2]]


def text(data: Data, top: int) -> str:
    """The tables for a terminal, with the `top` largest categories."""
    parts = [
        f"{data.read:,} rows of {data.source}: {len(data.categories):,} categories, "
        f"{data.vocabulary:,} words",
        _table(
            ["rows", "", "share"],
            [(name, f"{count:,}", share(count, data.read)) for name, count in data.rows.items()],
        ),
        _table(
            [f"{min(top, len(data.categories)):,} largest categories", *SPLITS],
            [
                (_cut(each.name), *(f"{count:,}" for count in each.titles))
                for each in data.categories[:top]
            ],
        ),
    ]
    if data.categories:
        smallest = data.categories[-1]
        parts[-1] += f"\nthe smallest is {_cut(smallest.name)}, with {sum(smallest.titles):,} titles"
    for heading, found in (("language", data.languages), ("label quality", data.qualities)):
        rows = [(name, *(f"{count:,}" for count in counts)) for name, counts in found.items()]
        parts.append(_table([heading, *SPLITS], rows))
    heads = ["words per title", *quantile_names(), "unknown words"]
    parts.append(
        _table(
            heads,
            [
                (split, *map(str, data.words[split]), share(data.unknown[split] or 0, 1))
                for split in SPLITS
                if split in data.words
            ],
        )
    )
    if data.corrections is not None:
        parts.append(_table(["corrections", ""], corrections(data)))
    if data.drift:
        parts.append(_table(["drift from the reference", "", "threshold", ""], drift(data)))
    return "\n\n".join(parts)


def write_page(data: Data, file: Path) -> None:
    """Write the page.

    Raises:
        ValueError: the file cannot be written.
    """
    environment = templates(autoescape=True)
    environment.filters |= {"count": "{:,}".format}
    rendered = environment.get_template("data.html").render(
        data=data,
        splits=SPLITS,
        quantiles=quantile_names(),
        largest=data.categories[:LARGEST],
        smallest=data.categories[LARGEST:][-SMALLEST:],
        corrections=corrections(data) if data.corrections is not None else [],
        drift=drift(data),
        share=share,
        charts={
            "rows": _bars({name: count for name, count in data.rows.items() if count}, "rows"),
            "categories": _sizes(data),
            "lengths": _lengths(data),
            "languages": _bars({name: sum(counts) for name, counts in data.languages.items()}, "titles"),
        },
    )
    with atomic_file(file) as partial:
        partial.write_text(rendered, encoding="utf-8", newline="\n")


def share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def quantile_names() -> list[str]:
    return [{0: "least", 50: "median", 100: "most"}.get(each, f"{each} %") for each in QUANTILES]


def corrections(data: Data) -> list[tuple[str, str]]:
    """Names and counts of the corrections, those set aside by reason."""
    found = dict(data.corrections or {})
    rows, aside = found.pop("rows", {}), found.pop("set_aside", {})
    counts = {f"{name} rows of the table": count for name, count in found.items()}
    counts |= {f"set aside, {name}": count for name, count in aside.items()}
    counts |= {f"titles corrected, {name}": count for name, count in rows.items()}
    return [(name.replace("_", " "), f"{count:,}") for name, count in counts.items()]


def drift(data: Data) -> list[tuple[str, str, str, str]]:
    """Name, value, threshold and, past it, a mark."""
    return [
        (
            each.name.replace("_", " "),
            f"{each.value:g}",
            "-" if each.threshold is None else f"{each.threshold:g}",
            "past the threshold" if each.past else "",
        )
        for each in data.drift
    ]


def _cut(name: str) -> str:
    return name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    align = ["left", *["right"] * (len(heads) - 1)]
    made = tabulate(rows, heads, "simple", disable_numparse=True, colalign=align if rows else None)
    return "\n".join(line.rstrip() for line in str(made).splitlines())


def _bars(counts: dict[str, int], unit: str) -> Markup:
    """Horizontal bars, each with its number."""
    values = [
        {"name": name.replace("_", " "), "count": count, "text": f"{count:,}"}
        for name, count in counts.items()
    ]
    y = {"field": "name", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 200}}
    x = {
        "field": "count",
        "type": "quantitative",
        "title": unit,
        "axis": {"format": "~s", "tickCount": 4},
    }
    return svg(
        {
            "width": 260,
            "height": {"step": 26},
            "data": {"values": values},
            "encoding": {"y": y, "x": x},
            "layer": [
                {"mark": {"type": "bar", "color": "var(--series-1)"}},
                {
                    "mark": {"type": "text", "align": "left", "dx": 5, "color": "currentColor"},
                    "encoding": {"text": {"field": "text"}},
                },
            ],
        }
    )


def _sizes(data: Data) -> Markup:
    """The titles of each category, from the largest to the smallest, on a logarithmic scale."""
    sizes = [sum(category.titles) for category in data.categories]
    step = max(1, len(sizes) // _POINTS)
    ranks = sorted({*range(0, len(sizes), step), len(sizes) - 1} & set(range(len(sizes))))
    return svg(
        {
            "width": 340,
            "height": 200,
            "data": {"values": [{"rank": rank + 1, "titles": sizes[rank]} for rank in ranks]},
            "mark": {
                "type": "line",
                "strokeWidth": 2,
                "color": "var(--series-1)",
                "point": len(sizes) < 3,
            },
            "encoding": {
                "x": {
                    "field": "rank",
                    "type": "quantitative",
                    "scale": {"nice": False, "domainMin": 1},
                    "axis": {"grid": False, "format": "d", "tickMinStep": 1},
                    "title": "category, the largest first",
                },
                "y": {
                    "field": "titles",
                    "type": "quantitative",
                    "scale": {"type": "log"},
                    "axis": {"format": "~s", "tickCount": 4},
                    "title": "titles",
                },
            },
        }
    )


def _lengths(data: Data) -> Markup:
    """The share of titles of each number of words, a line for each split."""
    values = [
        {"split": split, "words": words, "share": count / sum(counts)}
        for split, counts in data.lengths.items()
        if sum(counts)
        for words, count in enumerate(counts)
    ]
    legend: dict[str, Any] = {"symbolType": "stroke", "symbolSize": 400}
    return svg(
        {
            "width": 340,
            "height": 200,
            "data": {"values": values},
            "mark": {"type": "line", "strokeWidth": 2, "interpolate": "step"},
            "encoding": {
                "x": {
                    "field": "words",
                    "type": "quantitative",
                    "axis": {"grid": False, "format": "d", "tickMinStep": 1},
                    "title": "words",
                },
                "y": {
                    "field": "share",
                    "type": "quantitative",
                    "axis": {"format": "%", "tickCount": 4},
                    "title": "share of titles",
                },
                "color": {
                    "field": "split",
                    "type": "nominal",
                    "scale": {"domain": list(SPLITS), "range": _COLOURS},
                    "legend": legend,
                },
                "strokeDash": {
                    "field": "split",
                    "scale": {"domain": list(SPLITS), "range": _DASHES},
                    "legend": legend,
                },
            },
        }
    )
