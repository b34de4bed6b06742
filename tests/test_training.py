import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from networks import (
    ABSENT,
    CATEGORIES,
    FREEZES,
    HAS_VECTOR,
    NAMES,
    SUBWORDS,
    TITLES,
    UNKNOWN_WORDS,
    UNSEEN,
    WITH_AND_WITHOUT,
    C,
    V,
    answers,
    encoded,
    fit,
    gradient,
    network,
    settings,
    vocabulary,
    word_vectors,
)
from titles.data.contract import PAD
from titles.evaluation.metrics import balanced_accuracy
from titles.models.parts.inference import DivergedError, evaluate, set_up
from titles.params import Compute
from titles.training.objective import class_weights
from titles.training.trainer import optimisers

CPU = torch.device("cpu")
NO_STEP = 1e-30  # a learning rate that moves no float
both_networks = pytest.mark.parametrize("name", NAMES)
all_freezes = pytest.mark.parametrize("freeze", FREEZES)
with_and_without = pytest.mark.parametrize(
    "subwords", WITH_AND_WITHOUT.values(), ids=WITH_AND_WITHOUT.keys()
)


def trained(net, name, titles=None, validation=None, seed=1, **changes):
    """The records of a training; the network is trained in place."""
    titles = titles or encoded()
    return list(fit(net, titles, validation or titles, C, settings(name, **changes), seed, CPU))


def compute(device):
    return Compute(device=device, threads=1, portable=True)


def losses_by_hand(net, titles=TITLES, labels=CATEGORIES):
    """Of each title, run alone."""
    net.eval()
    with torch.no_grad():
        logits = [answers(net, [title]).double() for title in titles]
    return np.array(
        [
            F.cross_entropy(one, torch.tensor([label])).item()
            for one, label in zip(logits, labels, strict=True)
        ]
    )


