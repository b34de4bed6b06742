"""Labels that a person has corrected, in `prepare`."""

from __future__ import annotations

import csv
import io

import pytest

from test_preparation import run, titles_of  # noqa: F401  the fixture
from titles.data.contract import NO_CORRECTIONS, SPLITS
from titles.prepare import corrections

HEADER = ["title", "category", "suggested", "accept"]
FRUIT = [f"fruta roja {n}" for n in range(20)]
TOOLS = [f"martillo de acero {n}" for n in range(20)]
WRONG = "martillo con mango"
LISTING = [*((t, "FRUIT") for t in FRUIT), *((t, "TOOLS") for t in TOOLS), (WRONG, "FRUIT")]


def text_of(rows, delimiter=","):
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows(rows)
    return stream.getvalue()


@pytest.fixture
def table(tmp_path):
    """Writes a table of corrections; gives its path."""

    def write(*rows, header=HEADER, delimiter=",", encoding="utf-8"):
        file = tmp_path / "review.csv"
        file.write_bytes(text_of([header, *rows], delimiter).encode(encoding))
        return str(file)

    return write


def source(*more):
    return text_of([("title", "category"), *LISTING, *more])


def labels_of(folder):
    return {line: category for split in SPLITS for line, category, _ in titles_of(folder, split)}


def splits_of(folder):
    return {line: split for split in SPLITS for line, _, _ in titles_of(folder, split)}


LINE = len(LISTING) + 1  # of the row with the wrong label


def test_an_accepted_row_gets_its_label_and_no_title_changes_its_split(run, table, capsys):  # noqa: F811
    _, before = run(source(), "before")
    capsys.readouterr()
    metrics, after = run(
        source(),
        "after",
        corrections=table((WRONG, "FRUIT", "TOOLS", "yes"), (FRUIT[0], "FRUIT", "TOOLS", "")),
    )
    assert labels_of(before)[LINE] == "FRUIT"
    assert labels_of(after) == labels_of(before) | {LINE: "TOOLS"}
    assert splits_of(after) == splits_of(before)
    split = splits_of(after)[LINE]
    rows = {**dict.fromkeys(SPLITS, 0), "not_used": 0} | {split: 1}
    expected = {"listed": 2, "accepted": 1, "applied": 1, "set_aside": {}, "rows": rows}
    assert metrics["corrections"] == expected
    assert "correction" not in capsys.readouterr().err


def test_without_a_table_nothing_is_counted(run):  # noqa: F811
    metrics, _ = run(source(), corrections=NO_CORRECTIONS)
    assert "corrections" not in metrics
    assert corrections.read(NO_CORRECTIONS) is None


