"""The pictures of docs/: accuracy against training time, from the tables of docs/benchmark.md, and the
curves of the last run, as `dvc plots` draws them.

    python benchmarks/chart.py
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import vl_convert

from titles.data.files import atomic_file

DOCS = Path("docs")
_PAGE = DOCS / "benchmark.md"
# A row of scores: the classifier, bold if it is one of ours, score, interval, training seconds.
_ROW = re.compile(
    r"\| (?P<bold>\**)(?P<classifier>[^|*]+)\** \| (?P<score>[01]\.\d+) "
    r"\| (?P<low>[01]\.\d+) \.\. (?P<high>[01]\.\d+) \| (?P<seconds>[\d,.]+) \|"
)
_COLUMNS = 3


def marks(page: str) -> Iterator[dict[str, Any]]:
    """The scores in the text of docs/benchmark.md, with `set`, `classifier`, `own`, `score`, `low`,
    `high` and `seconds`.

    Raises:
        ValueError: the page has no scores.
    """
    found = False
    for section in re.split(r"^## ", page, flags=re.M)[1:]:
        for row in _ROW.finditer(section):
            found = True
            yield {
                "set": section.partition("\n")[0],
                "classifier": row["classifier"].strip(),
                "own": bool(row["bold"]),
                **{
                    name: float(row[name].replace(",", ""))
                    for name in ("score", "low", "high", "seconds")
                },
            }
    if not found:
        raise ValueError(f"{_PAGE} has no table of scores")


def accuracy_time(page: str) -> dict[str, Any]:
    """A chart with a panel per dataset; classifiers stand in a legend, where no text meets a mark."""
    points = list(marks(page))
    named = dict.fromkeys(point["classifier"] for point in points)
    scale = {
        "domain": [*named],
        "range": ["#0072b2", "#d55e00", "#008a66", "#8a6d00", "#a8447f", "#5d656e"][: len(named)],
    }
    own = {point["classifier"]: point["own"] for point in points}
    shapes = {
        "domain": [*named],
        "range": ["circle" if own[classifier] else "square" for classifier in named],
    }
    x = {
        "field": "seconds",
        "type": "quantitative",
        "scale": {"type": "log"},
        "title": "training time, seconds",
        "axis": {"format": "~s", "tickCount": 4},
    }
    y = {
        "field": "score",
        "type": "quantitative",
        "scale": {"zero": False},
        "title": "balanced accuracy",
        "axis": {"format": ".2f", "tickCount": 6},
    }
    legend = {"orient": "top", "columns": _COLUMNS, "title": None, "labelLimit": 0, "symbolSize": 110}
    colour = {"field": "classifier", "type": "nominal", "scale": scale, "legend": legend}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "background": "white",
        "data": {"values": points},
        "facet": {
            "field": "set",
            "type": "nominal",
            "sort": [*dict.fromkeys(point["set"] for point in points)],
            "header": {"title": None, "labelFontSize": 13, "labelFontWeight": "bold"},
        },
        "columns": _COLUMNS,
        "spacing": 24,
        "resolve": {"scale": {"x": "independent", "y": "independent"}},
        "spec": {
            "width": 230,
            "height": 190,
            "encoding": {"x": x, "color": colour},
            "layer": [
                {
                    "mark": {"type": "rule", "opacity": 0.7, "strokeWidth": 1.5},
                    "encoding": {"y": y | {"field": "low"}, "y2": {"field": "high"}},
                },
                {
                    "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
                    "encoding": {
                        "y": y,
                        "shape": {
                            "field": "classifier",
                            "type": "nominal",
                            "scale": shapes,
                            "legend": legend,
                        },
                    },
                },
            ],
        },
        "config": {
            "axis": {"labelFontSize": 11, "titleFontSize": 11, "gridOpacity": 0.6},
            "legend": {"labelFontSize": 12},
        },
    }


def draw(chart: Mapping[str, Any], path: Path) -> None:
    """Write a chart of Vega-Lite as a PNG."""
    with atomic_file(path) as partial:
        partial.write_bytes(vl_convert.vegalite_to_png(json.dumps(chart), scale=1.5))


def main() -> None:
    command = ["dvc", "plots", "show", "Balanced accuracy", "--show-vega"]
    curves = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    draw(json.loads(curves), DOCS / "balanced_accuracy.png")
    draw(accuracy_time(_PAGE.read_text(encoding="utf-8")), DOCS / "accuracy_time.png")


if __name__ == "__main__":
    main()
