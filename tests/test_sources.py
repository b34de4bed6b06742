import gzip
import json
import lzma
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from titles.listings import sources

HEADER = "title,label_quality,language,category\n"
GOOD = (
    "Funda roja,reliable,spanish,CASES\n"
    '"Capa, azul ""mini""",unreliable,portuguese,CASES\n'
    "Mesa ñandú,reliable,spanish,TABLES\n"
)
GOOD_ROWS = [
    ("", 2, "Funda roja", "CASES", "spanish", "reliable"),
    ("", 3, 'Capa, azul "mini"', "CASES", "portuguese", "unreliable"),
    ("", 4, "Mesa ñandú", "TABLES", "spanish", "reliable"),
]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks so small that every reading crosses their borders."""
    monkeypatch.setattr("titles.listings.rows.CHUNK_ROWS", 2)


def read(source, language="all", max_title_chars=50):
    """(split, line, title, category, language, quality) of each row; (line, reason) of the others."""
    rows, rejected = [], []
    for chunk in sources.read(source, language, max_title_chars):
        columns = (chunk.lines, *chunk.columns())
        kept = [(chunk.split, *row) for row in zip(*columns, strict=True)]
        assert chunk.rows_read == len(kept) + len(chunk.rejected)
        assert chunk.file in str(source) or source.is_dir()
        rows += kept
        rejected += [(row.line, row.reason) for row in chunk.rejected]
    return rows, rejected


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(source, language="all"):
    with pytest.raises(ValueError, match=r"\w") as caught:
        read(source, language)
    assert str(source) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("train.csv", (HEADER + GOOD).encode(), id="plain"),
        pytest.param("train.csv.gz", gzip.compress((HEADER + GOOD).encode()), id="gzip"),
        pytest.param("train.csv", gzip.compress((HEADER + GOOD).encode()), id="gzip named csv"),
        pytest.param("train.csv.gz", (HEADER + GOOD).encode(), id="plain named gz"),
        pytest.param("train.csv", (HEADER + GOOD).encode("utf-8-sig"), id="byte order mark"),
        pytest.param("train.csv", (HEADER + GOOD).replace("\n", "\r\n").encode(), id="Windows lines"),
        pytest.param("train.csv", (HEADER + GOOD)[:-1].encode(), id="no last newline"),
    ],
)
def test_a_challenge_file_is_recognised_by_what_it_holds(tmp_path, name, content):
    assert read(write(tmp_path / name, content)) == (GOOD_ROWS, [])


def test_columns_are_found_by_name_and_absent_ones_are_unspecified(tmp_path):
    file = write(tmp_path / "a.csv", "id, category ,title\n7,TABLES,Mesa\n8,CASES,Funda\n")
    assert read(file)[0] == [
        ("", 2, "Mesa", "TABLES", "unspecified", "unspecified"),
        ("", 3, "Funda", "CASES", "unspecified", "unspecified"),
    ]


def test_lines_are_counted_through_quotes_commas_newlines_and_blank_lines(tmp_path):
    file = write(
        tmp_path / "a.csv",
        'title,category\n"Dos\nrenglones, ""citados""",A\n\n"a\n\n\nb",B\nrota\nTv 32" led,C\nfin,D\n',
    )
    rows, rejected = read(file)
    assert [(line, title) for _, line, title, *_ in rows] == [
        (2, 'Dos\nrenglones, "citados"'),
        (5, "a\n\n\nb"),
        (10, 'Tv 32" led'),
        (11, "fin"),
    ]
    assert rejected == [(9, "wrong_number_of_fields")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param(",reliable,spanish,A", "empty_title", id="no title"),
        pytest.param(" \t,reliable,spanish,A", "empty_title", id="blank title"),
        pytest.param("Mesa,reliable,spanish, ", "empty_category", id="no category"),
        pytest.param("x" * 100_000 + ",reliable,spanish,A", "title_too_long", id="100,000 characters"),
        pytest.param("Mesa,reliable,english,A", "unknown_language", id="another language"),
        pytest.param("Mesa,reliable,,A", "unknown_language", id="no language"),
        pytest.param("Mesa,Reliable,spanish,A", "unknown_label_quality", id="another quality"),
        pytest.param(b"Mes\xe1,reliable,spanish,A", "invalid_utf8", id="Latin-1 title"),
        pytest.param(b"Mesa,reliable,spanish,\xff", "invalid_utf8", id="Latin-1 category"),
        pytest.param('Mesa,reliable,spanish,"A\n"', "newline_in_category", id="newline in a category"),
        pytest.param(
            "Mesa,reliable,spanish,A\x1b]0;x\x07B",
            "control_character_in_category",
            id="title of the window in a category",
        ),
        pytest.param(
            "Mesa,reliable,spanish,A\x1b[2JB",
            "control_character_in_category",
            id="clearing in a category",
        ),
        pytest.param(
            "Mesa,reliable,spanish,A\x9b2JB", "control_character_in_category", id="C1 in a category"
        ),
        pytest.param(
            "Mesa,reliable,spanish,A\x7fB", "control_character_in_category", id="delete in a category"
        ),
        pytest.param(
            "Mesa,reliable,spanish,A\x08B", "control_character_in_category", id="backspace in a category"
        ),
        pytest.param("Mesa,reliable,spanish", "wrong_number_of_fields", id="too few fields"),
        pytest.param("Mesa, roja,reliable,spanish,A", "wrong_number_of_fields", id="too many fields"),
        pytest.param('"Tv" 32,reliable,spanish,A', "broken_csv", id="text after a quote"),
    ],
)
def test_only_the_row_that_breaks_the_schema_is_set_aside(tmp_path, row, reason):
    row = row if isinstance(row, bytes) else row.encode()
    file = write(tmp_path / "a.csv", (HEADER + GOOD).encode() + row + b"\nFin,reliable,spanish,A\n")
    rows, rejected = read(file)
    assert rejected == [(5, reason)]
    last = 6 + row.count(b"\n")
    assert rows == [*GOOD_ROWS, ("", last, "Fin", "A", "spanish", "reliable")]


