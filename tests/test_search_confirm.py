"""The decision of a search whether its best is better."""

from __future__ import annotations

import numpy as np
import pytest

from titles.experiments.search.confirm import candidates, fresh_seeds, verdicts
from titles.experiments.search.page import winner


def one_search(
    random: np.random.Generator, trials: int, few: int, seeds: int, effect: float, rows: int | None
) -> tuple[bool, bool]:
    """A search whose trials differ by the seed, and by `effect` (in deviations of a seed) in one of
    them: whether a win is claimed, and whether for that one. Scores are shares of `rows` titles, if
    given."""

    def scored(mean: float, size: int) -> list[float]:
        scores = random.normal(0.8 + 0.01 * mean, 0.01, size)
        return list(np.round(scores * rows) / rows if rows else scores)

    true = {number: effect * (number == 7) for number in range(trials)}
    searched = {number: scored(mean, 1)[0] for number, mean in true.items()}
    chosen = candidates(searched, 0, few)
    drawn = fresh_seeds(str(random.random()), seeds, 2019)
    again = {n: dict(zip(drawn, scored(true[n], seeds), strict=True)) for n in (0, *chosen)}
    found = verdicts(
        again[0],
        {n: again[n] for n in chosen},
        {n: searched[n] - searched[0] for n in chosen},
        drawn,
    )
    best = winner(found)
    return best is not None, best is not None and best.trial == 7


def claimed_in_looks(random: np.random.Generator, plan: list[tuple[int, int]]) -> bool:
    """Whether a search whose trials differ by the seed only claims a win in any of several looks.

    plan: trials and seeds of each look.
    """
    searched = dict(enumerate(random.normal(0, 1, 100)))
    again = random.normal(0, 1, (100, 40))
    looks: list[object] = []
    for trials, seeds in plan:
        chosen = candidates({n: searched[n] for n in range(trials)}, 0, 3)
        if not chosen:
            continue
        if (this := (chosen, seeds)) not in looks:
            looks.append(this)
        scores = {n: dict(enumerate(again[n, :seeds])) for n in (0, *chosen)}
        tried = {n: scores[n] for n in chosen}
        found = verdicts(
            scores[0], tried, dict.fromkeys(chosen, 0.0), range(seeds), looks.index(this) + 1
        )
        if winner(found):
            return True
    return False


@pytest.mark.parametrize(
    "plan",
    [
        [(30, 5), (30, 10), (30, 20), (30, 40)],
        [(12, 5), (30, 5), (60, 5), (100, 5)],
        [(12, 5), (30, 10), (60, 20), (100, 40)],
    ],
)
def test_a_win_is_rarely_claimed_however_often_one_looks(plan: list[tuple[int, int]]) -> None:
    random = np.random.default_rng(5)
    claims = sum(claimed_in_looks(random, plan) for _ in range(1000))
    assert claims <= 50  # 5 %, at a nominal 2.5 %


@pytest.mark.parametrize("rows", [None, 300])
@pytest.mark.parametrize(("few", "seeds"), [(1, 5), (3, 5), (3, 3), (5, 10)])
def test_a_win_is_rarely_claimed_where_trials_differ_by_the_seed_alone(
    few: int, seeds: int, rows: int | None
) -> None:
    random = np.random.default_rng(few * seeds)
    claims = sum(one_search(random, 30, few, seeds, 0, rows)[0] for _ in range(1000))
    assert claims <= 50  # 5 %, at a nominal 2.5 %


def test_without_fresh_seeds_a_win_would_be_claimed_ten_times_as_often() -> None:
    """The winner of 30 lies far above a baseline that it equals."""
    random = np.random.default_rng(1)
    drawn = random.normal(0, 1, (1000, 30))
    assert np.mean(drawn.max(axis=1) - drawn[:, 0] > 1.96 * np.sqrt(2)) > 0.2


def test_a_true_effect_is_found() -> None:
    random = np.random.default_rng(3)
    found = [one_search(random, 30, 3, 5, 6, None) for _ in range(300)]
    assert sum(right for _, right in found) > 240
    assert sum(claimed and not right for claimed, right in found) <= 15


def test_differences_are_paired_by_seed() -> None:
    """Seeds differ by much more than the candidate and the baseline with the same seed."""
    base = {1: 0.5, 2: 0.7, 3: 0.9}
    (found,) = verdicts(base, {4: {1: 0.51, 2: 0.711, 3: 0.912}}, {4: 0.05}, [1, 2, 3])
    assert found.better
    assert found.mean == pytest.approx(0.011)
    # The first look has 80 % of 2.5 %. scipy.stats.ttest_1samp([...]).confidence_interval(0.96)
    assert (found.low, found.high) == pytest.approx((0.00820058, 0.01379942), abs=1e-7)
    assert "over 3 seeds; in the search" in found.told
    assert "0.0390 less than it looked" in found.told


def test_the_interval_is_wider_for_each_of_several() -> None:
    base = {1: 0.5, 2: 0.7, 3: 0.9}
    one = {1: 0.51, 2: 0.711, 3: 0.912}
    (single,) = verdicts(base, {4: one}, {4: 0}, [1, 2, 3])
    first, second = verdicts(base, {4: one, 5: one}, {4: 0, 5: 0}, [1, 2, 3])
    assert first.low == second.low < single.low
    later = [verdicts(base, {4: one}, {4: 0}, [1, 2, 3], look)[0] for look in (2, 3, 4)]
    lows = [found.low for found in (single, *later) if found.low is not None]
    assert len(lows) == 4
    assert lows == sorted(lows, reverse=True)
    assert "over 3 seeds, look 2; in the search" in later[0].told


@pytest.mark.parametrize(
    ("base", "score", "told"),
    [
        ({1: 0.5, 2: 0.5, 3: 0.5}, {1: 0.6, 2: 0.6, 3: 0.6}, "all seeds gave the same difference"),
        ({1: 0.5, 2: 0.6, 3: 0.7}, {1: 0.6, 2: 0.71}, "it failed with 1 of 3 seeds"),
        ({1: 0.5, 2: 0.6}, {1: 0.6, 2: 0.71, 3: 0.8}, "2 pairs of seeds are too few"),
        ({}, {}, "it failed with 3 of 3 seeds"),
    ],
)
def test_no_win_is_claimed_without_an_interval(
    base: dict[int, float], score: dict[int, float], told: str
) -> None:
    (found,) = verdicts(base, {4: score}, {4: 0.1}, [1, 2, 3])
    assert not found.better
    assert told in found.told


def test_equal_scores_are_no_win() -> None:
    same_scores = {1: 0.5, 2: 0.6, 3: 0.7}
    (found,) = verdicts(same_scores, {4: dict(same_scores)}, {4: 0.0}, [1, 2, 3])
    assert (found.mean, found.low, found.high, found.better) == (0, 0, 0, False)


def test_only_trials_above_the_default_are_candidates() -> None:
    assert candidates({0: 0.5, 1: 0.7, 2: 0.5, 3: 0.7, 4: 0.6}, 0, 3) == [1, 3, 4]
    assert candidates({0: 0.9, 1: 0.7}, 0, 3) == []


def test_fresh_seeds_are_the_same_again_and_none_was_used() -> None:
    first = fresh_seeds("a", 5, 2019)
    assert fresh_seeds("a", 5, 2019) == first
    assert fresh_seeds("a", 8, 2019)[:5] == first  # more seeds keep those that have run
    assert fresh_seeds("b", 5, 2019) != first
    assert first[0] not in fresh_seeds("a", 5, first[0])
    assert len(set(first)) == 5
