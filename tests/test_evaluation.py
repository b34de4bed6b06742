import csv
import re
from dataclasses import replace

import numpy as np
import pytest

from networks import encoded
from titles.evaluation.metrics import Outcomes, balanced_accuracy, calibration, confused_pairs, threshold
from titles.evaluation.tables import by_group, described, headline, measures, pairs, write_tables
from titles.params import Evaluate

N = 90
LABELS = ["A,B", 'C "D"', "EÑE", "F", "G", "NEVER"]
SETTINGS = Evaluate(
    bootstrap_samples=200, calibration_bins=4, target_precision=0.6, confused_categories=3
)
MODELS = ("cnn", "mlp", "average")


SETS = {
    name: {
        "tenth": [1, 3],
        "categories": [2, 1],
        "titles": [5, 9],
        "coverage": [0.9, 1],
        "size": [2, 1.5],
    }
    for name in MODELS
}


@pytest.fixture(scope="module")
def outcomes():
    random = np.random.default_rng(2)
    labels_N = random.choice(5, N, p=[0.4, 0.2, 0.2, 0.1, 0.1])

    def model(right):
        predicted_N = np.where(random.random(N) < right, labels_N, random.integers(0, 5, N))
        rank_N = (predicted_N != labels_N).astype(np.int64)
        return Outcomes(labels_N, predicted_N, random.random(N), rank_N, random.random(N))

    return {"cnn": model(0.8), "mlp": model(0.2), "average": model(0.5)}


