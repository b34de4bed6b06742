"""Files of users in any packing and encoding: the same rows, or an error that names the kind."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from titles.listings import sources, streams
from titles.listings.files import CSV, JSON_LINES, LINES, PARQUET, format_of, opened
from titles.listings.names import are_canonical, canonical

TITLES = ["Funda Para Celular J7", "Ração úmida 3 kg", "Mesa Ratona, 50 €"]
CATEGORIES = ["CASES", "PETS", "TABLES"]


def csv_text(delimiter: str = ",", quoting: int = csv.QUOTE_MINIMAL) -> str:
    text = io.StringIO()
    rows = [("title", "category"), *zip(TITLES, CATEGORIES, strict=True)]
    csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator="\n").writerows(rows)  # type: ignore[call-overload]
    return text.getvalue()


TEXTS = {
    LINES: "".join(f"{title}\n" for title in TITLES),
    CSV: csv_text(),
    JSON_LINES: "".join(
        json.dumps({"title": t, "category": c}, ensure_ascii=False) + "\n"
        for t, c in zip(TITLES, CATEGORIES, strict=True)
    ),
}


def zipped(content: bytes, *names: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or ("some/folder/listings",):
            archive.writestr(name, content)
    return packed.getvalue()


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "bzip2 in two streams": lambda data: bz2.compress(data[:30]) + bz2.compress(data[30:]),
    "xz": lzma.compress,
    "xz in two streams": lambda d: lzma.compress(d[:30]) + bytes(8) + lzma.compress(d[30:]),
    "xz with padding": lambda data: lzma.compress(data) + bytes(16 * 1024),
    "zip": zipped,
    "zip of gzip": lambda data: zipped(gzip.compress(data), "listings.csv.gz"),
    "zip of a Mac": lambda data: zipped(data, "a.csv", "__MACOSX/._a.csv"),
}
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-be"]


def encoded(text: str, encoding: str) -> bytes:
    mark = "" if encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32") else "\ufeff"
    return (mark + text).encode(encoding)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def predicted(file: Path | None, kind: str, column: str = "title") -> list[tuple[str, str]]:
    """The title and the problem of each row."""
    with opened(file, kind, column) as listing:
        return [
            (title, chunk.problems.get(place, ""))
            for chunk in listing.chunks
            for place, title in enumerate(chunk.titles)
        ]


def learnt(source: Path) -> list[tuple[str, str]]:
    chunks = list(sources.read(source, "all", 1000))
    assert [row for chunk in chunks for row in chunk.rejected] == []
    return [row for chunk in chunks for row in zip(chunk.titles, chunk.categories, strict=True)]


GOOD = [(title, "") for title in TITLES]
LABELLED = list(zip(TITLES, CATEGORIES, strict=True))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"], ids=["LF", "CRLF", "CR", "CRCRLF"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", TEXTS)
def test_every_encoding_and_end_of_line_gives_the_same_rows(
    tmp_path: Path, kind: str, encoding: str, end: str
) -> None:
    text = TEXTS[kind].replace("\n", end)
    for content in (encoded(text, encoding), gzip.compress(encoded(text.rstrip("\r\n"), encoding))):
        file = written(tmp_path / "a", content)
        assert predicted(file, kind) == GOOD
        if kind == CSV:
            assert learnt(file) == LABELLED


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("kind", TEXTS)
def test_every_packing_gives_the_same_rows(tmp_path: Path, kind: str, packing: str) -> None:
    for encoding in ("utf-8", "utf-16"):
        file = written(tmp_path / "a", PACKINGS[packing](encoded(TEXTS[kind], encoding)))
        assert predicted(file, kind) == GOOD
        if kind == CSV:
            assert learnt(file) == LABELLED


@pytest.mark.parametrize("packing", ["plain", "gzip", "bzip2", "xz"])
def test_the_standard_input_is_unpacked_and_decoded(
    monkeypatch: pytest.MonkeyPatch, packing: str
) -> None:
    class OneByte(io.BytesIO):
        """A pipe that is written byte by byte."""

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            return super().readinto(memoryview(buffer)[:1])

    content = PACKINGS[packing](encoded(TEXTS[LINES], "utf-16"))
    for stream in (io.BytesIO(content), OneByte(content)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(stream)))  # type: ignore[type-var]
        assert predicted(None, LINES) == GOOD


def test_a_zip_on_the_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BufferedReader(io.BytesIO(zipped(b"Mesa\n")))  # type: ignore[type-var]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content))
    with pytest.raises(ValueError, match="cannot be read from a pipe: name the file"):
        predicted(None, LINES)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize(
    "text",
    [
        "Mesa",
        TEXTS[LINES],
        "\u041f\u043e\u043b\u043a\u0430\n" * 2,
        "Τραπέζι\n" * 3000,
        "“Mesa” ratona\n",
        "€ 50\n",
        "😀 Mesa ratona\n" * 3000,
    ],
)
def test_wide_text_without_a_mark_is_refused_with_the_remedy(
    tmp_path: Path, text: str, encoding: str
) -> None:
    file = written(tmp_path / "a", text.encode(encoding))
    name = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
    for read in (lambda: predicted(file, LINES), lambda: predicted(file, CSV), lambda: learnt(file)):
        with pytest.raises(ValueError, match=f"is {name} without a byte order mark.*iconv -f {name}"):
            read()


def test_a_row_of_broken_wide_text_costs_itself_alone(tmp_path: Path) -> None:
    half = encoded("Mesa\nsi", "utf-16") + b"\x00\xd8" + "lla\nFunda\n".encode("utf-16-le")
    rows = predicted(written(tmp_path / "a", half), LINES)
    assert rows == [("Mesa", ""), ("", "not UTF-8"), ("Funda", "")]
    for cut in (encoded("Mesa\nSilla\n", "utf-16")[:-1], encoded("Mesa\n", "utf-32")[:-3]):
        with pytest.raises(ValueError, match="is damaged near line"):
            predicted(written(tmp_path / "a", cut), LINES)


@pytest.mark.parametrize(
    "packing", ["gzip", "bzip2", "bzip2 in two streams", "xz", "xz in two streams", "zip"]
)
def test_damaged_packings_are_never_taken_for_shorter_files(tmp_path: Path, packing: str) -> None:
    text = "".join(f"Mesa {number * 2654435761 % 2**32}\n" for number in range(3000)).encode()
    whole = PACKINGS[packing](text)
    assert len(predicted(written(tmp_path / "a", whole), LINES)) == 3000
    middle = len(whole) // 2
    damages = [whole[:middle], whole[:middle] + b"\xff" * 99 + whole[middle + 99 :]]
    if packing != "zip":  # whose end has the list of files
        damages += [whole[:-2], whole + b"more"]
    for damage in damages:
        with pytest.raises(ValueError, match=r"is damaged near line|is a zip that is damaged"):
            predicted(written(tmp_path / "a", damage), LINES)


def with_password() -> bytes:
    content = bytearray(zipped(b"Mesa\n"))
    content[6] |= 1  # the flags before the file's data and in the list of files
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


REFUSED = {
    "a zip that is damaged, or cannot be read: File": with_password(),
    "a zip of 2 files (a.csv, b\\x1b.csv), which must have one: unpack it": zipped(
        b"x", "a.csv", "b\x1b.csv"
    ),
    "a zip of 7 files (0, 1, 2, 3, 4 and 2 more)": zipped(b"x", *map(str, range(7))),
    "a zip of 0 files": zipped(b"x", "folder/"),
    "an Excel workbook": zipped(b"x", "[Content_Types].xml", "xl/workbook.xml"),
    "Zstandard": pa.compress(b"title\nMesa\n" * 99, codec="zstd", asbytes=True),
    "LZ4": pa.compress(b"title\nMesa\n" * 99, codec="lz4", asbytes=True),
    "a 7z archive": b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(90),
    "a tar archive": b"a.csv".ljust(257, b"\x00") + b"ustar\x0000",
    "a zip of 0 files\n": b"PK\x05\x06" + bytes(18),
    "compressed by lzma": lzma.compress(b"title\nMesa\n", lzma.FORMAT_ALONE),
    "a Parquet file": gzip.compress(b"PAR1\x15\x04"),
    "no text": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9,
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_files_are_refused_by_their_kind_in_printable_words(tmp_path: Path, kind: str) -> None:
    file = written(tmp_path / "a", REFUSED[kind])
    for read in (
        lambda: predicted(file, LINES),
        lambda: predicted(file, CSV),
        lambda: predicted(file, JSON_LINES),
        lambda: learnt(file),
    ):
        with pytest.raises(ValueError, match=r"\w") as caught:
            read()
        assert kind.strip() in str(caught.value)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("outer", [name for name in PACKINGS if name != "plain"])
@pytest.mark.parametrize("inner", [name for name in PACKINGS if name != "plain"])
def test_a_file_that_is_packed_twice_is_read_or_refused(tmp_path: Path, outer: str, inner: str) -> None:
    file = written(tmp_path / "a", PACKINGS[outer](PACKINGS[inner](TEXTS[LINES].encode())))
    if outer in ("zip", "zip of a Mac") and not inner.startswith("zip"):
        assert predicted(file, LINES) == GOOD
    else:
        with pytest.raises(ValueError, match="is packed more than once: unpack it once"):
            predicted(file, LINES)


@pytest.mark.parametrize("read", [lambda file: predicted(file, CSV), learnt], ids=["predict", "learn"])
def test_unknown_columns_are_told_without_control_characters(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    file = written(tmp_path / "a.csv", b"t\x1b[31mtulo,\xff\x07\nMesa,A\n")
    with pytest.raises(ValueError, match=r"t\\x1b\[31mtulo, \\udcff\\x07") as caught:
        read(file)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL], ids=["bare", "quoted"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_header_tells_the_delimiter(tmp_path: Path, delimiter: str, quoting: int) -> None:
    file = written(tmp_path / "a.csv", csv_text(delimiter, quoting).encode())
    assert predicted(file, CSV) == GOOD
    assert learnt(file) == LABELLED
    one = written(tmp_path / "b.csv", f"title\n{TITLES[0]}; rojo | azul\n".encode())
    assert predicted(one, CSV) == [(f"{TITLES[0]}; rojo | azul", "")]


@pytest.mark.parametrize("read", [lambda file: predicted(file, CSV), lambda file: learnt(file)])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_quoted_header_without_the_columns_is_told_by_its_names(
    tmp_path: Path, delimiter: str, read: Callable[[Path], object]
) -> None:
    names = ['"producto"', '"preço, con IVA"', '"marca"']
    file = written(tmp_path / "a.csv", f"{delimiter.join(names)}\nMesa\n".encode())
    with pytest.raises(ValueError, match='producto, "preço, con IVA", marca'):
        read(file)


@pytest.mark.parametrize(
    "before", ["", "\n", "\r\n \r\n", "sep={}\r\n", '"sep={}"\n\n', "\ufeffSEP={}\n"]
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_blank_lines_and_the_line_of_the_delimiter_are_no_header(
    tmp_path: Path, delimiter: str, before: str
) -> None:
    before = before.format(delimiter)
    file = written(tmp_path / "a.csv", (before + csv_text(delimiter)).encode())
    assert predicted(file, CSV) == GOOD
    assert learnt(file) == LABELLED
    with opened(file, CSV) as listing:
        lines = [line for chunk in listing.chunks for line in chunk.lines]
    assert lines == [before.count("\n") + 2 + place for place in range(len(TITLES))]
    with pytest.raises(ValueError, match="is empty: expected a header"):
        predicted(written(tmp_path / "b.csv", before.encode()), CSV)


@pytest.mark.parametrize("header", ["title,category", "title,category,", "title,category,, "])
@pytest.mark.parametrize("row", ["Mesa,A", "Mesa,A,", "Mesa,A,,,", '"Mesa","A",""'])
def test_empty_fields_at_the_end_of_a_row_cost_nothing(tmp_path: Path, header: str, row: str) -> None:
    file = written(tmp_path / "a.csv", f"{header}\n{row}\nFunda,A\n".encode())
    assert predicted(file, CSV) == [("Mesa", ""), ("Funda", "")]
    assert learnt(file) == [("Mesa", "A"), ("Funda", "A")]


@pytest.mark.parametrize("row", ["Mesa", "Mesa,A,9,x", "Mesa,A,,x", """ "Mesa, roja",A,1,2"""])
def test_a_field_too_many_or_a_named_one_too_few_costs_its_row(tmp_path: Path, row: str) -> None:
    file = written(tmp_path / "a.csv", f"title,category,\n{row}\nFunda,A,9\n".encode())
    assert predicted(file, CSV) == [("", "wrong number of fields"), ("Funda", "")]
    [chunk] = sources.read(file, "all", 1000)
    assert (chunk.titles, [row.reason for row in chunk.rejected]) == (
        ["Funda"],
        ["wrong_number_of_fields"],
    )


def test_lines_end_where_any_system_ends_them(tmp_path: Path) -> None:
    mixed = "uno\rdos\r\ntres\ncuatro\u2028\x0b\r\r\n\r\ncinco".encode()
    with opened(written(tmp_path / "a", mixed), LINES) as listing:
        (chunk,) = listing.chunks
    assert chunk.titles == ["uno", "dos", "tres", "cuatro\u2028\x0b", "", "cinco"]
    assert list(chunk.lines) == [1, 2, 3, 4, 6, 7]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_ends_of_lines_hold_across_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(streams, "_BLOCK", size)
    text = b"uno\r\n\r\ndos\rtres\n" + b"x" * 40 + b"\r\nfin"
    with streams.opened(written(tmp_path / "a", text)) as stream:
        assert list(streams.lines(stream)) == text.splitlines(keepends=True)


NAMES = {
    "NFD": unicodedata.normalize("NFD", "título ñ"),
    "no-break space": "título\u00a0ñ",
    "spaces": "  título   ñ\t",
    "mark": "\ufefftítulo ñ",
    "zero width": "tít\u200bulo ñ",
}


@pytest.mark.parametrize("spelling", NAMES)
def test_columns_are_found_in_any_spelling(tmp_path: Path, spelling: str) -> None:
    name = NAMES[spelling]
    written(tmp_path / "a.csv", f"id,{name}\n1,Mesa\n".encode())
    written(tmp_path / "a.jsonl", json.dumps({"id": 1, name: "Mesa"}).encode())
    pq.write_table(pa.table({"id": [1], name: ["Mesa"]}), tmp_path / "a.pq")
    for ending in ("csv", "jsonl", "pq"):
        file = tmp_path / f"a.{ending}"
        for asked in ("título ñ", *NAMES.values()):
            with opened(file, format_of(file, "--format"), asked, [f" {asked}", "id "]) as listing:
                (chunk,) = listing.chunks
            assert listing.columns == ["id", "título ñ"]
            assert chunk.titles == ["Mesa"]


def test_rows_of_json_may_spell_a_key_differently(tmp_path: Path) -> None:
    composed, apart = "título", unicodedata.normalize("NFD", "título")
    rows = [{composed: "Mesa"}, {apart: "Silla"}, {composed: "a", apart: "b"}, {"id": 1}]
    lines = [*map(json.dumps, rows), "no JSON"]
    file = written(tmp_path / "a.jsonl", "\n".join(lines).encode())
    assert predicted(file, JSON_LINES, apart) == [
        ("Mesa", ""),
        ("Silla", ""),
        ("", "broken JSON"),
        ("", "no title"),
        ("", "broken JSON"),
    ]


def test_an_error_of_the_system_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.BytesIO):
        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            del buffer
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Failing())))  # type: ignore[type-var]
    with pytest.raises(OSError, match="Input/output error"):
        predicted(None, LINES)


def test_two_spellings_of_a_column_are_the_same_column_twice(tmp_path: Path) -> None:
    names = "título", unicodedata.normalize("NFD", "título")
    file = written(tmp_path / "a.csv", ",".join(names).encode() + b"\na,b\n")
    pq.write_table(pa.table([["a"], ["b"]], names=list(names)), tmp_path / "a.parquet")
    for each, kind in ((file, CSV), (tmp_path / "a.parquet", PARQUET)):
        with pytest.raises(ValueError, match="has the column 'título' twice"):
            predicted(each, kind, "título")


def test_only_the_looks_of_a_name_count() -> None:
    assert {canonical(name) for name in NAMES.values()} == {"título ñ"}
    assert canonical("A\u00a0 \u2003B\u2028") == "A B"
    assert len({canonical(name) for name in ("BEBES", "Bebes", "BEBÉS", "BEBE S")}) == 4
    invisible = "\u00ad\u034f\u061c\u180e\u200b\u200e\u202c\u2060\u2063\u2069\ufe0f\ufeff\ufff9"
    assert {canonical(f"CAM{character}AS") for character in invisible} == {"CAMAS"}
    persian = "\u0645\u06cc\u200c\u062e"  # the joiner shapes letters
    assert canonical(persian) == persian
    assert are_canonical(["A B", "título ñ", "名前"])
    assert are_canonical([])
    for name in [
        "",
        " A",
        "A ",
        "A  B",
        "A\tB",
        "A\nB",
        "A\u00a0B",
        "A\u3000B",
        persian,
        *NAMES.values(),
    ]:
        expected = name.isprintable() and name == canonical(name) != ""
        assert are_canonical(["A B", name, "título"]) == expected, name
    assert not any(are_canonical(["A", f"CAM{character}AS"]) for character in invisible)
