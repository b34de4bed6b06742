"""`titles predict`: from what people have to what they want, and what they are told otherwise."""

import csv
import gzip
import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from networks import LABEL_NAMES
from saved_models import write_models
from titles.cli import main
from titles.predict.classifier import Classifier

TEXTS = ["Word5  WORD3", "word2", "word9 word4 word4 word10", "word7 word8", "unheard word3"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("trained") / "models")


@pytest.fixture
def ranked(models):
    """(category, probability) of each title, best first, as the classifier itself gives them."""

    def of(titles, k, choice="average"):
        found = Classifier.read(models, choice, CPU).top(titles, k)
        return [
            [(LABEL_NAMES[c], round(float(p), 6)) for c, p in zip(*row, strict=True)]
            for row in zip(*found, strict=True)
        ]

    return of


@pytest.fixture
def predict(models, capfdbinary):
    """Runs the command; returns its exit code, what it printed, and what it told."""

    def run(*arguments):
        code = main(["predict", "--models", str(models), *map(str, arguments)])
        out, err = capfdbinary.readouterr()
        return code, out, err.decode()

    return run


def answers(row, k):
    return [(row[f"category_{n}"], round(float(row[f"probability_{n}"]), 6)) for n in range(1, k + 1)]


def rows_of(content):
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


@pytest.mark.parametrize("choice", ["average", "cnn", "mlp"])
def test_titles_that_are_given_are_ranked_by_the_networks_asked_for(predict, ranked, choice):
    code, out, told = predict(*TEXTS, "--top", 3, "--model", choice)
    rows = rows_of(out)
    assert (code, told) == (0, "")
    assert [(row["row"], row["title"], row["problem"]) for row in rows] == [
        (str(number), text, "") for number, text in enumerate(TEXTS, start=1)
    ]
    assert [answers(row, 3) for row in rows] == ranked(TEXTS, 3, choice)


def test_no_more_categories_are_given_than_there_are(predict):
    _, out, _ = predict("word2", "--top", 99)
    assert list(rows_of(out)[0])[-3:] == ["category_4", "probability_4", "problem"]


BAD = {
    "": "empty title",
    "¿? ...": "no word",
    "\0": "no word",
    "👍👍": "no word",
}
# Not in the vocabulary, and all the same words.
ODD = ["unheard madeup", "手机壳", "чехол для телефона", "\0word3\0", "word3 👍", "🧿word3"]


@pytest.fixture
def written(tmp_path):
    """Writes id, title and price in a format; returns the file."""

    def write(kind, titles):
        rows = [(f"id{n}", title, n / 4) for n, title in enumerate(titles)]
        if kind == "csv":
            text = io.StringIO()
            csv.writer(text).writerows([("id", "title", "price"), *rows])
            content = text.getvalue().encode()
        elif kind == "jsonl":
            content = b"".join(
                json.dumps(dict(zip(("id", "title", "price"), row, strict=True))).encode() + b"\n"
                for row in rows
            )
        elif kind == "parquet":
            columns = dict(
                zip(("id", "title", "price"), map(list, zip(*rows, strict=True)), strict=True)
            )
            file = tmp_path / "in.parquet"
            pq.write_table(pa.table(columns), file)
            return file
        file = tmp_path / f"in.{kind}"
        file.write_bytes(content)
        return file

    return write


