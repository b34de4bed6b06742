import bz2
import gzip
import io
import lzma
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors

from titles.data.contract import PAD, UNK
from titles.data.vocabulary import Vocabulary
from titles.embed.vectors import coverage, read_pretrained, train
from titles.params import Embed
from titles.prepare.text import normalise

WORDS = Vocabulary(
    ["<pad>", "<unk>", "mesa", "telefono", "ñandu", "128gb", "raro"], [0, 4, 9, 7, 5, 3, 2]
)
D = 3
METHODS = ("word2vec", "fasttext", "ppmi")


def embed(**changes):
    return Embed(
        **{
            "method": "word2vec",
            "pretrained": "data/pretrained/none",
            "dimension": D,
            "epochs": 2,
            "window": 2,
            "negative": 2,
            "subword_min": 2,
            "subword_max": 4,
            "workers": 1,
        }
        | changes
    )


# Training


@pytest.mark.parametrize("method", METHODS)
def test_the_same_titles_and_seed_give_the_same_bytes(encode, method):
    titles = small(encode)
    vectors = train(titles, WORDS, embed(method=method), 1)
    again = train(titles, WORDS, embed(method=method), 1)
    assert vectors.matrix_VD.tobytes() == again.matrix_VD.tobytes()
    assert vectors.matrix_VD.dtype == np.float32
    assert vectors.matrix_VD.shape == (7, D)
    assert vectors.has_vector_V.tolist() == [False, False, True, True, True, True, True]
    assert not vectors.matrix_VD[PAD].any()
    np.testing.assert_allclose(vectors.matrix_VD[UNK], vectors.matrix_VD[2:].mean(axis=0), atol=1e-6)
    other = train(titles, WORDS, embed(method=method), 2)
    assert not np.allclose(other.matrix_VD[2:], vectors.matrix_VD[2:])


def small(encode):
    return encode([[2, 3, 4, 1], [5, 2], [3, 6, 2], [6]])


def hexes(encode):
    return [train(small(encode), WORDS, embed(method=m), 1).matrix_VD.tobytes().hex() for m in METHODS]


