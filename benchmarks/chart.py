"""The pictures of docs/: accuracy against training time and against training rows, from the tables of
docs/benchmark.md, and the curves of the last run, as `dvc plots` draws them.

    python benchmarks/chart.py
"""

from __future__ import annotations

import titles  # noqa: F401  before numpy, whose threads read its settings

# isort: split
import argparse
import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
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
_TRAIN_ROWS = re.compile(r"^([\d,]+) training titles", re.M)
_CUT = re.compile(r"-cut-\d+$")
_SAMPLE = re.compile(r"sample-\d+")
_AVERAGE = "CNN and MLP averaged"
_COLUMNS = 3
_CURVES = 5
# Okabe and Ito's colours, darkened for white paper; each shape can have all of them.
_COLOURS = ["#0072b2", "#d55e00", "#008a66", "#8a6d00", "#a8447f", "#5d656e"]
_PEER_SHAPES = ["square", "triangle-up", "diamond"]


_LEGEND = {"orient": "top", "columns": _COLUMNS, "title": None, "labelLimit": 0, "symbolSize": 110}
_CONFIG = {
    "axis": {"labelFontSize": 11, "titleFontSize": 11, "gridOpacity": 0.6},
    "legend": {"labelFontSize": 12},
}


def marks(page: str) -> Iterator[dict[str, Any]]:
    """The scores in the text of docs/benchmark.md, with `set`, `classifier`, `own`, `score`, `low`,
    `high`, `seconds` and, where the page says them, training `rows`.

    Raises:
        ValueError: the page has no scores.
    """
    found = False
    for section in re.split(r"^## ", page, flags=re.M)[1:]:
        rows = _TRAIN_ROWS.search(section)
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
                **({"rows": int(rows[1].replace(",", ""))} if rows else {}),
            }
    if not found:
        raise ValueError(f"{_PAGE} has no table of scores")


def accuracy_time(page: str) -> dict[str, Any]:
    """A chart with a panel per whole dataset; classifiers stand in a legend, where no text meets a
    mark."""
    points = [point for point in marks(page) if not _CUT.search(point["set"])]
    scale, shapes = _look(points)
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
    legend = _LEGEND
    colour = {"field": "classifier", "type": "nominal", "scale": scale, "legend": legend}
    return _panels(
        points,
        {
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
    )


def _panels(points: Sequence[Mapping[str, Any]], spec: Mapping[str, Any]) -> dict[str, Any]:
    """A chart with a panel for each dataset, in the order of the points."""
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
            **spec,
        },
        "config": _CONFIG,
    }


def _look(points: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scales of colours and shapes, whose pairs are distinct; our networks are circles."""
    own = {point["classifier"]: point["own"] for point in points}
    peers = [classifier for classifier in own if not own[classifier]]
    ours = [classifier for classifier in own if own[classifier]]
    count = len(_COLOURS)
    pairs = {classifier: ("circle", _COLOURS[at % count]) for at, classifier in enumerate(ours)}
    for at, classifier in enumerate(peers):
        # Colours that our networks leave come first.
        shape = _PEER_SHAPES[at // count % len(_PEER_SHAPES)]
        pairs[classifier] = (shape, _COLOURS[(at + len(ours)) % count])
    names = list(own)
    return (
        {"domain": names, "range": [pairs[name][1] for name in names]},
        {"domain": names, "range": [pairs[name][0] for name in names]},
    )


def learning_curve(page: str) -> dict[str, Any]:
    """A chart of balanced accuracy by training rows of our average and the alternatives with the highest
    means: a panel for the samples by size, and one for each other dataset with its cuts. Classifiers
    stand in a legend."""
    points = [point | {"set": _family(point["set"])} for point in marks(page) if "rows" in point]
    points = [point for point in points if point["set"]]
    scores: dict[str, list[float]] = {}
    for point in points:
        scores.setdefault(point["classifier"], []).append(point["score"])
    most = max(map(len, scores.values()), default=0)
    peers = {point["classifier"] for point in points if not point["own"]}
    means = {name: sum(found) / most for name, found in scores.items() if len(found) == most}
    best = sorted(peers & means.keys(), key=lambda name: -means[name])[: _CURVES - 1]
    shown = [_AVERAGE, *best]
    points = [point for point in points if point["classifier"] in shown]
    points.sort(key=lambda point: shown.index(point["classifier"]))
    scale, shapes = _look(points)
    field = {"field": "classifier", "type": "nominal", "legend": _LEGEND}
    axis = {"format": "~s", "tickCount": 3}
    rows = {"field": "rows", "type": "quantitative", "title": "training rows", "axis": axis}
    score = {"field": "score", "type": "quantitative", "title": "balanced accuracy"}
    score |= {"scale": {"zero": False}, "axis": {"format": ".2f", "tickCount": 6}}
    return _panels(
        points,
        {
            "encoding": {
                "x": rows | {"scale": {"type": "log"}},
                "y": score,
                "color": field | {"scale": scale},
            },
            "layer": [
                {"mark": {"type": "line", "strokeWidth": 1.5, "opacity": 0.8}},
                {
                    "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
                    "encoding": {"shape": field | {"scale": shapes}},
                },
            ],
        },
    )


def _family(name: str) -> str:
    """The panel of a dataset; "" for a cut of a sample, whose sizes are samples of their own."""
    whole = _CUT.sub("", name)
    if _SAMPLE.fullmatch(whole):
        return "sample" if whole == name else ""
    return whole


def draw(chart: Mapping[str, Any], path: Path) -> None:
    """Write a chart of Vega-Lite as a PNG."""
    with atomic_file(path) as partial:
        partial.write_bytes(vl_convert.vegalite_to_png(json.dumps(chart), scale=1.5))


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    ).parse_args()
    command = ["dvc", "plots", "show", "Balanced accuracy", "--show-vega"]
    curves = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    draw(json.loads(curves), DOCS / "balanced_accuracy.png")
    page = _PAGE.read_text(encoding="utf-8")
    draw(accuracy_time(page), DOCS / "accuracy_time.png")
    draw(learning_curve(page), DOCS / "learning_curve.png")


if __name__ == "__main__":
    main()