@pytest.mark.parametrize("into", ["csv", "csv.gz", "jsonl", "jsonl.gz", "parquet"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_any_format_becomes_any_other(predict, ranked, written, tmp_path, kind, into, monkeypatch):
    monkeypatch.setattr("titles.listings.rows.CHUNK_ROWS", 3)
    titles = [*TEXTS, *BAD, *ODD]
    out = tmp_path / f"out.{into}"
    code, printed, told = predict("--file", written(kind, titles), "--top", 2, "--out", out)
    assert (code, printed) == (0, b"")
    assert "11 of 15 titles classified" in told
    assert "4 without a category: no word 3, empty title 1" in told
    content = out.read_bytes()
    content = gzip.decompress(content) if into.endswith(".gz") else content
    if into == "parquet":
        table = pq.read_table(out)
        assert table.schema.field("price").type == (pa.float64() if kind == "parquet" else pa.string())
        rows = table.to_pylist()
    elif into.startswith("csv"):
        rows = rows_of(content)
    else:
        rows = [json.loads(line) for line in content.splitlines()]
    assert list(rows[0]) == [
        *("row", "id", "title", "price"),
        *("category_1", "probability_1", "category_2", "probability_2", "problem"),
    ]
    assert [row["title"] for row in rows] == titles
    assert [str(row["row"]) for row in rows] == [str(n + 1) for n in range(15)]
    assert [row["id"] for row in rows] == [f"id{n}" for n in range(15)]
    assert [float(row["price"]) for row in rows] == [n / 4 for n in range(15)]
    problems = dict(zip(titles, ((row["problem"] or "").partition(",")[0] for row in rows), strict=True))
    assert problems == dict.fromkeys([*TEXTS, *ODD], "") | BAD
    good = [row for row in rows if not row["problem"]]
    assert [answers(row, 2) for row in good] == ranked([*TEXTS, *ODD], 2)
    bad = [row for row in rows if row["problem"]]
    assert {row[name] for row in bad for name in list(row)[4:8]} <= {None, ""}


@pytest.mark.parametrize("into", ["csv", "jsonl", "parquet"])
def test_numbers_of_json_are_written_as_they_were_read(predict, tmp_path, into):
    big, fine = "123456789012345678901234567890", "0.10000000000000000555"
    more = f'{{"a":[{big},1.50,1e400]}}'
    lines = [f'{{"title":"word2","id":{id_},"more":{more}}}' for id_ in (big, fine, "7.10", 7, "-0")]
    file, out = tmp_path / "in.jsonl", tmp_path / f"out.{into}"
    file.write_text("\n".join(lines))
    assert predict("--file", file, "--top", 1, "--out", out)[0] == 0
    if into == "jsonl":
        for line, given in zip(out.read_text().splitlines(), lines, strict=True):
            assert given[1:-1] in line
            json.loads(line)
        return
    rows = pq.read_table(out).to_pylist() if into == "parquet" else rows_of(out.read_bytes())
    assert [row["id"] for row in rows] == [big, fine, "7.10", "7", "-0"]
    assert {row["more"] for row in rows} == {more}


def test_numbers_that_json_does_not_have_become_null_in_json_only(predict, tmp_path):
    file = tmp_path / "in.jsonl"
    file.write_text('{"title":"word2","price":NaN,"range":[-Infinity,1.5]}\n')
    for form, wanted in (("csv", ["NaN", "[null,1.5]"]), ("jsonl", [None, [None, 1.5]])):
        code, printed, _ = predict("--file", file, "--top", 1, "--out-format", form)
        (row,) = rows_of(printed) if form == "csv" else map(json.loads, printed.splitlines())
        assert (code, row["price"], row["range"], row["problem"]) == (0, *wanted, "")


@pytest.mark.parametrize("into", ["csv", "jsonl", "parquet"])
def test_columns_that_nobody_named_are_kept_by_their_places(predict, tmp_path, into):
    file, out = tmp_path / "in.csv", tmp_path / f"out.{into}"
    file.write_text("title,price,price,,\nword2,1,2,,3\n")
    assert predict("--file", file, "--top", 1, "--out", out)[0] == 0
    if into == "parquet":
        (row,) = pq.read_table(out).to_pylist()
    else:
        content = out.read_bytes()
        (row,) = rows_of(content) if into == "csv" else [json.loads(content)]
    found = [row[name] for name in ("title", "price", "price.3", "column.4", "column.5", "problem")]
    assert found[:5] == ["word2", "1", "2", "", "3"]
    assert not found[5]


@pytest.mark.parametrize("into", ["csv", "jsonl", "parquet"])
def test_columns_of_all_types_of_parquet_are_kept(predict, tmp_path, into):
    columns = {
        "view": (pa.array(["á", None], pa.string_view()), ["á", None], ["á", ""]),
        "bytes": (pa.array([b"a\xff", b"b"]), ["a\\xff", "b"], ["a\\xff", "b"]),
        "list": (pa.array([[b"a"], None]), [["a"], None], ['["a"]', ""]),
        "null": (pa.nulls(2), [None, None], ["", ""]),
        "factor": (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"], ["a", "b"]),
        "late": (
            pa.array([1, 10**7], pa.date32()),
            ["1970-01-02", "29349-01-26"],
            ["1970-01-02", "29349-01-26"],
        ),
    }
    file, out = tmp_path / "in.parquet", tmp_path / f"out.{into}"
    table = pa.table({"title": ["word2", "word2"]} | {name: each[0] for name, each in columns.items()})
    pq.write_table(table, file)
    assert predict("--file", file, "--top", 1, "--out", out)[0] == 0
    if into == "parquet":
        found = pq.read_table(out)
        assert [found.schema.field(name).type for name in columns] == table.schema.types[1:]
        for name in columns:
            assert found[name].equals(table[name])
        assert found["problem"].to_pylist() == [None, None]
        return
    content = out.read_bytes()
    rows = rows_of(content) if into == "csv" else [json.loads(line) for line in content.splitlines()]
    for name, (_, in_json, in_csv) in columns.items():
        assert [row[name] for row in rows] == (in_csv if into == "csv" else in_json)
    assert [row["problem"] for row in rows] == ["", ""]


def test_a_type_of_extension_is_kept_in_parquet(predict, tmp_path):
    file, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    flags = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8()))
    pq.write_table(pa.table({"title": ["word2"], "flag": flags}), file)
    assert predict("--file", file, "--out", out)[0] == 0
    assert pq.read_table(out)["flag"].equals(pq.read_table(file)["flag"])


@pytest.mark.parametrize("into", ["csv", "csv.gz", "jsonl", "parquet"])
def test_titles_that_are_not_sure_enough_get_the_reason_in_place_of_a_category(
    predict, ranked, written, tmp_path, into
):
    best = [row[0] for row in ranked([*TEXTS, *ODD], 1)]
    limit = float(np.mean(sorted(probability for _, probability in best)[5:7]))
    titles = [*TEXTS, *BAD, *ODD]
    out = tmp_path / f"out.{into}"
    code, _, told = predict(
        *("--file", written("parquet", titles), "--top", 2, "--out", out, "--at-least", limit)
    )
    content = gzip.decompress(out.read_bytes()) if into.endswith(".gz") else out.read_bytes()
    rows = (
        pq.read_table(out).to_pylist()
        if into == "parquet"
        else rows_of(content)
        if into.startswith("csv")
        else [json.loads(line) for line in content.splitlines()]
    )
    expected = dict(zip([*TEXTS, *ODD], best, strict=True))
    unsure = [title for title, (_, probability) in expected.items() if probability < limit]
    assert 0 < len(unsure) < len(expected)
    assert code == 0
    assert f"{11 - len(unsure)} of 15 titles classified" in told
    assert f"{4 + len(unsure)} without a category: not sure {len(unsure)}, no word 3" in told
    for row in rows:
        if row["title"] in unsure:
            category, probability = expected[row["title"]]
            assert row["problem"] == f"not sure: {np.floor(probability * 100) / 100:.2f} for {category}"
            assert {row[name] for name in list(row)[4:8]} <= {None, ""}
        elif row["title"] in expected:
            assert not row["problem"]
            assert row["category_1"] == expected[row["title"]][0]
        else:
            assert row["problem"] == BAD[row["title"]]


def test_with_the_threshold_at_its_ends_all_titles_or_next_to_none_get_a_category(predict, tmp_path):
    assert predict(*TEXTS)[1] == predict(*TEXTS, "--at-least", 0)[1]
    file = tmp_path / "a.csv"
    file.write_bytes(b'title\nword2\n""\n')
    _, out, told = predict("--file", file, "--at-least", 1, "--top", 1)
    problems = [row["problem"] for row in rows_of(out)]
    assert re.fullmatch(r"not sure: 0\.\d\d for [A-Z]+, line 2", problems[0])
    assert problems[1] == "empty title, line 3"
    assert "0 of 2 titles classified" in told


def test_a_doubt_stands_in_the_table_too(predict):
    _, out, _ = predict("word2", "--out-format", "table", "--at-least", 1)
    assert re.fullmatch(r"word2  not sure: 0\.\d\d for [A-Z]+", out.decode().strip())


def test_the_line_of_a_broken_row_is_told(predict, tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(b"sku,name\n1,word2\n2\n3,word3\n4,\n")
    code, out, told = predict("--file", file, "--column", "name", "--top", 1, "--keep", "")
    assert code == 0
    assert [(row["name"], row["problem"]) for row in rows_of(out)] == [
        ("word2", ""),
        ("", "wrong number of fields, line 3"),
        ("word3", ""),
        ("", "empty title, line 5"),
    ]
    assert "2 of 4 titles classified" in told


def test_lines_of_the_standard_input_are_titles(predict, ranked, monkeypatch):
    raw = io.BufferedReader(io.BytesIO("\n".join([*TEXTS, "", "ñandú"]).encode()))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw))
    code, out, told = predict("--top", 1, "--out-format", "jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, len(rows)) == (0, 7)
    assert [answers(row, 1) for row in rows[:5]] == ranked(TEXTS, 1)
    assert rows[5]["problem"] == "empty title, line 6"
    assert "6 of 7" in told


def test_a_table_has_one_line_a_title_and_obeys_no_title(predict, ranked, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    long = "word3 " * 30
    code, out, _ = predict("word2", "\x1b[31mword3\r\n", "?", long, "手机壳", "--out-format", "table")
    lines = out.decode().splitlines()
    assert (code, len(lines)) == (0, 5)
    (best, probability), *_ = ranked(["word2"], 1)[0]
    assert lines[0].split()[:3] == ["word2", best, f"{probability:.1%}"]
    assert "\x1b" not in out.decode()
    assert lines[2].split() == ["?", "no", "word"]
    assert max(map(len, lines)) <= 70


def test_lone_carriage_returns_end_no_row(predict):
    _, out, _ = predict("word2\rword3", "a", "--top", 1)
    assert [row["title"] for row in rows_of(out)] == ["word2\nword3", "a"]


@pytest.mark.parametrize(
    "usage",
    [
        ["a", "--file", "x.csv"],
        ["a", "--top", "0"],
        ["a", "--model", "rnn"],
        ["--format", "xlsx"],
        ["a", "--at-least", "1.01"],
        ["a", "--at-least", "-0.1"],
        ["a", "--at-least", "nan"],
        ["a", "--at-least", "most"],
    ],
    ids=" ".join,
)
def test_bad_usage_ends_with_2(predict, usage):
    with pytest.raises(SystemExit) as caught:
        predict(*usage)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--file", "{in}.csv", "--column", "name"], "has no column 'name'.*id, title, price; --column"),
        (["--file", "{in}.csv", "--format", "parquet"], "no Parquet file"),
        (["--file", "{in}.doc"], "the ending of .*in.doc is none of .txt.*--format"),
        (["--file", "{in}.csv", "--out", "x.doc"], "the ending of x.doc.*--out-format"),
        (["--file", "{in}.csv", "--out", "x.txt"], "lines cannot be written there"),
        (["--file", "{in}.csv", "--out", "{in}.csv/x.csv"], "cannot write"),
        (["--file", "nowhere.csv"], "nowhere.csv does not exist"),
        (
            ["word2", "--models", "nowhere"],
            "nowhere.cnn.model.json is missing: run `dvc repro`, or `dvc",
        ),
    ],
)
def test_what_cannot_be_done_is_told_and_ends_with_1(predict, written, options, message):
    stem = str(written("csv", TEXTS)).removesuffix(".csv")
    code, _, told = predict(*(option.replace("{in}", stem) for option in options))
    assert code == 1
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert re.search(message, told)