def test_vectors_do_not_depend_on_the_process(encode):
    ran = subprocess.run(
        [sys.executable, "-c", "import conftest as c, test_vectors as t; print(*t.hexes(c.encoded))"],
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(Path(__file__).parent)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert ran.stdout.split() == hexes(encode)


@pytest.mark.parametrize(
    ("method", "change", "matters"),
    [
        ("word2vec", {"epochs": 9}, True),
        ("word2vec", {"window": 1}, True),
        ("word2vec", {"negative": 5}, True),
        ("word2vec", {"subword_max": 3}, False),
        ("fasttext", {"subword_max": 3}, True),
        ("fasttext", {"subword_min": 3}, True),
        ("ppmi", {"window": 1}, True),
        ("ppmi", {"dimension": 2}, True),
        ("ppmi", {"epochs": 9}, False),
        ("ppmi", {"negative": 5}, False),
        ("ppmi", {"subword_max": 3}, False),
        ("ppmi", {"workers": 3}, False),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_each_knob_changes_the_vectors_of_the_methods_it_is_for(encode, method, change, matters):
    titles = encode([[2, 3, 4, 1, 5, 6, 2, 4] * 9, [6, 4, 5, 3] * 9] * 20)
    plain = train(titles, WORDS, embed(method=method), 1).matrix_VD
    changed = train(titles, WORDS, embed(method=method, **change), 1).matrix_VD
    assert (plain.tobytes() != changed.tobytes()) == matters


# Reading a file

# "Mesa" and "MESA" are like "mesa", but the file has "mesa" itself; of "Teléfono" and "TELEFONO", which
# both only are like "telefono", the first counts. "raro" and "ñandu" are not there.
FILE = {
    "</s>": [9.0, 9.0, 9.0],
    "Mesa": [7.0, 7.0, 7.0],
    "Teléfono": [0.25, -1.5, 1e-3],
    "mesa": [1.0, 2.0, 4.0],
    "TELEFONO": [6.0, 6.0, 6.0],
    "MESA": [8.0, 8.0, 8.0],
    "128gb": [-2.0, 0.5, 3.0],
}
LINES = [f"{word} {' '.join(map(str, vector))}\n" for word, vector in FILE.items()]
TEXT = (f"{len(FILE)} {D}\n" + "".join(LINES)).encode()


HEADLESS = TEXT.split(b"\n", 1)[1]


def packed(word, vector, end=b""):
    return word.encode() + b" " + np.array(vector, "<f4").tobytes() + end


def binary(end=b"", file=FILE):
    return f"{len(file)} {D}\n".encode() + b"".join(packed(*entry, end) for entry in file.items())


@pytest.fixture
def read(text_settings):
    def run(path, dimension=D, seed=5):
        return read_pretrained(path, WORDS, dimension, seed, lambda word: normalise(word, text_settings))

    return run


@pytest.fixture
def refusal(read, tmp_path):
    """The message with which a file of the given content is refused."""

    def run(content, dimension=D):
        path = tmp_path / "vectors.txt"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"\w") as caught:
            read(path, dimension)
        assert str(path) in str(caught.value)
        return str(caught.value)

    return run


@pytest.fixture
def expected(read, tmp_path):
    (tmp_path / "expected.txt").write_bytes(TEXT)
    return read(tmp_path / "expected.txt")


def test_a_word_of_the_file_counts_if_it_is_the_same_or_else_alike(expected):
    assert expected.has_vector_V.tolist() == [False, False, True, True, False, True, False]
    assert expected.matrix_VD[[2, 3, 5]].tolist() == [
        FILE["mesa"],
        np.array(FILE["Teléfono"], np.float32).tolist(),
        FILE["128gb"],
    ]


def test_rows_without_a_vector_are_zero_for_pad_the_mean_for_unk_and_random_else(
    expected, read, tmp_path
):
    matrix = expected.matrix_VD
    assert not matrix[PAD].any()
    np.testing.assert_allclose(matrix[UNK], matrix[[2, 3, 5]].mean(axis=0), rtol=1e-6)
    drawn = read(tmp_path / "expected.txt", seed=6).matrix_VD
    assert not np.allclose(drawn[[4, 6]], matrix[[4, 6]])
    assert np.abs(matrix[[4, 6]]).min() > 0
    assert (drawn[[0, 1, 2, 3, 5]] == matrix[[0, 1, 2, 3, 5]]).all()


def zipped_once(content, *names):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or ("vectors.txt",):
            archive.writestr(name, content)
    return packed.getvalue()


PACKINGS = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zip": zipped_once,
}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(TEXT, id="text"),
        pytest.param(TEXT.replace(b"\n", b" \n"), id="text as of word2vec"),
        pytest.param(TEXT.replace(b"\n", b"\r\n"), id="text with CRLF"),
        pytest.param(TEXT.replace(b" ", b"\t").replace(b"7\t", b"7 "), id="text with tabs"),
        pytest.param(TEXT.replace(b" ", b"  "), id="text with double spaces"),
        pytest.param(b"\xef\xbb\xbf" + TEXT, id="text with a byte order mark"),
        pytest.param(TEXT.decode().encode("utf-16"), id="text in UTF-16"),
        pytest.param(TEXT + b"\n \n", id="text with empty lines at its end"),
        pytest.param(HEADLESS, id="GloVe"),
        pytest.param(HEADLESS.replace(b"\n", b"\r\n"), id="GloVe with CRLF"),
        pytest.param(binary(), id="binary"),
        pytest.param(binary(end=b"\n"), id="binary as of word2vec"),
    ],
)
def test_every_form_of_the_file_gives_the_same_matrix(tmp_path, read, expected, content, packing):
    (tmp_path / "v").write_bytes(PACKINGS[packing](content))
    assert read(tmp_path / "v").matrix_VD.tobytes() == expected.matrix_VD.tobytes()


@pytest.mark.parametrize("name", ["v.txt", "v.txt.gz", "v.bin", "v.bin.gz"])
def test_files_written_by_gensim_are_read(tmp_path, read, expected, name):
    vectors = KeyedVectors(D)
    vectors.add_vectors(list(FILE), np.array(list(FILE.values()), np.float32))
    vectors.save_word2vec_format(str(tmp_path / name), binary=".bin" in name)
    assert read(tmp_path / name).matrix_VD.tobytes() == expected.matrix_VD.tobytes()


SPACED = (
    ". . .",
    "a name@domain.com",
    "10 000",
    "mesa 0",
    "mesa \u00bd",
    " ",
    "\x85",
    "\u00a0 x",
    "1/2 a  b",
)


