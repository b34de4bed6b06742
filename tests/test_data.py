import numpy as np
import pytest

from titles.data.contract import UNK
from titles.data.encoded import EncodedTitles, WordVectors, map_oov
from titles.prepare.text import tokenise

ROWS = [[2, 3, 4], [5], [6, -1], [2, 2, 2, 2, 7], [-2, 9]]
UNKNOWN = ["ñandú", "128gb"]
ARRAYS = ("word_ids", "ends", "labels", "languages", "qualities", "lines")


@pytest.mark.parametrize("rows", [ROWS, []], ids=["five titles", "an empty split"])
def test_titles_are_mapped_from_disk_as_they_were_written(tmp_path, encode, rows):
    titles = encode(rows, labels=range(len(rows)), unknown_words=UNKNOWN if rows else [])
    titles.write(tmp_path / "train")
    opened = EncodedTitles.open(tmp_path / "train")
    assert isinstance(opened.word_ids, np.memmap)
    assert len(opened) == len(rows)
    assert opened.lengths.tolist() == [len(row) for row in rows]
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(opened, name), getattr(titles, name), strict=True)
    assert opened.unknown_words == titles.unknown_words


def test_unknown_words_of_any_letters_come_back_as_they_were(tmp_path, encode, text_settings):
    # What cuts lines in some readers is no part of a word; all else may be.
    titles = [
        "a\x85b c\u2028d e\x0bf g\x1ch\rk",
        "日本語 नमस्ते 😀 ﬁn ²",
        "\ud800x \ufeffy z\u200dw \x00q",
        "ß İ 3,5",
    ]
    words = sorted({word for row in tokenise(titles, text_settings) for word in row})
    assert len(words) > 15
    encode([[-1 - k] for k in range(len(words))], unknown_words=words).write(tmp_path / "train")
    assert EncodedTitles.open(tmp_path / "train").unknown_words == words


def test_words_of_rows_come_one_after_another_with_the_places_that_hold_one(encode):
    words, inside = encode(ROWS).words(np.array([3, 0, 1]))
    assert words.tolist() == [2, 2, 2, 2, 7, 2, 3, 4, 5]
    assert inside.tolist() == [[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4]
    words, inside = encode(ROWS).words(np.array([4]))
    assert (words.tolist(), inside.tolist()) == ([-2, 9], [[True, True]])


def test_consecutive_rows_come_as_lists(encode):
    told = [[2, 3, 4], [5], [6, UNK], [2, 2, 2, 2, 7], [UNK, 9]]
    assert encode(ROWS).lists(np.arange(5)) == told
    assert encode(ROWS).lists(np.arange(2, 4)) == told[2:4]


def test_all_unknown_words_are_the_unknown_word_and_known_ones_stay():
    ids = np.array([-1, 2, -700, 9, 1], np.int32)
    np.testing.assert_array_equal(map_oov(ids), np.array([1, 2, 1, 9, 1], np.int32), strict=True)


def damage_missing(folder):
    (folder / "labels.npy").unlink()


def damage_cut(folder):
    path = folder / "word_ids.npy"
    path.write_bytes(path.read_bytes()[:-4])


def damage_empty(folder):
    (folder / "ends.npy").write_bytes(b"")


def damage_other_file(folder):
    (folder / "ends.npy").write_bytes(b"version https://git-lfs\n" * 9)


def damage_pickle(folder):
    np.save(folder / "labels.npy", np.array([{}] * 5, object), allow_pickle=True)


def damage_no_unknown_words(folder):
    (folder / "unknown_words.txt").unlink()


def damage_unknown_word_cut(folder):
    path = folder / "unknown_words.txt"
    path.write_bytes(path.read_bytes()[:-2])


def damage_unknown_words_no_text(folder):
    (folder / "unknown_words.txt").write_bytes(b"\xff\xfe\n\n")


def damage_dtype(folder):
    np.save(folder / "ends.npy", np.load(folder / "ends.npy").astype(np.int32))


def damage_shape(folder):
    np.save(folder / "lines.npy", np.zeros((5, 1), np.int64))


def damage_fewer_labels(folder):
    np.save(folder / "labels.npy", np.zeros(4, np.int32))


def damage_more_words(folder):
    np.save(folder / "word_ids.npy", np.ones(14, np.int32))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_missing, r"labels\.npy is missing: run `dvc repro"),
        (damage_cut, r"word_ids\.npy is damaged"),
        (damage_empty, r"ends\.npy is damaged"),
        (damage_other_file, r"ends\.npy is damaged"),
        (damage_pickle, r"labels\.npy is damaged"),
        (damage_no_unknown_words, r"unknown_words\.txt is missing: run `dvc repro"),
        (damage_unknown_word_cut, r"unknown_words\.txt is damaged: its last line is incomplete"),
        (damage_unknown_words_no_text, r"unknown_words\.txt is damaged"),
        (damage_dtype, r"ends\.npy is damaged: not a row of int64"),
        (damage_shape, r"lines\.npy is damaged: not a row of int64"),
        (damage_fewer_labels, r"train is damaged: its files do not fit together"),
        (damage_more_words, r"train is damaged: its files do not fit together"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_damaged_split_is_refused_by_name(tmp_path, encode, damage, message):
    encode(ROWS, unknown_words=UNKNOWN).write(tmp_path / "train")
    damage(tmp_path / "train")
    with pytest.raises(ValueError, match=message):
        EncodedTitles.open(tmp_path / "train")


def vectors(words):
    matrix = np.arange(words * 3, dtype=np.float32).reshape(words, 3)
    matrix[0] = 0
    return WordVectors(matrix, np.arange(words) > 1)


def test_word_vectors_are_read_as_they_were_written(tmp_path):
    vectors(5).write(tmp_path)
    read = WordVectors.read(tmp_path, 5)
    np.testing.assert_array_equal(read.matrix_VD, vectors(5).matrix_VD, strict=True)
    np.testing.assert_array_equal(read.has_vector_V, vectors(5).has_vector_V, strict=True)


def test_word_vectors_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"matrix\.npy is missing: run `dvc repro`"):
        WordVectors.read(tmp_path, 5)
    vectors(5).write(tmp_path)
    with pytest.raises(ValueError, match="not for this vocabulary of 4 words"):
        WordVectors.read(tmp_path, 4)
    np.save(tmp_path / "matrix.npy", np.zeros((5, 3)))
    with pytest.raises(ValueError, match="not for this vocabulary of 5 words"):
        WordVectors.read(tmp_path, 5)
    np.save(tmp_path / "matrix.npy", np.ones((5, 3), np.float32))
    with pytest.raises(ValueError, match="padding is not zero"):
        WordVectors.read(tmp_path, 5)
    vectors(5).write(tmp_path)
    cut = (tmp_path / "matrix.npy").read_bytes()[:-1]
    (tmp_path / "matrix.npy").write_bytes(cut)
    with pytest.raises(ValueError, match="is damaged"):
        WordVectors.read(tmp_path, 5)