def test_a_column_that_the_output_needs_is_not_written_over(predict, tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(b"row,title\n1,word2\n")
    code, _, told = predict("--file", file)
    assert code == 1
    assert "has a column 'row', which the output needs" in told
    assert predict("--file", file, "--keep", "")[0] == 0


def test_a_file_that_turns_out_damaged_leaves_the_old_output(predict, tmp_path, monkeypatch):
    monkeypatch.setattr("titles.listings.rows.CHUNK_ROWS", 50)
    rng = np.random.default_rng(3)
    rows = "".join(f"{number}\n" for number in rng.integers(10**9, size=20_000))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(f"title\n{rows}".encode())[:-20])
    out = tmp_path / "out.csv"
    out.write_bytes(b"old")
    code, _, told = predict("--file", tmp_path / "a.csv.gz", "--out", out)
    assert code == 1
    assert "is damaged" in told
    assert out.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv.gz", "out.csv"]


def of_another_format(folder):
    path = folder / "cnn" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))


def without_a_word(folder):
    path = folder / "cnn" / "vocabulary.tsv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def with_a_word_more(folder):
    path = folder / "mlp" / "weights.safetensors"
    tensors = load_file(path)
    tensors["embedding.matrix_VD"] = torch.cat([tensors["embedding.matrix_VD"], torch.ones(1, 5)])
    save_file(tensors, path)


