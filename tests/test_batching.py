import numpy as np
import pytest
import torch

from titles.data.batching import Batcher, ordered
from titles.data.contract import PAD, SPECIAL_WORDS, UNK
from titles.data.encoded import EncodedTitles
from titles.data.subwords import Subwords, VocabularySubwords

CPU = torch.device("cpu")
VOCABULARY = [*SPECIAL_WORDS, "mesa", "silla", "de", "roble", "a", "sofa"]
# "o" has no n-grams; "sillas" shares most of "silla".
UNKNOWN = ["sillas", "o", "lampara"]
ROWS = [[2, 4, 5], [7], [-1, 4, -1], [6, 6, 6, 6, -3], [-2, -3], [3, -2, 2]]
SUBWORDS = Subwords(4, 5, 29)


@pytest.fixture
def many(encode):
    """Titles of 1 to 6 words; title number n holds n + 2 only and has the label n."""
    return encode([[n + 2] * (1 + n * 7 % 6) for n in range(203)], labels=range(203))


@pytest.fixture
def batch(encode):
    """The titles of ROWS, or some of them, as a network with or without letters reads them."""

    def build(letters, rows=range(6)):
        subwords = VocabularySubwords(SUBWORDS, VOCABULARY) if letters else None
        titles = encode(ROWS, labels=range(10, 10 + len(ROWS)), unknown_words=UNKNOWN)
        return Batcher(titles, subwords, CPU).batch(np.array(rows))

    return build


def grams_by_word(batch):
    """The buckets of each distinct word, found through the batch's positions."""
    places_U = np.split(batch.ngram_index_G.numpy(), batch.ngram_ends_U.numpy()[:-1])
    return [batch.ngrams_M.numpy()[places].tolist() for places in places_U]


def letters_of(word):
    return UNKNOWN[-1 - word] if word < 0 else VOCABULARY[word]


def own_grams(word):
    return SUBWORDS.of([letters_of(word)])[0].tolist()


def test_an_empty_split_has_no_batches(encode):
    assert list(ordered(encode([]), 3)) == []
    assert list(ordered(encode([]), 3, np.random.default_rng(1))) == []


@pytest.mark.parametrize("batch_size", [1, 5, 203, 500])
@pytest.mark.parametrize("shuffled", [False, True], ids=["by length", "shuffled"])
def test_an_epoch_gives_every_title_once_with_its_words_and_label(many, batch_size, shuffled):
    shuffle = np.random.default_rng(4) if shuffled else None
    batcher, seen = Batcher(many, None, CPU), []
    for rows in ordered(many, batch_size, shuffle):
        batch = batcher.batch(rows)
        assert batch.labels_B.tolist() == rows.tolist()
        assert batch.tokens_U[0] == PAD
        for title, n in zip(batch.tokens_U.numpy()[batch.index_BL.numpy()], rows.tolist(), strict=True):
            words = [n + 2] * (1 + n * 7 % 6)
            assert title.tolist() == words + [PAD] * (len(title) - len(words))
        seen.append(len(rows))
        assert batch.index_BL.shape[1] == many.lengths[rows].max()
    assert sum(seen) == 203
    assert sorted(seen, reverse=True) == [batch_size] * (203 // batch_size) + [203 % batch_size] * (
        203 % batch_size > 0
    )


def order(titles, shuffle):
    return np.concatenate(list(ordered(titles, 5, shuffle))).tolist()


def test_every_title_is_seen_in_each_epoch_in_an_order_that_follows_from_the_generator(many):
    one, same, other = (np.random.default_rng(seed) for seed in (4, 4, 5))
    first, second = order(many, one), order(many, one)
    assert sorted(first) == sorted(second) == list(range(203))
    assert first != second
    assert [order(many, same), order(many, same)] == [first, second]
    assert order(many, other) != first
    assert order(many, None) == order(many, None)


@pytest.mark.parametrize("shuffled", [False, True], ids=["by length", "shuffled"])
def test_of_chosen_rows_each_comes_once_and_no_other(many, shuffled):
    among = np.array([7, 200, 3, 90, 12, 41])
    batches = list(ordered(many, 4, np.random.default_rng(4) if shuffled else None, among=among))
    assert sorted(map(len, batches)) == [2, 4]
    assert sorted(np.concatenate(batches).tolist()) == [3, 7, 12, 41, 90, 200]
    assert among.tolist() == [7, 200, 3, 90, 12, 41]
    assert list(ordered(many, 4, among=among[:0])) == []


def test_shuffled_batches_hold_next_to_no_padding_and_do_not_come_by_length(many):
    batcher = Batcher(many, None, CPU)
    places = [batcher.batch(rows).index_BL for rows in ordered(many, 5, np.random.default_rng(1))]
    padding = sum(int((index_BL == 0).sum()) for index_BL in places)
    assert padding <= 0.02 * len(many.word_ids)
    widths = [index_BL.shape[1] for index_BL in places]
    assert widths != sorted(widths)


@pytest.mark.parametrize("letters", [False, True], ids=["words", "letters"])
@pytest.mark.parametrize("rows", [range(6), [4, 2], [5, 0, 3], [1]], ids=str)
def test_every_word_is_found_again_through_its_place(batch, letters, rows):
    made = batch(letters, rows)
    assert all(values.dtype == torch.int64 for values in made)
    assert made.labels_B.tolist() == [10 + row for row in rows]
    words, grams = made.tokens_U.tolist(), grams_by_word(made) if letters else None
    for places, title in zip(made.index_BL.tolist(), (ROWS[row] for row in rows), strict=True):
        assert places[len(title) :] == [0] * (made.index_BL.shape[1] - len(title))
        for place, word in zip(places, title, strict=False):
            assert words[place] == (word if word > 0 else UNK)
            if letters:
                assert grams[place] == own_grams(word)


