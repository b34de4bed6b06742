"""Rows that are likely mislabelled."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from networks import ABSENT, LABEL_NAMES, UNKNOWN_WORDS, encoded, params, vocabulary, write_prepared
from titles import cli
from titles.data.contract import PREPARED
from titles.data.encoded import EncodedTitles
from titles.data.outcomes import Outcomes
from titles.predict.audit import folds_of, held_out, ranked
from titles.prepare import corrections
from titles.prepare.identity import title_keys

COMMITTED = Path(__file__).parent.parent / "params.yaml"
ROWS = 360
PLANTED = {7: 2, 30: 1, 100: 0, 203: 1, 281: 0, 359: 1}  # row: the wrong category that it is given
FEW = [ABSENT, ABSENT]  # two more rows, of a category of their own


def outcomes_of(probability_NC, labels_N):
    rows = np.arange(len(labels_N))
    given = probability_NC[rows, labels_N]
    return Outcomes(
        labels_N,
        probability_NC.argmax(axis=1),
        probability_NC.max(axis=1),
        (probability_NC > given[:, None]).sum(axis=1),
        -np.log(given),
    )


def made_up(seed, rows=200, categories=5):
    """Probabilities and labels, a third of them drawn without a look at the probabilities."""
    rng = np.random.default_rng(seed)
    probability_NC = rng.dirichlet(np.full(categories, 0.4), rows) * 0.999 + 0.001 / categories
    labels_N = probability_NC.argmax(axis=1)
    wrong_N = rng.random(rows) < 1 / 3
    labels_N[wrong_N] = rng.integers(categories, size=wrong_N.sum())
    return probability_NC, labels_N


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=80), st.integers(2, 7), st.integers(0, 2**32 - 1)
)
def test_every_row_is_held_out_once_and_every_category_evenly(labels, folds, seed):
    labels_N = np.array(labels, np.int32)
    fold_N = folds_of(labels_N, folds, seed)
    assert fold_N.shape == labels_N.shape
    assert set(fold_N.tolist()) <= set(range(folds))
    for part in (fold_N, *(fold_N[labels_N == label] for label in set(labels))):
        sizes = np.bincount(part, minlength=folds)
        assert sizes.max() - sizes.min() <= 1


def test_folds_follow_from_the_seed():
    labels_N = np.zeros(60, np.int32)
    assert (folds_of(labels_N, 3, 1) == folds_of(labels_N, 3, 1)).all()
    assert (folds_of(labels_N, 3, 1) != folds_of(labels_N, 3, 2)).any()


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_ranked_and_counted_as_cleanlab_does(seed):
    from cleanlab.experimental.label_issues_batched import LabelInspector  # takes seconds to load

    probability_NC, labels_N = made_up(seed)
    theirs = LabelInspector(
        num_class=5, verbose=False, quality_score_kwargs={"method": "normalized_margin"}
    )
    theirs.update_confident_thresholds(labels_N, probability_NC)
    scores_N = theirs.score_label_quality(labels_N, probability_NC)
    ours = ranked(outcomes_of(probability_NC, labels_N), np.ones(len(labels_N), bool))
    assert ours.mislabelled == theirs.get_num_issues()
    assert ours.rows_K[: ours.mislabelled].tolist() == theirs.get_label_issues().tolist()
    np.testing.assert_allclose(ours.scores_K, scores_N[ours.rows_K])
    assert 0 < ours.mislabelled < len(ours.rows_K) < len(labels_N)


def test_a_row_looks_mislabelled_where_another_category_is_as_likely_as_for_its_own_rows():
    first_N = np.array([0.9, 0.8, 0.1, 0.2, 0.05, 0.35])
    outcomes = outcomes_of(np.stack([first_N, 1 - first_N], axis=1), np.array([0, 0, 1, 1, 0, 0]))
    # On average, rows of the second category have it with 0.85: of the two others that look like it,
    # one with 0.95 reaches that and one with 0.65 does not.
    found = ranked(outcomes, np.ones(6, bool))
    assert found.rows_K.tolist() == [4, 5]
    np.testing.assert_allclose(found.scores_K, [0.05, 0.35])
    assert found.mislabelled == 1


def test_rows_that_are_not_judged_are_neither_ranked_nor_counted():
    probability_NC, labels_N = made_up(9)
    judged_N = labels_N != 3
    found = ranked(outcomes_of(probability_NC, labels_N), judged_N)
    assert judged_N[found.rows_K].all()
    alone = ranked(
        outcomes_of(probability_NC[judged_N], labels_N[judged_N]), np.ones(judged_N.sum(), bool)
    )
    assert found.rows_K.tolist() == np.flatnonzero(judged_N)[alone.rows_K].tolist()
    assert found.mislabelled == alone.mislabelled


def catalogue(planted=PLANTED, few=()):
    """Titles of three categories, each with words of its own, and wrong labels among them."""
    rng = np.random.default_rng(4)
    titles = [[2 + 2 * (row % 3) + int(rng.integers(2)), 9, -1 - row % 2] for row in range(ROWS)]
    labels = [planted.get(row, row % 3) for row in range(ROWS)]
    return encoded([*titles, *([8, 10] for _ in few)], [*labels, *few])


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a tiny MLP and prepared data; gives what writes another train split."""
    monkeypatch.chdir(tmp_path)
    write_prepared()
    values = yaml.safe_load(COMMITTED.read_text(encoding="utf-8"))
    values["compute"] = {"device": "cpu", "threads": 1, "portable": True}
    values["mlp"] |= {"hidden_layers": [13], "epochs": 4, "subword_buckets": 37}
    values["mlp"] |= {
        "batch_size": ROWS // 30,
        "min_steps": None,
        "dropout": 0.0,
        "learning_rate": 0.03,
        "heads": 1,
    }
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")

    def split(name, titles):
        shutil.rmtree(PREPARED / name)
        titles.write(PREPARED / name)

    def train(titles):
        split("train", titles)
        split("validation", catalogue({}))

    return train