def test_a_title_at_the_limit_and_one_with_nul_bytes_are_rows_like_others(tmp_path):
    file = write(tmp_path / "a.csv", "title,category\n" + "ñ" * 50 + ",A\nuno\0dos,B\n")
    assert [row[2] for row in read(file)[0]] == ["ñ" * 50, "uno\0dos"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("", "is empty: expected a header such as title,category", id="empty file"),
        pytest.param(
            "id,title,language\n1,Mesa,spanish\n",
            "has titles but no categories (columns id, title, language): there is nothing to learn from",
            id="titles only",
        ),
        pytest.param(
            "titulo,category\nMesa,A\n", "columns titulo, category are not known", id="renamed"
        ),
        pytest.param("Mesa,TABLES\nFunda,CASES\n", "columns Mesa, TABLES are not known", id="no header"),
        pytest.param(
            "title,category,title\na,B,c\n", "has the column 'title' twice", id="doubled column"
        ),
        pytest.param('"title"x,category\na,B\n', "the header is no CSV", id="broken header"),
        pytest.param(b"\x00\x15\x04\x00\xff\xfe", "are not known", id="another kind of file"),
        pytest.param(b"PAR1\x15\x04\x00\xff\xfe", "damaged, or no Parquet file", id="broken Parquet"),
    ],
)
def test_a_file_without_titles_and_categories_is_refused(tmp_path, content, message):
    assert message in refusal(write(tmp_path / "a.csv", content))


def test_a_file_with_a_header_alone_has_no_rows(tmp_path):
    assert read(write(tmp_path / "a.csv", HEADER)) == ([], [])


