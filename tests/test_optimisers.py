import numpy as np
import pytest
import torch
from torch import nn

from titles.training import optimisers
from titles.training.optimisers import LazyAdam, one_cycle

ROWS, DIMENSION = 7, 3


def table():
    torch.manual_seed(6)
    return nn.Parameter(torch.randn(ROWS, DIMENSION, dtype=torch.float64))


def sparse(index, values, *, coalesced=False):
    return torch.sparse_coo_tensor(
        torch.tensor([index]), values, (ROWS, DIMENSION), check_invariants=False, is_coalesced=coalesced
    )


def gradients(steps, seed=8):
    """Random gradients of all rows, one tensor a step."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, ROWS, DIMENSION, dtype=torch.float64, generator=generator)


def after(optimiser, steps):
    """The one table of the optimiser after a step with each gradient."""
    (learning,) = optimiser.param_groups[0]["params"]
    for gradient in steps:
        learning.grad = gradient
        optimiser.step()
    return learning.detach()


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_with_all_rows_in_every_step_it_is_adam(form):
    steps = gradients(20)
    expected = after(torch.optim.Adam([table()], lr=0.05), steps)
    given = steps if form == "dense" else [sparse(list(range(ROWS)), g, coalesced=True) for g in steps]
    found = after(LazyAdam([table()], lr=0.05), given)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert not torch.equal(expected, table())


def test_each_row_is_what_sparse_adam_of_torch_makes_of_it():
    # Gradients so large that epsilon, which stands elsewhere in its formula, is nothing beside them.
    chosen = [[0, 2], [2, 5, 6], [5], [0, 1, 2, 3, 4, 5, 6], [3, 2]]
    steps = [sparse(rows, 1e6 * g[rows]) for rows, g in zip(chosen, gradients(5), strict=True)]
    expected = after(torch.optim.SparseAdam([table()], lr=0.05), steps)
    torch.testing.assert_close(after(LazyAdam([table()], lr=0.05), steps), expected, rtol=0, atol=1e-10)


def test_rows_without_a_gradient_stay_and_keep_their_momentum():
    learning = table()
    optimiser = LazyAdam([learning], lr=0.05)
    before = after(optimiser, gradients(3)).clone()
    mean, square = (optimiser.state[learning][key].clone() for key in ("exp_avg", "exp_avg_sq"))
    touched, untouched = [1, 4], [0, 2, 3, 5, 6]
    after(optimiser, [sparse(touched, torch.ones(2, DIMENSION, dtype=torch.float64))] * 4)
    for now, then in (
        (learning.detach(), before),
        (optimiser.state[learning]["exp_avg"], mean),
        (optimiser.state[learning]["exp_avg_sq"], square),
    ):
        assert torch.equal(now[untouched], then[untouched])
        assert (now[touched] != then[touched]).all()


@pytest.mark.parametrize("order", [[1, 3, 4], [4, 1, 3]], ids=["sorted", "in any order"])
def test_sparse_and_dense_gradients_do_the_same(order):
    given = [g[order] for g in gradients(6)]
    steps = [sparse(order, values, coalesced=True) for values in given]
    dense = after(LazyAdam([table()], lr=0.05), [step.to_dense() for step in steps])
    torch.testing.assert_close(after(LazyAdam([table()], lr=0.05), steps), dense, rtol=1e-14, atol=0)


def test_a_row_of_zeros_in_a_sparse_gradient_is_a_row_without_gradient():
    steps = [gradients(1)[0], sparse([1, 3], torch.tensor([[0.0] * 3, [1.0] * 3], dtype=torch.float64))]
    alike = [step.to_dense() for step in steps]
    found, expected = (after(LazyAdam([table()], lr=0.05), each) for each in (steps, alike))
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)


def test_the_operators_for_a_gpu_do_what_the_loops_for_the_cpu_do():
    one, other, state = table(), LazyAdam([table()], lr=0.05), {}
    state |= {"steps": 0, "exp_avg": torch.zeros_like(one), "exp_avg_sq": torch.zeros_like(one)}
    chosen = [[0, 2], [5, 2, 6], [3], [0, 1, 2, 3, 4, 5, 6]]
    for rows, gradient in zip(chosen, gradients(len(chosen)), strict=True):
        if len(rows) > 1:
            gradient[rows[0]] = 0  # a row of zeros is one without a gradient
        state["steps"] += 1
        with torch.no_grad():
            optimisers._step_of_rows(one, state, torch.tensor(rows), gradient[rows], 0.05)
        expected = after(other, [sparse(rows, gradient[rows], coalesced=True)])
    torch.testing.assert_close(one.detach(), expected, rtol=1e-12, atol=1e-14)
    assert not torch.equal(one, table())


def test_a_step_of_no_rows_moves_nothing():
    none = sparse([], torch.empty(0, DIMENSION, dtype=torch.float64), coalesced=True)
    assert torch.equal(after(LazyAdam([table()], lr=0.05), [none, none]), table().detach())
    assert torch.equal(after(LazyAdam([table()], lr=0.05), [None]), table().detach())


def test_the_rate_of_the_group_is_what_a_step_takes():
    small, large = LazyAdam([table()], lr=1.0), LazyAdam([table()], lr=0.3)
    small.param_groups[0]["lr"] = 0.3
    assert torch.equal(after(small, gradients(2)), after(large, gradients(2)))


# -- one_cycle


def test_one_cycle_starts_low_peaks_at_a_tenth_and_ends_at_nothing():
    assert one_cycle(0) == pytest.approx(0.04)
    assert one_cycle(0.1) == 1
    assert one_cycle(1) == pytest.approx(0, abs=1e-12)
    assert one_cycle(0.05) == pytest.approx(0.52)  # half way up a line
    assert one_cycle(0.55) == pytest.approx(0.5)  # half way down a cosine


def test_one_cycle_rises_and_falls_without_a_jump():
    rates = np.array([one_cycle(done) for done in np.linspace(0, 1, 10_001)])
    peak = int(rates.argmax())
    assert peak == 1000
    assert (np.diff(rates)[:peak] > 0).all()
    assert (np.diff(rates)[peak:] < 0).all()
    # The steepest is the line: 0.96 within a tenth.
    assert np.abs(np.diff(rates)).max() < 0.97 / 1000