@pytest.mark.parametrize("first", [*SPACED, "señor", "?", "nan", "7"])
@pytest.mark.parametrize("header", [True, False], ids=["word2vec", "GloVe"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_words_with_spaces_or_in_latin_1_are_read_anywhere(
    tmp_path, read, expected, capsys, first, header, encoding
):
    """As of a text file that starts with such a word, whose numbers were taken for raw floats."""
    others = [word for word in SPACED if word != first]
    rows = [(first, [5.0, 5.1, 5.2]), *FILE.items(), *((word, [6.0, 6.1, 6.2]) for word in others)]
    lines = [f"{word} {' '.join(map(str, vector))}\n" for word, vector in rows]
    start = f"{len(rows)} {D}\n" if header else ""
    (tmp_path / "v.txt").write_bytes("".join([start, *lines]).encode(encoding))
    assert read(tmp_path / "v.txt").matrix_VD.tobytes() == expected.matrix_VD.tobytes()
    assert ("read as Latin-1" in capsys.readouterr().err) == (encoding == "latin-1")


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("dimension", [1, 2, 300])
@pytest.mark.parametrize("form", ["text", "GloVe", "binary", "binary as of word2vec"])
def test_any_number_of_words_and_dimensions_is_read(tmp_path, read, form, dimension, zipped):
    random = np.random.default_rng(3)
    for words in (1, 2, 700):
        names = [f"w{row}é" for row in range(words - 1)] + ["mesa"]
        matrix = random.normal(0, 0.3, (words, dimension)).astype(np.float32)
        file = dict(zip(names, matrix.tolist(), strict=True))
        lines = [f"{word} {' '.join(map(str, vector))}\n" for word, vector in file.items()]
        text = "".join(lines).encode()
        content = f"{words} {dimension}\n".encode() + text if form == "text" else text
        if "binary" in form:
            content = f"{words} {dimension}\n".encode()
            content += b"".join(packed(*entry, b"\n" * (form != "binary")) for entry in file.items())
        (tmp_path / "v").write_bytes(gzip.compress(content) if zipped else content)
        assert read(tmp_path / "v", dimension).matrix_VD[2].tobytes() == matrix[-1].tobytes()


def test_a_binary_file_whose_first_number_opens_with_a_newline_byte_is_no_text(tmp_path, read):
    first = np.frombuffer(b"\n\0\x80\x3f", "<f4")[0]
    (tmp_path / "v.bin").write_bytes(binary(file={"mesa": [first, 2.0, 3.0], "raro": [1.0, 1.0, 1.0]}))
    assert read(tmp_path / "v.bin").matrix_VD[2].tolist() == [first, 2.0, 3.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "not a word2vec file", id="empty"),
        pytest.param(b"mesa,1,2,3\nraro,4,5,6\n", "does not start with '<words> <dimension>'", id="CSV"),
        pytest.param(
            TEXT.replace(b"7 3", b"6 3"), "announces 6 words and has more", id="text, a line more"
        ),
        pytest.param(TEXT + HEADLESS, "announces 7 words and has more", id="text, twice"),
        pytest.param(
            binary().replace(b"7 3", b"6 3"), "announces 6 words and has more", id="binary, a word more"
        ),
        pytest.param(TEXT.replace(b"Mesa", b"\nMesa"), "line 3 is empty", id="empty line"),
        pytest.param(
            f"7 {D}\n".encode() + TEXT.split(b"\n", 1)[1].replace(b"\n", b" 1\n"),
            "announces dimension 3, but its lines have 4 numbers",
            id="another dimension than the header's",
        ),
        pytest.param(
            b"7 3\n" + TEXT.split(b"\n", 1)[1].replace(b".", b","), "not a number", id="commas"
        ),
        pytest.param(
            b"7 3\n" + "".join(LINES).replace(".", ",").encode("latin-1"),
            "word 1 is no text, or its vector is",
            id="commas in Latin-1",
        ),
        pytest.param(
            b"2 3\nmesa 1e-9 0 0\nraro 0 0 -1e-9\n", "all its numbers are nearly 0", id="zeros"
        ),
        *(
            pytest.param(
                binary(end, {"mesa": [0.1, 0.2, 0.3], "a b": [0.4, 0.5, 0.6], "raro": [0.7, 0.8, 0.9]}),
                "damage|truncated|not finite",
                id=f"binary, a word with a space, then {end!r}",
            )
            for end in (b"", b"\n")
        ),
        pytest.param(b"\x80\x04\x95 pickled KeyedVectors", "not a word2vec file", id="another format"),
        pytest.param(b"0 3\n", "has none of the 7 words", id="no words"),
        pytest.param(
            b"2 3\nchair 1 2 3\ntable 4 5 6\n", "is it for this language?", id="no shared word"
        ),
        pytest.param(b"2 3\n<unk> 1 2 3\n<pad> 4 5 6\n", "has none of", id="special words alone"),
        pytest.param(
            TEXT.replace(b"7 3", b"8 3"), "announces 8 words and ends after 7", id="text, a line less"
        ),
        pytest.param(
            TEXT[: TEXT.index(b"TELEF")], "announces 7 words and ends after 4", id="text cut at a line"
        ),
        pytest.param(
            TEXT[: TEXT.index(b"TELEF") - 6], "line 5 does not end", id="text cut in the middle"
        ),
        pytest.param(TEXT[:-2], "line 8 does not end", id="text cut in its last number"),
        pytest.param(TEXT[:-1], "line 8 does not end", id="text cut by its last newline"),
        pytest.param(
            TEXT.replace(b"1.0 2.0", b"1.0"), "line 5 has 2 numbers, expected 3", id="number missing"
        ),
        pytest.param(
            TEXT.replace(b"1.0 2.0", b"1 0 2"), "line 5 has 4 numbers, expected 3", id="number more"
        ),
        pytest.param(
            TEXT.replace(b"mesa 1.0", b"mesa 1,0"),
            "line 5 has a value that is not a number",
            id="comma",
        ),
        pytest.param(
            TEXT.replace(b"mesa 1.0", b"mesa nan"), "line 5 has a number that is not finite", id="NaN"
        ),
        pytest.param(TEXT.replace(b"mesa 1.0", b"mesa 1e99"), "is not finite", id="beyond float32"),
        pytest.param(
            binary()[:-1], "the vector of word 7 is incomplete", id="binary cut in its last number"
        ),
        pytest.param(
            binary()[:-12], "the vector of word 7 is incomplete", id="binary cut before a vector"
        ),
        pytest.param(
            binary()[:-18], "announces 7 words and ends after 6", id="binary cut after a vector"
        ),
        pytest.param(binary()[:-14], "the vector of word 7 is incomplete", id="binary cut in a word"),
        pytest.param(
            binary(file={"mesa": [1, np.inf, 2]}), "word 1 has a number that is not", id="binary inf"
        ),
        pytest.param(
            binary(file={"mesa": [1, 2, 3]}).replace(b"1 3", b"2 3") + b"x" * 20_000,
            "word 2 does not end",
            id="binary of one endless word",
        ),
        pytest.param(gzip.compress(TEXT)[:-9], "is damaged", id="gzip cut"),
        pytest.param(bz2.compress(TEXT)[:-9], "is damaged", id="bzip2 cut"),
        pytest.param(lzma.compress(TEXT)[:-9], "is damaged", id="xz cut"),
        pytest.param(zipped_once(TEXT)[:-9], "is a zip that is damaged", id="zip cut"),
        pytest.param(zipped_once(TEXT, "s50.txt", "s100.txt"), "is a zip of 2 files", id="zip of two"),
        pytest.param(b"(\xb5/\xfd\x04", "Zstandard, which is not read: unpack it", id="Zstandard"),
        pytest.param(gzip.compress(binary())[:60], "is damaged", id="binary gzip cut in the middle"),
        pytest.param(
            gzip.compress(TEXT)[:-8] + b"\0" * 8, "is damaged", id="gzip with a wrong checksum"
        ),
    ],
)
def test_a_file_that_is_damaged_or_of_no_use_is_refused(refusal, content, message):
    assert re.search(message, refusal(content))


def test_another_dimension_is_refused_with_the_parameter_to_set(refusal):
    assert "set embed.dimension=3" in refusal(TEXT, dimension=4)
    assert "set embed.dimension=3" in refusal(HEADLESS, dimension=2)


def test_what_is_no_file_is_refused(read, tmp_path):
    with pytest.raises(ValueError, match=r"is missing: set embed\.pretrained to a file of word vectors"):
        read(tmp_path / "none.bin")


def test_damage_in_a_vector_that_nobody_needs_does_no_harm(read, expected, tmp_path):
    (tmp_path / "v.txt").write_bytes(
        TEXT.replace(b"</s> 9.0", b"</s> nan").replace(b"MESA 8.0", b"MESA x")
    )
    assert read(tmp_path / "v.txt").matrix_VD.tobytes() == expected.matrix_VD.tobytes()


def test_coverage_is_told_of_words_and_of_tokens(expected):
    assert coverage(expected, WORDS) == {"words": 0.6, "tokens": round(19 / 30, 6)}
