"""The page of a search: one file that needs no network and holds no script."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from titles.data.files import atomic_file
from titles.experiments.report.writing import html_templates
from titles.experiments.search import charts
from titles.experiments.search.confirm import Verdict
from titles.experiments.search.space import SECONDS, Choices, label, shown, shown_value
from titles.experiments.search.study import REASON, Study, settings_of
from titles.texts import ENGLISH, texts

_LEAST_TRIALS = 10  # for an importance of parameters
_BEST_SHARE = 0.25


def write_page(
    study: Study, verdicts: Sequence[Verdict], scores: Mapping[int, Mapping[int, float]], file: Path
) -> None:
    """Write the page.

    Args:
        verdicts: of the candidates, none if nothing was confirmed. scores: by trial and fresh seed.

    Raises:
        ValueError: the file cannot be written.
    """
    environment = html_templates(texts(ENGLISH))  # the page of a search is in English
    environment.filters |= {
        "score": "{:.4f}".format,
        "difference": "{:+.4f}".format,
        "parameter": shown_value,
    }
    trials = [_row(study, trial) for trial in study.trials]
    scored = [row for row in trials if "accuracy" in row]
    text = environment.get_template("search.html").render(
        study=study,
        charts=charts,
        trials=trials,
        scored=scored,
        front=study.front(),
        timed=SECONDS in study.space.objectives,
        importances=importances(study),
        slices=_slices(study, scored),
        verdicts=verdicts,
        scores=scores,
        seeds=list(dict.fromkeys(seed for by_seed in scores.values() for seed in by_seed)),
        winner=winner(verdicts),
        counts={state: sum(row["state"] == state for row in trials) for state in _STATES.values()},
        least={"trials": _LEAST_TRIALS},
    )
    with atomic_file(file) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def winner(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The candidate shown to be better, the best of several; None if there is none."""
    better = [verdict for verdict in verdicts if verdict.better]
    return max(better, key=lambda verdict: verdict.mean or 0, default=None)


def importances(study: Study) -> dict[str, float]:
    """The share of each parameter in what sets the best quarter of trials apart, by PED-ANOVA
    (Watanabe, Bansal and Hutter 2023); empty if trials are too few or too similar to say."""
    varied = {name for trial in study.complete for name in trial.params}
    if len(study.complete) < _LEAST_TRIALS or len(varied) < 2:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=_BEST_SHARE)
    try:
        with warnings.catch_warnings(record=True) as told:  # the page says that few trials say little
            found: dict[str, float] = optuna.importance.get_param_importances(
                study.study, evaluator=evaluator, target=lambda trial: -study.accuracy(trial)
            )
    except (ValueError, RuntimeError):  # of trials that are all alike
        return {}
    alike = any("same set of trials" in str(warning.message) for warning in told)
    return {} if alike or any(value != value for value in found.values()) else found


_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "not ended",
    TrialState.WAITING: "not ended",
}


def _row(study: Study, trial: FrozenTrial) -> dict[str, Any]:
    """What the page shows of a trial: of one that was stopped, the accuracy of its last epoch."""
    row: dict[str, Any] = {
        "number": trial.number,
        "name": study.experiment(trial.number),
        "state": _STATES[trial.state],
        "kind": "params.yaml" if trial.number == 0 else _STATES[trial.state],
        "settings": settings_of(trial),
        "shown": shown(settings_of(trial)),
        "reason": trial.user_attrs.get(REASON, ""),
        "params": trial.params,
    }
    if trial.state == TrialState.COMPLETE:
        row["accuracy"] = study.accuracy(trial)
        if SECONDS in study.space.objectives:
            row["seconds"] = trial.values[study.space.objectives.index(SECONDS)]
    elif trial.state == TrialState.PRUNED and trial.intermediate_values:
        row["accuracy"] = trial.intermediate_values[max(trial.intermediate_values)]
    return row


def _slices(study: Study, scored: Sequence[dict[str, Any]]) -> list[tuple[Any, list[dict[str, Any]]]]:
    """Each parameter that was varied, with the trials that have it."""
    found = []
    for parameter in study.space.parameters:
        having = [row for row in scored if parameter.name in row["params"]]
        if not having:
            continue
        names = {}
        if isinstance(parameter.entry, Choices):
            names = {label(choice): charts.choice_name(choice) for choice in parameter.entry.choices}
        values = (row["params"][parameter.name] for row in having)
        rows = [
            {key: row[key] for key in ("number", "kind", "accuracy")}
            | {"value": names.get(value, value)}
            for row, value in zip(having, values, strict=True)
        ]
        found.append((parameter, rows))
    return found
