import numpy as np
import pytest

from titles.data.contract import SPECIAL_WORDS, UNK
from titles.data.vocabulary import Vocabulary, build, read_labels

COUNTS = {"uno": 4, "dos": 7, "tres": 1, "ñandú": 4, "cinco": 0, "seis": 2}


def built(words, min_count=2, max_vocabulary=9):
    return build(words, np.array([COUNTS[word] for word in words]), min_count, max_vocabulary)


@pytest.mark.parametrize("words", [list(COUNTS), list(COUNTS)[::-1], sorted(COUNTS)])
def test_words_stand_by_frequency_and_then_letters_however_they_were_met(words):
    vocabulary, ids = built(words)
    assert vocabulary.words == [*SPECIAL_WORDS, "dos", "uno", "ñandú", "seis"]
    assert dict(zip(words, ids.tolist(), strict=True)) == {
        "dos": 2, "uno": 3, "ñandú": 4, "seis": 5, "tres": UNK, "cinco": UNK,
    }  # fmt: skip
    assert vocabulary.ids()["seis"] == 5


@pytest.mark.parametrize(
    ("min_count", "max_vocabulary", "known", "left_out"),
    [
        pytest.param(1, 9, ["dos", "uno", "ñandú", "seis", "tres"], 0, id="all but what train lacks"),
        pytest.param(5, 9, ["dos"], 11, id="min_count"),
        pytest.param(2, 2, ["dos", "uno"], 7, id="max_vocabulary"),
        pytest.param(8, 9, [], 18, id="nothing is frequent enough"),
    ],
)
def test_what_is_left_out_is_counted_as_unknown(min_count, max_vocabulary, known, left_out):
    vocabulary, _ = built(list(COUNTS), min_count, max_vocabulary)
    assert vocabulary.words[2:] == known
    assert vocabulary.counts == [0, left_out, *(COUNTS[word] for word in known)]
    assert len(vocabulary) == 2 + len(known)


def test_a_vocabulary_is_read_as_it_was_written(tmp_path):
    vocabulary, _ = built(list(COUNTS))
    vocabulary.write(tmp_path / "v.tsv")
    assert (tmp_path / "v.tsv").read_bytes().splitlines()[1:3] == [b"<unk>\t1", b"dos\t7"]
    assert Vocabulary.read(tmp_path / "v.tsv") == vocabulary


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(
            b"<pad>\t0\n<unk>\t1\nuno\n", "line 3 is not a word, a tab, a count", id="no count"
        ),
        pytest.param(b"<pad>\t0\n<unk>\t-1\n", "line 2 is not", id="negative count"),
        pytest.param(b"<pad>\t0\n<unk>\t1\n\t3\n", "line 3 is not", id="no word"),
        pytest.param(b"<unk>\t0\n<pad>\t1\n", "special words are missing", id="swapped special words"),
        pytest.param(b"", "its last line is incomplete|special words", id="empty"),
        pytest.param(b"<pad>\t0\n<unk>\t1\na\t3\na\t2\n", "a word stands twice", id="doubled word"),
        pytest.param(b"<pad>\t0\n<unk>\t1\na\t3", "its last line is incomplete", id="cut in a count"),
        pytest.param(b"<pad>\t0\n<unk>\t1\n\xff\t3\n", "is damaged", id="not UTF-8"),
        pytest.param(None, "run `dvc repro`", id="missing"),
    ],
)
def test_a_damaged_vocabulary_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "v.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        Vocabulary.read(path)
    assert str(path) in str(caught.value)


def test_labels_are_read_in_their_order(tmp_path):
    (tmp_path / "l.txt").write_text("A B\nC\u2028D\nÑ\n", encoding="utf-8")
    assert read_labels(tmp_path / "l.txt") == ["A B", "C\u2028D", "Ñ"]


@pytest.mark.parametrize(
    "content", ["B\nA\n", "A\nA\n", "A\n", "A\nB"], ids=["unsorted", "doubled", "only one", "cut"]
)
def test_labels_that_are_not_sorted_unique_and_whole_are_refused(tmp_path, content):
    (tmp_path / "l.txt").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"l\.txt is damaged"):
        read_labels(tmp_path / "l.txt")


@pytest.mark.parametrize("name", ["A\x1b]0;x\x07", "A\x1b[2J", "A\x9b2J", "A\x00", "A\x7f", "A\u202eB"])
def test_labels_that_could_command_a_terminal_are_refused(tmp_path, name):
    (tmp_path / "l.txt").write_text(f"{name}\nB\n", encoding="utf-8", newline="\n")
    with pytest.raises(ValueError, match="holds control characters") as caught:
        read_labels(tmp_path / "l.txt")
    assert str(caught.value).isprintable()
