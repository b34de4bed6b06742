"""Titles whose labels look wrong to the network are left out of the loss."""

import math

import numpy as np
import pytest
import torch

from networks import CATEGORIES, NAMES, TITLES, C, V, answers, encoded, network, settings
from titles.models.parts.inference import DivergedError
from titles.training import set_aside, trainer
from titles.training.objective import Objective
from titles.training.trainer import Trainer

CPU = torch.device("cpu")
both_networks = pytest.mark.parametrize("name", NAMES)


def training(name, titles=None, net=None, **changes):
    titles = titles or encoded()
    return Trainer(net or network(name), titles, titles, C, settings(name, **changes), 1, CPU)


def told(monkeypatch, *answers):
    """Let the network have these margins, one after the other; gives the list of calls."""
    calls = []

    def made(*given):
        calls.append(given)
        return np.array(answers[min(len(calls), len(answers)) - 1], np.float32)

    monkeypatch.setattr(set_aside, "margins", made)
    return calls


@both_networks
def test_a_margin_is_how_likely_the_label_is_beside_the_likeliest_category(name):
    net = network(name, dropout=0.9)  # which does not count here
    shift_C = torch.tensor([0.5, -1.0, 0.0, 2.0])
    found_N = set_aside.margins(net.train(), encoded(), CPU, shift_C)
    for margin, title, label in zip(found_N, TITLES, CATEGORIES, strict=True):
        share_C = (answers(net.eval(), [title])[0].detach() + shift_C).softmax(dim=0)
        assert math.exp(margin) == pytest.approx(float(share_C[label] / share_C.max()), rel=1e-5)
    assert found_N.dtype == np.float32
    assert found_N.max() <= 0


def test_logits_that_are_not_finite_are_no_margins():
    net = network("mlp")
    with torch.no_grad():
        net.output.bias[1] = math.nan
    with pytest.raises(DivergedError):
        set_aside.margins(net, encoded(), CPU, torch.zeros(C))


@pytest.mark.parametrize(
    ("changes", "power"),
    [
        ({}, 1),
        ({"logit_adjustment": 1.0}, 0),
        ({"logit_adjustment": 0.5}, 0.5),
        ({"class_weighting": "balanced"}, 0),
        ({"class_weighting": "sqrt", "logit_adjustment": 1.0}, -0.5),
    ],
)
def test_titles_are_judged_under_equal_priors(changes, power):
    """To what power of the priors the objective teaches a network to favour categories."""
    equal_C = Objective.of(encoded(), C, settings("mlp", **changes), CPU).equal_C
    prior_C = torch.bincount(torch.tensor(CATEGORIES), minlength=C).clamp(min=1) / 8
    apart_C = equal_C + power * prior_C.log()
    torch.testing.assert_close(apart_C, apart_C[:1].expand(C))


@pytest.mark.parametrize(
    ("epochs", "after"),
    [
        (1, []),
        (2, [1]),
        (3, [1, 2]),
        (4, [1, 2, 3]),
        (5, [2, 3, 4]),
        (12, [3, 6, 9]),
        (48, [12, 24, 36]),
    ],
)
def test_titles_are_judged_after_each_quarter_but_the_last(monkeypatch, epochs, after):
    calls = told(monkeypatch, np.zeros(8))
    judged = []
    for record in training("mlp", epochs=epochs, set_aside_below=0.1).epochs():
        if len(calls) > len(judged):
            judged.append(record.epoch - 1)
    assert judged == after


def test_without_a_share_none_are_judged(monkeypatch):
    calls = told(monkeypatch, np.full(8, -99.0))
    records = list(training("mlp", epochs=8).epochs())
    assert not calls
    assert {record.set_aside for record in records} == {0}


def weights(one):
    return list(one._network.state_dict().values())


LIMIT = math.log(0.25)


def looks(*wrong):
    """Margins: those of titles at these places are just below a quarter."""
    return np.where(np.isin(np.arange(8), wrong), LIMIT - 1e-3, LIMIT + 1e-3)


