import tracemalloc

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk

from titles.evaluation.metrics import (
    Outcomes,
    abstention,
    balanced_accuracy,
    bootstrap_interval,
    calibration,
    confused_pairs,
    coverage,
    macro_f1,
    paired_test,
    per_category,
    summary,
    threshold,
    wilson_low,
)

C = 7


def draw(seed, count=300, right=0.5):
    """Labels of categories 0 to 4, predictions that also give 5; 6 is in neither."""
    random = np.random.default_rng(seed)
    labels_N = random.choice(5, count, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    predicted_N = np.where(random.random(count) < right, labels_N, random.integers(0, 6, count))
    return labels_N, predicted_N


def outcomes(labels_N, predicted_N):
    blank = np.zeros(len(labels_N))
    return Outcomes(labels_N, predicted_N, blank, (predicted_N != labels_N).astype(np.int64), blank)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("seed", [1, 2])
def test_measures_agree_with_scikit_learn_also_where_categories_are_absent(seed):
    labels_N, predicted_N = draw(seed)
    assert balanced_accuracy(labels_N, predicted_N == labels_N) == pytest.approx(
        sk.balanced_accuracy_score(labels_N, predicted_N)
    )
    assert macro_f1(labels_N, predicted_N) == pytest.approx(
        sk.f1_score(labels_N, predicted_N, average="macro")
    )
    table = per_category(labels_N, predicted_N, C)
    precision, recall, f1, rows = sk.precision_recall_fscore_support(
        labels_N, predicted_N, labels=range(C), zero_division=0
    )
    confusion = sk.confusion_matrix(labels_N, predicted_N, labels=range(C))
    np.testing.assert_allclose(table.precision, precision)
    np.testing.assert_allclose(table.recall, recall)
    np.testing.assert_allclose(table.f1, f1)
    assert table.rows.tolist() == rows.tolist()
    np.testing.assert_allclose(table.recall * rows, confusion.diagonal())
    assert table.given.tolist() == confusion.sum(0).tolist()
    assert table.given[5] > 0 == table.rows[5] == table.rows[6]


def test_an_absent_category_changes_no_average():
    labels_N, predicted_N = draw(3)
    gap = 10 * labels_N, 10 * predicted_N  # categories 0, 10, 20 and so on
    right_N = labels_N == predicted_N
    assert balanced_accuracy(gap[0], right_N) == balanced_accuracy(labels_N, right_N)
    assert macro_f1(*gap) == macro_f1(labels_N, predicted_N)
    assert bootstrap_interval(gap[0], right_N.astype(np.int8), 500, 1) == bootstrap_interval(
        labels_N, right_N.astype(np.int8), 500, 1
    )


def test_the_interval_covers_the_truth_in_about_95_of_100_experiments():
    random = np.random.default_rng(5)
    chances_C, rows_C = np.array([0.55, 0.7, 0.9]), [60, 90, 130]
    labels_N = np.repeat(range(3), rows_C)
    covered = []
    for seed in range(600):
        right_N = random.random(len(labels_N)) < chances_C[labels_N]
        low, high = bootstrap_interval(labels_N, right_N.astype(np.int8), 400, seed)
        covered.append(low <= chances_C.mean() <= high)
    assert 0.92 < np.mean(covered) < 0.975


def test_the_interval_is_as_honest_where_categories_have_one_or_two_titles():
    random = np.random.default_rng(6)
    rows_C = np.repeat([1, 2], 60)
    chances_C = np.tile([0.5, 0.7, 0.9], 40)
    labels_N = np.repeat(range(120), rows_C)
    covered = []
    for seed in range(400):
        right_N = random.random(len(labels_N)) < chances_C[labels_N]
        low, high = bootstrap_interval(labels_N, right_N.astype(np.int8), 400, seed)
        covered.append(low <= chances_C.mean() <= high)
    assert 0.92 < np.mean(covered) < 0.99


def test_the_interval_of_small_categories_has_the_width_that_their_spread_asks_for():
    # 400 categories of two titles, one of them right: the spread of such a mean is 1/4, over n - 1 = 1.
    labels_N, right_N = np.repeat(np.arange(400), 2), np.tile([True, False], 400)
    low, high = bootstrap_interval(labels_N, right_N.astype(np.int8), 4000, 1)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(1 / 4 / 400), rel=0.05)
    assert (low + high) / 2 == pytest.approx(0.5, abs=0.005)