def test_without_letters_distinct_words_stand_once_and_all_unknown_ones_are_one(batch):
    made = batch(letters=False)
    assert sorted(made.tokens_U.tolist()) == [PAD, UNK, 2, 3, 4, 5, 6, 7]
    assert all(len(values) == 0 for values in (made.ngrams_M, made.ngram_index_G, made.ngram_ends_U))


def test_with_letters_unknown_words_keep_apart_and_stand_once_each(batch):
    made = batch(letters=True)
    assert sorted(made.tokens_U.tolist()) == [PAD, *[UNK] * 3, *range(2, 8)]
    places_of = {}
    for places, title in zip(made.index_BL.tolist(), ROWS, strict=True):
        for place, word in zip(places, title, strict=False):
            places_of.setdefault(word, set()).add(place)
    assert all(len(places) == 1 for places in places_of.values())
    assert len(set().union(*places_of.values())) == len(places_of) == len(made.tokens_U) - 1


def test_distinct_n_grams_stand_once_and_all_of_them_are_used(batch):
    made = batch(letters=True)
    grams = made.ngrams_M.tolist()
    assert len(set(grams)) == len(grams) < len(made.ngram_index_G)
    assert set(made.ngram_index_G.tolist()) == set(range(len(grams)))
    assert set(grams) == {gram for title in ROWS for word in title for gram in own_grams(word)}


def test_a_word_without_n_grams_has_none_wherever_it_stands(batch):
    for rows in ([4], [5], [5, 4, 1]):
        made = batch(True, rows)
        lengths = dict(zip(made.tokens_U.tolist(), map(len, grams_by_word(made)), strict=True))
        assert lengths.get(2, 3 + 2) == len(own_grams(2)) == 3 + 2
        assert min(map(len, grams_by_word(made)[1:])) == 0 == len(own_grams(-2))


def test_what_a_batcher_made_before_does_not_show_in_a_batch(encode):
    titles = encode(ROWS, unknown_words=UNKNOWN)
    subwords = VocabularySubwords(SUBWORDS, VOCABULARY)
    used = Batcher(titles, subwords, CPU)
    for rows in ([1], [3, 2], [5, 4, 3, 2, 1, 0], [0]):
        fresh = Batcher(titles, subwords, CPU).batch(np.array(rows))
        again = used.batch(np.array(rows))
        assert all(torch.equal(one, other) for one, other in zip(again, fresh, strict=True))


def test_distinct_words_are_found_among_many_as_numpy_finds_them(encode):
    random = np.random.default_rng(3)
    rows = [random.integers(2, 500, size=size).tolist() for size in random.integers(1, 9, size=300)]
    titles = encode(rows)
    made = Batcher(titles, None, CPU).batch(np.arange(300))
    assert np.array_equal(np.sort(made.tokens_U.numpy()[1:]), np.unique(titles.word_ids))
    found = made.tokens_U.numpy()[made.index_BL.numpy()[made.index_BL.numpy() > 0]]
    assert np.array_equal(found, titles.word_ids)


@pytest.mark.parametrize("letters", [False, True], ids=["words", "letters"])
def test_a_title_without_words_is_a_row_of_padding(encode, letters):
    subwords = VocabularySubwords(SUBWORDS, VOCABULARY) if letters else None
    rows = [[], [2, -1, 4], [], [7], []]
    titles = encode(rows, labels=range(5), unknown_words=UNKNOWN)
    batcher = Batcher(titles, subwords, CPU)
    made = batcher.batch(np.arange(5))
    assert made.index_BL.shape == (5, 3)
    assert (made.index_BL > 0).sum(dim=1).tolist() == [0, 3, 0, 1, 0]
    words = made.tokens_U[made.index_BL]
    assert [[word for word in row if word != PAD] for row in words.tolist()] == [
        [word if word > 0 else UNK for word in row] for row in rows
    ]
    for only in ([0], [2, 4]):
        none = batcher.batch(np.array(only))
        assert none.index_BL.tolist() == [[0]] * len(only)
        assert none.tokens_U.tolist() == [PAD]
        assert none.labels_B.tolist() == only
        assert none.ngram_ends_U.tolist() == ([0] if letters else [])
    assert titles.lists(np.arange(5)) == [[], [2, UNK, 4], [], [7], []]
    assert titles.lists(np.array([2])) == [[]]


@pytest.mark.parametrize("rows", [[[]], [[], []], [[], [3]], [[3], []]], ids=str)
def test_titles_without_words_are_written_and_mapped(encode, tmp_path, rows):
    encode(rows).write(tmp_path / "split")
    read = EncodedTitles.open(tmp_path / "split")
    assert read.lengths.tolist() == list(map(len, rows))
    assert read.lists(np.arange(len(rows))) == rows
    (batch,) = [Batcher(read, None, CPU).batch(chosen) for chosen in ordered(read, 9)]
    assert (batch.index_BL > 0).sum().item() == sum(map(len, rows))


def test_lost_unknown_words_are_told(encode):
    titles = encode(ROWS, labels=range(len(ROWS)), unknown_words=UNKNOWN[:-1])
    with pytest.raises(ValueError, match="it refers to 3 unknown words but has 2"):
        Batcher(titles, VocabularySubwords(SUBWORDS, VOCABULARY), CPU)
