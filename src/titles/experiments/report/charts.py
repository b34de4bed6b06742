"""Charts as SVG, drawn with Vega-Lite; the page needs neither scripts nor a network.

Colours are variables of the page's style sheet, which has light and dark ones; each experiment also has
its own shape. Text takes the page's colour.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from titles.experiments.report.experiment import Experiment
from titles.models.registry import AVERAGE

_COLOURS = ["currentColor", *(f"var(--series-{number})" for number in range(1, 6))]
# Their number and that of the colours have no common factor: pairs repeat after 42 experiments.
_SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right"]
_STYLE = Path(__file__).parent / "templates/charts.json"


def full_name(model: str) -> str:
    """The name of a model as a report shows it."""
    return "Average" if model == AVERAGE else model.upper()


def intervals(experiments: Sequence[Experiment], models: Sequence[str]) -> Markup:
    """Balanced accuracy on the test split of each model and experiment, with its 95 % interval."""
    values = [
        {"experiment": experiment.name, "model": full_name(model), **experiment.scores[model]}
        for experiment in experiments
        for model in models
    ]
    names = [experiment.name for experiment in experiments]
    x = {"type": "quantitative", "scale": {"zero": False, "nice": True}}
    x["title"] = "balanced accuracy on the test split"
    ends = {
        "x": {**x, "field": "balanced_accuracy_low"},
        "x2": {"field": "balanced_accuracy_high"},
    }
    spec = {
        "width": 420,
        "height": {"step": max(14, 40 // len(names)), "for": "offset"},
        "encoding": {
            "y": {"field": "model", "type": "nominal", "sort": None, "title": None},
            "yOffset": {"field": "experiment", "sort": names},
        },
    }
    bar = {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": ends}
    return _drawn(spec, values, names, bar, 60, {"x": {**x, "field": "balanced_accuracy"}})


def curves(
    experiments: Sequence[Experiment], network: str, measure: str, splits: Sequence[str], title: str
) -> Markup:
    """A measure of a network by epoch, on one or two splits, of the experiments that have curves."""
    values = [
        {"experiment": experiment.name, "split": split, "epoch": epoch, "value": value}
        for experiment in experiments
        if network in experiment.curves
        for split in splits
        for epoch, value in experiment.curves[network][f"{split}/{measure}"]
    ]
    x = {"axis": {"tickMinStep": 1, "format": "d", "grid": False}}
    x |= {"scale": {"zero": False, "nice": False, "padding": 8}}
    spec = {
        "width": 340,
        "height": 200,
        "encoding": {
            "x": {"field": "epoch", "type": "quantitative", **x},
            "y": {
                "field": "value",
                "type": "quantitative",
                "scale": {"zero": False, "nice": True},
                "title": title,
            },
        },
    }
    line: dict[str, Any] = {"mark": {"type": "line", "strokeWidth": 2}}
    if len(splits) > 1:
        legend = {"symbolType": "stroke", "symbolStrokeColor": "currentColor", "symbolSize": 400}
        dashes = {"domain": list(splits), "range": [[1, 0], [4, 3]]}
        line["encoding"] = {"strokeDash": {"field": "split", "scale": dashes, "legend": legend}}
    return _drawn(spec, values, [experiment.name for experiment in experiments], line, 45, {})


def _drawn(
    spec: dict[str, Any],
    values: Sequence[dict[str, Any]],
    names: Sequence[str],
    line: dict[str, Any],
    size: int,
    at: dict[str, Any],
) -> Markup:
    """Draw lines and, over them, points of a size, in each experiment's colour and shape."""

    def scale(marks: Sequence[str]) -> dict[str, Any]:
        chosen = [marks[number % len(marks)] for number in range(len(names))]
        return {"field": "experiment", "type": "nominal", "scale": {"domain": names, "range": chosen}}

    point = {
        "mark": {"type": "point", "filled": True, "size": size, "opacity": 1},
        "encoding": {"shape": scale(_SHAPES), **at},
    }
    spec["encoding"]["color"] = scale(_COLOURS)
    spec |= {"data": {"values": values}, "layer": [line, point]}
    return svg(spec)


def svg(spec: dict[str, Any]) -> Markup:
    """Draw a chart of Vega-Lite in the style of the pages."""
    import vl_convert

    spec = {**spec, "config": json.loads(_STYLE.read_text(encoding="utf-8"))}
    drawn = vl_convert.vegalite_to_svg(spec, vl_version="6.4", allowed_base_urls=[])
    return Markup(drawn)  # noqa: S704, made of our own tables, with names escaped