def test_samples_are_drawn_in_blocks_which_change_no_digit(monkeypatch):
    labels_N = np.repeat(np.arange(300), 4)
    score_N = np.random.default_rng(1).integers(-1, 2, len(labels_N)).astype(np.int8)
    whole = bootstrap_interval(labels_N, score_N, 1000, 1)
    for draws in (1, 700, 300 * 999):
        monkeypatch.setattr("titles.evaluation.metrics._DRAWS_AT_ONCE", draws)
        assert bootstrap_interval(labels_N, score_N, 1000, 1) == whole
    monkeypatch.setattr("titles.evaluation.metrics._DRAWS_AT_ONCE", 30_000)
    tracemalloc.start()
    bootstrap_interval(labels_N, score_N, 1000, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000  # all counts are 7 MB


def test_intervals_agree_with_a_bootstrap_that_really_resamples():
    labels_N, one_N = draw(7, right=0.6)
    other_N = np.where(np.random.default_rng(8).random(300) < 0.7, one_N, draw(9)[1])
    random = np.random.default_rng(10)
    groups = [np.flatnonzero(labels_N == code) for code in range(5)]
    resampled = []
    for _ in range(4000):
        means = []
        for group in groups:
            rows = random.choice(group, len(group) - 1)
            means.append([(given_N[rows] == labels_N[rows]).mean() for given_N in (one_N, other_N)])
        one, other = np.mean(means, axis=0)
        resampled.append((one, one - other))
    (low, high), (difference_low, difference_high) = np.quantile(resampled, (0.025, 0.975), axis=0).T
    found = bootstrap_interval(labels_N, (one_N == labels_N).astype(np.int8), 4000, 1)
    assert found == pytest.approx((low, high), abs=0.01)
    paired = paired_test(outcomes(labels_N, one_N), outcomes(labels_N, other_N), 4000, 1)
    assert paired["difference_low"] == pytest.approx(difference_low, abs=0.01)
    assert paired["difference_high"] == pytest.approx(difference_high, abs=0.01)
    # Shared mistakes cancel: an interval of the difference of strangers would be wider than either's.
    assert paired["difference_high"] - paired["difference_low"] < found[1] - found[0]


def test_a_classifier_is_no_better_than_itself():
    labels_N, predicted_N = draw(11)
    assert paired_test(outcomes(labels_N, predicted_N), outcomes(labels_N, predicted_N), 100, 1) == {
        "difference": 0,
        "difference_low": 0,
        "difference_high": 0,
        "accuracy_p_value": 1,
        "only_one": 0,
        "only_other": 0,
    }


def test_a_clear_win_is_found_and_counts_the_other_way_round_as_a_loss():
    labels_N, worse_N = draw(12, right=0.4)
    better_N = np.where(np.random.default_rng(13).random(300) < 0.7, labels_N, worse_N)
    better_N[worse_N == labels_N] = np.where(
        np.arange((worse_N == labels_N).sum()) % 5 == 0, 5, labels_N[worse_N == labels_N]
    )
    win = paired_test(outcomes(labels_N, better_N), outcomes(labels_N, worse_N), 2000, 1)
    loss = paired_test(outcomes(labels_N, worse_N), outcomes(labels_N, better_N), 2000, 1)
    expected = balanced_accuracy(labels_N, better_N == labels_N) - balanced_accuracy(
        labels_N, worse_N == labels_N
    )
    assert win["difference"] == pytest.approx(expected, abs=1e-6)
    assert 0 < win["difference_low"] < win["difference"] < win["difference_high"]
    assert win["accuracy_p_value"] < 0.001
    assert loss["difference"] == -win["difference"]
    assert loss["difference_high"] < 0
    assert (loss["only_one"], loss["only_other"]) == (win["only_other"], win["only_one"])
    assert win["only_other"] > 0


@pytest.mark.parametrize(("wins", "losses"), [(9, 3), (3, 9), (5, 5), (1, 0)])
def test_mcnemar_is_a_binomial_test_of_the_titles_where_the_two_differ(wins, losses):
    labels_N = np.zeros(30, np.int64)
    one_N, other_N = np.zeros(30, np.int64), np.zeros(30, np.int64)
    other_N[:wins] = 1
    one_N[wins : wins + losses] = 1
    one_N[-4:] = other_N[-4:] = 1  # wrong in both
    found = paired_test(outcomes(labels_N, one_N), outcomes(labels_N, other_N), 100, 1)
    assert (found["only_one"], found["only_other"]) == (wins, losses)
    expected = binomtest(wins, wins + losses, 0.5, alternative="two-sided").pvalue
    assert found["accuracy_p_value"] == pytest.approx(expected, rel=5e-3)


def test_the_summary_reads_ranks_and_losses_and_brackets_the_balanced_accuracy():
    labels_N = np.array([0, 0, 1, 1, 1, 2, 2, 2])
    predicted_N = np.array([0, 1, 1, 0, 2, 2, 2, 2])
    rank_N = np.array([0, 1, 0, 3, 5, 0, 0, 0])
    loss_N = np.array([0.5, 1, 0.25, 2, 4, 0.25, 0.5, 0.125])
    found = summary(Outcomes(labels_N, predicted_N, loss_N, rank_N, loss_N), 500, 1)
    low, high = found.pop("balanced_accuracy_low"), found.pop("balanced_accuracy_high")
    assert low < found["balanced_accuracy"] < high
    assert found == {
        "balanced_accuracy": round((1 / 2 + 1 / 3 + 1) / 3, 6),
        "accuracy": 5 / 8,
        "macro_f1": round((2 / 4 + 2 / 5 + 6 / 7) / 3, 6),
        "top_3": 6 / 8,
        "top_5": 7 / 8,
        "loss": round(8.625 / 8, 6),
    }


def test_confidence_that_means_what_it_says_has_no_calibration_error():
    random = np.random.default_rng(14)
    confidence_N = random.uniform(0.3, 1, 20_000)
    chance_N = random.random(20_000)
    fair = calibration(confidence_N, chance_N < confidence_N, 15)
    boasting = calibration(confidence_N, chance_N < confidence_N - 0.25, 15)
    assert fair.error < 0.02
    assert boasting.error == pytest.approx(0.25, abs=0.02)
    assert fair.rows.sum() == 20_000
    # Nobody is less sure than 0.3: those bars are left out.
    assert len(fair.rows) == len(fair.confidence) == len(fair.accuracy) == 15 - 4
    assert (np.diff(fair.confidence) > 0).all()


def test_calibration_by_hand():
    found = calibration(
        np.array([0.125, 0.375, 0.5, 0.75, 1.0]), np.array([False, True, True, False, True]), 2
    )
    assert found.rows.tolist() == [2, 3]  # 0.5 opens the second bin, 1.0 still lies in it
    assert found.confidence.tolist() == [0.25, 0.75]
    assert found.accuracy.tolist() == pytest.approx([1 / 2, 2 / 3])
    assert found.error == pytest.approx((2 * 1 / 4 + 3 * 1 / 12) / 5)


def test_coverage_keeps_titles_of_equal_confidence_together():
    found = coverage(
        np.array([0.5, 0.9, 0.5, 0.25, 0.9, 0.5]), np.array([True, True, False, False, True, True])
    )
    assert found.threshold.tolist() == [0.9, 0.5, 0.25]
    assert found.kept.tolist() == [2, 5, 6]
    assert found.precision.tolist() == [1, 4 / 5, 4 / 6]


@pytest.mark.parametrize(("right", "rows"), [(0, 5), (1, 1), (52, 52), (40, 50), (9_600, 10_000)])
def test_the_lower_end_is_that_of_wilsons_interval(right, rows):
    # Two-sided with twice the error, of which half lies below.
    expected = binomtest(right, rows).proportion_ci(0.9, method="wilson").low
    assert wilson_low(np.array([right]), np.array([rows]))[0] == pytest.approx(expected)


def sure(right, count):
    """Titles of falling confidence, 1 to 0, the `right` first of which are right."""
    return np.linspace(1, 0, count), np.arange(count) < right


def test_the_threshold_is_the_least_whose_titles_are_right_enough():
    confidence_N, right_N = sure(600, 1000)
    found = threshold(confidence_N, right_N, 0.9)
    kept = (confidence_N >= found).sum()
    assert wilson_low(600, kept) >= 0.9 > wilson_low(600, kept + 1)
    assert threshold(confidence_N, right_N, 0.5) < found < threshold(confidence_N, right_N, 0.95)
    assert threshold(confidence_N, np.ones(1000, bool), 0.9) == 0


def test_a_dip_among_the_surest_titles_does_not_hide_a_threshold():
    confidence_N, right_N = sure(1000, 1000)
    right_N[:3] = False
    assert threshold(confidence_N, right_N, 0.95) == 0


def test_a_few_titles_that_are_right_prove_no_precision():
    assert threshold(*sure(51, 60), 0.95) is None
    assert threshold(*sure(52, 60), 0.95) is not None
    assert threshold(*sure(0, 1000), 0.01) is None


def test_a_chosen_threshold_holds_its_promise_on_other_titles():
    random = np.random.default_rng(21)

    def titles():
        confidence_N = random.uniform(0.3, 1, 4000)
        return confidence_N, random.random(4000) < confidence_N**0.5

    kept = 0
    for _ in range(100):
        found = threshold(*titles(), 0.9)
        confidence_N, _ = titles()
        expected = (confidence_N[confidence_N >= found] ** 0.5).mean()  # with no luck in it
        kept += expected >= 0.9
    assert kept >= 90


def test_abstention_tells_what_a_threshold_of_one_split_gives_on_another():
    def of(confidence_N, right_N):
        wrong_N = (~right_N).astype(np.int64)
        return Outcomes(wrong_N * 0, wrong_N, confidence_N, wrong_N, confidence_N)

    validation, test = of(*sure(600, 1000)), of(*sure(100, 200))
    found = abstention(validation, test, 0.9)
    assert found["threshold"] == pytest.approx(threshold(*sure(600, 1000), 0.9), abs=1e-6)
    kept_N = test.confidence_N >= found["threshold"]
    assert found["coverage"] == kept_N.mean()
    assert found["precision_kept"] == round(100 / kept_N.sum(), 6)
    assert abstention(of(*sure(0, 9)), test, 0.9) == {"threshold": 1, "coverage": 0}


def test_confused_pairs_come_most_frequent_first_then_by_category():
    pairs = [(0, 0), (2, 1), (2, 1), (0, 3), (1, 2), (1, 2), (2, 2), (0, 1)]
    labels_N, predicted_N = np.array(pairs * 2).T
    assert confused_pairs(labels_N, predicted_N) == [(1, 2, 4), (2, 1, 4), (0, 1, 2), (0, 3, 2)]
    assert confused_pairs(labels_N, labels_N) == []


def test_no_titles_have_no_measures():
    none = np.array([], np.int64)
    for measure in (
        lambda: balanced_accuracy(none, none == 0),
        lambda: bootstrap_interval(none, none == 0, 100, 1),
        lambda: summary(outcomes(none, none), 100, 1),
    ):
        with pytest.raises(ValueError, match="there are no titles"):
            measure()
