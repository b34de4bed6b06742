"""Blocks that Arrow reads give the rows of the careful reader, which gets all others."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from titles.listings import sources
from titles.listings.chunks import Chunk, CleanChunk
from titles.listings.csv_reader import CsvReader

HEADER = "title,label_quality,language,category\n"
CLEAN = st.sampled_from(
    [
        "Funda roja,reliable,spanish,CASES",
        '"Capa, azul ""mini""",unreliable,portuguese,CASES',
        "Mesa ñandú 世界,reliable,spanish,TABLES",
        "Tela 24'' e 24\" x,unreliable,portuguese,TABLES",
        '"",reliable,spanish,CASES',
        "  ,reliable,spanish,CASES",
        " a,reliable,spanish,CASES",
        "-,reliable,spanish,CASES",
    ]
)
DOUBTFUL = st.sampled_from(
    [
        '"a"b,reliable,spanish,CASES',
        '"a\nb",reliable,spanish,CASES',
        "",
        "   ",
        "a,reliable,spanish",
        "a,reliable,spanish,CASES,",
        "a,reliable,spanish,CASES,more",
        "a,reliable,klingon,CASES",
        "a,maybe,spanish,CASES",
        "a,reliable,spanish, CASES  x ",
        "a,reliable,spanish,",
        "a,reliable,spanish,e\u0301",
        "a,reliable,spanish,\u200b",
        "\x1c,reliable,spanish,CASES",
        "a\x00b,reliable,spanish,CASES",
        "a\rb,reliable,spanish,CASES",
        "\ufeffa,reliable,spanish,CASES",
        "\udcff,reliable,spanish,CASES",
        "a,reliable,spanish,\udcff",
        "b" * 60 + ",reliable,spanish,CASES",
        "ñ" * 50 + ",reliable,spanish,CASES",
    ]
)
FIELD = st.text(st.sampled_from('ab,"\r\n é\x00;'), max_size=6)


def _written(fields: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(fields)
    return out.getvalue()


ROW = st.one_of(CLEAN, CLEAN, CLEAN, DOUBTFUL, st.lists(FIELD, min_size=3, max_size=5).map(_written))


def read(file: Path, taken: Counter[str] | None = None) -> Any:
    found = []
    try:
        for chunk in sources.blocks(file, "all", 50):
            if taken is not None:
                taken[type(chunk).__name__] += 1
            found.append(chunk if isinstance(chunk, Chunk) else chunk.listed())
    except ValueError as error:
        return found, str(error)
    return found, ""


@pytest.fixture(params=[(1, 1), (2, 3), (5, 4), (4, 2)])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a chunk and lines of a batch, so few that borders are everywhere."""
    for name, value in zip(("CHUNK_ROWS", "LINES", "_LINES_AT_ONCE"), (*request.param, 1), strict=True):
        monkeypatch.setattr(f"titles.listings.rows.{name}", value)


@pytest.fixture
def careful(monkeypatch: pytest.MonkeyPatch) -> Any:
    def read_carefully(file: Path) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(CsvReader, "clean", lambda *_: None)
            return read(file)

    return read_carefully


@pytest.mark.usefixtures("small")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(ROW, max_size=14),
    end=st.sampled_from(["\n", "\n", "\r\n", "\r"]),
    last=st.booleans(),
    header=st.sampled_from([HEADER, "category;id;title\n".replace(";", ","), "title;category\n"]),
)
def test_rows_counts_and_errors_are_those_of_the_careful_reader(
    tmp_path: Path, careful: Any, rows: list[str], end: str, last: bool, header: str
) -> None:
    file = tmp_path / "a.csv"
    text = header + end.join(rows) + end * last
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert read(file) == careful(file)


@pytest.mark.usefixtures("small")
def test_good_blocks_are_read_by_arrow_and_one_doubtful_row_costs_its_block(
    tmp_path: Path, careful: Any
) -> None:
    file = tmp_path / "a.csv"
    good = 'Funda,reliable,spanish,CASES\n"Mesa, azul",unreliable,portuguese,TABLES\n'
    taken: Counter[str] = Counter()
    file.write_text(HEADER + good * 200 + "a,b\n" + good * 100)
    assert read(file, taken) == careful(file)
    assert taken[CleanChunk.__name__] > 10 * taken[Chunk.__name__] > 0
    file.write_text("id,title,category\n" + "1,Funda,CASES\n2,Mesa,TABLES\n" * 100)
    assert read(file, taken) == careful(file)
