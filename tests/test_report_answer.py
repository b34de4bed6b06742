"""How a report opens, what it hides as unchanged, and the inputs by which it explains other results."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from test_report import (
    EN,
    NEW,
    OLD,
    cells,
    experiment,
    html_text,
    markdown_text,
    predicted,
    some_rows,
    trained,
    with_rnn,
)
from titles.experiments.report import charts
from titles.experiments.report.answer import answer, digits, verdict
from titles.experiments.report.comparison import compare, differing_inputs, unexplained
from titles.experiments.report.experiment import Experiment, Inputs, inputs_of

WORSE = experiment("worse", predicted({"BIKES": 2, "CARS": 25, "DOGS": 1}))
UNSURE = experiment("unsure", predicted({"BIKES": 11, "CARS": 29, "DOGS": 1}))
OTHER = experiment("other", some_rows(NEW.predictions, range(45, 61)), **{"prepare.split_seed": 9})


def on_validation(one: Experiment, score: float) -> Experiment:
    scores = {m: s | {"validation_balanced_accuracy": score} for m, s in one.scores.items()}
    return dataclasses.replace(one, scores=scores)


def told(*experiments: Experiment, model: str = "average") -> Any:
    pairs = [compare(experiments[0], other, model) for other in experiments[1:]]
    return answer(experiments, pairs, model, EN)


def test_two_experiments_open_with_the_verdict_of_the_paired_test_and_its_interval() -> None:
    test = compare(OLD, NEW, "average").tests["average"]
    lead, details = told(OLD, on_validation(NEW, 0.612))
    by, low, high = (test[name] for name in ("difference", "difference_low", "difference_high"))
    assert 0 < low < by < high
    assert lead == f"new is better than old by {by:.3f} (95 % interval {low:.3f} to {high:.3f})."
    assert "the average of all networks on 61 test titles." in details
    # The bootstrap draws other titles for the other order.
    assert re.fullmatch(
        rf"old is worse than new by {by:.3f} \(95 % interval 0\.\d+ to 0\.\d+\)\.", told(NEW, OLD).lead
    )
    test = compare(OLD, UNSURE, "average").tests["average"]
    by, low, high = (test[name] for name in ("difference", "difference_low", "difference_high"))
    assert low <= 0 <= high
    assert told(OLD, UNSURE).lead.startswith("unsure is not distinguishable from old: ")
    assert f": {by:+.3f} (95 % interval {low:+.3f} to {high:+.3f})." in told(OLD, UNSURE).lead
    assert told(OLD, dataclasses.replace(OLD, name="again")).lead.startswith("again is the same as old")
    assert "of the CNN on" in told(OLD, NEW, model="cnn").details
    # The average has no score on validation here, and the networks have.
    assert "On validation" not in told(OLD, NEW).details
    assert "On validation: 0.480, old 0.480." in told(OLD, NEW, model="cnn").details


def test_what_cannot_be_compared_is_not_called_better_or_worse() -> None:
    lost = dataclasses.replace(NEW, name="lost", predictions=None)
    for one, why in ((lost, "predictions are missing"), (OTHER, "other test titles")):
        lead, details = told(OLD, on_validation(one, 0.99))
        assert lead == f"{one.name} cannot be compared with old: {why}."
        assert "interval" not in details
    assert "on the test split." in told(OLD).lead


def test_of_several_the_one_that_is_highest_on_validation_is_judged_on_test() -> None:
    old = on_validation(OLD, 0.50)
    # On test, `new` is the best, and `worse` is not; validation alone decides.
    for chosen, text in ((WORSE, "it is worse than old by 0."), (NEW, "it is better than old by 0.")):
        ones = [on_validation(one, 0.7 if one is chosen else 0.4) for one in (UNSURE, WORSE, NEW)]
        lead, details = told(old, *ones)
        assert lead.startswith(f"{chosen.name} scores highest on validation; on the test split, {text}")
        assert "All 3 on the test split, against old: 1 better; 1 worse; 1 not disting" in details
    lead, details = told(old, *(on_validation(one, 0.4) for one in (UNSURE, WORSE, NEW)))
    assert lead == "None scores higher than old on validation, on which the choice is made."


def test_scores_on_other_validation_titles_or_none_decide_nothing() -> None:
    old = on_validation(OLD, 0.50)
    lead, details = told(old, on_validation(OTHER, 0.99), on_validation(NEW, 0.6))
    assert lead.startswith("new scores highest on validation")
    assert "1 could not be chosen: other validation titles, or no score on them." in details
    lost = dataclasses.replace(on_validation(OTHER, 0.99), predictions=None)
    assert told(old, lost, on_validation(NEW, 0.6)).lead.startswith("new scores highest")
    assert told(old, OTHER, NEW).lead.startswith("No experiment can be chosen on validation")


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((0.012, -0.0004), ["+0.0120", "-0.0004"]),
        ((0.0120004, 0.0), ["+0.012", "+0.000"]),
        ((0.000001,), ["+0.000001"]),
        ((-0.0000001,), ["+0.000000"]),
    ],
)
def test_a_difference_that_is_not_zero_does_not_look_like_it(
    values: tuple[float, ...], shown: list[str]
) -> None:
    assert digits(*values, sign="+") == shown


def test_the_average_comes_first_however_many_networks_there_are() -> None:
    old, new = with_rnn(OLD), with_rnn(NEW)
    text = html_text([old, new], [compare(old, new, "average")], "average")
    heads = re.findall(r'<th scope="rowgroup"[^>]*>(\w+)<', text)
    assert heads == ["Average", "CNN", "MLP", "RNN"]
    drawn = re.findall(r">(Average|CNN|MLP|RNN)</text>", text)
    assert drawn == heads * 2


def test_what_did_not_change_is_behind_a_fold() -> None:
    outcomes = OLD.predictions.outcomes | {"cnn": NEW.predictions.outcomes["cnn"]}
    part = dataclasses.replace(OLD.predictions, outcomes=outcomes)
    one = trained(experiment("one", part), 0.1, ["cnn"])
    text = html_text([OLD, one], [compare(OLD, one, "average")], "average")
    shown = re.sub(r"<details>.*?</details>", "", text, flags=re.S)
    assert re.findall(r'<th scope="rowgroup"[^>]*>(\w+)<', shown) == ["CNN"]
    assert "Not changed: Average of one; MLP of one</summary>" in text
    assert re.findall(r">(Average|CNN|MLP)</text>", text) == ["CNN"] * 2
    assert "MLP: loss on train" not in text
    assert "CNN: loss on train" in text
    assert "Trained as in old: MLP of one</summary>" in text
    assert "No title became right or wrong." in text


def test_parameters_that_differ_stand_beside_the_name_and_many_are_cut() -> None:
    many = {f"cnn.p{number}": number for number in range(6)}
    one = experiment("one", NEW.predictions, **many)
    rows = cells(markdown_text([OLD, NEW, one], [compare(OLD, e, "cnn") for e in (NEW, one)], "cnn"))
    beside = {row[0]: row[2] for row in rows if len(row) == 10}
    assert (beside["old"], beside["new"]) == ("", "cnn.epochs 5 → 9")
    assert beside["one"] == ("cnn.p0 not set → 0; cnn.p1 not set → 1; cnn.p2 not set → 2; and 3 more")


@pytest.mark.parametrize("count", [2, 6, 7, 13])
def test_experiments_can_be_told_apart_in_each_chart(count: int) -> None:
    ones = [trained(experiment(f"run-{n}", NEW.predictions), n / 100) for n in range(count)]
    for splits in (["validation"], ["validation", "train"]):
        drawn = charts.curves(ones, "cnn", "loss", splits, EN)
        names = set(re.findall(r">(run-\d+)</text>", drawn))
        if count <= charts.MOST_LINES:
            assert names == {one.name for one in ones}
            colours = r'<path[^>]* d="M[^"]*"[^>]* stroke="(currentColor|var\(--series-\d\))"'
            assert len(set(re.findall(colours, drawn))) >= count
        else:
            # A small chart each, under its name, in order; the first one is behind all others.
            assert re.findall(r">(run-\d+)</text>", drawn) == [one.name for one in ones[1:]]
    pairs = [compare(OLD, one, "cnn") for one in ones]
    drawn = charts.differences(OLD, pairs, ["average", "cnn"], EN)
    assert len(re.findall(r">run-\d+</text>", drawn)) == 2 * count


def test_long_names_that_begin_and_end_alike_are_different_labels() -> None:
    names = [f"{'a' * 60}{number}{'b' * 60}" for number in range(30)] + ["short"]
    found = charts.labels(names)
    assert len(set(found.values())) == len(names)
    assert max(map(len, found.values())) <= 40
    assert found["short"] == "short"


CODE = {"src/titles/training": {"train_cnn": "aaaaaaaaaa", "train_mlp": "aaaaaaaaaa"}}
DATA = {"data/raw/sample.csv.gz": {"prepare": "cccccccccc"}, "models/cnn": {"evaluate": "dddddddddd"}}
INPUTS = Inputs(CODE | DATA, frozenset({"models/cnn"}), {"cnn": "x86-64"})


def with_inputs(one: Experiment, **changes: Any) -> Experiment:
    read = {path: changes.get(path.rpartition("/")[2], found) for path, found in INPUTS.read.items()}
    machines = changes.get("machines", INPUTS.machines)
    return dataclasses.replace(one, inputs=dataclasses.replace(INPUTS, read=read, machines=machines))


def test_inputs_that_differ_explain_changed_results() -> None:
    old = with_inputs(OLD)
    code = with_inputs(
        UNSURE, training={"train_cnn": "b" * 32, "train_mlp": "b" * 32}, cnn={"evaluate": "e" * 9}
    )
    unknown = dataclasses.replace(NEW, inputs=None)
    found = differing_inputs([one.inputs for one in (old, code, unknown)])
    assert found == [
        ("src/titles/training", ["train_cnn", "train_mlp"], ["aaaaaaa", "bbbbbbb", "unknown"], False),
        ("models/cnn", ["evaluate"], ["ddddddd", "eeeeeee", "unknown"], True),
    ]
    assert differing_inputs([one.inputs for one in (old, with_inputs(NEW))]) == []
    pairs = [compare(old, one, "cnn") for one in (code, unknown)]
    text = markdown_text([old, code, unknown], pairs, "cnn")
    rows = cells(text)
    assert ["src/titles/training", "train_cnn, train_mlp", "aaaaaaa", "bbbbbbb", "unknown"] in rows
    assert "Inputs are unknown of new." in text
    assert next(row for row in rows if row[0] == "unsure" and len(row) == 10)[2] == (
        "src/titles/training differs"
    )
    more = dataclasses.replace(
        code, inputs=Inputs(code.inputs.read | {"src/titles/data": {"prepare": "f" * 9}})
    )
    rows = cells(markdown_text([old, more], [compare(old, more, "cnn")], "cnn"))
    assert "code differs" in {row[2] for row in rows if len(row) == 10}
    page_text = html_text([old, code, unknown], pairs, "cnn")
    assert "Made by earlier stages, so that they follow from the above: 1" in page_text


def test_a_stage_that_one_has_more_or_that_ran_on_other_content_is_told() -> None:
    more = with_inputs(NEW, training=CODE["src/titles/training"] | {"train_rnn": "aaaaaaaaaa"})
    assert differing_inputs([one.inputs for one in (with_inputs(OLD), more)]) == []
    stale = with_inputs(NEW, training={"train_cnn": "b" * 9, "train_mlp": "a" * 10})
    (one,) = differing_inputs([one.inputs for one in (with_inputs(OLD), stale)])
    assert one.values == ["aaaaaaa", "bbbbbbb aaaaaaa"]
    elsewhere = with_inputs(NEW, machines={"cnn": "a GPU"})
    (one,) = differing_inputs([one.inputs for one in (with_inputs(OLD), elsewhere)])
    assert (one.name, one.stages, one.values) == ("machine", ["train_cnn"], ["x86-64", "a GPU"])


def test_other_results_of_the_same_parameters_and_inputs_are_told() -> None:
    old, same = with_inputs(OLD), with_inputs(dataclasses.replace(OLD, name="again"))
    changed = on_validation(same, 0.3)
    assert not unexplained(old, same)
    assert unexplained(old, changed)
    assert unexplained(old, with_inputs(changed, cnn={"evaluate": "e" * 9}))  # made by a stage
    for explained in (
        with_inputs(changed, training={"train_cnn": "b" * 9}),
        with_inputs(changed, machines={"cnn": "a GPU"}),
        dataclasses.replace(changed, params=OLD.params | {"seed": 99}),
        dataclasses.replace(changed, inputs=None),
    ):
        assert not unexplained(old, explained)
    text = html_text([old, changed], [compare(old, changed, "cnn")], "cnn")
    assert "again has other results than old, although parameters, code, data and class" in text
    assert "Code and data are the same in all." in text


@pytest.mark.parametrize(
    "stages",
    [{"a": None}, {"a": []}, [], {"a": {"deps": [3]}}, {"a": {"outs": [{}]}}, {"a": {"deps": 5}}],
)
def test_a_lock_file_that_dvc_did_not_write_is_told(stages: Any) -> None:
    with pytest.raises(ValueError, match=r"dvc\.lock of one is damaged: a stage lacks its parts"):
        inputs_of(stages, "one")


def test_hashes_of_any_kind_are_read_and_logins_are_not_shown() -> None:
    deps = [
        {"path": "https://me:secret@example.org/x.csv", "etag": '"77"'},
        {"path": "s3://b/x", "checksum": "8"},
        {"path": "a", "md5": "9", "hash": "md5"},
    ]
    found = inputs_of({"prepare": {"deps": deps, "outs": [{"path": "b"}]}, "none": {}}, "one")
    assert found.read == {
        "https://example.org/x.csv": {"prepare": '"77"'},
        "s3://b/x": {"prepare": "8"},
        "a": {"prepare": "9"},
    }
    assert found.made == {"b"}


def test_a_verdict_of_no_difference_is_not_one_of_equal_answers() -> None:
    test = {"difference": 0.0, "difference_low": 0.0, "difference_high": 0.0}
    assert verdict(test | {"only_one": 0, "only_other": 0}) == "same"
    assert verdict(test | {"only_one": 1, "only_other": 1}) == "unsure"
