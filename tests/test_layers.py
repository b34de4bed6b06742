import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numba.core.caching import CacheImpl
from torch import nn

from titles.models.cnn import WindowFilters
from titles.models.parts import kernels, windows
from titles.models.parts.layers import (
    Dropout,
    embedding_bag,
    embedding_lookup,
    max_over_time_conv,
)

UNITS = 2_000_003  # no multiple of 8


def dropped(share, units=UNITS, seed=3):
    torch.manual_seed(seed)
    return Dropout(share).train()(torch.ones(units))


# -- Dropout


@pytest.mark.parametrize("share", [0.3, 0.302, 0.5, 0.999])
def test_dropout_drops_the_share_given_by_the_nearest_256ths_in_turns(share):
    """Bytes can drop 76 or 77 in 256 units, as many as 0.3 and 0.302 are rounded to; never 76.8."""
    calls = 25
    found = [256 * float((dropped(share, seed=seed) == 0).double().mean()) for seed in range(calls)]
    numbers = np.rint(found)
    assert np.abs(found - numbers).max() < 256 * 5 * math.sqrt(0.25 / UNITS)
    low, part = divmod(256 * share, 1)
    assert set(numbers) == ({low, low + 1} if part else {low})
    assert abs(np.mean(numbers - low) - part) <= 4 * math.sqrt(part * (1 - part) / calls)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_dropout_scales_all_that_stays_alike(share):
    assert dropped(share).double().unique().tolist() == pytest.approx([0, 1 / (1 - share)])


def test_dropout_treats_every_place_alike_and_neighbours_apart():
    masks = dropped(0.5, 64 * 4096).view(-1, 64) > 0
    share_by_place = masks.double().mean(dim=0)
    assert (share_by_place - 0.5).abs().max() < 5 * math.sqrt(0.25 / len(masks))
    both = (masks[:, :-1] & masks[:, 1:]).double().mean(dim=0)
    assert (both - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / len(masks))


def test_dropout_is_off_in_evaluation_and_where_it_drops_nothing():
    units = torch.randn(3, 5, 7)
    assert torch.equal(Dropout(0.5).eval()(units), units)
    assert torch.equal(Dropout(0.0).train()(units), units)


def test_dropout_repeats_under_the_same_seed_of_torch_and_differs_else():
    assert torch.equal(dropped(0.4, seed=1), dropped(0.4, seed=1))
    assert not torch.equal(dropped(0.4, seed=1), dropped(0.4, seed=2))
    torch.manual_seed(1)
    layer, units = Dropout(0.4).train(), torch.ones(400)
    assert not torch.equal(layer(units), layer(units))


@pytest.mark.parametrize("size", [1, 7, 8, 9, (3, 5), (2, 3, 4)])
def test_dropout_keeps_shape_and_precision_and_passes_gradients_of_what_stays(size):
    torch.manual_seed(5)
    units = torch.ones(size, dtype=torch.float64, requires_grad=True)
    left = Dropout(0.25).train()(units)
    assert (left.shape, left.dtype) == (units.shape, units.dtype)
    left.sum().backward()
    assert torch.equal(units.grad, left.detach())


# -- rows


@pytest.mark.parametrize(
    ("index", "distinct"), [([4, 0, 2], True), ([4, 0, 4, 4, 2], False), ([], True), ([], False)]
)
def test_rows_are_those_of_an_embedding_and_their_gradient_is_its_gradient(index, distinct):
    torch.manual_seed(2)
    index = torch.tensor(index, dtype=torch.int64)
    weights = torch.randn(len(index), 3)
    gradients = []
    for look_up in (
        lambda table: embedding_lookup(table, index, distinct=distinct),
        lambda t: F.embedding(index, t),
    ):
        table = torch.arange(18.0).view(6, 3).requires_grad_()
        found = look_up(table)
        assert torch.equal(found, table[index])
        (found * weights).sum().backward()
        gradients.append(table.grad)
    assert gradients[0].is_sparse
    torch.testing.assert_close(gradients[0].to_dense(), gradients[1])


