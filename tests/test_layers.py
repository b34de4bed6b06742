import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from titles.models.layers import Dropout, greatest_window, rows

UNITS = 2_000_003  # no multiple of 8


def dropped(share, units=UNITS, seed=3):
    torch.manual_seed(seed)
    return Dropout(share).train()(torch.ones(units))


# -- Dropout


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_dropout_drops_the_share_it_says_to_the_next_256th(share):
    nearest = round(256 * share) / 256
    found = float((dropped(share) == 0).double().mean())
    assert abs(found - nearest) < 5 * math.sqrt(nearest * (1 - nearest) / UNITS)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_scales_all_that_stays_alike(share):
    units = dropped(share).double()
    kept = 1 - round(256 * share) / 256
    assert units.unique().tolist() == pytest.approx([0, 1 / kept])
    assert abs(float(units.mean()) - 1) < 5 * math.sqrt((1 - kept) / kept / UNITS)


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
        lambda table: rows(table, index, distinct=distinct),
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
    rows(table, torch.tensor(index), distinct=distinct).sum().backward()
    named = table.grad._indices()[0].tolist()
    assert sorted(named) == [1, 4]


def test_gradients_of_two_batches_add_up():
    table = nn.Parameter(torch.zeros(6, 3))
    for index in ([4, 1], [1, 5]):
        rows(table, torch.tensor(index), distinct=True).sum().backward()
    assert table.grad.to_dense()[:, 0].tolist() == [0, 2, 0, 0, 1, 1]


# -- greatest_window


def plain_greatest_window(rows_RF, place_BL, length):
    """Every window of every title, one at a time."""
    titles = []
    for place_L in place_BL.tolist():
        windows = []
        for start, first in enumerate(place_L):
            if first == 0:
                continue
            within = place_L[start : start + length]
            windows.append(sum(rows_RF[place * length + k] for k, place in enumerate(within)))
        titles.append(torch.stack(windows).max(dim=0).values)
    return torch.stack(titles)


def words(count, filters, length, seed=1):
    """Rows of `count` words after the zeros of no word, random: no two windows are equal."""
    generator = torch.Generator().manual_seed(seed)
    rows_RF = torch.randn((1 + count) * length, filters, dtype=torch.float64, generator=generator)
    rows_RF[:length] = 0
    return rows_RF


# Repeated words, titles shorter and longer than a window, a word left out in the midst.
PLACES = torch.tensor([[1, 2, 3, 4, 1], [5, 0, 0, 0, 0], [2, 2, 6, 0, 0], [3, 0, 6, 1, 0]])


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_the_greatest_window_and_its_gradient_are_those_of_a_plain_loop(length):
    weights = torch.arange(1, 33, dtype=torch.float64).view(4, 8)
    outcomes = []
    for function in (greatest_window, plain_greatest_window):
        rows_RF = words(6, 8, length).requires_grad_()
        found_BF = function(rows_RF, PLACES, length)
        (found_BF * weights).sum().backward()
        # Rows of no word are zeros that nothing made: what they would learn goes nowhere.
        outcomes.append((found_BF.detach(), rows_RF.grad[length:]))
    torch.testing.assert_close(outcomes[0], outcomes[1], rtol=1e-12, atol=1e-12)
    assert outcomes[0][1].any()


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_gradient_of_the_greatest_window_is_its_slope(length):
    # All places but that of no word, whose row stays what it is.
    def of_words(rows_WF):
        return greatest_window(F.pad(rows_WF, (0, 0, length, 0)), PLACES, length)

    assert torch.autograd.gradcheck(of_words, words(6, 2, length)[length:].requires_grad_())


@pytest.mark.parametrize("length", [1, 2, 4])
def test_the_greatest_window_is_that_of_a_convolution_over_padded_titles(length):
    torch.manual_seed(4)
    vectors_UD = torch.randn(7, 5, dtype=torch.float64)
    vectors_UD[0] = 0
    kernels_FDK = torch.randn(8, 5, length, dtype=torch.float64)
    rows_RF = torch.einsum("ud,fdk->ukf", vectors_UD, kernels_FDK).reshape(7 * length, 8)
    padded_BDL = F.pad(vectors_UD[PLACES].transpose(1, 2), (0, length - 1))
    responses_BFL = F.conv1d(padded_BDL, kernels_FDK).masked_fill((PLACES == 0)[:, None], -torch.inf)
    found = greatest_window(rows_RF, PLACES, length)
    torch.testing.assert_close(found, responses_BFL.amax(dim=2), rtol=1e-12, atol=1e-12)


def test_of_equal_windows_one_alone_learns():
    rows_RF = torch.ones(3, 1, dtype=torch.float64).requires_grad_()
    greatest_window(rows_RF, torch.tensor([[1, 2, 1]]), 1).sum().backward()
    assert rows_RF.grad.sum() == 1
    assert rows_RF.grad[0] == 0
