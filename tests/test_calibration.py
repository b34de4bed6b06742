"""Temperature scaling, against searches by brute force and probabilities that are known."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from networks import CATEGORIES, LABEL_NAMES, NAMES, TEXT_RULES, answers, encoded, network, vocabulary
from titles.models.parts import calibration
from titles.models.parts.calibration import (
    LEAST,
    MOST,
    calibrated,
    calibrated_loss,
    divide_logits,
    fit_temperature,
)
from titles.models.parts.inference import evaluate
from titles.models.parts.saved import SavedModel

CPU = torch.device("cpu")
C = 6


def drawn(temperature, count=4000, seed=5):
    """Logits that have to be divided by `temperature` to give the chances that labels were drawn by."""
    random = torch.Generator().manual_seed(seed)
    logits_NC = torch.randn(count, C, generator=random) * 2
    labels_N = torch.multinomial(logits_NC.softmax(dim=1), 1, generator=random)[:, 0]
    return logits_NC * temperature, labels_N


def model(name):
    return SavedModel(name, {}, network(name), vocabulary(), LABEL_NAMES, TEXT_RULES)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature):
    found, _ = fit_temperature(*drawn(temperature))
    assert found == pytest.approx(temperature, rel=0.06)
    assert found == float(f"{found:.4g}")


def test_no_other_temperature_has_less_cross_entropy():
    logits_NC, labels_N = drawn(0.4, 2000)
    found, left = fit_temperature(logits_NC, labels_N)

    def loss(temperature):
        return float(F.cross_entropy(logits_NC.double() / temperature, labels_N))

    grid = np.geomspace(LEAST, MOST, 400)
    # One title's worth of doubt is all that lies between.
    assert loss(found) < min(map(loss, grid)) + 1e-4
    assert loss(found) < loss(1) - 0.1
    assert left == pytest.approx(loss(found), rel=5e-3)


def test_calibrated_probabilities_are_those_that_labels_were_drawn_by():
    logits_NC, labels_N = drawn(0.3, 20_000)
    others_NC, others_N = drawn(0.3, 20_000, seed=6)
    probability_NC = (others_NC / fit_temperature(logits_NC, labels_N)[0]).softmax(dim=1)
    confidence_N, given_N = probability_NC.max(dim=1)
    right_N = given_N == others_N
    for low in np.arange(0.3, 1, 0.1):
        inside_N = (confidence_N >= low) & (confidence_N < low + 0.1)
        share = float(right_N[inside_N].double().mean())
        assert share == pytest.approx(float(confidence_N[inside_N].mean()), abs=0.03)


@pytest.mark.parametrize("count", [1, 2, 9, 3000])
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e4])
@pytest.mark.parametrize("right", [True, False])
def test_splits_that_are_all_right_or_all_wrong_have_a_temperature(count, scale, right):
    labels_N = torch.arange(count) % C
    named_N = labels_N if right else (labels_N + 1) % C
    logits_NC = F.one_hot(named_N, C).float() * scale
    found, left = fit_temperature(logits_NC, labels_N)
    assert 0 <= left < math.inf
    assert LEAST * 0.99 <= found <= MOST * 1.01
    assert math.isfinite(found)


def test_a_small_split_that_is_all_right_gives_no_certainty():
    labels_N = torch.arange(8) % C
    logits_NC = F.one_hot(labels_N, C).float() * 3
    confidence = (logits_NC / fit_temperature(logits_NC, labels_N)[0]).softmax(dim=1).max()
    # Of nine titles one is in doubt, and may be of any category.
    assert float(confidence) == pytest.approx(1 - 1 / 9 + 1 / 9 / C, abs=1e-3)


def test_no_titles_have_no_temperature():
    with pytest.raises(ValueError, match="no titles to calibrate with"):
        fit_temperature(torch.empty(0, C), torch.empty(0, dtype=torch.int64))


@pytest.mark.parametrize("name", NAMES)
def test_a_network_is_divided_and_ranks_as_before(name):
    net = network(name)
    before_BC = answers(net).detach()
    divide_logits(net, 0.3)
    torch.testing.assert_close(answers(net), before_BC / 0.3)
    assert (answers(net).argsort(dim=1) == before_BC.argsort(dim=1)).all()
    divide_logits(net, 1 / 0.3)
    torch.testing.assert_close(answers(net), before_BC)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_calibrated_with_the_titles_given(name):
    given = model(name)
    before_BC = answers(given.network).detach()
    labels_B = before_BC.argmax(dim=1)
    labels_B[:2] = before_BC[:2].argmin(dim=1)
    titles = encoded(labels=labels_B.tolist())
    done = calibrated(given, titles, CPU)
    assert LEAST < done.temperature < 1
    assert (done.temperature, done.calibrated_loss) == fit_temperature(before_BC, labels_B)
    torch.testing.assert_close(answers(done.network), before_BC / done.temperature)
    again = calibrated(done, titles, CPU)
    assert again.temperature == pytest.approx(done.temperature, rel=1e-3)
    assert again.calibrated_loss == pytest.approx(done.calibrated_loss, rel=1e-3)


def test_dropout_is_off_while_a_network_is_calibrated():
    def temperature(dropout):
        net = network("mlp", dropout=dropout).train()
        given = SavedModel("mlp", {}, net, vocabulary(), LABEL_NAMES, TEXT_RULES)
        return calibrated(given, encoded(), CPU).temperature

    assert temperature(0.5) == temperature(0.0)


@pytest.mark.parametrize(
    "bounds", [{"_TITLES": 3}, {"_LOGITS": 3 * len(LABEL_NAMES) + 1, "_BATCH": 2}], ids=str
)
def test_of_a_large_split_titles_from_all_over_it_are_taken(monkeypatch, bounds):
    for name, value in bounds.items():
        monkeypatch.setattr(calibration, name, value)
    found = calibrated(model("mlp"), encoded(), CPU).temperature
    rows = [0, 3, 7]
    logits_BC, labels_B = answers(network("mlp")).detach()[rows], torch.tensor(CATEGORIES)[rows]
    expected, _ = fit_temperature(logits_BC, labels_B)
    assert found == expected


@pytest.mark.parametrize("name", NAMES)
def test_titles_without_words_count_as_the_network_reads_them(name):
    titles = [[], [2, 3], [], [5]]
    net = network(name)
    logits_BC = answers(net, titles).detach()
    labels = [0, 1, 2, 2]
    done = calibrated(
        SavedModel(name, {}, net, vocabulary(), LABEL_NAMES, TEXT_RULES), encoded(titles, labels), CPU
    )
    assert done.temperature == fit_temperature(logits_BC, torch.tensor(labels))[0]
    (outcomes,) = evaluate([net], encoded(titles, labels), CPU)
    assert np.isfinite(outcomes.loss_N).all()
    assert outcomes.predicted_N[0] == outcomes.predicted_N[2] == int(logits_BC[0].argmax())
    (alone,) = evaluate([net], encoded([[]], [1]), CPU)
    assert alone.confidence_N[0] == pytest.approx(outcomes.confidence_N[0])


@pytest.mark.parametrize("name", NAMES)
def test_temperature_and_loss_are_those_of_the_weights_that_are_saved(name):
    net = network(name)
    exact = answers(network(name)).detach()
    labels = exact.argmax(dim=1).tolist()
    labels[0] = int(exact[0].argmin())
    model = SavedModel(name, {}, net, vocabulary(), LABEL_NAMES, TEXT_RULES, saved_weights="int8")
    done = calibrated(model, encoded(labels=labels), CPU)
    found_BC = answers(net).detach().clone()
    assert not torch.equal(found_BC, exact / done.temperature)
    torch.testing.assert_close(found_BC, exact / done.temperature, rtol=0.03, atol=0.03)
    # The network is what it would be after a round trip.
    done.round_as_saved()
    assert torch.equal(answers(net), found_BC)
    assert done.calibrated_loss == calibrated_loss(found_BC, torch.tensor(labels))