@pytest.mark.parametrize(
    ("delimiter", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-16"), (",", "utf-8")]
)
@pytest.mark.parametrize("mark", ["X", " yes ", "TRUE", "Verdadero", "sí", "Sim", "1", "✓"])
def test_tables_and_marks_as_spreadsheets_write_them_are_read(table, delimiter, encoding, mark):
    header = ["rank", "\ufefftitle", "Nota, mía", "category", "suggested", "accept"]
    path = table(
        ("1", 'Caja "azul"; 2,5', "", " FRUIT ", "TOOLS", mark),
        ("2", "otro", "", "FRUIT", "TOOLS", "Não"),
        ("3", "", "", "", "", ""),
        header=header,
        delimiter=delimiter,
        encoding=encoding,
    )
    found = corrections.read(path)
    assert found.rows == 3
    assert [row[1:] for row in found.accepted] == [('Caja "azul"; 2,5', "FRUIT", "TOOLS")]


def test_duplicates_of_a_title_are_corrected_where_they_have_the_category(run, table):  # noqa: F811
    more = [(WRONG.upper() + "!", "FRUIT"), (WRONG, "TOOLS"), (WRONG, "OTHER"), ("nada", "OTHER")]
    metrics, folder = run(source(*more), corrections=table((WRONG, "FRUIT", "TOOLS", "yes")))
    assert labels_of(folder)[LINE] == "TOOLS"
    assert metrics["corrections"]["applied"] == 1
    assert sum(metrics["corrections"]["rows"].values()) == 2
    assert metrics["corrections"]["rows"]["not_used"] == 1
    assert metrics["duplicates_of_another_category"] == 1  # OTHER: it was another label's, and stays


def test_a_later_table_corrects_a_corrected_label(run, table):  # noqa: F811
    path = table((WRONG, "FRUIT", "TOOLS", "yes"), (WRONG, "TOOLS", "FRUIT", "yes"))
    metrics, folder = run(source(), corrections=path)
    assert labels_of(folder)[LINE] == "FRUIT"
    assert metrics["corrections"]["applied"] == 2
    assert sum(metrics["corrections"]["rows"].values()) == 0


def test_a_formula_with_its_apostrophe_is_the_title_of_the_source(run, table):  # noqa: F811
    more = [("=2+3 cajas", "-FRUIT"), ("otra", "-FRUIT"), ("otra caja", "-FRUIT")]
    path = table(("'=2+3 cajas", "'-FRUIT", "TOOLS", "yes"))
    metrics, folder = run(source(*more), corrections=path)
    assert metrics["corrections"]["applied"] == 1
    assert labels_of(folder)[LINE + 1] == "TOOLS"


def test_corrections_that_match_nothing_are_told_counted_and_written_down(run, table, capsys):  # noqa: F811
    path = table(
        ("no existe", "FRUIT", "TOOLS", "yes"),
        (WRONG, "TOOLS", "FRUIT", "yes"),
        (FRUIT[1], "FRUIT", "TOOL", "yes"),
        (FRUIT[2], "FRUIT", "FRUIT", "yes"),
        (FRUIT[3], "FRUIT", "TOOLS", "yes"),
        (FRUIT[3].upper(), "FRUIT", "TOOLS", "yes"),
        ("---", "FRUIT", "TOOLS", "yes"),
        (FRUIT[4], "TOOLS", "OTHER", "yes"),
    )
    metrics, folder = run(source(("a", "OTHER"), ("b", "OTHER")), corrections=path)
    found = metrics["corrections"]
    assert found["set_aside"] == {
        "already_so": 2,
        "same_category": 1,
        "title_has_another_category": 1,
        "title_not_in_source": 2,
        "unknown_category": 1,
    }
    assert found["accepted"] == 8 == found["applied"] + sum(found["set_aside"].values())
    told = capsys.readouterr().err
    assert "7 of 8 accepted corrections in " in told
    assert "line 2 (title_not_in_source), line 3 (already_so), line 4 (unknown_category)" in told
    assert len([line for line in told.splitlines() if "review.csv" in line]) == 1
    with (folder / "rejected.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["reason"].startswith("correction_")]
    assert [int(row["line"]) for row in rows] == [2, 3, 4, 5, 7, 8, 9]
    assert "did you mean TOOLS?" in rows[2]["excerpt"]
    assert not any(name.startswith("correction") for name in metrics["rejected"])


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (("a", "B", "C", "maybe"), 'line 2: accept is "maybe": write yes'),
        (("a", "B", "C", "\x1b[2J"), 'accept is "\\x1b[2J"'),
        (("", "B", "C", "yes"), "line 2: it is accepted, but has no title"),
        (("a", " ", "C", "yes"), "line 2: it is accepted, but category is empty"),
        (("a", "B", "", "yes"), "line 2: it is accepted, but suggested is empty"),
        (("a", "B", "C", "yes", "more"), "line 2: wrong number of fields"),
    ],
)
def test_a_row_that_is_not_understood_is_an_error_with_its_line(table, row, told):
    with pytest.raises(ValueError, match=r"prepare\.corrections: ") as caught:
        corrections.read(table(row))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_two_suggestions_for_one_label_are_an_error(table):
    path = table(("Caja", "A", "B", "x"), ("caja!", "A", "C", "x"))
    with pytest.raises(
        ValueError, match=r'line 3: the same title and category as in line 2, with .*"C"'
    ):
        corrections.read(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"title,category\na,b\n", "a table of corrections has the columns title, category, suggested"),
        (b"title,category,suggested,accept\nni\xf1o,A,B,yes\n", "line 2: not UTF-8: save it as CSV"),
        (b"PK\x03\x04....", "review.csv"),
    ],
)
def test_another_file_is_an_error(tmp_path, content, told):
    file = tmp_path / "review.csv"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"review\.csv") as caught:
        corrections.read(str(file))
    assert told in str(caught.value)


def test_a_missing_table_is_an_error_that_says_what_stands_for_none(tmp_path):
    with pytest.raises(ValueError, match=f"does not exist; {NO_CORRECTIONS} stands for no corrections"):
        corrections.read(str(tmp_path / "none.csv"))