def test_a_field_past_the_limit_without_a_quote_costs_its_row(tmp_path):
    long = "x" * (1024 * 1024 + 1)
    for row in (f"{long},A", f'"{long}",A'):
        file = write(tmp_path / "a.csv", f"title,category\nMesa,T\n{row}\nSilla,S\n")
        (rejected,) = [row for chunk in sources.read(file, "all", 50) for row in chunk.rejected]
        assert (rejected.line, rejected.reason) == (3, "line_too_long")
        assert rejected.excerpt == row[: len(rejected.excerpt)] != ""
        assert [row[1:3] for row in read(file)[0]] == [(2, "Mesa"), (4, "Silla")]
    half = long[: len(long) // 2 + 1]
    file = write(tmp_path / "a.csv", f'title,category\n"Mesa\n{half}\n{half}",T\nSilla,S\n')
    ((row,), (rejected,)) = read(file)[0], next(iter(sources.read(file, "all", 50))).rejected
    assert (row[2], rejected.line, rejected.reason) == ("Silla", 2, "field_too_long")
    file = write(tmp_path / "a.csv", f'title,category\nMesa,T\n"Silla,S\n{long},A\n')
    assert "the quote opened in line 3 is not closed by line 4" in refusal(file)


UNUSED = {
    "unnamed": ["title", "category", "", ""],
    "repeated": ["title", "price", "category", "price"],
    "repeated with spaces": ["price ", "title", "category", " price"],
}


@pytest.mark.parametrize("names", UNUSED.values(), ids=list(UNUSED))
def test_columns_that_are_not_used_may_have_any_names(tmp_path, names):
    rows = [
        [{"title": title, "category": "A"}.get(name.strip(), "1") for name in names] for title in "ab"
    ]
    content = "\n".join(map(",".join, [names, *rows]))
    table = pa.Table.from_arrays([pa.array(column) for column in zip(*rows, strict=True)], names)
    pq.write_table(table, tmp_path / "a.parquet")
    for file in (write(tmp_path / "a.csv", content), tmp_path / "a.parquet"):
        found, rejected = read(file)
        assert [row[2:4] for row in found] == [("a", "A"), ("b", "A")]
        assert rejected == []


@pytest.mark.parametrize("name", ["title", "category", "language", "label_quality"])
def test_a_column_that_is_used_must_be_there_once(tmp_path, name):
    names = ["title", "category", "language", "label_quality", f" {name}"]
    table = pa.Table.from_arrays([pa.array(["a"])] * 5, names)
    pq.write_table(table, tmp_path / "a.parquet")
    for file in (write(tmp_path / "a.csv", ",".join(names)), tmp_path / "a.parquet"):
        assert f"has the column '{name}' twice" in refusal(file)


def test_a_quote_that_never_closes_ends_the_reading_with_its_line(tmp_path):
    file = write(tmp_path / "a.csv", 'title,category\nuno,A\ndos,A\n"tres,B\ncuatro,B\ncinco,B\n')
    assert "the quote opened in line 4 is not closed by line 6" in refusal(file)


def test_a_stray_quote_that_swallows_rows_is_an_error_and_not_one_broken_row(tmp_path):
    rows = [f"mesa {number},TABLES" for number in range(30)]
    for ending in ('"tv, led",TVS', 'tv led",TVS', 'tv "led""",TVS'):
        file = tmp_path / "rows.csv"
        file.write_text(
            "\n".join(["title,category", '"monitor 24,SCREENS', *rows, ending, *rows]) + "\n"
        )
        assert "the quote opened in line 2 is not closed by line" in refusal(file)


def numbered(count):
    return "title,category\n" + "".join(f"Mesa {hash_of(n)},C{n % 3}\n" for n in range(count))


def hash_of(number):
    return (number * 2654435761) % 2**32


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda zipped: zipped[: len(zipped) // 2], id="cut in the middle"),
        pytest.param(lambda zipped: zipped[:-4], id="cut in the checksum"),
        pytest.param(lambda zipped: zipped[:12], id="cut in the header"),
        pytest.param(lambda zipped: zipped[:-8] + b"\0\0\0\0" + zipped[-4:], id="wrong checksum"),
        pytest.param(
            lambda zipped: zipped[: len(zipped) // 2] + b"\xff" * 99 + zipped[len(zipped) // 2 + 99 :],
            id="garbage in the middle",
        ),
        pytest.param(lambda zipped: zipped + b"trailing", id="garbage at the end"),
        pytest.param(lambda zipped: b"\x1f\x8b" + b"garbage" * 3, id="nothing but the first two bytes"),
    ],
)
def test_damaged_gzip_is_never_taken_for_a_shorter_file(tmp_path, damage):
    zipped = gzip.compress(numbered(3000).encode(), mtime=0)
    assert len(read(write(tmp_path / "whole.csv.gz", zipped))[0]) == 3000
    message = refusal(write(tmp_path / "a.csv.gz", damage(zipped)))
    assert "is damaged near line" in message
    assert "get the file again" in message


def test_what_does_not_exist_is_told_with_the_parameter_to_set(tmp_path):
    assert "set prepare.source" in refusal(tmp_path / "none.csv")


# The course's folder: one gzip of JSON lines for each language and split.


def record(title, **others):
    return {"title": title, "category": "A", "language": "spanish", "label_quality": "reliable"} | others


@pytest.fixture
def course(tmp_path):
    """Writes a folder; each file holds one row of its own and whatever is given for it."""

    def build(languages=("spanish", "portuguese"), **contents):
        for language in languages:
            for split in ("train", "validation", "test"):
                row = json.dumps(record(f"{language} {split}", language=language, split=split))
                content = contents.get(f"{language}_{split}", row + "\n")
                content = content if isinstance(content, bytes) else gzip.compress(content.encode())
                (tmp_path / f"{language}.{split}.jsonl.gz").write_bytes(content)
        return tmp_path

    return build


def test_a_course_folder_gives_each_row_the_split_of_its_file(course):
    rows, rejected = read(course())
    assert rejected == []
    assert rows == [
        (split, 1, f"{language} {split}", "A", language, "reliable")
        for language in ("spanish", "portuguese")
        for split in ("train", "validation", "test")
    ]


def test_one_language_needs_only_its_own_files(course):
    folder = course(languages=["portuguese"])
    assert [row[0] for row in read(folder, "portuguese")[0]] == ["train", "validation", "test"]
    assert len(read(folder, "all")[0]) == 3
    assert "it lacks spanish.train.jsonl.gz, spanish.validation" in refusal(folder, "spanish")


def test_a_course_folder_that_lacks_a_file_is_refused_with_the_files_name(course):
    folder = course()
    (folder / "spanish.validation.jsonl.gz").unlink()
    assert "it lacks spanish.validation.jsonl.gz" in refusal(folder)


def test_a_folder_of_anything_else_is_refused(tmp_path):
    assert "{language}.{train,validation,test}.jsonl.gz" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param(b'{"title": "Mesa", ', "broken_json", id="cut line"),
        pytest.param(b'["Mesa", "A"]', "broken_json", id="not an object"),
        pytest.param(b'{"title": "\\ud800", "category": "A"}', "broken_json", id="half a surrogate"),
        pytest.param(b'{"title": "Mes\xe1", "category": "A"}', "invalid_utf8", id="Latin-1"),
        pytest.param(b'{"title": "Mesa"}', "missing_field", id="no category"),
        pytest.param(b'{"title": 7, "category": "A"}', "field_is_not_text", id="number for a title"),
        pytest.param(
            b'{"title": "Mesa", "category": "A", "language": null}', "field_is_not_text", id="null"
        ),
        pytest.param(
            b'{"title": "Mesa", "category": "A", "split": "test"}',
            "split_is_not_the_files",
            id="split of another file",
        ),
        pytest.param(b'{"title": " ", "category": "A"}', "empty_title", id="blank title"),
        pytest.param(b'{"title": NaN, "category": "A"}', "field_is_not_text", id="NaN for a title"),
        pytest.param(
            b'{"title": "Mesa", "category": %s}' % (b"[" * 300 + b"]" * 300),
            "nested_too_deeply",
            id="deep",
        ),
        pytest.param(
            b'{"title": "Mesa", "category": ' + b"[" * 99_999, "nested_too_deeply", id="no end"
        ),
        pytest.param(b'{"title": "Mesa", "category": "A\\nB"}', "newline_in_category", id="newline"),
    ],
)
def test_only_the_json_line_that_breaks_the_schema_is_set_aside(course, line, reason):
    good = json.dumps(record("a\nb")).encode()
    lines = b"\n".join([good, good, b"", line, good, good])
    rows, rejected = read(course(languages=["spanish"], spanish_train=gzip.compress(lines)))
    assert rejected == [(4, reason)]
    assert [row[1] for row in rows if row[0] == "train"] == [1, 2, 5, 6]
    assert rows[0] == ("train", 1, "a\nb", "A", "spanish", "reliable")


