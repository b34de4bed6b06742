"""The sentence that a report opens with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from titles.experiments.report.comparison import Pair, splits_alike
from titles.experiments.report.experiment import Experiment
from titles.models.registry import AVERAGE
from titles.texts import Texts

# Verdicts, and the keys of their texts.
BETTER, WORSE, UNSURE, SAME, NOT_COMPARED = "better", "worse", "unsure", "same", "not_compared"
VERDICTS = {
    BETTER: "verdicts.better",
    WORSE: "verdicts.worse",
    UNSURE: "verdicts.unsure",
    SAME: "verdicts.same",
    NOT_COMPARED: "verdicts.not_compared",
}


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
    return BETTER if test["difference"] > 0 else WORSE


def full_name(model: str, say: Texts) -> str:
    """The name of a model as a report shows it."""
    return say("words.average") if model == AVERAGE else model.upper()


def the_model(model: str, say: Texts) -> str:
    """The model within a sentence."""
    return say("answer.average") if model == AVERAGE else say("answer.network", model=model.upper())


def of_model(model: str, say: Texts) -> str:
    """The same with "of" before it, which some languages join with the article."""
    return (
        say("answer.of_average") if model == AVERAGE else say("answer.of_network", model=model.upper())
    )


def other_titles(baseline: Experiment, pair: Pair, say: Texts) -> str:
    """How the test titles of a pair differ; empty if they do not, as far as is known."""
    if not pair.other:
        return ""
    causes, common, before, after = pair.other
    named = say("report.params_differ", names=", ".join(causes))
    return say(
        "report.titles_differ",
        name=pair.experiment.name,
        other=baseline.name,
        why=named if causes else say("report.data_differ"),
        common=f"{common:,}",
        before=f"{before:,}",
        after=f"{after:,}",
    )


def answer(experiments: Sequence[Experiment], pairs: Sequence[Pair], model: str, say: Texts) -> Answer:
    """Whether an experiment is better than the first, by one model.

    Of several experiments, one is chosen on validation, and the test split says whether it is better:
    the best of many on test would owe a part of its score to chance.
    """
    baseline = experiments[0]
    if not pairs:
        return _of_one(baseline, model, say)
    if len(pairs) == 1:
        (pair,) = pairs
        lead = f"{_against(baseline, pair, model, pair.experiment.name, say)}."
        return Answer(lead, " ".join(_figures(baseline, pair, model, say)))
    counts = Counter(verdict(p.tests[model]) if model in p.tests else NOT_COMPARED for p in pairs)
    of_all = "; ".join(
        say("answer.counted", count=counts[kind], verdict=say(key))
        for kind, key in VERDICTS.items()
        if counts[kind]
    )
    told = [say("answer.all", count=len(pairs), name=baseline.name, verdicts=of_all)]
    before = baseline.validation(model)
    alike = [pair for pair in pairs if splits_alike(baseline, pair)]
    scored = [(value, p) for p in alike if (value := p.experiment.validation(model)) is not None]
    if before is None or not scored:
        return Answer(say("answer.no_choice", name=baseline.name), " ".join(told))
    if left := len(pairs) - len(scored):
        told.append(say("answer.left_out", count=left))
    best, chosen = max(scored, key=lambda one: one[0])
    if best <= before:
        fields = {"before": f"{before:.3f}", "best": f"{best:.3f}"}
        told.insert(0, say("answer.at_most", model=_capital(the_model(model, say)), **fields))
        return Answer(say("answer.none_higher", name=baseline.name), " ".join(told))
    found = _against(baseline, chosen, model, say("answer.it"), say)
    lead = say("answer.highest", name=chosen.experiment.name, verdict=found)
    return Answer(lead, " ".join([*_figures(baseline, chosen, model, say), *told]))


def _of_one(experiment: Experiment, model: str, say: Texts) -> Answer:
    score = experiment.scores[model]
    low, high = (f"{score[f'balanced_accuracy_{end}']:.3f}" for end in ("low", "high"))
    return Answer(
        say("answer.one", name=experiment.name, score=f"{score['balanced_accuracy']:.3f}"),
        say("answer.one_details", low=low, high=high, model=the_model(model, say)),
    )


def _against(baseline: Experiment, pair: Pair, model: str, name: str, say: Texts) -> str:
    names = {"name": name, "other": baseline.name}
    if model not in pair.tests:
        if lacks_predictions(baseline, pair):
            return say("answer.no_predictions", **names)
        return say("answer.other_titles", **names)
    test = pair.tests[model]
    found = verdict(test)
    if found == SAME:
        return say("answer.same", **names)
    if found == UNSURE:
        by, low, high = signed(test)
        return say("answer.unsure", by=by, low=low, high=high, **names)
    ends = sorted(abs(test[name]) for name in ("difference_low", "difference_high"))
    by, low, high = digits(abs(test["difference"]), *ends)
    key = "answer.better" if found == BETTER else "answer.worse"
    return say(key, by=by, low=low, high=high, **names)


def lacks_predictions(baseline: Experiment, pair: Pair) -> bool:
    return baseline.predictions is None or pair.experiment.predictions is None


def _figures(baseline: Experiment, pair: Pair, model: str, say: Texts) -> list[str]:
    """Sentences: of how many titles a test is, and the scores on validation."""
    told = []
    if model in pair.tests:
        told.append(say("answer.basis", of_model=of_model(model, say), rows=f"{pair.rows:,}"))
    before, after = baseline.validation(model), pair.experiment.validation(model)
    if before is not None and after is not None and splits_alike(baseline, pair):
        fields = {"before": f"{before:.3f}", "after": f"{after:.3f}"}
        told.append(say("answer.validation", other=baseline.name, **fields))
    return told


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