@both_networks
@pytest.mark.parametrize("heads", [1, 3])
def test_what_is_set_aside_teaches_nothing(monkeypatch, name, heads):
    told(monkeypatch, looks(2, 7))
    whole = training(name, batch_size=8, set_aside_below=0.25, heads=heads)
    whole._set_aside()
    whole._epoch(1, lambda: None)
    left = [place for place in range(8) if place not in (2, 7)]
    rest = encoded([TITLES[place] for place in left], [CATEGORIES[place] for place in left])
    without = training(name, rest, batch_size=8, heads=heads)
    without._epoch(1, lambda: None)
    for one, other in zip(weights(whole), weights(without), strict=True):
        torch.testing.assert_close(one, other)
    plain = training(name, batch_size=8, heads=heads)
    plain._epoch(1, lambda: None)
    assert any(not torch.equal(a, b) for a, b in zip(weights(plain), weights(whole), strict=True))


@both_networks
def test_a_step_of_titles_that_are_all_set_aside_moves_nothing(name):
    one = training(name, batch_size=2, set_aside_below=0.25)
    before = [weight.clone() for weight in weights(one)]
    one._kept_N.zero_()
    loss, _ = one._epoch(1, lambda: None)
    assert all(torch.equal(a, b) for a, b in zip(weights(one), before, strict=True))
    assert loss > 0  # it still is of all titles


@pytest.mark.parametrize(
    ("wrong", "aside"),
    [
        ([1], [1]),  # one of two
        ([1, 4], []),  # both: the network has not learned this category
        ([2, 3], [2, 3]),  # two of four
        ([2, 3, 5], []),
        ([0, 1, 2, 4, 7], [0, 2, 7]),
    ],
)
def test_a_category_that_is_not_learned_yet_keeps_all_its_titles(monkeypatch, wrong, aside):
    told(monkeypatch, looks(*wrong))
    one = training("mlp", set_aside_below=0.25)
    one._set_aside()
    assert (one._kept_N == 0).nonzero()[:, 0].tolist() == aside


def test_titles_come_back_and_each_record_counts_those_left_out(monkeypatch):
    told(monkeypatch, looks(2, 3), looks(0), looks())
    records = training("mlp", epochs=8, set_aside_below=0.25).epochs()
    assert [record.set_aside for record in records] == [0, 0, 2, 2, 1, 1, 0, 0]


def test_a_resumed_epoch_leaves_the_same_titles_out(monkeypatch):
    told(monkeypatch, looks(2, 3), looks(0))
    monkeypatch.setattr(trainer, "_STEPS_PER_CHECK", 1)
    given = {"epochs": 4, "set_aside_below": 0.25, "learning_rate": 0.05}
    first, states = training("mlp", **given), []

    def between():
        tensors, numbers = first.state()
        states.append(({name: tensor.clone() for name, tensor in tensors.items()}, numbers))

    expected = list(first.epochs(between))
    middle = next(state for state in states if state[1]["epochs_done"] == 1)
    assert middle[1]["step"] == 1
    resumed = training("mlp", **given)
    resumed.restore(*middle)
    told(monkeypatch, looks(0))
    found = list(resumed.epochs())
    assert [record.set_aside for record in found] == [2, 1, 1]
    for one, other in zip(found, expected[1:], strict=True):
        assert (one.train_loss, one.validation_loss) == (other.train_loss, other.validation_loss)


WORDS = 10  # of the titles of a category


@both_networks
def test_wrong_labels_are_found_while_a_network_trains(name):
    random = np.random.default_rng(4)
    true_N = np.repeat(np.arange(2), 150)
    given_N = true_N.copy()
    wrong_N = random.permutation(300)[:45]
    given_N[wrong_N] = 1 - true_N[wrong_N]
    # To a network that has learned all there is, a label that is wrong in 15 of 100 titles is 0.18 times
    # as likely as the other. Words 2 to 6 are of category 0, 7 to 11 of category 1; one in four is any.
    half = (V - 2) // 2
    titles = [
        [
            int(
                random.integers(2, V)
                if random.random() < 0.25
                else 2 + half * kind + random.integers(half)
            )
            for _ in range(WORDS)
        ]
        for kind in true_N
    ]
    one = training(
        name, encoded(titles, given_N), batch_size=20, epochs=8, learning_rate=0.01, set_aside_below=0.3
    )
    *_, last = one.epochs()
    found_N = (one._kept_N == 0).nonzero()[:, 0].numpy()
    right = np.isin(found_N, wrong_N)
    assert last.set_aside == len(found_N)
    assert right.mean() > 0.9
    assert right.sum() > 0.6 * len(wrong_N)