def test_a_byte_order_mark_before_a_course_file_costs_no_row(course):
    content = "\ufeff" + json.dumps(record("Mesa"), ensure_ascii=False) + "\n"
    names = [f"spanish_{split}" for split in ("train", "validation", "test")]
    rows, rejected = read(course(["spanish"], **dict.fromkeys(names, content)))
    assert [row[:3] for row in rows] == [(name[8:], 1, "Mesa") for name in names]
    assert rejected == []


@pytest.mark.parametrize(
    "value", [b"NaN", b"-Infinity", b"1e999", b'"\\ud83d"', b'"caf\xe9"', b"[" * 300 + b"]" * 300]
)
def test_a_field_that_is_not_used_may_hold_anything(course, value):
    line = b'{"title": "Mesa", "category": "A", "more": ' + value + b"}\n"
    rows, rejected = read(course(["spanish"], spanish_train=gzip.compress(line)))
    assert rows[0] == ("train", 1, "Mesa", "A", "unspecified", "unspecified")
    assert rejected == []


def test_a_number_in_place_of_text_is_listed_with_all_its_digits(course):
    line = '{"title": 123456789012345678901234567890, "category": "A"}\n'
    rejected = next(sources.read(course(["spanish"], spanish_train=line), "all", 50)).rejected
    assert [row.excerpt.split(",")[0] for row in rejected] == ["123456789012345678901234567890"]


