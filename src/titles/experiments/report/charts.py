"""Charts as SVG, drawn with Vega-Lite; the page needs neither scripts nor a network.

Colours are variables of the page's style sheet, which has light and dark ones; each experiment also has
its own shape. Text takes the page's colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from titles.experiments.report.experiment import Experiment
from titles.models.registry import AVERAGE

_COLOURS = ["currentColor", *(f"var(--series-{number})" for number in range(1, 6))]
# Their number and that of the colours have no common factor: pairs repeat after 42 experiments.
_SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right"]
_TEXT = {f"{part}Color": "currentColor" for part in ("label", "title")}
_CONFIG = {
    "aria": False,  # the page gives each chart one name as a whole
    "background": None,
    "font": "Helvetica, Arial, sans-serif",
    "view": {"stroke": None},
    "axis": {
        **_TEXT,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 10,
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
    },
    "legend": {
        **_TEXT,
        "labelFontSize": 12,
        "labelLimit": 300,
        "columns": 2,
        "orient": "bottom",
        "direction": "vertical",
        "title": None,
        "symbolStrokeWidth": 2,
        "symbolSize": 70,
    },
}
Values = list[dict[str, str | float]]


def full_name(model: str) -> str:
    """The name of a model as a report shows it."""
    return "Average" if model == AVERAGE else model.upper()


def intervals(experiments: Sequence[Experiment], models: Sequence[str]) -> Markup:
    """Balanced accuracy on the test split of each model and experiment, with its 95 % interval."""
    values: Values = [
        {
            "experiment": experiment.name,
            "model": full_name(model),
            **{key: score for key, score in experiment.scores[model].items() if "balanced" in key},
        }
        for experiment in experiments
        for model in models
    ]
    names = [experiment.name for experiment in experiments]
    height = {"step": max(14, 40 // len(names)), "for": "offset"}
    place = {
        "y": {"field": "model", "type": "nominal", "sort": [*map(full_name, models)], "title": None},
        "yOffset": {"field": "experiment", "sort": names},
        "color": _scale(names, _COLOURS),
    }
    scale = {"zero": False, "nice": True}
    x = {"type": "quantitative", "scale": scale, "title": "balanced accuracy on the test split"}
    bar = {
        "mark": {"type": "rule", "strokeWidth": 2},
        "encoding": {
            **place,
            "x": {**x, "field": "balanced_accuracy_low"},
            "x2": {"field": "balanced_accuracy_high"},
        },
    }
    point = {
        "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
        "encoding": {**place, "shape": _scale(names, _SHAPES), "x": {**x, "field": "balanced_accuracy"}},
    }
    return _drawn({"data": {"values": values}, "width": 420, "height": height, "layer": [bar, point]})


def curves(
    experiments: Sequence[Experiment], network: str, measure: str, splits: Sequence[str], title: str
) -> Markup:
    """A measure of a network by epoch, on one or two splits."""
    values: Values = [
        {"experiment": experiment.name, "split": split, "epoch": epoch, "value": value}
        for experiment in experiments
        for split in splits
        for epoch, value in experiment.curves[network][f"{split}/{measure}"]
    ]
    names = [experiment.name for experiment in experiments]
    encoding: dict[str, Any] = {
        "x": {
            "field": "epoch",
            "type": "quantitative",
            "axis": {"tickMinStep": 1, "format": "d", "grid": False},
            "scale": {"zero": False, "nice": False, "padding": 8},
        },
        "y": {
            "field": "value",
            "type": "quantitative",
            "scale": {"zero": False, "nice": True},
            "title": title,
        },
        "color": _scale(names, _COLOURS),
    }
    if len(splits) > 1:
        encoding["strokeDash"] = {
            "field": "split",
            "scale": {"domain": list(splits), "range": [[1, 0], [4, 3]]},
            "legend": {"symbolType": "stroke", "symbolStrokeColor": "currentColor", "symbolSize": 400},
        }
    line = {"mark": {"type": "line", "strokeWidth": 2}, "encoding": encoding}
    points = {
        "mark": {"type": "point", "filled": True, "size": 45, "opacity": 1},
        "encoding": {
            **{channel: encoding[channel] for channel in ("x", "y", "color")},
            "shape": _scale(names, _SHAPES),
        },
    }
    return _drawn({"data": {"values": values}, "width": 340, "height": 200, "layer": [line, points]})


def _scale(names: list[str], marks: list[str]) -> dict[str, Any]:
    chosen = [marks[number % len(marks)] for number in range(len(names))]
    return {"field": "experiment", "type": "nominal", "scale": {"domain": names, "range": chosen}}


def _drawn(spec: dict[str, Any]) -> Markup:
    import vl_convert

    svg = vl_convert.vegalite_to_svg({**spec, "config": _CONFIG}, vl_version="6.4", allowed_base_urls=[])
    return Markup(svg)  # noqa: S704, made of our own tables, with names escaped
