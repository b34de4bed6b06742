"""Charts as SVG, drawn with Vega-Lite; the page needs neither scripts nor a network.

Colours are variables of the page's style sheet, which has light and dark ones; shapes and dashes tell
the same. Text takes the page's colour.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from titles.experiments.report.answer import (
    BETTER,
    SAME,
    UNSURE,
    VERDICTS,
    WORSE,
    full_name,
    verdict,
)
from titles.experiments.report.comparison import Pair, is_unchanged
from titles.experiments.report.experiment import Experiment
from titles.texts import Texts

_COLOURS = ["currentColor", *(f"var(--series-{number})" for number in range(1, 6))]
_SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right"]
_TAG = re.compile(r'<\w+(?:[^<>"]|"[^"]*")*>')
_DESCRIPTION = re.compile(r' (?:role|aria-[a-z]+)="[^"]*"')
_STYLE = Path(__file__).parent / "templates/charts.json"


# More lines than this in one chart are drawn as small multiples.
MOST_LINES = 6
_ROWS = 20  # height of a row, pixels
_WIDTH = 480  # of a chart with its labels, which the page enlarges a little
_LETTER = 6.6  # mean width of a letter, pixels
_LONGEST = 40  # letters of a name
_LONGEST_SMALL = 28
_TICKS = 8  # of the epochs
_MARKS = {
    BETTER: ("var(--better)", "triangle-up"),
    WORSE: ("var(--worse)", "triangle-down"),
    UNSURE: ("var(--soft)", "circle"),
    SAME: ("var(--soft)", "circle"),
}


def labels(names: Sequence[str], longest: int = _LONGEST) -> dict[str, str]:
    """A name for a chart of each name: the middle of long ones is left out, and all are different.

    longest: in letters.
    """
    found: dict[str, str] = {}
    for name in names:
        short = name if len(name) <= longest else _without_middle(name, longest)
        for number in range(2, len(names) + 1):
            if short not in found.values():
                break
            end = f" ({number})"
            short = _without_middle(name, longest - len(end)) + end
        found[name] = short
    return found


def _without_middle(name: str, letters: int) -> str:
    return f"{name[: letters // 2]}…{name[letters // 2 + 1 - letters :]}"


def differences(
    baseline: Experiment, pairs: Sequence[Pair], models: Sequence[str], say: Texts
) -> Markup:
    """Balanced accuracy of each model minus that of the baseline, with the 95 % interval of the paired
    test; without models that did not change. Empty if there is nothing to draw."""
    named = labels([pair.experiment.name for pair in pairs])
    values = [
        {
            "experiment": named[pair.experiment.name],
            "model": full_name(model, say),
            "value": test["difference"],
            "low": test["difference_low"],
            "high": test["difference_high"],
            "verdict": say(VERDICTS[verdict(test)]),
        }
        for model in models
        for pair in pairs
        if (test := pair.tests.get(model)) and not is_unchanged(baseline, pair, model)
    ]
    if not values:
        return Markup()
    told = {say(VERDICTS[kind]): marks for kind, marks in _MARKS.items()}
    kinds = [kind for kind in told if any(row["verdict"] == kind for row in values)]

    def scale(place: int) -> dict[str, Any]:
        chosen = [told[kind][place] for kind in kinds]
        return {"field": "verdict", "type": "nominal", "scale": {"domain": kinds, "range": chosen}}

    zero = {
        "mark": {"type": "rule", "color": "currentColor", "strokeDash": [3, 3]},
        "encoding": {"x": {"datum": 0, "type": "quantitative"}, "y": None},
    }
    bar, point = _bar_and_point("value", "low", "high")
    for layer in (bar, point):
        layer["encoding"]["color"] = scale(0)
    point["encoding"]["shape"] = scale(1)
    title = say("report.minus_axis", name=labels([baseline.name])[baseline.name])
    return _rows_by_model([zero, bar, point], values, title)


def scores(
    experiments: Sequence[Experiment], pairs: Sequence[Pair], models: Sequence[str], say: Texts
) -> Markup:
    """Balanced accuracy of each model and experiment: on validation, and on the test split with its 95 %
    interval; without models that are as in the first experiment."""
    named = labels([experiment.name for experiment in experiments])
    values = [
        {
            "experiment": named[experiment.name],
            "model": full_name(model, say),
            "test": experiment.scores[model]["balanced_accuracy"],
            "low": experiment.scores[model]["balanced_accuracy_low"],
            "high": experiment.scores[model]["balanced_accuracy_high"],
            "validation": experiment.validation(model),
        }
        for model in models
        for experiment in shown(experiments, pairs, model)
    ]
    bar, point = _bar_and_point("test", "low", "high")
    splits = [say("splits.test"), say("splits.validation")]
    colours = {"domain": splits, "range": ["var(--series-1)", "var(--series-2)"]}
    shapes = {"domain": splits, "range": ["circle", "diamond"]}
    color, shape = ({"type": "nominal", "scale": scale} for scale in (colours, shapes))
    bar["encoding"]["color"] = {"datum": splits[0], **color}
    point["encoding"] |= {"color": {"datum": splits[0], **color}, "shape": {"datum": splits[0], **shape}}
    chosen = {
        "transform": [{"filter": "isValid(datum.validation)"}],
        "mark": {"type": "point", "filled": False, "size": 70, "strokeWidth": 2, "opacity": 1},
        "encoding": {
            "x": {"field": "validation", "type": "quantitative", **_FREE},
            "shape": {"datum": splits[1], **shape},
            "color": {"datum": splits[1], **color},
        },
    }
    layers = [bar, point]
    if any(row["validation"] is not None for row in values):
        layers.append(chosen)
    return _rows_by_model(layers, values, say("report.accuracy_axis"))


def shown(experiments: Sequence[Experiment], pairs: Sequence[Pair], model: str) -> list[Experiment]:
    """The first experiment, and those of which a model is not the same."""
    changed = [pair.experiment for pair in pairs if not is_unchanged(experiments[0], pair, model)]
    return [experiments[0], *changed] if changed or not pairs else []


_FREE: dict[str, Any] = {"scale": {"zero": False, "nice": True}}


def _bar_and_point(value: str, low: str, high: str) -> tuple[dict[str, Any], dict[str, Any]]:
    bar = {
        "mark": {"type": "rule", "strokeWidth": 2},
        "encoding": {"x": {"field": low, "type": "quantitative", **_FREE}, "x2": {"field": high}},
    }
    point = {
        "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
        "encoding": {"x": {"field": value, "type": "quantitative", **_FREE}},
    }
    return bar, point


def _rows_by_model(layers: list[dict[str, Any]], values: list[dict[str, Any]], title: str) -> Markup:
    """Draw layers over a row for each experiment, in a part for each model."""
    if not values:
        return Markup()
    for layer in layers:
        layer["encoding"]["x"] |= {"title": title, "axis": {"tickCount": 5}}
    longest = max(len(row["experiment"]) for row in values)
    header: dict[str, Any] = {"title": None, "labelOrient": "top", "labelAnchor": "start"}
    header |= {"labelColor": "currentColor", "labelFontSize": 12, "labelFontWeight": "bold"}
    y: dict[str, Any] = {"field": "experiment", "type": "nominal", "sort": None, "title": None}
    y["axis"] = {"labelLimit": 0, "labelPadding": 8, "ticks": False, "domain": False, "grid": True}
    part = {
        "width": max(200, _WIDTH - int(_LETTER * longest)),
        "height": {"step": _ROWS},
        "encoding": {"y": y},
        "layer": layers,
    }
    models = [*dict.fromkeys(row["model"] for row in values)]
    row = {"field": "model", "type": "nominal", "sort": models, "header": header}
    spec = {"data": {"values": values}, "facet": {"row": row}, "spec": part, "spacing": 14}
    return svg(spec | {"resolve": {"scale": {"y": "independent"}}})


def curves(
    experiments: Sequence[Experiment], network: str, measure: str, splits: Sequence[str], say: Texts
) -> Markup:
    """A measure of a network by epoch, on one or two splits, of the experiments that have curves.

    measure: balanced_accuracy or loss.

    Up to MOST_LINES experiments are in one chart, each with a colour and a shape. More have a small
    chart each, with the first experiment in grey behind.
    """
    drawn = [experiment for experiment in experiments if network in experiment.curves]
    longest = _LONGEST if len(drawn) <= MOST_LINES else _LONGEST_SMALL
    named = labels([experiment.name for experiment in drawn], longest)

    def points(experiment: Experiment, **more: Any) -> list[dict[str, Any]]:
        return [
            {
                "experiment": named[experiment.name],
                "split": say.named("splits", split),
                "epoch": epoch,
                "value": value,
                **more,
            }
            for split in splits
            for epoch, value in experiment.curves[network][f"{split}/{measure}"]
        ]

    last = max(
        (epoch for one in drawn for epoch, _ in one.curves[network][f"{splits[0]}/{measure}"]), default=1
    )
    step = -(-last // _TICKS)
    x: dict[str, Any] = {
        "axis": {"values": [*range(step, last + 1, step)], "format": "d", "grid": False}
    }
    x["title"] = say("report.epoch_axis")
    x |= {"scale": {"zero": False, "nice": False, "padding": 8}}
    title = say("report.loss_axis" if measure == "loss" else "report.accuracy_axis")
    encoding: dict[str, Any] = {
        "x": {"field": "epoch", "type": "quantitative", **x},
        "y": {"field": "value", "type": "quantitative", **_FREE, "title": title},
    }
    dashes = {}
    if len(splits) > 1:
        legend = {"symbolType": "stroke", "symbolStrokeColor": "currentColor", "symbolSize": 144}
        names = [say.named("splits", split) for split in splits]
        scale = {"domain": names, "range": [[1, 0], [4, 3]]}
        dashes = {"strokeDash": {"field": "split", "type": "nominal", "scale": scale, "legend": legend}}
    line = {"type": "line", "strokeWidth": 2}
    if len(drawn) > MOST_LINES:
        first, *others = drawn
        values = [
            row | {"experiment": named[other.name], "line": kind}
            for other in others
            for kind, one in (("first", first), ("own", other))
            for row in points(one)
        ]
        grey = {"mark": {**line, "color": "currentColor", "opacity": 0.4}, "encoding": dict(dashes)}
        own = {"mark": {**line, "color": "var(--series-1)"}, "encoding": dict(dashes)}
        for layer, kind in ((grey, "first"), (own, "own")):
            layer["transform"] = [{"filter": {"field": "line", "equal": kind}}]
        part = {"width": 190, "height": 80, "encoding": encoding, "layer": [grey, own]}
        header = {"title": None, "labelColor": "currentColor", "labelFontSize": 12, "labelLimit": 0}
        order = [named[other.name] for other in others]
        facet = {"field": "experiment", "type": "nominal", "sort": order, "header": header}
        encoding["y"]["title"] = None
        return svg(
            {"data": {"values": values}, "facet": facet, "columns": 2, "spec": part, "spacing": 14}
        )

    def marks(chosen: Sequence[str]) -> dict[str, Any]:
        own = [chosen[number % len(chosen)] for number in range(len(drawn))]
        scale = {"domain": [*named.values()], "range": own}
        return {"field": "experiment", "type": "nominal", "scale": scale}

    encoding["color"] = marks(_COLOURS)
    point = {"type": "point", "filled": True, "size": 45, "opacity": 1}
    return svg(
        {
            "data": {"values": [row for one in drawn for row in points(one)]},
            "width": 400,
            "height": 220,
            "encoding": encoding,
            "layer": [
                {"mark": line, "encoding": dashes},
                {"mark": point, "encoding": {"shape": marks(_SHAPES)}},
            ],
        }
    )


def svg(spec: dict[str, Any]) -> Markup:
    """Draw a chart of Vega-Lite in the style of the pages."""
    import vl_convert

    spec = {**spec, "config": json.loads(_STYLE.read_text(encoding="utf-8"))}
    drawn = vl_convert.vegalite_to_svg(spec, vl_version="6.4", allowed_base_urls=[])
    # Vega describes parts in English. The page describes the whole, an image to a screen reader.
    drawn = _TAG.sub(lambda tag: _DESCRIPTION.sub("", tag[0]), drawn)
    return Markup(drawn)  # noqa: S704, made of our own tables, with names escaped
