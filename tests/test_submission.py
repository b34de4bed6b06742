"""From the challenge's test file to a submission."""

import csv
import os
from pathlib import Path

import pytest
import torch

from networks import LABEL_NAMES
from saved_models import model, write_models
from titles.cli import main
from titles.predict.classifier import Classifier
from titles.predict.submission import submit

REAL = Path(os.environ.get("TITLES_REAL_TEST", "data/real/meli_test_1000.csv"))
HEADER = "id,title,language\n"
ROWS = [("10", "word5 word3"), ("3", "¿?"), ("007", '"word2, word9"'), ("8", ""), ("4", "word7")]


@pytest.fixture(scope="module")
def classifier():
    return Classifier([model("cnn"), model("mlp")], torch.device("cpu"))


def written(folder, rows, header=HEADER):
    file = folder / "test.csv"
    file.write_text(header + "".join(f"{','.join(row)},spanish\n" for row in rows), encoding="utf-8")
    return file


def read(file):
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


@pytest.mark.parametrize("chunk_rows", [2, 1000])
def test_every_id_stands_once_and_in_order_with_the_likeliest_category(
    classifier, tmp_path, monkeypatch, chunk_rows
):
    monkeypatch.setattr("titles.listings.rows.CHUNK_ROWS", chunk_rows)
    told = submit(classifier, written(tmp_path, ROWS), tmp_path / "out.csv")
    header, *rows = read(tmp_path / "out.csv")
    assert header == ["id", "category"]
    assert [row[0] for row in rows] == [row[0] for row in ROWS]
    best = classifier.top([title.strip('"') for _, title in ROWS], 1).categories_NK[:, 0]
    nothing = LABEL_NAMES[classifier.probabilities(classifier.encode([""]))[0].argmax()]
    assert [row[1] for row in rows] == [LABEL_NAMES[c] if c >= 0 else nothing for c in best]
    assert told == f"{tmp_path / 'out.csv'}: 5 ids, 2 of them without a word in the title: {nothing}"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("1", "a"), ("", "b")], "line 3: the id is missing"),
        ([("1", "a"), ("x", "b")], "line 3: the id is 'x', expected a whole number"),
        ([("-1", "a")], "line 2: the id is '-1', expected"),
        ([("1.0", "a")], "line 2: the id is '1.0', expected"),
        ([("٣", "a")], "line 2: the id is '٣', expected"),
        ([("9" * 5000, "a")], "line 2: the id is '999"),
        ([("1", "a"), ("2", "b"), ("01", "c")], "line 4: the id 1 stands in line 2 too"),
        ([("1", "a"), ("2", "b", "c")], "line 3: wrong number of fields; expected the challenge's"),
        ([("1", "a"), ("2", '"b')], "line 3: broken CSV"),
        ([], "has no rows: expected the challenge's test file"),
    ],
)
def test_ids_that_are_not_right_are_told_with_their_line(classifier, tmp_path, rows, message):
    out = tmp_path / "out.csv"
    out.write_text("old")
    with pytest.raises(ValueError, match=r"test\.csv") as caught:
        submit(classifier, written(tmp_path, rows), out)
    assert message in str(caught.value)
    assert out.read_text() == "old"


@pytest.mark.parametrize("header", ["title,language\n", "id,language\n", "id;title;language\n"])
def test_another_file_is_refused(classifier, tmp_path, header):
    with pytest.raises(ValueError, match="expected the challenge's test file"):
        submit(classifier, written(tmp_path, [("1", "a")], header), tmp_path / "out.csv")


def test_the_command_submits_with_the_model_asked_for(tmp_path, capsys, classifier):
    models = write_models(tmp_path / "models")
    test, out = written(tmp_path, ROWS), tmp_path / "new" / "submission.csv"
    assert main(["submit", str(test), "--out", str(out), "--models", str(models), "--model", "mlp"]) == 0
    assert "5 ids" in capsys.readouterr().err
    alone = Classifier([model("mlp")], torch.device("cpu"))
    submit(alone, test, tmp_path / "expected.csv")
    assert out.read_bytes() == (tmp_path / "expected.csv").read_bytes()
    assert main(["submit", str(tmp_path / "no.csv"), "--models", str(models)]) == 1
    assert "no.csv does not exist" in capsys.readouterr().err


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not there; TITLES_REAL_TEST names another")
def test_real_test_titles_become_a_whole_submission(classifier, tmp_path):
    submit(classifier, REAL, tmp_path / "out.csv")
    rows, found = read(REAL)[1:], read(tmp_path / "out.csv")[1:]
    assert [row[0] for row in found] == [row[0] for row in rows]
    assert {row[1] for row in found} <= set(LABEL_NAMES)