def test_a_course_file_without_language_and_quality_is_unspecified(course):
    rows, _ = read(course(["spanish"], spanish_test='{"title": "Mesa", "category": "B"}\n'))
    assert rows[-1] == ("test", 1, "Mesa", "B", "unspecified", "unspecified")


def test_an_empty_or_cut_course_file_is_refused_by_name(course):
    lines = "".join(json.dumps(record(f"Mesa {hash_of(n)}")) + "\n" for n in range(500))
    folder = course(spanish_test=gzip.compress(lines.encode())[:-900])
    with pytest.raises(ValueError, match=r"spanish\.test\.jsonl\.gz is damaged near line \d\d"):
        read(folder)
    folder = course(portuguese_train="")
    with pytest.raises(ValueError, match=r"portuguese\.train\.jsonl\.gz is empty"):
        read(folder)


LISTINGS = {"title": ["Mesa roja", 'Funda, "J7"', "Silla\nalta"], "category": ["T", "C", "S"]}


@pytest.fixture
def one_chunk(monkeypatch):
    monkeypatch.setattr("titles.listings.rows.CHUNK_ROWS", 50)


def parquet(path, columns):
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.usefixtures("one_chunk")
def test_parquet_gives_the_rows_that_csv_gives(tmp_path):
    full = LISTINGS | {"language": ["spanish"] * 3, "label_quality": ["reliable"] * 3}
    (plain,) = sources.read(parquet(tmp_path / "a.bin", LISTINGS), "all", 1000)
    assert plain.columns() == (*LISTINGS.values(), ["unspecified"] * 3, ["unspecified"] * 3)
    assert plain.lines == [1, 2, 3]
    (whole,) = sources.read(parquet(tmp_path / "b.parquet", full | {"other": [1, 2, 3]}), "all", 1000)
    assert whole.columns() == tuple(full.values())


@pytest.mark.usefixtures("one_chunk")
def test_spaces_around_the_names_of_columns_do_not_matter(tmp_path):
    spaced = {f" {name} ": values for name, values in LISTINGS.items()}
    (chunk,) = sources.read(parquet(tmp_path / "a.parquet", spaced), "all", 1000)
    assert chunk.columns()[:2] == tuple(LISTINGS.values())


@pytest.mark.usefixtures("one_chunk")
def test_what_is_no_text_in_parquet_is_set_aside(tmp_path):
    (chunk,) = sources.read(
        parquet(tmp_path / "a.parquet", LISTINGS | {"title": ["Mesa", None, "Silla"]}), "all", 99
    )
    assert chunk.lines == [1, 3]
    assert [(row.line, row.reason) for row in chunk.rejected] == [(2, "field_is_not_text")]
    assert chunk.rows_read == 3


TEXT_TYPES = [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()]
CASES = [(kind, encoded) for kind in TEXT_TYPES for encoded in (False, True)]
VIEWS = [(pa.string_view(), False), (pa.binary_view(), False)]  # Arrow has no dictionaries of them


@pytest.mark.usefixtures("one_chunk")
@pytest.mark.parametrize(("kind", "encoded"), CASES + VIEWS, ids=str)
def test_text_in_parquet_may_be_of_each_type_that_holds_it(tmp_path, kind, encoded):
    titles = pa.array([b"Tel\xc3\xa9fono", b"caf\xe9", None, b"Mesa"])
    titles = (titles if "binary" in str(kind) else titles.view(pa.string())).cast(kind, safe=False)
    columns = {
        "title": titles,
        "category": pa.array([b"A", b"A", b"A", b"\xff"]).cast(titles.type, safe=False),
    }
    if encoded:
        columns = {name: column.dictionary_encode() for name, column in columns.items()}
    rows, rejected = read(parquet(tmp_path / "a.parquet", columns))
    assert rows == [("", 1, "Teléfono", "A", "unspecified", "unspecified")]
    assert rejected == [(2, "invalid_utf8"), (3, "field_is_not_text"), (4, "invalid_utf8")]