def of_other_data(folder):
    path = folder / "mlp" / "labels.txt"
    path.write_text(path.read_text().replace("EGGS", "FOOD"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            of_another_format,
            "cnn has model format 2, this version reads 5 and 6: train again with `dvc repro`",
        ),
        (without_a_word, "cnn is damaged, its weights do not fit: 12 vectors for 11 words"),
        (with_a_word_more, "mlp is damaged, its weights do not fit: 13 vectors for 12 words"),
        (of_other_data, "cnn and mlp were trained on different data"),
    ],
)
def test_models_that_cannot_be_used_say_why(tmp_path, capsys, damage, message):
    folder = write_models(tmp_path / "models")
    damage(folder)
    assert main(["predict", "word2", "--models", str(folder)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert message in told


@pytest.mark.pipeline
def test_a_reader_that_has_enough_ends_it_quietly_and_nothing_heavy_was_loaded(models, tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("word2 word3\n" * 50_000)
    heavy = ("mlflow", "dvc", "pandas", "gensim", "sklearn", "rich")
    script = (
        "import sys\nfrom titles.cli import main\n"
        f"code = main({['predict', '--models', str(models), '--file', str(file)]!r})\n"
        f"print(code, [name for name in {heavy!r} if name in sys.modules], file=sys.stderr)\n"
    )
    ran = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ
    )
    assert ran.stdout.readline().startswith(b"row,title,category_1")
    ran.stdout.close()
    assert ran.stderr.read().decode() == "0 []\n"
    ran.stderr.close()
    assert ran.wait() == 0
