"""What a training minimises and how it goes about it: targets, priors, rates, words left out."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from networks import (
    ABSENT,
    CATEGORIES,
    NAMES,
    SUBWORDS,
    TITLES,
    WITH_AND_WITHOUT,
    C,
    answers,
    encoded,
    fit,
    network,
    settings,
)
from titles.models.parts.inference import evaluate
from titles.training.objective import Objective
from titles.training.optimisers import one_cycle
from titles.training.run import without_effect
from titles.training.trainer import word_dropout

CPU = torch.device("cpu")
NO_STEP = 1e-30  # a learning rate that moves no float
both_networks = pytest.mark.parametrize("name", NAMES)


def objective(**changes):
    return Objective.of(encoded(), C, settings("mlp", **changes), CPU)


@pytest.fixture
def logits_BC():
    return torch.randn(8, C, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


LABELS = torch.tensor(CATEGORIES)


def log_softmax_by_hand(logits_BC):
    return [[x - math.log(sum(map(math.exp, row))) for x in row] for row in logits_BC.tolist()]


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_logit_adjustment_is_cross_entropy_of_logits_plus_tau_log_priors(logits_BC, tau):
    # Two titles, two, four; the category of no title counts as if it had one.
    shift_C = [tau * math.log(rows / 8) for rows in (2, 2, 4, 1)]
    assert ABSENT == 3
    shifted = [[x + s for x, s in zip(row, shift_C, strict=True)] for row in logits_BC.tolist()]
    logs = log_softmax_by_hand(torch.tensor(shifted, dtype=torch.float64))
    expected = [-row[label] for row, label in zip(logs, CATEGORIES, strict=True)]
    found = objective(logit_adjustment=tau).losses(logits_BC, LABELS)[0]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_label_smoothing_gives_a_share_of_the_target_to_all_categories_alike(logits_BC, smoothing):
    logs = log_softmax_by_hand(logits_BC)
    expected = [
        -(1 - smoothing) * row[label] - smoothing * sum(row) / C
        for row, label in zip(logs, CATEGORIES, strict=True)
    ]
    found = objective(label_smoothing=smoothing).losses(logits_BC, LABELS)[0]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_with_adjustment_the_smoothed_share_goes_to_categories_by_their_priors_to_tau(logits_BC):
    both = objective(logit_adjustment=0.7, label_smoothing=0.2, class_weighting="balanced")
    powers_C = [(rows / 8) ** 0.7 for rows in (2, 2, 4, 1)]
    shares_C = [power / sum(powers_C) for power in powers_C]
    logs = log_softmax_by_hand(logits_BC + objective(logit_adjustment=0.7).shift_C)
    expected = [
        -0.8 * row[label] - 0.2 * sum(share * log for share, log in zip(shares_C, row, strict=True))
        for row, label in zip(logs, CATEGORIES, strict=True)
    ]
    assert both.losses(logits_BC, LABELS)[0].tolist() == pytest.approx(expected, rel=1e-6)
    assert len(both.weight_C.unique()) > 1  # which are not in it
    assert len(objective().weight_C.unique()) == 1


def test_logits_that_know_nothing_are_left_alone_by_smoothing_and_adjustment():
    # Of titles whose labels follow the priors: equal logits are where the loss is least.
    logits_BC = torch.zeros(8, 3, dtype=torch.float64, requires_grad=True)
    goal = Objective.of(encoded(), 3, settings("mlp", logit_adjustment=1.0, label_smoothing=0.5), CPU)
    goal.losses(logits_BC, LABELS)[0].sum().backward()
    assert logits_BC.grad.abs().max() > 0.1
    assert logits_BC.grad.sum(dim=0).abs().max() < 1e-6


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_gradient_of_the_loss_is_its_slope(smoothing):
    goal = objective(logit_adjustment=0.5, label_smoothing=smoothing)
    draw = torch.Generator().manual_seed(3)
    logits_BC = torch.randn(8, C, dtype=torch.float64, generator=draw).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: goal.losses(x, LABELS)[0], (logits_BC,))


@pytest.mark.parametrize("q", [0.3, 1.0])
def test_the_slope_with_robustness_is_that_of_the_generalised_cross_entropy(logits_BC, q):
    logits_BC.requires_grad_()
    goal = objective(logit_adjustment=0.5, gce_q=q)
    losses_B, log_right_B = goal.losses(logits_BC, LABELS)
    (losses_B * goal.weights(LABELS, log_right_B, progress=0.9)).sum().backward()
    found, logits_BC.grad = logits_BC.grad, None
    right_B = (logits_BC + goal.shift_C).softmax(dim=1).gather(1, LABELS[:, None])[:, 0]
    ((1 - right_B**q) / q).sum().backward()
    torch.testing.assert_close(found, logits_BC.grad, rtol=1e-6, atol=1e-9)


def test_robustness_comes_in_over_the_first_quarter_and_keeps_the_categories_weights(logits_BC):
    goal = objective(gce_q=0.4, class_weighting="balanced")
    _, log_right_B = goal.losses(logits_BC, LABELS)
    for progress, power in ((0, 0), (0.125, 0.2), (0.25, 0.4), (1, 0.4)):
        expected_B = goal.weight_C[LABELS] * log_right_B.exp() ** power
        torch.testing.assert_close(goal.weights(LABELS, log_right_B, progress), expected_B)


@both_networks
def test_wrong_labels_teach_less_with_robustness(name):
    # Four of five titles of a word have its own category.
    titles = [[word] for word in (2, 3, 4, 5) for _ in range(20)]
    labels = [(number + (row % 5 == 0)) % C for number in range(4) for row in range(20)]
    sure = {}
    for q in (0.0, 0.7):
        net = network(name)
        given = settings(name, epochs=100, batch_size=80, learning_rate=0.05, gce_q=q)
        list(fit(net, encoded(titles, labels), encoded(titles, labels), C, given, 1, CPU))
        (outcomes,) = evaluate([net], encoded(titles, labels), CPU)
        assert outcomes.predicted_N.tolist() == [number for number in range(4) for _ in range(20)]
        sure[q] = outcomes.confidence_N.mean()
    assert sure[0.0] == pytest.approx(0.8, abs=0.02)
    assert sure[0.7] > 0.9


def stepped(name, epochs=1, **changes):
    """Parameters after one step an epoch over all eight titles."""
    net = network(name)
    given = settings(name, epochs=epochs, batch_size=8, **changes)
    list(fit(net, encoded(), encoded(), C, given, 1, CPU))
    return [values.detach() for values in net.parameters()]


@both_networks
def test_robustness_has_no_say_in_the_first_step_and_one_in_those_that_follow(name):
    def same(epochs):
        pairs = zip(stepped(name, epochs, gce_q=1.0), stepped(name, epochs), strict=True)
        return all(torch.equal(a, b) for a, b in pairs)

    assert same(1)
    assert not same(2)


@both_networks
def test_a_step_goes_down_the_weighted_mean_of_the_losses(name):
    changes = {"logit_adjustment": 1.0, "label_smoothing": 0.3, "class_weighting": "balanced"}
    net = network(name)
    goal = objective(**changes)
    losses_B, log_right_B = goal.losses(answers(net), LABELS)
    weight_B = goal.weights(LABELS, log_right_B, progress=0)
    loss = (losses_B * weight_B).sum() / weight_B.sum()
    loss.backward()
    before = [values.detach().clone() for values in net.parameters()]
    after = stepped(name, **changes)
    # The first step of Adam goes `rate` down wherever the slope is not next to nothing.
    checked = 0
    for values, start, end in zip(net.parameters(), before, after, strict=True):
        slope = values.grad.to_dense()
        steep = slope.abs() > 1e-5
        torch.testing.assert_close((end - start)[steep], -0.01 * slope[steep].sign(), rtol=2e-3, atol=0)
        checked += int(steep.sum())
    assert checked > 100


# Ten titles of each word. The rare category has a quarter of all: of words 2 and 3 fewer, of 4 and 5
# more, and of none the most.
def imbalanced():
    titles, labels = [], []
    for word, rare in ((2, 1), (3, 1), (4, 4), (5, 4)):
        titles += [[word]] * 10
        labels += [1] * rare + [0] * (10 - rare)
    return encoded(titles, labels), labels


@both_networks
def test_logit_adjustment_finds_more_titles_of_a_rare_category(name):
    titles, labels = imbalanced()
    recall = {}
    for tau in (0.0, 1.0):
        net = network(name)
        given = settings(name, epochs=20, batch_size=40, learning_rate=0.05, logit_adjustment=tau)
        list(fit(net, titles, titles, C, given, 1, CPU))
        (outcomes,) = evaluate([net], titles, CPU)
        rare_N = np.array(labels) == 1
        recall[tau] = [float(outcomes.right_N[rows].mean()) for rows in (rare_N, ~rare_N)]
    assert recall[0.0] == [0, 1]  # of every word, most titles are of the frequent category
    assert recall[1.0] == [8 / 10, 18 / 30]  # where the rare one is likelier than overall, it is given


@both_networks
@pytest.mark.parametrize(
    "changes",
    [
        {"logit_adjustment": 1.5},
        {"label_smoothing": 0.4},
        {"logit_adjustment": 1.0, "label_smoothing": 0.1, "class_weighting": "sqrt"},
    ],
    ids=["adjusted", "smoothed", "all"],
)
def test_reported_losses_are_plain_cross_entropies_whatever_is_minimised(name, changes):
    def record(**changes):
        given = settings(name, epochs=1, learning_rate=NO_STEP, **changes)
        return next(fit(network(name), encoded(), encoded(), C, given, 1, CPU))

    found, plain = record(**changes), record()
    for one in (found, plain):
        assert one.train_loss == pytest.approx(plain.validation_loss, rel=1e-6)
    assert found.validation_loss == plain.validation_loss
    assert any(
        not torch.equal(a, b) for a, b in zip(stepped(name, **changes), stepped(name), strict=True)
    )


# -- words left out


def places(lengths, width=9):
    return torch.tensor([[1] * length + [0] * (width - length) for length in lengths])


@pytest.mark.parametrize("dropped", [0.1, 0.5, 0.99])
def test_word_dropout_leaves_every_title_a_word_and_adds_none(dropped):
    torch.manual_seed(4)
    index_BL = places([1, 2, 3, 9] * 500) * torch.arange(3, 12)
    left_BL = word_dropout(index_BL, dropped)
    assert (left_BL > 0).any(dim=1).all()
    assert ((left_BL == index_BL) | (left_BL == 0)).all()
    assert not torch.equal(left_BL, index_BL)


@pytest.mark.parametrize("dropped", [0.2, 0.5, 0.9, 0.99])
def test_word_dropout_leaves_out_the_share_it_says_but_for_the_word_that_stays(dropped):
    torch.manual_seed(4)
    index_BL = places([9] * 20_000)
    share = 1 - float(word_dropout(index_BL, dropped).double().mean())
    assert abs(share - (dropped - dropped**9 / 9)) < 5 * math.sqrt(0.25 / index_BL.numel())


def test_a_title_that_would_lose_all_its_words_keeps_one():
    torch.manual_seed(4)
    words_left = (word_dropout(places([2] * 4000), 0.5) > 0).sum(dim=1)
    # Of four equally likely cases one loses none, two lose one, one would lose both.
    share = float((words_left == 2).double().mean())
    assert abs(share - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 4000)
    assert set(words_left.tolist()) == {1, 2}


@both_networks
@pytest.mark.parametrize("subwords", WITH_AND_WITHOUT.values(), ids=WITH_AND_WITHOUT.keys())
def test_words_are_left_out_in_training_alone_and_of_titles_of_several_words(name, subwords):
    def record(titles, labels, dropped):
        given = settings(name, epochs=1, learning_rate=NO_STEP, word_dropout=dropped)
        data = encoded(titles, labels)
        return next(fit(network(name, subwords=subwords), data, data, C, given, 1, CPU))

    torch.manual_seed(2)
    of_many, plain = record(TITLES, CATEGORIES, 0.6), record(TITLES, CATEGORIES, 0.0)
    assert of_many.train_loss != plain.train_loss
    assert of_many.validation_loss == plain.validation_loss
    single = ([[2], [5], [-1], [-2]], [0, 1, 2, 0])
    assert record(*single, 0.6).train_loss == record(*single, 0.0).train_loss


# -- steps and rates


def fitted(net, titles, look, **changes):
    """Trains the network; `look` sees it and the logits of each step."""

    def hook(module, args, logits_BC):
        if module.training:
            look(module, logits_BC)

    net.register_forward_hook(hook)
    return list(fit(net, titles, titles, C, settings("mlp", **changes), 1, CPU))


def steps_of(titles, **changes):
    """Titles in each batch of an epoch."""
    sizes = []
    fitted(
        network("mlp"), titles, lambda _, logits_BC: sizes.append(len(logits_BC)), epochs=1, **changes
    )
    return sizes


@pytest.mark.parametrize(
    ("min_steps", "sizes"),
    [(1, [320]), (2, [160, 160]), (3, [106, 106, 106, 2]), (4, [96, 96, 96, 32]), (9, [96, 96, 96, 32])],
)
def test_auto_makes_batches_so_small_that_there_are_enough_steps(min_steps, sizes):
    titles = encoded(TITLES * 40, CATEGORIES * 40)
    found = steps_of(titles, batch_size="auto", min_steps=min_steps)
    assert sorted(found, reverse=True) == sizes


def test_auto_takes_all_titles_of_a_split_smaller_than_a_batch():
    assert steps_of(encoded(), batch_size="auto", min_steps=9) == [8]


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(1, [1] * 8), (3, [2, 3, 3]), (7, [1, 7]), (8, [8]), (9, [8])]
)
def test_a_batch_size_given_is_the_one_used(batch_size, sizes):
    assert sorted(steps_of(encoded(), batch_size=batch_size)) == sizes


@pytest.mark.parametrize(
    ("rows", "changes", "idle"),
    [
        (288, {"batch_size": "auto", "min_steps": 3}, {}),
        (
            287,
            {"batch_size": "auto", "min_steps": 3},
            {"min_steps": "train has 287 titles: batches of 96"},
        ),
        (8, {"batch_size": "auto", "min_steps": 1}, {"min_steps": "train has 8 titles: batches of 8"}),
        (3_074, {"batch_size": "auto", "min_steps": 3}, {}),
        (
            3_075,
            {"batch_size": "auto", "min_steps": 3},
            {"min_steps": "train has 3075 titles: batches of 1024"},
        ),
        (8, {"batch_size": 8}, {}),
        (8, {"batch_size": 9}, {"batch_size": "train has 8 titles: one step per epoch"}),
    ],
)
def test_sizes_of_batches_that_train_overrules_are_named(rows, changes, idle):
    given = settings("mlp", **changes | {"subword_buckets": 37})
    assert without_effect(given, encoded([[2]] * rows, CATEGORIES + [0] * (rows - 8)), C) == idle
    if "min_steps" in idle:  # neither one more nor one less makes other batches
        sizes = {given.titles_per_step(rows)} | {
            settings("mlp", batch_size="auto", min_steps=given.min_steps + more).titles_per_step(rows)
            for more in ((0, 1) if rows < 288 else (-1, 0))
        }
        assert len(sizes) == 1


def test_leading_words_beyond_the_longest_title_are_named():
    longest = max(map(len, TITLES))
    found = [settings("mlp", leading_words=longest + more).beyond_titles(longest) for more in (0, 1)]
    assert found == [{}, {"leading_words": f"no title has more than {longest} words"}]
    net, read = network("mlp"), []
    for net.leading_words in (longest - 1, longest, longest + 1):
        read.append(answers(net))
    assert torch.equal(read[1], read[2])
    assert not torch.equal(read[0], read[1])
    assert settings("cnn").beyond_titles(1) == {}


def test_equal_categories_leave_priors_and_weights_without_effect():
    titles = encoded(TITLES, [0, 1, 2, 3] * 2)
    given = settings("mlp", logit_adjustment=1.0, class_weighting="balanced", subword_buckets=37)
    found = without_effect(given, titles, C)
    assert found == dict.fromkeys(
        ("logit_adjustment", "class_weighting"), "all categories have equally many titles in train"
    )
    objective = Objective.of(titles, C, given, CPU)
    assert len({*objective.shift_C.tolist()}) == 1
    torch.testing.assert_close(objective.weight_C, torch.ones(C))


def movement(schedule, epochs, rate=1e-4):
    """How far the output's bias went in each step."""
    net, seen = network("mlp"), []
    # All of one category: the slope keeps its sign, and a step of Adam is as long as its rate.
    fitted(
        net,
        encoded(TITLES, [1] * 8),
        lambda module, _: seen.append(module.output.bias.detach().clone()),
        epochs=epochs,
        batch_size=4,
        learning_rate=rate,
        schedule=schedule,
    )
    seen.append(net.output.bias.detach())
    return [float((b - a).abs().max()) for a, b in pairwise(seen)]


def test_a_constant_rate_stays_and_a_one_cycle_rate_follows_its_curve_over_all_epochs():
    assert movement("constant", 10) == pytest.approx([1e-4] * 20, rel=0.05)
    expected = [1e-4 * one_cycle(step / 20) for step in range(20)]
    assert movement("one_cycle", 10) == pytest.approx(expected, rel=0.05)
    assert expected[0] < expected[1] < expected[2] > expected[3] > expected[19]


def test_the_one_cycle_rate_is_that_of_word_vectors_too():
    def moved(schedule):
        net = network("mlp", subwords=SUBWORDS)
        before = {key: values.detach().clone() for key, values in net.named_parameters()}
        given = settings("mlp", epochs=1, batch_size=8, schedule=schedule)
        list(fit(net, encoded(), encoded(), C, given, 1, CPU))
        return {k: float((v.detach() - before[k]).abs().max()) for k, v in net.named_parameters()}

    # One step alone: it is the first, of the least rate.
    constant, cycle = moved("constant"), moved("one_cycle")
    assert {key: cycle[key] / constant[key] for key in constant} == pytest.approx(
        dict.fromkeys(constant, 0.04), rel=1e-2
    )