@pytest.mark.pipeline
def test_setting_up_asks_for_repeatable_operations_and_loads_no_compiler():
    code = """if True:
        import sys, torch
        from titles.params import Compute
        from titles.models.parts.inference import set_up
        set_up(Compute(device="cpu", threads=1, portable=True), 3)
        repeatable = torch.are_deterministic_algorithms_enabled()
        only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
        print(repeatable, only_warns, torch.get_num_threads(), torch.initial_seed())
        print([name for name in sys.modules if name.startswith(("torch._dynamo", "torch._inductor"))])
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["True True 1 3", "[]"]


@both_networks
@all_freezes
@with_and_without
def test_eight_titles_can_be_overfitted(name, freeze, subwords):
    net = network(name, freeze, subwords=subwords)
    *_, last = trained(net, name, epochs=50, batch_size=8, learning_rate=0.05)
    # Out of reach for a network that squeezes its logits into 0..1: ln(1 + 3/e) = 0.744.
    assert last.validation_loss < 0.05
    assert last.validation_accuracy == last.validation_balanced_accuracy == 1


@both_networks
@with_and_without
def test_products_in_bfloat16_learn_the_same_within_their_precision(name, subwords):
    losses, weights = {}, {}
    for precision in ("float32", "bfloat16"):
        net = network(name, subwords=subwords)
        records = trained(net, name, epochs=5, learning_rate=0.01, precision=precision)
        losses[precision] = [record.train_loss for record in records]
        weights[precision] = {key: w for key, w in net.state_dict().items() if w.is_floating_point()}
    assert losses["float32"] != losses["bfloat16"]
    assert losses["float32"] == pytest.approx(losses["bfloat16"], rel=0.05)
    for found in weights["bfloat16"].values():
        assert found.dtype == torch.float32
    # More digits than bfloat16 has: what is added up and kept is precise.
    assert any((w != w.bfloat16().float()).any() for w in weights["bfloat16"].values())


@both_networks
@all_freezes
@with_and_without
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_all_that_may_learn_moves_and_nothing_else(name, freeze, subwords, weight_decay):
    net = network(name, freeze, subwords=subwords)
    before = {key: values.clone() for key, values in net.named_parameters()}
    trained(net, name, weight_decay=weight_decay)
    moved = {key for key, values in net.named_parameters() if not torch.equal(values, before[key])}
    assert moved == set(before)

    given_VD = word_vectors().matrix_VD
    matrix_VD = net.embedding.matrix().numpy()
    staying = {PAD, UNSEEN} | {False: set(), "partial": set(HAS_VECTOR), True: set(range(V))}[freeze]
    same_V = (matrix_VD == given_VD).all(axis=1)
    assert set(np.flatnonzero(same_V).tolist()) == staying
    assert not matrix_VD[PAD].any()
    if subwords:
        grams_RD = net.embedding.grams_RD
        moved_R = (grams_RD != before["embedding.grams_RD"]).any(dim=1)
        assert set(torch.where(moved_R)[0].tolist()) == grams_of_all_words()


def grams_of_all_words():
    spelt = {
        vocabulary().words[w] if w > 0 else UNKNOWN_WORDS[-1 - w] for title in TITLES for w in title
    }
    return set(SUBWORDS.of(sorted(spelt))[0].tolist())


@both_networks
@with_and_without
def test_weight_decay_shrinks_all_weights_but_word_vectors(name, subwords):
    net = network(name, subwords=subwords)
    before = {key: values.abs().sum() for key, values in net.named_parameters()}
    for values in net.parameters():
        values.grad = torch.zeros_like(values)
    for optimiser in optimisers(net, settings(name, weight_decay=0.1)):
        optimiser.step()
    for key, values in net.named_parameters():
        if key.startswith("embedding."):
            assert values.abs().sum() == before[key]
        else:
            assert values.abs().sum() < before[key]


@both_networks
@pytest.mark.parametrize(("random", "subwords"), [("units", None), ("words", SUBWORDS)])
def test_the_same_seed_gives_the_same_losses_and_another_seed_others(name, subwords, random):
    def run(seed):
        set_up(compute("cpu"), seed)
        state = torch.random.get_rng_state()
        net = network(name, subwords=subwords)  # seeds torch itself: the same start for all
        net.dropout.dropped = 0.3 if random == "units" else 0.0
        torch.random.set_rng_state(state)
        records = trained(net, name, seed=seed, word_dropout=0.3 if random == "words" else 0.0)
        return [(r.train_loss, r.validation_loss) for r in records]

    assert run(1) == run(1)
    assert run(1) != run(2)


@both_networks
def test_the_order_of_titles_follows_the_seed_of_fit_alone(name):
    def run(seed):
        return [record.train_loss for record in trained(network(name), name, seed=seed)]

    assert run(1) == run(1) != run(2)


@both_networks
def test_class_weights_make_a_rare_category_learn_faster(name):
    # Six titles of one category, one of another.
    titles, labels = TITLES[:7], [0, 0, 0, 0, 0, 0, 1]
    loss_of_rare = {}
    for weighting in ("none", "sqrt", "balanced"):
        net = network(name)
        trained(net, name, encoded(titles, labels), epochs=3, class_weighting=weighting)
        loss_of_rare[weighting] = losses_by_hand(net, titles, labels)[-1]
    assert loss_of_rare["none"] > loss_of_rare["sqrt"] > loss_of_rare["balanced"]


@both_networks
@pytest.mark.parametrize("weighting", ["none", "balanced"])
def test_reported_losses_are_sums_over_titles_divided_once(name, weighting):
    net = network(name)
    # Seven titles in batches of three leave one of one.
    titles, labels = TITLES[:7], CATEGORIES[:7]
    (record,) = trained(
        net, name, encoded(titles, labels), epochs=1, learning_rate=NO_STEP, class_weighting=weighting
    )
    losses_N = losses_by_hand(net, titles, labels)
    assert record.train_loss == pytest.approx(losses_N.mean(), rel=1e-6)
    assert record.validation_loss == pytest.approx(losses_N.mean(), rel=1e-6)


@both_networks
def test_dropout_is_on_in_every_epoch_and_off_in_every_validation(name):
    net = network(name, dropout=0.5)
    records = trained(net, name, learning_rate=NO_STEP)
    assert [r.epoch for r in records] == [1, 2, 3]
    assert len({r.train_loss for r in records}) == 3
    assert [r.validation_loss for r in records] == pytest.approx([losses_by_hand(net).mean()] * 3)


@both_networks
def test_validation_teaches_nothing(name):
    one, other = network(name), network(name)
    trained(one, name)
    trained(other, name, validation=encoded([[UNSEEN, 2], [4], [-2, -3]], [3, 0, 1]))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@both_networks
@pytest.mark.parametrize(("broken", "epochs"), [("learning rate", 4), ("vectors", 1)])
def test_a_loss_that_is_no_number_ends_the_training(name, broken, epochs):
    net = network(name)
    if broken == "vectors":
        with torch.no_grad():
            net.embedding.trainable_VD[3] = torch.nan
    given = settings(name, epochs=epochs, learning_rate=1e-3)
    if broken == "learning rate":  # one that params.yaml may not have
        given = given.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(DivergedError, match="not finite"):
        list(fit(net, encoded(), encoded(), C, given, 1, CPU))


@both_networks
@pytest.mark.parametrize("weighting", ["none", "balanced"])
def test_a_step_follows_the_gradient_of_the_weighted_mean_of_its_titles(name, weighting):
    net, batches = network(name), []

    def keep(module, args, logits_BC):
        if module.training:
            batches.append(args[0])

    hook = net.register_forward_hook(keep)
    trained(net, name, epochs=1, batch_size=5, learning_rate=NO_STEP, class_weighting=weighting)
    hook.remove()
    found = [gradient(parameter) for parameter in net.output.parameters()]
    net.zero_grad()
    # Of a part of the titles, whose weights are not 1 on average.
    weight_C = class_weights(encoded(), C, weighting)
    F.cross_entropy(net.train()(batches[-1]), batches[-1].labels_B, weight_C).backward()
    for ours, expected in zip(found, net.output.parameters(), strict=True):
        torch.testing.assert_close(ours, expected.grad)


@both_networks
def test_logits_that_are_no_numbers_are_never_evaluated(name):
    net = network(name)
    with torch.no_grad():
        net.output.bias[2] = torch.inf
    with pytest.raises(DivergedError, match="not finite"):
        evaluate([net], encoded(), CPU)


def test_a_loss_that_breaks_late_in_an_epoch_is_seen_before_its_record():
    net, calls = network("mlp"), []

    def break_last(module, args, logits_BC):
        calls.append(module.training)
        return logits_BC * torch.nan if len(calls) == 8 else logits_BC

    net.register_forward_hook(break_last)
    with pytest.raises(DivergedError, match="epoch 1"):
        next(fit(net, encoded(), encoded(), C, settings("mlp", batch_size=1), 1, CPU))
    assert calls == [True] * 8


@pytest.mark.parametrize("power", [0, -0.5, -1])
def test_class_weights_are_powers_of_the_rows_and_weigh_the_average_title_one(power):
    labels = [0] + [1] * 4 + [2] * 9
    titles = encoded([[2]] * len(labels), labels)
    weighting = {0: "none", -0.5: "sqrt", -1: "balanced"}[power]
    weight_C = class_weights(titles, C, weighting).double().numpy()
    rows = np.array([1, 4, 9])
    np.testing.assert_allclose(weight_C[:3] / weight_C[0], (rows / rows[0]) ** power, rtol=1e-6)
    assert weight_C[labels].mean() == pytest.approx(1, rel=1e-6)
    assert np.isfinite(weight_C[ABSENT])
    if weighting == "balanced":
        expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
        np.testing.assert_allclose(weight_C[:3], expected, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [7, 100])
@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.9, 0.1)])
def test_outcomes_are_those_of_a_naive_computation_title_by_title(batch_size, weights):
    labels = [3, 1, 0, 2, 1, 2, 0, 3]
    # One network with letters and one without: each reads batches of its own.
    subwords = {"cnn": SUBWORDS, "mlp": None}
    nets = [network(name, dropout=0.5, seed=9, subwords=subwords[name]) for name in NAMES]
    with torch.no_grad():
        alone = [
            torch.cat([answers(net.eval(), [title]) for title in TITLES]).double().softmax(1).numpy()
            for net in nets
        ]
    nets[0].train()  # evaluate is to switch dropout off by itself
    found = evaluate(nets, encoded(labels=labels), CPU, batch_size, torch.tensor(weights))
    product_NC = alone[0] ** weights[0] * alone[1] ** weights[1]
    expected = [*alone, product_NC / product_NC.sum(axis=1, keepdims=True)]
    for outcomes, probability_NC in zip(found, expected, strict=True):
        assert outcomes.labels_N.tolist() == labels
        assert outcomes.predicted_N.tolist() == probability_NC.argmax(1).tolist()
        np.testing.assert_allclose(outcomes.confidence_N, probability_NC.max(1), rtol=1e-5)
        right_N = probability_NC[range(8), labels]
        np.testing.assert_allclose(outcomes.loss_N, -np.log(right_N), rtol=1e-5)
        ranks = [
            sorted(row, reverse=True).index(right)
            for row, right in zip(probability_NC.tolist(), right_N.tolist(), strict=True)
        ]
        assert outcomes.rank_N.tolist() == ranks
        assert len(set(ranks)) > 2
        assert outcomes.right_N.tolist() == [rank == 0 for rank in ranks]
        for k in (1, 2, 3):
            top_k = np.argsort(-probability_NC, 1)[:, :k]
            within = [label in row for label, row in zip(labels, top_k.tolist(), strict=True)]
            assert (outcomes.rank_N < k).tolist() == within


def test_one_network_has_no_average():
    (outcomes,) = evaluate([network("mlp")], encoded(), CPU)
    assert len(outcomes) == len(TITLES)


@both_networks
def test_a_record_measures_the_weights_at_the_end_of_its_epoch(name):
    net = network(name)
    for record in islice(fit(net, encoded(), encoded(), C, settings(name), 1, CPU), 2):
        (outcomes,) = evaluate([net], encoded(), CPU)
        assert record.validation_loss == outcomes.loss_N.mean()
        assert record.validation_accuracy == outcomes.right_N.mean()
        balanced = balanced_accuracy(outcomes.labels_N, outcomes.right_N)
        assert record.validation_balanced_accuracy == balanced


@pytest.mark.parametrize("empty", ["train", "validation"])
def test_an_empty_split_is_refused(empty):
    splits = {"train": encoded(), "validation": encoded()} | {empty: encoded([], [])}
    with pytest.raises(ValueError, match=f"the {empty} split is empty"):
        next(fit(network("mlp"), *splits.values(), C, settings("mlp"), 1, CPU))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_asking_for_a_gpu_where_none_is_says_what_to_do():
    with pytest.raises(ValueError, match="set it to auto or cpu"):
        set_up(compute("cuda"), 1)
    assert set_up(compute("auto"), 1) == CPU
