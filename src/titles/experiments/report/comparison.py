"""Compares experiments with a baseline, on the test titles that both have.

Legend: N titles, C categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from titles.data.outcomes import Ints, Outcomes
from titles.evaluation.metrics import paired_test
from titles.evaluation.predictions import Predictions
from titles.experiments.report.experiment import Experiment, Inputs
from titles.experiments.store import SPLIT_SEED, canonical, decides_split, differing

# A single title changes the recall of a smaller category by more than 0.05.
LEAST_ROWS = 20
CATEGORIES = 10
TITLES = 12
# In place of a hash, and of a path.
NONE, UNKNOWN = "none", "unknown"
MACHINE = "machine"


class OtherTitles(NamedTuple):
    """How the test titles of an experiment differ from those of the baseline.

    causes: the parameters that differ and decide the split, none if the data differ. common: titles that
    both have; before, after: titles of the baseline and of the experiment.
    """

    causes: Sequence[str]
    common: int
    before: int
    after: int


@dataclass(frozen=True)
class Pair:
    """An experiment against the baseline.

    other: how their test titles differ; None if they are the same or unknown.
    rows: titles that both have; 0 if they are too few or unknown, and then all that follows is empty.
    tests: of each model, `metrics.paired_test` of the experiment against the baseline.
    gained, lost: the categories whose recall rose and fell most: category, rows, recall before and
        after, difference, and titles won and lost.
    repaired, broken: titles that became right and wrong, most confident new answers first: file, line,
        title, category, answers before and after, before_confidence and after_confidence.
    """

    experiment: Experiment
    other: OtherTitles | None
    rows: int
    tests: dict[str, dict[str, float]]
    gained: Sequence[Any] = ()
    lost: Sequence[Any] = ()
    repaired: Sequence[Any] = ()
    broken: Sequence[Any] = ()


def differing_params(experiments: Sequence[Experiment]) -> list[tuple[str, list[Any]]]:
    """Names of the parameters that differ, with a value for each experiment; None if it has none."""
    params = [{name: canonical(value) for name, value in e.params.items()} for e in experiments]
    return list(differing(params).items())


class Difference(NamedTuple):
    """What the stages of runs read that is not the same in all.

    values: of each experiment, the start of its hash, NONE if it has no such input, UNKNOWN without a
    dvc.lock. made: whether a stage made it, so that it follows from other inputs and parameters.
    """

    name: str
    stages: Sequence[str]
    values: Sequence[str]
    made: bool


def differing_inputs(runs: Sequence[Inputs | None]) -> list[Difference]:
    """Code, data and classes of machines that differ between runs; None for one whose inputs are
    unknown."""
    known = [inputs for inputs in runs if inputs]
    found = []
    for path in dict.fromkeys(path for inputs in known for path in inputs.read):
        read = [inputs.read.get(path, {}) if inputs else None for inputs in runs]
        # Stages that ran at different times can have read different contents.
        hashes = [None if r is None else tuple(dict.fromkeys(r.values())) for r in read]
        if len({h for h in hashes if h is not None}) > 1:
            values = [UNKNOWN if h is None else " ".join(x[:7] for x in h) or NONE for h in hashes]
            stages = [*dict.fromkeys(stage for r in read if r for stage in r)]
            found.append(Difference(path, stages, values, any(path in i.made for i in known)))
    for network in dict.fromkeys(network for inputs in known for network in inputs.machines):
        values = [inputs.machines.get(network, UNKNOWN) if inputs else UNKNOWN for inputs in runs]
        if len({*values} - {UNKNOWN}) > 1:
            found.append(Difference(MACHINE, [f"train_{network}"], values, made=False))
    return found


def unexplained(baseline: Experiment, experiment: Experiment) -> bool:
    """Whether results differ, although all parameters, code, data and classes of machines are equal."""
    if not (baseline.inputs and experiment.inputs) or baseline.scores == experiment.scores:
        return False
    found = differing_inputs([baseline.inputs, experiment.inputs])
    return not differing_params([baseline, experiment]) and all(one.made for one in found)


def is_unchanged(baseline: Experiment, pair: Pair, model: str) -> bool:
    """Whether a model has the same scores as in the baseline, and the same titles right."""
    test = pair.tests.get(model, {"only_one": 0, "only_other": 0})
    same = baseline.scores[model] == pair.experiment.scores[model]
    return same and test["only_one"] == test["only_other"] == 0


def splits_alike(baseline: Experiment, pair: Pair) -> bool:
    """Whether the validation titles are the same as in the baseline, as far as can be known."""
    if pair.other or pair.rows:
        return not pair.other
    inputs = differing_inputs([baseline.inputs, pair.experiment.inputs])
    data = [one for one in inputs if "prepare" in one.stages]
    code = [one for one in data if one.name.startswith("src/")]
    return not _deciding(baseline, pair.experiment) and len(data) == len(code)


def compare(baseline: Experiment, experiment: Experiment, model: str) -> Pair:
    """Compare two experiments title by title.

    Titles count if both experiments have them with the same category, and only if such titles are more
    than half of both test splits.

    Args:
        model: the model whose categories and titles are shown.

    Raises:
        ValueError: an experiment lacks this model, or the baseline the parameters of a bootstrap.
    """
    old, new = baseline.predictions, experiment.predictions
    if old is None or new is None:
        return Pair(experiment, None, 0, {})
    for one, found in ((baseline, old), (experiment, new)):
        if model not in found.outcomes:
            raise ValueError(f"{one.name} has no {model}: it has {', '.join(found.outcomes)}")
    rows_old, rows_new = common_rows(old, new)
    common = len(rows_old)
    same = common == len(old) == len(new)
    causes = _deciding(baseline, experiment)
    other = None if same else OtherTitles(causes, common, len(old), len(new))
    if 2 * common <= max(len(old), len(new)):
        return Pair(experiment, other, 0, {})
    labels = sorted({*old.labels, *new.labels})
    before, after = _aligned(old, rows_old, labels), _aligned(new, rows_new, labels)
    samples, seed = (_number(baseline, name) for name in ("evaluate.bootstrap_samples", "seed"))
    tests = {
        name: paired_test(after[name], before[name], samples, seed) for name in before if name in after
    }
    was, now, name_C = before[model], after[model], np.array(labels)
    titles = pd.DataFrame(
        {
            "file": [old.files[row] for row in rows_old],
            "line": old.lines_N[rows_old],
            "title": [old.titles[row] for row in rows_old],
            "category": name_C[was.labels_N],
            "before": name_C[was.predicted_N],
            "before_confidence": was.confidence_N,
            "after": name_C[now.predicted_N],
            "after_confidence": now.confidence_N,
            "won": now.right_N & ~was.right_N,
            "lost": was.right_N & ~now.right_N,
        }
    )
    surest = titles.sort_values("after_confidence", ascending=False, kind="stable")
    changes = _categories(titles.assign(was=was.right_N, now=now.right_N))
    return Pair(
        experiment,
        other,
        common,
        tests,
        gained=[*changes[changes.difference > 0].head(CATEGORIES).itertuples()],
        lost=[*changes[changes.difference < 0][::-1].head(CATEGORIES).itertuples()],
        repaired=[*surest[surest.won].head(TITLES).itertuples()],
        broken=[*surest[surest.lost].head(TITLES).itertuples()],
    )


def _number(experiment: Experiment, name: str) -> int:
    value = experiment.params.get(name)
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} in params.yaml of {experiment.name} is {value!r}, not a whole number")
    return value


def common_rows(one: Predictions, other: Predictions) -> tuple[Ints, Ints]:
    """Positions, in each, of the titles that both have with the same category.

    Titles are the same by their key, however they were read; of equal ones, which a given test split can
    have, the first goes with the first. Files of older versions have no keys: there, titles are the same
    if line and words are.
    """
    has_keys = one.keys_N is not None and other.keys_N is not None
    frames = [_identified(predictions, has_keys) for predictions in (one, other)]
    columns = [name for name in frames[0].columns if name != "row"]
    shared = frames[0].merge(frames[1], on=columns)
    return shared["row_x"].to_numpy(), shared["row_y"].to_numpy()


def _identified(predictions: Predictions, has_keys: bool) -> pd.DataFrame:
    first = next(iter(predictions.outcomes.values()))
    found = pd.DataFrame({"category": np.array(predictions.labels)[first.labels_N]})
    if has_keys:
        found["key"] = predictions.keys_N
    else:
        found["line"], found["title"] = predictions.lines_N, predictions.titles
    found["copy"] = found.groupby(list(found.columns)).cumcount()
    return found.assign(row=np.arange(len(predictions)))


def _deciding(baseline: Experiment, experiment: Experiment) -> list[str]:
    """The parameters that differ and decide which titles are in which split."""
    seed = baseline.params.get(SPLIT_SEED)
    return [n for n, _ in differing_params([baseline, experiment]) if decides_split(n, seed)]


def _aligned(predictions: Predictions, rows: Ints, labels: Sequence[str]) -> dict[str, Outcomes]:
    """The outcomes of each model on the given rows, with categories numbered by `labels`."""
    code_C = np.searchsorted(labels, predictions.labels)

    def aligned(found: Outcomes) -> Outcomes:
        kept = Outcomes(*(values[rows] for values in vars(found).values()))
        return replace(kept, labels_N=code_C[kept.labels_N], predicted_N=code_C[kept.predicted_N])

    return {name: aligned(found) for name, found in predictions.outcomes.items()}


def _categories(titles: pd.DataFrame) -> pd.DataFrame:
    """The change of recall of each category of LEAST_ROWS titles or more, largest gains first."""
    found = titles.groupby("category", as_index=False).agg(
        rows=("now", "size"),
        before=("was", "mean"),
        after=("now", "mean"),
        won=("won", "sum"),
        lost=("lost", "sum"),
    )
    found["difference"] = found.after - found.before
    found = found[found.rows >= LEAST_ROWS]
    return found.sort_values(["difference", "rows"], ascending=False, kind="stable")
