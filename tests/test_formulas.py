"""CSV files that a spreadsheet opens without running what titles say."""

from __future__ import annotations

import csv
import io

import pytest

from titles import cli
from titles.data.formulas import escaped
from titles.listings import listing
from titles.predict import files

FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    '=HYPERLINK("http://x")',
    "\uff1d1",
    "-",
    "=",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_get_an_apostrophe(text):
    assert escaped(text) == f"'{text}"


@pytest.mark.parametrize("value", ["", "Mesa", "a=1", "'=1", " =1", "1-1", -1, -0.5, None, 0])
def test_all_else_stays(value):
    assert escaped(value) == value
    assert type(escaped(value)) is type(value)


@pytest.mark.parametrize("without", [True, False])
def test_no_cell_of_a_csv_begins_a_formula_where_that_was_asked_for(without, predicted_rows):
    rows = predicted_rows(without)
    assert len(rows) == 1 + len(FORMULAS)
    dangerous = [
        cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    ]
    assert bool(dangerous) != without


@pytest.fixture
def predicted_rows(tmp_path):
    """The rows of a CSV of titles that are formulas, in a category that is one."""
    import numpy as np

    from titles.predict.classifier import Ranked

    def rows(without):
        given = listing.of_titles(FORMULAS)
        out = tmp_path / "a.csv"
        count = len(FORMULAS)
        ranked = Ranked(np.zeros((count, 1), np.int64), np.full((count, 1), 0.5, np.float32))
        with files.writer(out, "csv", given, ["=cmd", "B"], 1, without) as write:
            (chunk,) = given.chunks
            write(files.Predicted(1, chunk, ranked, [""] * count))
        return list(csv.reader(io.StringIO(out.read_text(encoding="utf-8"), newline="")))

    return rows


def test_other_formats_need_no_escapes(tmp_path):
    given = listing.of_titles(["a"])
    with (
        pytest.raises(ValueError, match="--escape-formulas is for CSV"),
        files.writer(tmp_path / "a.jsonl", "jsonl", given, ["A", "B"], 1, True),
    ):
        pass


@pytest.mark.parametrize("name", ["predict", "audit"])
def test_the_commands_have_the_option(name, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([name, "--help"])
    assert caught.value.code == 0
    assert "--escape-formulas" in capsys.readouterr().out