@pytest.mark.parametrize(("index", "distinct"), [([4, 1], True), ([4, 1, 4, 4], False)])
def test_a_gradient_names_each_row_once(index, distinct):
    table = nn.Parameter(torch.zeros(6, 3))
    embedding_lookup(table, torch.tensor(index), distinct=distinct).sum().backward()
    named = table.grad._indices()[0].tolist()
    assert sorted(named) == [1, 4]


def test_gradients_of_two_batches_add_up():
    table = nn.Parameter(torch.zeros(6, 3))
    for index in ([4, 1], [1, 5]):
        embedding_lookup(table, torch.tensor(index), distinct=True).sum().backward()
    assert table.grad.to_dense()[:, 0].tolist() == [0, 2, 0, 0, 1, 1]


# -- embedding_bag


BAGS = torch.tensor([3, 3, 0, 5, 1, 3, 2]), torch.tensor([2, 2, 6, 7])  # the second bag is empty


def test_sums_of_rows_are_those_of_a_plain_loop_and_so_are_their_gradients():
    row_T, end_B = BAGS
    weights = torch.arange(1, 13, dtype=torch.float64).view(4, 3)

    def plain(rows_RD):
        bags = row_T.tensor_split(end_B[:-1])
        return torch.stack([rows_RD[bag].sum(dim=0) for bag in bags])

    outcomes = []
    for function in (lambda table: embedding_bag(table, *BAGS), plain):
        rows_RD = torch.arange(18, dtype=torch.float64).view(6, 3).requires_grad_()
        found_BD = function(rows_RD)
        (found_BD * weights).sum().backward()
        outcomes.append((found_BD.detach(), rows_RD.grad))
    torch.testing.assert_close(outcomes[0], outcomes[1])
    assert (outcomes[0][0][1] == 0).all()
    assert (outcomes[0][1][4] == 0).all()


# -- max_over_time_conv


def plain_greatest_window(rows_RC, index_BL, lengths):
    """Every window of every title, one at a time."""
    filters = rows_RC.shape[1] // sum(lengths)
    blocks = rows_RC.split([length * filters for length in lengths], dim=1)
    titles = []
    for place_L in index_BL.tolist():
        greatest = []
        for length, block in zip(lengths, blocks, strict=True):
            windows = []
            for start, first in enumerate(place_L):
                if first == 0:
                    continue
                within = place_L[start : start + length]
                added = (block[place].view(length, filters)[k] for k, place in enumerate(within))
                windows.append(sum(added))
            greatest.append(torch.stack(windows).max(dim=0).values)
        titles.append(torch.cat(greatest))
    return torch.stack(titles)


def words(count, columns, seed=1):
    """Rows of `count` words after the zeros of no word, random: no two windows are equal."""
    generator = torch.Generator().manual_seed(seed)
    rows_RC = torch.randn(1 + count, columns, dtype=torch.float64, generator=generator)
    rows_RC[0] = 0
    return rows_RC


# Repeated words, titles shorter and longer than a window, a word left out in the midst.
PLACES = torch.tensor([[1, 2, 3, 4, 1], [5, 0, 0, 0, 0], [2, 2, 6, 0, 0], [3, 0, 6, 1, 0]])
LENGTHS = ([1], [2], [1, 3], [4, 2], [7])
of_lengths = pytest.mark.parametrize("lengths", LENGTHS, ids=str)


@of_lengths
@pytest.mark.parametrize(
    "function", [max_over_time_conv, windows.max_over_time_conv], ids=["compiled", "for a GPU"]
)
def test_the_greatest_window_and_its_gradient_are_those_of_a_plain_loop(function, lengths):
    filters = 8
    weights = torch.arange(1, 1 + 4 * filters * len(lengths), dtype=torch.float64).view(4, -1)
    outcomes = []
    for each in (function, plain_greatest_window):
        rows_RC = words(6, filters * sum(lengths)).requires_grad_()
        found_BF = each(rows_RC, PLACES, lengths)
        (found_BF * weights).sum().backward()
        # The row of no word is zeros that nothing made: what it would learn goes nowhere.
        outcomes.append((found_BF.detach(), rows_RC.grad[1:]))
    torch.testing.assert_close(outcomes[0], outcomes[1], rtol=1e-12, atol=1e-12)
    assert outcomes[0][1].any()


