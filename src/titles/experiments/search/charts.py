"""Charts of a search, in the style of the experiments' report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from titles.experiments.report.charts import svg
from titles.experiments.search.confirm import Verdict
from titles.experiments.search.space import ACCURACY, SECONDS, Choices, Parameter, shown_value

_NAMES = {ACCURACY: "balanced accuracy on validation", SECONDS: "training time (s)"}
_KINDS = {
    "complete": ("var(--series-1)", "circle"),
    "stopped early": ("var(--series-5)", "triangle-down"),
    "params.yaml": ("var(--series-2)", "diamond"),
}
Row = dict[str, Any]  # number, kind, accuracy, and perhaps seconds


def history(rows: Sequence[Row]) -> Markup:
    """The score of each trial, and the best so far."""
    best, line = -1.0, []
    for row in rows:
        if row["kind"] != "stopped early":
            best = max(best, row["accuracy"])
        if best >= 0:
            line.append({"number": row["number"], "best": best})
    x = {"type": "quantitative", "title": "trial", "axis": {"tickMinStep": 1, "format": "d"}}
    y = {"type": "quantitative", "title": _NAMES[ACCURACY], "scale": {"zero": False}}
    steps = {
        "data": {"values": line},
        "mark": {"type": "line", "interpolate": "step-after", "color": "var(--series-1)"},
        "encoding": {"x": {"field": "number", **x}, "y": {"field": "best", **y}},
    }
    return svg({"width": 560, "height": 220, "layer": [steps, _points(rows, "number", "accuracy", x)]})


def times(rows: Sequence[Row], front: Sequence[int]) -> Markup:
    """Accuracy against training time; a line joins the trials that none surpasses in both."""
    x = {"type": "quantitative", "title": _NAMES[SECONDS], "scale": {"zero": False}}
    y = {"type": "quantitative", "title": _NAMES[ACCURACY], "scale": {"zero": False}}
    timed = [row for row in rows if "seconds" in row]
    joined = {
        "data": {"values": [row for row in timed if row["number"] in front]},
        "mark": {"type": "line", "interpolate": "step-after", "color": "var(--series-1)"},
        "encoding": {"x": {"field": "seconds", **x}, "y": {"field": "accuracy", **y}},
    }
    return svg(
        {"width": 560, "height": 220, "layer": [joined, _points(timed, "seconds", "accuracy", x)]}
    )


def importances(values: Mapping[str, float]) -> Markup:
    rows = [{"name": name, "value": value} for name, value in values.items()]
    return svg(
        {
            "width": 380,
            "height": {"step": 24},
            "data": {"values": rows},
            "mark": {"type": "bar", "color": "var(--series-1)", "height": 14},
            "encoding": {
                "x": {
                    "field": "value",
                    "type": "quantitative",
                    "title": "share of importance",
                    "axis": {"format": "%"},
                },
                "y": {"field": "name", "type": "nominal", "sort": None, "title": None},
            },
        }
    )


def slice_of(parameter: Parameter, rows: Sequence[Row]) -> Markup:
    """Scores by the value of a parameter.

    Args:
        rows: with `value`, as the parameter's axis has it.
    """
    x: Row = {"title": None}
    if isinstance(parameter.entry, Choices):
        names = [choice_name(choice) for choice in parameter.entry.choices]
        x |= {"type": "nominal", "scale": {"domain": names}, "axis": {"labelAngle": 0}}
    else:
        scale = {"type": "log" if parameter.entry.log else "linear", "zero": False, "nice": False}
        x |= {"type": "quantitative", "scale": {**scale, "padding": 8}}
        form = "~e" if parameter.entry.log and parameter.entry.low < 1e-4 else "~g"
        x["axis"] = {"tickCount": 5, "format": form, "labelOverlap": True, "labelSeparation": 8}
    return svg({"width": 300, "height": 160, "layer": [_points(rows, "value", "accuracy", x)]})


def choice_name(choice: Any) -> str:
    """A choice in a few characters: of a mapping, its values."""
    return (
        ", ".join(map(shown_value, choice.values())) if isinstance(choice, dict) else shown_value(choice)
    )


def differences(verdicts: Sequence[Verdict]) -> Markup:
    """Each candidate's difference from the default: in the search, and with fresh seeds."""
    rows = [{**vars(v), "trial": f"trial {v.trial}"} for v in verdicts]
    names = [row["trial"] for row in rows]
    y = {"field": "trial", "type": "nominal", "sort": names, "title": None}
    x: Row = {"type": "quantitative", "axis": {"tickCount": 6}}
    x["title"] = f"difference of {_NAMES[ACCURACY]} from params.yaml"
    kinds = {
        "with fresh seeds": ("mean", "var(--series-1)", "circle"),
        "in the search": ("looked", "var(--series-2)", "diamond"),
    }
    shown = [
        {"trial": row["trial"], "kind": kind, "value": row[field]}
        for row in rows
        for kind, (field, _, _) in kinds.items()
        if row[field] is not None
    ]
    bars = {
        "data": {"values": [row for row in rows if row["low"] is not None]},
        "mark": {"type": "rule", "strokeWidth": 2, "color": "var(--series-1)"},
        "encoding": {"x": {"field": "low", **x}, "x2": {"field": "high"}, "y": y},
    }
    zero = {
        "data": {"values": [{"zero": 0}]},
        "mark": {"type": "rule", "color": "currentColor", "strokeDash": [4, 3]},
        "encoding": {"x": {"field": "zero", **x}},
    }
    marks = {
        "data": {"values": shown},
        "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
        "encoding": {
            "x": {"field": "value", **x},
            "y": y,
            "color": _scale([*kinds], [colour for _, colour, _ in kinds.values()]),
            "shape": _scale([*kinds], [shape for _, _, shape in kinds.values()]),
        },
    }
    return svg({"width": 480, "height": {"step": 36}, "layer": [zero, bars, marks]})


def _points(rows: Sequence[Row], x: str, y: str, axis: Row) -> Row:
    kinds = {kind: marks for kind, marks in _KINDS.items() if any(row["kind"] == kind for row in rows)}
    scale = {"zero": False}
    return {
        "data": {"values": list(rows)},
        "mark": {"type": "point", "filled": True, "size": 55, "opacity": 1},
        "encoding": {
            "x": {"field": x, **axis},
            "y": {"field": y, "type": "quantitative", "title": _NAMES[ACCURACY], "scale": scale},
            "color": _scale([*kinds], [colour for colour, _ in kinds.values()]),
            "shape": _scale([*kinds], [shape for _, shape in kinds.values()]),
        },
    }


def _scale(names: Sequence[str], marks: Sequence[str]) -> Row:
    return {"field": "kind", "type": "nominal", "scale": {"domain": [*names], "range": [*marks]}}
