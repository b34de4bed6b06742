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
from titles.experiments.report.writing import html_templates
from titles.texts import ENGLISH, Texts, texts

LARGEST, SMALLEST = 30, 15  # categories in the page's tables
_MOST_LETTERS = 60  # of a category's name in a terminal
_POINTS = 400  # of the curve of categories
_COLOURS = [f"var(--series-{number})" for number in range(1, 5)]
_DASHES = [[1, 0], [6, 3], [8, 2, 2, 2], [2, 2]]
_QUANTILES = {0: "data.least", 50: "data.median", 100: "data.most"}
_CORRECTIONS = {"listed": "data.listed", "accepted": "data.accepted", "applied": "data.applied"}


def text(data: Data, top: int) -> str:
    """The tables for a terminal, with the `top` largest categories, in English."""
    say = texts(ENGLISH)
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
    heads = ["words per title", *quantile_names(say), "unknown words"]
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
        parts.append(_table(["corrections", ""], corrections(data, say)))
    if data.drift:
        parts.append(_table(["drift from the reference", "", "threshold", ""], drift(data, say)))
    return "\n\n".join(parts)


def write_page(data: Data, file: Path, say: Texts) -> None:
    """Write the page in the language of `say`.

    Raises:
        ValueError: the file cannot be written.
    """
    environment = html_templates(say)
    environment.filters["split"] = lambda name: say.named("splits", name)
    languages = {say.named("languages", name): counts for name, counts in data.languages.items()}
    uses = {_use(name, say): count for name, count in data.rows.items()}
    rendered = environment.get_template("data.html").render(
        data=data,
        splits=SPLITS,
        uses=uses,
        languages=languages,
        qualities={say.named("qualities", name): counts for name, counts in data.qualities.items()},
        quantiles=quantile_names(say),
        largest=data.categories[:LARGEST],
        smallest=data.categories[LARGEST:][-SMALLEST:],
        corrections=corrections(data, say) if data.corrections is not None else [],
        drift=drift(data, say),
        share=share,
        charts={
            "rows": _bars({name: count for name, count in uses.items() if count}, say("data.rows_axis")),
            "categories": _sizes(data, say),
            "lengths": _lengths(data, say),
            "languages": _bars(
                {name: sum(counts) for name, counts in languages.items()}, say("data.titles_axis")
            ),
        },
    )
    with atomic_file(file) as partial:
        partial.write_text(rendered, encoding="utf-8", newline="\n")


def share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def quantile_names(say: Texts) -> list[str]:
    return [say(_QUANTILES[each]) if each in _QUANTILES else f"{each} %" for each in QUANTILES]


def corrections(data: Data, say: Texts) -> list[tuple[str, str]]:
    """Names and counts of the corrections, those set aside by reason."""
    found = dict(data.corrections or {})
    rows, aside = found.pop("rows", {}), found.pop("set_aside", {})
    counts = {
        say(_CORRECTIONS[name]) if name in _CORRECTIONS else name: count for name, count in found.items()
    }
    for name, count in aside.items():
        counts[say("data.aside", reason=say.named("set_aside", name))] = count
    for name, count in rows.items():
        counts[say("data.titles_corrected", split=_use(name, say))] = count
    return [(name, f"{count:,}") for name, count in counts.items()]


def drift(data: Data, say: Texts) -> list[tuple[str, str, str, str]]:
    """Name, value, threshold and, past it, a mark."""
    return [
        (
            say.named("drift", each.name),
            f"{each.value:g}",
            "-" if each.threshold is None else f"{each.threshold:g}",
            say("data.past") if each.past else "",
        )
        for each in data.drift
    ]


def _use(name: str, say: Texts) -> str:
    """What became of rows: a split, or the reason why they are not used."""
    return say.named("splits" if name in SPLITS else "rejected", name)


def _cut(name: str) -> str:
    return name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    align = ["left", *["right"] * (len(heads) - 1)]
    made = tabulate(rows, heads, "simple", disable_numparse=True, colalign=align if rows else None)
    return "\n".join(line.rstrip() for line in str(made).splitlines())


def _bars(counts: dict[str, int], unit: str) -> Markup:
    """Horizontal bars, each with its number."""
    values = [{"name": name, "count": count, "text": f"{count:,}"} for name, count in counts.items()]
    y = {"field": "name", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 300}}
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


def _sizes(data: Data, say: Texts) -> Markup:
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
                    "title": say("data.rank_axis"),
                },
                "y": {
                    "field": "titles",
                    "type": "quantitative",
                    "scale": {"type": "log"},
                    "axis": {"format": "~s", "tickCount": 4},
                    "title": say("data.titles_axis"),
                },
            },
        }
    )


def _lengths(data: Data, say: Texts) -> Markup:
    """The share of titles of each number of words, a line for each split."""
    values = [
        {"split": say.named("splits", split), "words": words, "share": count / sum(counts)}
        for split, counts in data.lengths.items()
        if sum(counts)
        for words, count in enumerate(counts)
    ]
    names = [say.named("splits", split) for split in SPLITS]
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
                    "title": say("data.words_axis"),
                },
                "y": {
                    "field": "share",
                    "type": "quantitative",
                    "axis": {"format": "%", "tickCount": 4},
                    "title": say("data.share_axis"),
                },
                "color": {
                    "field": "split",
                    "type": "nominal",
                    "scale": {"domain": names, "range": _COLOURS},
                    "legend": legend,
                },
                "strokeDash": {
                    "field": "split",
                    "scale": {"domain": names, "range": _DASHES},
                    "legend": legend,
                },
            },
        }
    )