@of_lengths
def test_the_gradient_of_the_greatest_window_is_its_slope(lengths):
    # All places but that of no word, whose row stays what it is.
    def of_words(rows_WC):
        return max_over_time_conv(F.pad(rows_WC, (0, 0, 1, 0)), PLACES, lengths)

    assert torch.autograd.gradcheck(of_words, words(6, 2 * sum(lengths))[1:].requires_grad_())


@of_lengths
def test_the_greatest_window_is_that_of_convolutions_over_padded_titles(lengths):
    torch.manual_seed(4)
    vectors_UD = torch.randn(7, 5, dtype=torch.float64)
    vectors_UD[0] = 0
    rows, expected = [], []
    for length in lengths:
        kernels_FDK = torch.randn(8, 5, length, dtype=torch.float64)
        rows.append(torch.einsum("ud,fdk->ukf", vectors_UD, kernels_FDK).reshape(7, length * 8))
        padded_BDL = F.pad(vectors_UD[PLACES].transpose(1, 2), (0, length - 1))
        responses_BFL = F.conv1d(padded_BDL, kernels_FDK)
        expected.append(responses_BFL.masked_fill((PLACES == 0)[:, None], -torch.inf).amax(dim=2))
    found = max_over_time_conv(torch.cat(rows, dim=1), PLACES, lengths)
    torch.testing.assert_close(found, torch.cat(expected, dim=1), rtol=1e-12, atol=1e-12)


def test_of_equal_windows_one_alone_learns():
    rows_RC = torch.ones(3, 1, dtype=torch.float64).requires_grad_()
    max_over_time_conv(rows_RC, torch.tensor([[1, 2, 1]]), [1]).sum().backward()
    assert rows_RC.grad.sum() == 1
    assert rows_RC.grad[0] == 0


def test_what_is_no_number_is_not_lost_among_windows():
    rows_RC = words(6, 2)
    rows_RC[2, 1] = torch.nan
    found_BF = max_over_time_conv(rows_RC, PLACES, [1])
    assert found_BF.isnan().tolist() == [[False, True], [False, False], [False, True], [False, False]]


# -- threads


@pytest.mark.parametrize("threads", [2, 3])
def test_any_number_of_threads_gives_the_same_bytes(threads):
    draw = torch.Generator().manual_seed(1)
    index_BL = torch.randint(0, 50, (300, 9), generator=draw)
    index_BL[:, 0] = 7
    weights = torch.randn(300, 60, generator=draw)

    def outcome():
        rows_RC = words(49, 150).float().requires_grad_()
        greatest_BF = max_over_time_conv(rows_RC, index_BL, [2, 3])
        bags_BD = embedding_bag(rows_RC, index_BL.flatten(), torch.arange(9, 2701, 9))
        ((greatest_BF * weights).sum() + (bags_BD[:, :60] * weights).sum()).backward()
        return greatest_BF.detach(), rows_RC.grad

    alone = outcome()
    try:
        torch.set_num_threads(threads)
        together = outcome()
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_an_error_in_any_thread_is_raised(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)

    def work(first, last):
        raise ValueError(f"{first}")

    for parts in (1, 3):
        with pytest.raises(ValueError, match="0"):
            kernels.in_parts(work, parts, 10**9)


def test_parts_cover_all_once_with_more_threads_than_parts_and_with_none(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    for parts in (0, 1, 3, 4, 11):
        seen = []
        kernels.in_parts(lambda first, last, seen=seen: seen.extend(range(first, last)), parts, 10**9)
        assert sorted(seen) == list(range(parts))


def test_loops_are_compiled_also_where_nothing_can_be_kept_on_disk(monkeypatch):
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])

    def add(numbers, first, last):
        for place in range(first, last):
            numbers[place] += 1

    numbers = np.zeros(3)
    kernels.compiled(add)(numbers, 1, 3)
    assert numbers.tolist() == [0, 1, 1]


def test_filters_multiply_few_numbers_of_rows_whatever_the_words_of_a_batch():
    filters, rows = WindowFilters(6, [1, 3], 5), set()
    filters.project.register_forward_pre_hook(lambda _, given: rows.add(len(given[0])))
    for words in range(2, 250):
        filters(torch.randn(words, 6), torch.randint(0, words, (3, 4))).sum().backward()
    assert rows == {64, 128, 192, 256}