@pytest.mark.parametrize("name", ["title", "category", "language", "label_quality"])
@pytest.mark.parametrize("values", [[1, 2], [1.5, None], [True, False]])
def test_another_type_than_text_in_parquet_is_refused_by_name_and_type(tmp_path, name, values):
    file = parquet(
        tmp_path / "a.parquet", {"title": ["a", "b"], "category": ["A", "B"]} | {name: values}
    )
    assert f"column '{name}' holds {pa.array(values).type}, not text" in refusal(file)


@pytest.mark.usefixtures("one_chunk")
def test_a_column_without_any_value_sets_its_rows_aside(tmp_path):
    file = parquet(tmp_path / "a.parquet", LISTINGS | {"category": pa.nulls(3)})
    assert read(file) == ([], [(line, "field_is_not_text") for line in (1, 2, 3)])


def test_parquet_without_rows_gives_none(tmp_path):
    none = {name: pa.array([], pa.string()) for name in LISTINGS}
    assert read(parquet(tmp_path / "a.parquet", none)) == ([], [])


def test_parquet_without_categories_or_cut_is_refused(tmp_path):
    assert "titles but no categories" in refusal(parquet(tmp_path / "a.parquet", {"title": ["Mesa"]}))
    whole = parquet(tmp_path / "b.parquet", LISTINGS).read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[:-20])
    assert "is damaged, or no Parquet file" in refusal(tmp_path / "b.parquet")


@pytest.mark.usefixtures("one_chunk")
def test_a_folder_of_shards_is_read_in_the_order_of_names(tmp_path):
    (tmp_path / "part-2.csv").write_text("title,category\nMesa,T\n")
    (tmp_path / "part-1.csv.gz").write_bytes(gzip.compress(b"category,title\nC,Funda\n"))
    parquet(tmp_path / "part-3.parquet", LISTINGS)
    (tmp_path / "notes.txt").write_text("no listing")
    chunks = list(sources.read(tmp_path, "all", 1000))
    assert [(chunk.file, chunk.titles[0]) for chunk in chunks] == [
        ("part-1.csv.gz", "Funda"),
        ("part-2.csv", "Mesa"),
        ("part-3.parquet", "Mesa roja"),
    ]
    (tmp_path / "empty").mkdir()
    assert "has neither .csv, .tsv or .parquet files" in refusal(tmp_path / "empty")


