import numpy as np
import pytest
import torch

from titles.batching import batches
from titles.contract import PAD
from titles.data import EncodedTitles, WordVectors

CPU = torch.device("cpu")
ROWS = [[2, 3, 4], [5], [6, 1], [2, 2, 2, 2, 7], [8, 9]]
ARRAYS = ("word_ids", "ends", "labels", "languages", "qualities", "lines")


def bag(titles, rows):
    """Words of padded rows, checked to have padding after the last word alone."""
    found = []
    for row in titles:
        words = row[row != PAD].tolist()
        assert row.tolist() == words + [PAD] * (len(row) - len(words))
        assert words
        found.append(words)
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize("rows", [ROWS, []], ids=["five titles", "an empty split"])
def test_titles_are_mapped_from_disk_as_they_were_written(tmp_path, encode, rows):
    titles = encode(rows, labels=range(len(rows)))
    titles.write(tmp_path / "train")
    opened = EncodedTitles.open(tmp_path / "train")
    assert isinstance(opened.word_ids, np.memmap)
    assert len(opened) == len(rows)
    assert opened.lengths.tolist() == [len(row) for row in rows]
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(opened, name), getattr(titles, name), strict=True)


def test_an_empty_split_has_no_batches(tmp_path, encode):
    encode([]).write(tmp_path / "test")
    empty = EncodedTitles.open(tmp_path / "test")
    assert list(batches(empty, 3, CPU)) == []
    assert list(batches(empty, 3, CPU, np.random.default_rng(1))) == []


def test_padding_comes_after_the_last_word_only(encode):
    padded = encode(ROWS).padded(np.array([3, 0, 1]))
    assert padded.tolist() == [[2, 2, 2, 2, 7], [2, 3, 4, 0, 0], [5, 0, 0, 0, 0]]
    assert encode(ROWS).padded(np.array([4])).tolist() == [[8, 9]]


def test_consecutive_rows_come_as_lists(encode):
    assert encode(ROWS).lists(np.arange(5)) == ROWS
    assert encode(ROWS).lists(np.arange(2, 4)) == ROWS[2:4]


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
        (damage_dtype, r"ends\.npy is damaged: not a row of int64"),
        (damage_shape, r"lines\.npy is damaged: not a row of int64"),
        (damage_fewer_labels, r"train is damaged: its files do not fit together"),
        (damage_more_words, r"train is damaged: its files do not fit together"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_damaged_split_is_refused_by_name(tmp_path, encode, damage, message):
    encode(ROWS).write(tmp_path / "train")
    damage(tmp_path / "train")
    with pytest.raises(ValueError, match=message):
        EncodedTitles.open(tmp_path / "train")


@pytest.fixture
def many(encode):
    """Titles of 1 to 6 words; title number n holds n + 2 only and has the label n."""
    return encode([[n + 2] * (1 + n * 7 % 6) for n in range(203)], labels=range(203))


@pytest.mark.parametrize("batch_size", [1, 5, 203, 500])
@pytest.mark.parametrize("shuffled", [False, True], ids=["by length", "shuffled"])
def test_an_epoch_gives_every_title_once_with_its_words_and_label(many, batch_size, shuffled):
    shuffle = np.random.default_rng(4) if shuffled else None
    seen = []
    for rows, batch in batches(many, batch_size, CPU, shuffle):
        assert batch.tokens_BL.dtype == batch.labels_B.dtype == torch.int64
        assert batch.labels_B.tolist() == rows.tolist()
        assert bag(batch.tokens_BL.numpy(), rows) == [[n + 2] * (1 + n * 7 % 6) for n in rows]
        seen.append(len(rows))
        assert batch.tokens_BL.shape[1] == many.lengths[rows].max()
    assert sum(seen) == 203
    assert sorted(seen, reverse=True) == [batch_size] * (203 // batch_size) + [203 % batch_size] * (
        203 % batch_size > 0
    )


def order(titles, shuffle):
    return np.concatenate([rows for rows, _ in batches(titles, 5, CPU, shuffle)]).tolist()


def test_every_title_is_seen_in_each_epoch_in_an_order_that_follows_from_the_generator(many):
    one, same, other = (np.random.default_rng(seed) for seed in (4, 4, 5))
    first, second = order(many, one), order(many, one)
    assert sorted(first) == sorted(second) == list(range(203))
    assert first != second
    assert [order(many, same), order(many, same)] == [first, second]
    assert order(many, other) != first
    assert order(many, None) == order(many, None)


def test_shuffled_batches_hold_next_to_no_padding_and_do_not_come_by_length(many):
    tokens = [batch.tokens_BL for _, batch in batches(many, 5, CPU, np.random.default_rng(1))]
    padding = sum(int((tokens_BL == PAD).sum()) for tokens_BL in tokens)
    assert padding <= 0.02 * len(many.word_ids)
    widths = [tokens_BL.shape[1] for tokens_BL in tokens]
    assert widths != sorted(widths)


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
