import numpy as np
import pytest

from titles.prepare.split import (
    CALIBRATION,
    TEST,
    TRAIN,
    VALIDATION,
    first_of_each,
    sequence_keys,
    set_aside,
    stratified,
    word_keys,
)


def keys_of(titles, table=None):
    """Keys of titles, given as strings, through a table of words in any order."""
    table = table or sorted({word for title in titles for word in title.split()})
    ids = [table.index(word) for title in titles for word in title.split()]
    lengths = np.array([len(title.split()) for title in titles], np.int64)
    return sequence_keys(word_keys(table)[ids], lengths)


def test_the_key_of_a_title_depends_on_its_words_and_their_order():
    titles = ["a b c", "a c b", "a b", "b", "a a", "a", "a b c a"]
    assert len(set(keys_of(titles))) == len(titles)
    assert keys_of(["b a", "c", "b a"])[0] == keys_of(["c", "b a"])[1]


def test_the_key_of_a_title_does_not_depend_on_the_table_or_the_neighbours():
    titles = ["uno dos", "tres", "dos uno tres"]
    table = ["tres", "otra", "dos", "uno"]
    assert keys_of(titles, table).tolist() == keys_of(titles, table[::-1]).tolist()
    assert [keys_of([title])[0] for title in titles] == keys_of(titles).tolist()
    assert sequence_keys(np.empty(0, np.uint64), np.empty(0, np.int64)).tolist() == []


def test_a_title_without_words_has_the_key_zero_and_changes_no_neighbour():
    titles = ["", "uno dos", "", "tres", "", ""]
    found = keys_of(titles).tolist()
    assert found == [0, *keys_of(["uno dos"]).tolist(), 0, *keys_of(["tres"]).tolist(), 0, 0]
    assert keys_of(["", ""], ["uno"]).tolist() == [0, 0]


def test_keys_are_the_same_on_every_machine():
    assert word_keys(["ñandú"]).tolist() == [0x898318B6C0CC1DE2]
    assert keys_of(["uno dos"]).tolist() == [0x51031CD62B6EFB5C]


def test_the_first_row_of_least_rank_is_kept():
    keys = np.array([5, 9, 5, 7, 9, 5, 5], np.uint64)
    ranks = np.array([2, 0, 1, 3, 0, 1, 2], np.uint8)
    assert first_of_each(keys, ranks).tolist() == [2, 1, 2, 3, 1, 2, 2]


def luck(count, start=0):
    return keys_of([f"w{number}" for number in range(start, start + count)])


def split(labels, reliable=None, keys=None, **changes):
    options = {"validation_fraction": 0.1, "test_fraction": 0.2, "prefer_reliable": True, "seed": 3}
    labels = np.array(labels, np.int32)
    reliable = np.ones(len(labels), bool) if reliable is None else np.array(reliable, bool)
    return stratified(
        labels, reliable, luck(len(labels)) if keys is None else keys, **(options | changes)
    )


def counts(splits, rows=slice(None)):
    return [int(np.sum(splits[rows] == code)) for code in (TRAIN, VALIDATION, TEST)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(1, [1, 0, 0]), (2, [1, 0, 1]), (3, [1, 1, 1]), (4, [2, 1, 1]), (50, [35, 5, 10])],
)
def test_a_category_is_split_by_the_fractions_and_train_comes_first(rows, expected):
    # The other category shows that each is split by itself.
    splits = split([0] * rows + [1] * 20)
    assert counts(splits, slice(rows)) == expected
    assert counts(splits, slice(rows, None)) == [14, 2, 4]


@pytest.mark.parametrize("rows", range(3, 40))
def test_the_largest_fractions_leave_every_category_rows_in_all_splits(rows):
    assert min(counts(split([0] * rows, validation_fraction=0.4, test_fraction=0.4))) >= 1


@pytest.mark.parametrize(
    ("reliable", "expected", "reliable_held_out"),
    [
        pytest.param(20, [80, 10, 10], [10, 10], id="as many as test would take are halved"),
        pytest.param(90, [70, 10, 20], [10, 20], id="plenty"),
        pytest.param(8, [92, 4, 4], [4, 4], id="few are halved"),
        pytest.param(1, [89, 10, 1], [0, 1], id="one goes to test"),
        pytest.param(0, [70, 10, 20], [0, 0], id="none"),
    ],
)
def test_held_out_rows_are_reliable_where_there_are_any(reliable, expected, reliable_held_out):
    trusted = np.arange(100) < reliable
    splits = split([0] * 100, trusted)
    assert counts(splits) == expected
    assert counts(splits, trusted)[1:] == reliable_held_out