def listed(path="audit.csv"):
    with Path(path).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_planted_wrong_labels_stand_at_the_top_with_the_right_category(project, capsys):
    titles = catalogue()
    project(titles)
    assert cli.main(["audit", "--top", "6"]) == 0
    rows = listed()
    assert [int(row["rank"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {int(row["line"]) - 2 for row in rows} == set(PLANTED)
    words = vocabulary().words
    for row in rows:
        number = int(row["line"]) - 2
        first, second, unknown = titles.word_ids[3 * number : 3 * number + 3].tolist()
        assert row["accept"] == ""
        assert row["title"] == f"{words[first]} {words[second]} {UNKNOWN_WORDS[-1 - unknown]}"
        assert row["category"] == LABEL_NAMES[PLANTED[number]]
        assert row["suggested"] == LABEL_NAMES[number % 3]
        assert row["label_quality"] == ("reliable", "unreliable")[number % 3 // 2]
        assert 0.5 < float(row["probability"]) <= 1
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores)
    assert 0 <= scores[0] <= scores[-1] < 0.5
    told = capsys.readouterr().out
    assert "fold 3 of 3: 240 rows to learn from, 120 to judge" in told
    found = int(told.partition(" of 360 ")[0].rpartition("\n")[2])
    assert 4 <= found <= 6
    reliable = sum(row["label_quality"] == "reliable" for row in rows[:found])
    assert f"rows look mislabelled\n  reliable: {reliable} of 240 ({reliable / 240:.1%})\n" in told
    assert f"\n  unreliable: {found - reliable} of 120 (" in told
    assert f"audit.csv: the 6 most suspicious; up to rank {found} they look wrong" in told


def test_a_category_with_fewer_rows_than_folds_is_counted_and_never_listed(project, capsys):
    titles = catalogue(few=FEW)
    project(titles)
    assert cli.main(["audit", "--top", "500"]) == 0
    rows = listed()
    assert 0 < len(rows) < ROWS
    assert LABEL_NAMES[ABSENT] not in {row["category"] for row in rows}
    assert "not judged: 2 rows of 1 categories with fewer than 3" in capsys.readouterr().out


def test_the_same_parameters_give_the_same_bytes(project):
    project(catalogue())
    assert cli.main(["audit", "--out", "a.csv"]) == cli.main(["audit", "--out", "b.csv"]) == 0
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()


def test_a_row_is_judged_by_a_network_that_has_not_seen_its_label(project):
    """Only what is held out may change when a label does: its own fold's network stays the same."""
    titles = catalogue()
    project(titles)
    fold_N = folds_of(titles.labels, 3, 3)
    changed = EncodedTitles(**vars(titles) | {"labels": titles.labels.copy()})
    own = fold_N == fold_N[7]
    changed.labels[7] = 1
    one, other = (held_out(t, fold_N, params(epochs=2)) for t in (titles, changed))
    assert (one.predicted_N[own] == other.predicted_N[own]).all()
    assert (one.confidence_N[own] == other.confidence_N[own]).all()
    assert one.loss_N[7] != other.loss_N[7]
    assert (one.confidence_N[~own] != other.confidence_N[~own]).any()


def test_an_interrupt_leaves_the_file_as_it_was(project, monkeypatch, capsys):
    project(catalogue())
    Path("audit.csv").write_text("before")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("titles.predict.audit.evaluate", interrupted)
    assert cli.main(["audit"]) == 130
    assert Path("audit.csv").read_text() == "before"
    assert not list(Path().glob("*.partial"))
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--folds", "1"], "folds is 1: at least 2 are needed"),
        (["--top", "0"], "top is 0: it must be at least 1"),
        (["--folds", "999"], "no category of train has 999 rows"),
        (["--out", "data"], "data is a folder: name a file"),
        (["--out", "params.yaml/audit.csv"], "cannot write params.yaml/audit.csv"),
    ],
)
def test_what_cannot_be_done_is_told_before_any_training(project, monkeypatch, capsys, arguments, told):
    project(catalogue())
    monkeypatch.setattr("titles.predict.audit.Trainer", lambda *_: pytest.fail("it trained"))
    assert cli.main(["audit", *arguments]) == 1
    assert told in capsys.readouterr().err


def test_missing_data_is_told_with_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes(COMMITTED.read_bytes())
    assert cli.main(["audit"]) == 1
    assert "word_ids.npy is missing: run `dvc repro`, or `dvc pull`" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_titles_stand_as_in_the_source_and_accepted_rows_are_found_again(project, capsys):
    titles = catalogue()
    names = [f'Título "{n}", con ; y =1+1' for n in range(ROWS)]
    keyed = EncodedTitles(
        **vars(titles) | {"keys": title_keys(names), "files": titles.files * 0, "file_names": ["a.csv"]}
    )
    project(keyed)
    Path("data/raw").mkdir(parents=True)
    with Path("data/raw/a.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(
            [("title", "category"), *zip(names, (LABEL_NAMES[c] for c in titles.labels), strict=True)]
        )
    values = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    values["prepare"]["source"] = "data/raw/a.csv"
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    assert cli.main(["audit", "--top", "6"]) == 0
    told = capsys.readouterr()
    assert "dvc exp run -S prepare.corrections=data/corrections/audit.csv" in told.out
    assert "warning" not in told.err
    rows = listed()
    assert {row["title"] for row in rows} == {names[number] for number in PLANTED}
    with Path("review.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows([*(row | {"accept": "yes"} for row in rows[1:]), rows[0]])
    found = corrections.read("review.csv")
    expected = [(row["title"], row["category"], row["suggested"]) for row in rows[1:]]
    assert [row[1:] for row in found.accepted] == expected
    assert found.rows == 6


def test_titles_that_the_source_no_longer_has_are_counted(project, capsys):
    project(catalogue())
    assert cli.main(["audit", "--top", "6"]) == 0
    assert "warning: 6 of 6 titles listed are not in data/raw/sample.csv.gz" in capsys.readouterr().err