@pytest.fixture(scope="module")
def tables(outcomes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    write_tables(outcomes, LABELS, SETTINGS, folder, SETS)
    return {path.name: read(path) for path in folder.iterdir()}


def read(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def header(table):
    return list(table[0])


def total(table):
    return sum(int(row["titles"]) for row in table)


def test_networks_are_compared_in_their_order_and_not_the_reverse(outcomes):
    found = measures(outcomes, outcomes, outcomes, outcomes, SETTINGS, 1)
    assert list(found) == ["average", "cnn", "mlp"]
    difference = found["cnn"]["balanced_accuracy"] - found["mlp"]["balanced_accuracy"]
    tests = pairs(outcomes, SETTINGS, 1)
    assert list(tests) == ["cnn_minus_mlp"]
    assert tests["cnn_minus_mlp"]["difference"] == pytest.approx(difference, abs=2e-6)
    assert difference > 0
    three = pairs({"gru": outcomes["mlp"], **outcomes}, SETTINGS, 1)
    assert list(three) == ["gru_minus_cnn", "gru_minus_mlp", "cnn_minus_mlp"]
    for name in MODELS:
        bins = calibration(outcomes[name].confidence_N, outcomes[name].right_N, 4)
        assert found[name]["calibration_error"] == bins.error


def test_the_headline_has_balanced_accuracies_first_and_test_and_validation_apart(outcomes):
    validation = dict.fromkeys(outcomes, outcomes["average"])
    found = measures(outcomes, outcomes, validation, validation, SETTINGS, 1)
    shown = headline(found)
    assert list(shown)[:4] == [
        *(f"{name}.balanced_accuracy" for name in ("average", "cnn", "mlp")),
        "average.validation_balanced_accuracy",
    ]
    assert len(shown) == 12
    assert shown["cnn.balanced_accuracy"] == found["cnn"]["balanced_accuracy"]
    expected = found["average"]["balanced_accuracy"]
    assert shown["cnn.validation_balanced_accuracy"] == expected != shown["cnn.balanced_accuracy"]


def shifted(outcomes, by):
    return {
        name: replace(model, confidence_N=np.clip(model.confidence_N + by, 0, 1))
        for name, model in outcomes.items()
    }


def test_calibration_is_told_before_and_after_and_before_only_of_networks(outcomes):
    shy = shifted(outcomes, -0.2)
    found = measures(outcomes, shy, outcomes, outcomes, SETTINGS, 1)
    for name in ("cnn", "mlp"):
        bins = calibration(shy[name].confidence_N, shy[name].right_N, 4)
        assert found[name]["calibration_error_before"] == bins.error
        assert found[name]["calibration_error_before"] != found[name]["calibration_error"]
    assert "calibration_error_before" not in found["average"]


def test_the_threshold_is_of_unseen_titles_and_what_it_gives_of_test(outcomes):
    unseen = shifted(outcomes, 0.2)
    found = measures(outcomes, outcomes, outcomes, unseen, SETTINGS, 1)["cnn"]
    model = outcomes["cnn"]
    assert found["threshold"] == threshold(unseen["cnn"].confidence_N, model.right_N, 0.6)
    kept_N = model.confidence_N >= found["threshold"]
    assert 0 < kept_N.mean() < 1
    assert found["coverage"] == round(kept_N.mean(), 6)
    assert found["precision_kept"] == round(model.right_N[kept_N].mean(), 6)


def test_a_threshold_that_was_not_found_keeps_nothing_and_is_told(outcomes):
    found = measures(outcomes, outcomes, outcomes, outcomes, SETTINGS, 1)
    assert found["mlp"] | {"threshold": 1.0, "coverage": 0.0} == found["mlp"]
    assert "precision_kept" not in found["mlp"]
    _, cnn, mlp = described(found, 0.6).split("\n          ")[1:]
    assert re.search(
        r"\d+\.\d% of the titles have a confidence of at least 0\.\d{3}; \d+\.\d% of these are right",
        cnn,
    )
    assert "no threshold for a precision of 0.6 was found" in mlp


def test_a_threshold_that_no_test_title_reaches_is_told(outcomes):
    found = measures(shifted(outcomes, -1), outcomes, outcomes, outcomes, SETTINGS, 1)
    assert 0 < found["cnn"]["threshold"] < 1
    assert found["cnn"]["coverage"] == 0
    assert f"no title has a confidence of {found['cnn']['threshold']:.3f}" in described(found, 0.6)


def test_groups_split_all_titles_and_measure_their_own(outcomes):
    titles = encoded([[2]] * N, outcomes["cnn"].labels_N)
    found = by_group(outcomes, titles)
    assert {kind: list(groups) for kind, groups in found.items()} == {
        "language": ["spanish", "portuguese"],  # what occurs, and no "unspecified"
        "label_quality": ["reliable", "unreliable"],
    }
    for groups in found.values():
        assert sum(group["rows"] for group in groups.values()) == N
    mlp = outcomes["mlp"].where(titles.qualities == 2)
    assert found["label_quality"]["unreliable"] == {
        "rows": len(mlp),
        **{
            name: round(
                balanced_accuracy(mlp.labels_N, outcomes[name].right_N[titles.qualities == 2]), 6
            )
            for name in MODELS
        },
    }


def test_the_category_table_has_a_line_for_every_category(outcomes, tables):
    table = tables["categories.csv"]
    rates = [f"{name}_{rate}" for name in MODELS for rate in ("recall", "precision", "f1")]
    assert header(table) == ["category", "rows", *rates]
    assert [row["category"] for row in table] == LABELS
    assert sum(int(row["rows"]) for row in table) == N
    assert set(table[-1].values()) == {"NEVER", "0", "0.0"}
    for name in MODELS:
        occurring = [float(row[f"{name}_recall"]) for row in table[:-1]]
        right_N = outcomes[name].right_N
        assert np.mean(occurring) == pytest.approx(
            balanced_accuracy(outcomes[name].labels_N, right_N), abs=1e-6
        )


def test_the_hardest_are_the_occurring_categories_by_recall_of_the_average(tables):
    table = tables["hardest.csv"]
    assert header(table) == ["category", "recall", "rows"]
    recalls = {row["category"]: row["average_recall"] for row in tables["categories.csv"][:-1]}
    assert {row["category"]: row["recall"] for row in table} == recalls
    found = [float(row["recall"]) for row in table]
    assert found == sorted(found)
    assert sum(int(row["rows"]) for row in table) == N


def test_confused_pairs_hold_every_mistake_of_every_model(outcomes, tables):
    table = tables["confused_pairs.csv"]
    assert header(table) == ["model", "category", "given", "titles"]
    assert not any(row["category"] == row["given"] for row in table)
    for name in MODELS:
        mine = [row for row in table if row["model"] == name]
        assert total(mine) == (~outcomes[name].right_N).sum()
        counts = [int(row["titles"]) for row in mine]
        assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize("name", MODELS)
def test_confusions_are_of_the_most_mistaken_categories_alone(outcomes, tables, name):
    table = tables[f"confusion_{name}.csv"]
    assert header(table) == ["category", "given"]
    average = outcomes["average"]
    (right, given, _), *rest = confused_pairs(average.labels_N, average.predicted_N)
    assert not {right, given} & set(rest[0][:2])  # so one of the second pair is cut off
    third = next(code for pair in rest for code in pair[:2] if code not in (right, given))
    shown = {right, given, third}
    assert {row["category"] for row in table} == {LABELS[code] for code in shown}
    assert {row["given"] for row in table} == {LABELS[code] for code in shown} | {"(other)"}
    model = outcomes[name]
    assert len(table) == np.isin(model.labels_N, list(shown)).sum()
    others = np.isin(model.labels_N, list(shown)) & ~np.isin(model.predicted_N, list(shown))
    assert sum(row["given"] == "(other)" for row in table) == others.sum() > 0


@pytest.mark.parametrize("name", MODELS)
def test_reliability_tables_hold_all_titles(outcomes, tables, name):
    table = tables[f"reliability_{name}.csv"]
    assert header(table) == ["titles", "confidence", "accuracy"]
    assert total(table) == N
    right = sum(int(row["titles"]) * float(row["accuracy"]) for row in table)
    assert right == pytest.approx(outcomes[name].right_N.sum(), abs=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_coverage_tables_go_from_the_surest_titles_to_all(outcomes, tables, name):
    model, table = outcomes[name], tables[f"coverage_{name}.csv"]
    assert header(table) == ["coverage", "precision", "threshold"]
    assert len(table) == N  # fewer than a hundred: each title is a point
    assert float(table[-1]["coverage"]) == 1
    assert float(table[-1]["precision"]) == pytest.approx(model.right_N.mean(), abs=1e-6)
    for row in table:
        kept_N = model.confidence_N >= float(row["threshold"]) - 1e-6
        assert float(row["coverage"]) == pytest.approx(kept_N.mean(), abs=1e-6)
        assert float(row["precision"]) == pytest.approx(model.right_N[kept_N].mean(), abs=1e-6)


def test_a_coverage_table_of_many_titles_has_a_hundred_points(tmp_path):
    random = np.random.default_rng(4)
    labels_N = random.integers(0, 5, 3000)
    model = Outcomes(labels_N, labels_N, random.random(3000), labels_N, random.random(3000))
    write_tables(dict.fromkeys(MODELS, model), LABELS, SETTINGS, tmp_path / "tables", SETS)
    table = read(tmp_path / "tables/coverage_cnn.csv")
    assert [float(row["coverage"]) for row in table] == [n / 100 for n in range(1, 101)]


def test_there_are_no_other_tables(tables):
    names = ("confusion", "coverage", "reliability", "sets")
    assert set(tables) == {
        "categories.csv",
        "confused_pairs.csv",
        "hardest.csv",
        *(f"{name}_{model}.csv" for name in names for model in MODELS),
    }


def test_perfect_models_have_tables_with_headers_and_no_mistakes(outcomes, tmp_path):
    labels_N = outcomes["cnn"].labels_N
    sure = Outcomes(labels_N, labels_N, np.ones(N), np.zeros(N, np.int64), np.zeros(N))
    write_tables(dict.fromkeys(MODELS, sure), LABELS, SETTINGS, tmp_path, SETS)
    assert (tmp_path / "confused_pairs.csv").read_text() == "model,category,given,titles\n"
    assert (tmp_path / "confusion_cnn.csv").read_text() == "category,given\n"
    assert read(tmp_path / "reliability_cnn.csv") == [
        {"titles": str(N), "confidence": "1.0", "accuracy": "1.0"}
    ]


@pytest.mark.parametrize(
    "name", ["</script>", "<!--<script>", "<b>", "</SCRIPT >", "a</script><script>b"]
)
def test_no_category_ends_the_script_of_a_page_of_plots(outcomes, tmp_path, name):
    names = [name, *LABELS[1:]]
    write_tables(outcomes, names, SETTINGS, tmp_path, SETS)
    for file in tmp_path.iterdir():
        text = file.read_text(encoding="utf-8")
        assert not re.search("<[a-z/!]", text, re.I)
    found = {row["category"] for row in read(tmp_path / "categories.csv")}
    assert name in {category.replace("\u2060", "") for category in found}  # looks the same
