"""Whether an experiment is surely worse than another, for a check that runs without people."""

from __future__ import annotations

from typing import NamedTuple

from titles.experiments.report.answer import other_titles
from titles.experiments.report.comparison import compare
from titles.experiments.report.experiment import load
from titles.models.registry import AVERAGE
from titles.texts import ENGLISH, texts


class Check(NamedTuple):
    """Balanced accuracy of a model, candidate minus baseline on the same titles; 95 % interval."""

    model: str
    difference: float
    low: float
    high: float
    within: float

    @property
    def is_worse(self) -> bool:
        """Whether all of the interval lies below the margin."""
        return self.high < -self.within

    def __str__(self) -> str:
        interval = f"95 % from {self.low:z.4f} to {self.high:z.4f}"
        verdict = "WORSE" if self.is_worse else "ok"
        return f"{verdict} {self.model}: {self.difference:z.4f} ({interval}), margin {self.within:g}"


def gate(baseline: str, candidate: str, within: float) -> tuple[list[Check], str]:
    """A check of each network of the baseline and of the average, by `metrics.paired_test`.

    Args:
        baseline, candidate: names of experiments, revisions or the workspace.
        within: a difference of balanced accuracy that may be lost.

    Returns:
        The checks, and a note if not all test titles are in both.

    Raises:
        ValueError: one cannot be read, the candidate lacks a network of the baseline, or too few test
            titles are in both.
    """
    say = texts(ENGLISH)
    old, new = load(baseline), load(candidate)
    if lacking := [one.notes[-1] for one in (old, new) if one.predictions is None]:
        raise ValueError("; ".join(lacking))
    pair = compare(old, new, AVERAGE)
    if not pair.rows:
        raise ValueError(f"too few test titles are in both: {other_titles(old, pair, say)}")
    if missing := [model for model in old.scores if model not in pair.tests]:
        raise ValueError(f"{candidate} has no predictions of {', '.join(missing)}")
    checks = [
        Check(model, test["difference"], test["difference_low"], test["difference_high"], within)
        for model, test in pair.tests.items()
    ]
    return checks, other_titles(old, pair, say)