def test_quality_plays_no_part_unless_it_is_asked_for():
    trusted = np.arange(100) < 8
    plain = split([0] * 100, trusted, prefer_reliable=False)
    assert plain.tolist() == split([0] * 100, ~trusted, prefer_reliable=False).tolist()
    assert counts(plain) == [70, 10, 20]


def test_the_order_of_rows_does_not_matter_but_the_seed_does():
    labels, trusted, keys = np.arange(90) % 4, np.arange(90) % 3 > 0, luck(90)
    splits = split(labels, trusted, keys)
    order = np.random.default_rng(1).permutation(90)
    assert split(labels[order], trusted[order], keys[order]).tolist() == splits[order].tolist()
    other = split(labels, trusted, keys, seed=4)
    assert other.tolist() != splits.tolist()
    assert counts(other) == counts(splits)


def test_rows_that_are_added_leave_most_others_where_they_were():
    before, after = split([0] * 200, keys=luck(200)), split([0] * 220, keys=luck(220))
    moved = np.sum(before != after[:200])
    assert moved <= 20


def divided(labels, keys=None, splits=None, **changes):
    labels = np.array(labels, np.int32)
    splits = np.full(len(labels), VALIDATION, np.uint8) if splits is None else splits.copy()
    set_aside(
        splits,
        labels,
        luck(len(labels)) if keys is None else keys,
        **{"share": 0.5, "seed": 3} | changes,
    )
    return splits


@pytest.mark.parametrize(
    ("rows", "share", "expected"),
    [
        (1, 0.5, 0),
        (1, 0.999, 0),
        (2, 0.5, 1),
        (4, 0.5, 2),
        (10, 0.3, 3),
        (10, 0, 0),
        (9, 0.999, 8),
        (2, 0.2, 0),
    ],
)
def test_a_share_of_each_category_is_set_aside_and_one_title_is_left(rows, share, expected):
    splits = divided([0] * rows + [1] * 20, share=share)
    assert np.sum(splits[:rows] == CALIBRATION) == expected
    assert np.sum(splits[rows:] == CALIBRATION) == min(19, round(20 * share))
    assert set(splits.tolist()) <= {VALIDATION, CALIBRATION}


def test_only_validation_is_divided():
    before = split([0] * 200 + [1] * 60, validation_fraction=0.3)
    after = divided([0] * 200 + [1] * 60, splits=before)
    assert np.array_equal(after == TRAIN, before == TRAIN)
    assert np.array_equal(after == TEST, before == TEST)
    assert np.sum(after == CALIBRATION) == np.sum(after == VALIDATION)
    assert divided([0, 0], splits=np.array([TRAIN, TEST], np.uint8)).tolist() == [TRAIN, TEST]


def test_the_division_follows_from_titles_and_the_seed_and_not_from_the_order():
    labels, keys = np.arange(90) % 4, luck(90)
    found = divided(labels, keys)
    order = np.random.default_rng(1).permutation(90)
    assert divided(labels[order], keys[order]).tolist() == found[order].tolist()
    assert divided(labels, keys, seed=4).tolist() != found.tolist()


def test_the_same_title_is_on_one_side():
    # As in a validation split that a source gives, which keeps its own repetitions.
    keys = np.repeat(luck(30), 3)
    found = divided([0] * 90, keys).reshape(30, 3)
    assert all(len(set(copies)) == 1 for copies in found.tolist())
    assert 40 <= np.sum(found == CALIBRATION) <= 50
    assert set(divided([0] * 5, np.repeat(luck(1), 5)).tolist()) == {VALIDATION}


def test_the_division_has_nothing_to_do_with_the_split_before_it():
    """Else calibration would have the rows of validation that are next to those of train."""
    keys, labels = luck(4000), [0] * 4000
    small = split(labels, keys=keys, validation_fraction=0.1) == VALIDATION
    large = divided(labels, keys, split(labels, keys=keys, validation_fraction=0.2))
    share = np.mean(large[small] == CALIBRATION)
    assert 0.4 < share < 0.6
