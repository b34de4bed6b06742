"""A chart of balanced accuracy against training time, with a panel per dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import vl_convert

from titles.data.files import atomic_file


def draw(panels: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Write a PNG.

    Args:
        panels: marks by title, each with `classifier`, `seconds`, `score`, `low`, `high`, `own` and
            `curve`, which is a list of (seconds, score).
    """
    if not panels:
        return
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "background": "white",
        "columns": 2,
        "spacing": 30,
        "concat": [_panel(title, marks) for title, marks in panels.items()],
        "config": {"axis": {"labelFontSize": 12, "titleFontSize": 12}, "title": {"fontSize": 14}},
    }
    with atomic_file(path) as partial:
        partial.write_bytes(vl_convert.vegalite_to_png(json.dumps(spec), scale=2))


def _panel(title: str, marks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    points = [{k: v for k, v in mark.items() if k != "curve"} for mark in marks]
    _place_labels(points)
    curves = [
        {"classifier": mark["classifier"], "seconds": seconds, "score": score}
        for mark in marks
        for seconds, score in mark["curve"]
    ]
    # Leave room for labels on the right.
    right = 12 * max(point["seconds"] for point in points)
    left = min(mark["seconds"] for mark in [*points, *curves]) / 1.5
    x = {
        "field": "seconds",
        "type": "quantitative",
        "scale": {"type": "log", "domain": [left, right], "nice": False},
        "title": "training time, seconds",
        "axis": {"format": "~s", "tickCount": 5, "grid": False},
    }
    y = {
        "type": "quantitative",
        "scale": {"zero": False},
        "title": "balanced accuracy",
        "axis": {"format": ".2f"},
    }
    colour = {"field": "classifier", "type": "nominal", "legend": None, "scale": {"scheme": "dark2"}}
    place = {"x": x, "color": colour}
    return {
        "title": title,
        "width": 460,
        "height": 300,
        "layer": [
            {
                "data": {"values": curves},
                "mark": {"type": "line", "opacity": 0.5, "point": {"size": 12}},
                "encoding": place | {"y": y | {"field": "score"}},
            },
            {
                "data": {"values": points},
                "mark": {"type": "rule", "opacity": 0.6},
                "encoding": place | {"y": y | {"field": "low"}, "y2": {"field": "high"}},
            },
            {
                "data": {"values": points},
                "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
                "encoding": place
                | {
                    "y": y | {"field": "score"},
                    "shape": {
                        "field": "own",
                        "type": "nominal",
                        "legend": None,
                        "scale": {"domain": [True, False], "range": ["circle", "square"]},
                    },
                },
            },
            {
                "data": {"values": points},
                "mark": {"type": "text", "align": "left", "dx": 9, "fontSize": 11},
                "encoding": place
                | {"y": y | {"field": "label_at"}, "text": {"field": "classifier", "type": "nominal"}},
            },
        ],
    }


def _place_labels(points: list[dict[str, Any]]) -> None:
    """Move labels up until they no longer overlap."""
    points.sort(key=lambda point: point["score"])
    lowest, highest = min(p["low"] for p in points), max(p["high"] for p in points)
    gap = (highest - lowest) / 16
    last = -1.0
    for point in points:
        last = point["label_at"] = max(point["score"], last + gap)