def test_a_folder_is_read_with_all_below_it_and_the_rest_is_named(tmp_path, capsys):
    for path, row in {
        "a.csv": "Uno,A",
        "b.CSV": "Dos,A",
        "c.tsv": "Tres\tA",
        "sub/a.csv": "Cinco,A",
        "sub/deeper/e.TSV.GZ": "Seis\tA",
        "sub/f.csv.xz": "Siete,A",
        ".hidden/g.csv": "Ocho,A",
        "sub/._a.csv": "no listing",
        ".gitignore": "/a.csv",
        "h.xlsx": "no listing",
        "sub/notes.txt": "Nueve,A",
        "z.jsonl": "{}",
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        header = "title\tcategory" if "\t" in row else "title,category"
        text = f"{header}\n{row}\n".encode()
        name = file.name.lower()
        packed = gzip.compress(text) if name.endswith("gz") else text
        write(file, lzma.compress(text) if name.endswith("xz") else packed)
    parquet(tmp_path / "d.pq", LISTINGS)
    (tmp_path / "linked").symlink_to(tmp_path / "sub")
    found = {(c.file, title) for c in sources.read(tmp_path, "all", 1000) for title in c.titles}
    assert found == {
        ("a.csv", "Uno"),
        ("b.CSV", "Dos"),
        ("c.tsv", "Tres"),
        *(("d.pq", title) for title in LISTINGS["title"]),
        ("sub/a.csv", "Cinco"),
        ("sub/deeper/e.TSV.GZ", "Seis"),
        ("sub/f.csv.xz", "Siete"),
    }
    left = ".hidden/g.csv, h.xlsx, linked, sub/._a.csv, sub/notes.txt and 1 more"
    told = capsys.readouterr().err
    assert told.endswith(f"these are left out: {left}\n")
    assert told.startswith(f"warning: {tmp_path}: ")
    assert told.count("\n") == 1


def test_nothing_is_said_of_a_folder_that_is_read_whole(tmp_path, course, capsys):
    (tmp_path / "shards").mkdir()
    write(tmp_path / "shards/a.csv", "title,category\nMesa,A\n")
    read(tmp_path / "shards")
    (tmp_path / "shards/a.csv").unlink()
    (tmp_path / "shards").rmdir()
    read(course(), "spanish")  # the Portuguese files are left out by the parameter
    assert capsys.readouterr().err == ""


def test_course_files_may_have_capitals_or_no_compression_and_others_are_named(course, capsys):
    folder = course(["spanish"])
    rows = read(folder)
    (folder / "spanish.train.jsonl.gz").rename(folder / "Spanish.TRAIN.jsonl.gz")
    plain = gzip.decompress((folder / "spanish.test.jsonl.gz").read_bytes())
    (folder / "spanish.test.jsonl.gz").unlink()
    write(folder / "spanish.test.jsonl", plain)
    write(folder / "more.csv", "title,category\nMesa,A\n")
    assert read(folder) == rows
    assert "these are left out: more.csv\n" in capsys.readouterr().err
    write(folder / "spanish.train.jsonl.gz", b"")
    assert "which are the same: remove one" in refusal(folder)


def test_a_folder_without_a_listing_names_what_it_has(tmp_path):
    (tmp_path / "meli").mkdir()
    write(tmp_path / "meli/spanish.train.jsonl.gz", b"")
    write(tmp_path / "a\x1b.txt", "Mesa")
    message = refusal(tmp_path)
    assert "it has a\\x1b.txt, meli/spanish.train.jsonl.gz" in message
    assert message.isprintable()


SPELLINGS = [
    "ROPA BEBÉ",
    "ROPA BEBE\u0301",
    "ROPA\u00a0BEBÉ",
    "ROPA  BEBÉ",
    " ROPA BEBÉ\t",
    "ROPA\u200b BEBÉ",
]


def test_spellings_of_a_category_are_one_category_and_are_counted(tmp_path):
    rows = "".join(f"Body {n},{name}\n" for n, name in enumerate([*SPELLINGS, *SPELLINGS, "Ropa Bebé"]))
    file = write(tmp_path / "a.csv", "title,category\n" + rows + "Mesa,\u200b\u00a0\n")
    found, rejected = read(file)
    assert [row[3] for row in found] == ["ROPA BEBÉ"] * 12 + ["Ropa Bebé"]
    assert rejected == [(15, "empty_category")]
    respelled = sum((chunk.respelled for chunk in sources.read(file, "all", 99)), Counter())
    assert respelled == dict.fromkeys(SPELLINGS[1:], 2)
    table = parquet(tmp_path / "a.parquet", {"title": [*"abcdef"], "category": SPELLINGS})
    assert {row[3] for row in read(table)[0]} == {"ROPA BEBÉ"}


@pytest.mark.parametrize("name", ["\ufeffcategory", "category\u00a0", " category\u200b"])
def test_spellings_of_a_column_are_one_column(tmp_path, course, name):
    text = f"{name},title\nA,Mesa\n"
    assert read(write(tmp_path / "a.csv", text))[0][0][2:4] == ("Mesa", "A")
    table = parquet(tmp_path / "a.parquet", {name: ["A"], "title": ["Mesa"]})
    assert read(table)[0][0][2:4] == ("Mesa", "A")
    folder = course(["spanish"], spanish_train=json.dumps({name: "A", "title": "Mesa"}))
    assert read(folder)[0][0][2:4] == ("Mesa", "A")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_course_files_come_in_any_encoding(course, encoding, end):
    lines = [json.dumps(record(title), ensure_ascii=False) for title in ("Ñandú", "Mesa 50 €")]
    content = gzip.compress((end.join(lines) + end).encode(encoding))
    rows, rejected = read(course(["spanish"], spanish_train=content))
    assert [(row[1], row[2]) for row in rows if row[0] == "train"] == [(1, "Ñandú"), (2, "Mesa 50 €")]
    assert rejected == []


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    def walk(folder, onerror):
        onerror(PermissionError(13, "Permission denied", str(folder / "sub")))
        yield from ()

    write(tmp_path / "a.csv", "title,category\nMesa,A\n")
    monkeypatch.setattr("os.walk", walk)
    with pytest.raises(PermissionError, match="sub"):
        read(tmp_path)
