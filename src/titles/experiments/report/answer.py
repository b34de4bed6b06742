"""The sentence that a report opens with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from titles.experiments.report.comparison import Pair, splits_alike
from titles.experiments.report.experiment import Experiment
from titles.models.registry import AVERAGE

SAME = "the same"
UNSURE = "not distinguishable"
_SURE = ("better", "worse")


class Answer(NamedTuple):
    """lead: one sentence. details: those that follow it."""

    lead: str
    details: str

    def __str__(self) -> str:
        return f"{self.lead} {self.details}".strip()


def verdict(test: Mapping[str, float]) -> str:
    """Result of a paired test: `better` and `worse` only if its interval excludes 0."""
    if test["only_one"] == test["only_other"] == 0:
        return SAME
    if test["difference_low"] <= 0 <= test["difference_high"]:
        return UNSURE
    return "better" if test["difference"] > 0 else "worse"


def full_name(model: str) -> str:
    """The name of a model as a report shows it."""
    return "Average" if model == AVERAGE else model.upper()


def of_model(model: str) -> str:
    """The model within a sentence."""
    return "the average of all networks" if model == AVERAGE else f"the {model.upper()}"


def answer(experiments: Sequence[Experiment], pairs: Sequence[Pair], model: str) -> Answer:
    """Whether an experiment is better than the first, by one model.

    Of several experiments, one is chosen on validation, and the test split says whether it is better:
    the best of many on test would owe a part of its score to chance.
    """
    baseline = experiments[0]
    if not pairs:
        return _of_one(baseline, model)
    if len(pairs) == 1:
        (pair,) = pairs
        told = _validation(baseline, pair, model)
        return Answer(
            f"{_against(baseline, pair, model)}.", " ".join([_basis(pair, model), *told]).strip()
        )
    counts = Counter(verdict(p.tests[model]) if model in p.tests else "not compared" for p in pairs)
    order = (*_SURE, UNSURE, SAME, "not compared")
    of_all = "; ".join(f"{counts[name]} {name}" for name in order if counts[name])
    told = [f"All {len(pairs)} on the test split, against {baseline.name}: {of_all}."]
    before = baseline.validation(model)
    alike = [pair for pair in pairs if splits_alike(baseline, pair)]
    scored = [(value, p) for p in alike if (value := p.experiment.validation(model)) is not None]
    if before is None or not scored:
        lead = (
            f"No experiment can be chosen on validation: {baseline.name} and others have no common score"
        )
        return Answer(f"{lead}.", " ".join(told))
    if left := len(pairs) - len(scored):
        told.append(f"{left} could not be chosen: other validation titles, or no score on them.")
    best, chosen = max(scored, key=lambda one: one[0])
    if best <= before:
        lead = f"None scores higher than {baseline.name} on validation, on which the choice is made"
        told.insert(0, f"{_capital(of_model(model))}: {before:.3f} against {best:.3f} at most.")
        return Answer(f"{lead}.", " ".join(told))
    lead = f"{chosen.experiment.name} scores highest on validation; on the test split, "
    lead += _against(baseline, chosen, model, "it")
    return Answer(
        f"{lead}.", " ".join([_basis(chosen, model), *_validation(baseline, chosen, model), *told])
    )


def _of_one(experiment: Experiment, model: str) -> Answer:
    score = experiment.scores[model]
    low, high = score["balanced_accuracy_low"], score["balanced_accuracy_high"]
    reached = f"{score['balanced_accuracy']:.3f} on the test split"
    lead = f"{experiment.name} has a balanced accuracy of {reached}."
    told = f"95 % interval {low:.3f} to {high:.3f}, {of_model(model)}."
    return Answer(lead, f"{told} Only one experiment: name another to compare it with.")


def _against(baseline: Experiment, pair: Pair, model: str, name: str = "") -> str:
    name, other = name or pair.experiment.name, baseline.name
    if model not in pair.tests:
        why = "predictions are missing" if lacks_predictions(baseline, pair) else "other test titles"
        return f"{name} cannot be compared with {other}: {why}"
    test = pair.tests[model]
    found = verdict(test)
    if found == SAME:
        return f"{name} is the same as {other}: each title that one has right, the other has too"
    if found == UNSURE:
        by, low, high = signed(test)
        return f"{name} is not distinguishable from {other}: {by} (95 % interval {low} to {high})"
    ends = sorted(abs(test[name]) for name in ("difference_low", "difference_high"))
    by, low, high = digits(abs(test["difference"]), *ends)
    return f"{name} is {found} than {other} by {by} (95 % interval {low} to {high})"


def lacks_predictions(baseline: Experiment, pair: Pair) -> bool:
    return baseline.predictions is None or pair.experiment.predictions is None


def _basis(pair: Pair, model: str) -> str:
    if model not in pair.tests:
        return ""
    return f"Balanced accuracy of {of_model(model)} on {pair.rows:,} test titles."


def _validation(baseline: Experiment, pair: Pair, model: str) -> list[str]:
    before, after = baseline.validation(model), pair.experiment.validation(model)
    if before is None or after is None or not splits_alike(baseline, pair):
        return []
    return [f"On validation: {after:.3f}, {baseline.name} {before:.3f}."]


def signed(test: Mapping[str, float]) -> list[str]:
    """The difference of a paired test and the ends of its interval, with signs."""
    return digits(
        *(test[name] for name in ("difference", "difference_low", "difference_high")), sign="+"
    )


def digits(*values: float, sign: str = "") -> list[str]:
    """Values with three digits, or as many as keep each from looking like 0 that is not, six at most."""
    least = next((n for n in (3, 4, 5) if all(round(v, n) for v in values if v)), 6)
    return [f"{value:{sign}z.{least}f}" for value in values]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
