"""Training in heads: each has a share of the units before the last layer, and a loss of its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from networks import CATEGORIES, NAMES, C, batch_for, encoded, fit, gradient, network, settings
from titles.data.contract import QUALITIES
from titles.models.parts.network import Output
from titles.training.trainer import Trainer

CPU = torch.device("cpu")
NO_STEP = 1e-30  # a learning rate that moves no float
UNITS = 7
both_networks = pytest.mark.parametrize("name", NAMES)
numbers_of_heads = pytest.mark.parametrize("heads", [2, 3, UNITS])


def records(net, name, **changes):
    return list(fit(net, encoded(), encoded(), C, settings(name, **changes), 1, CPU))


@pytest.fixture
def units_BU():
    torch.manual_seed(5)
    return torch.randn(6, UNITS)


@pytest.fixture
def layer():
    torch.manual_seed(6)
    return Output(UNITS, C)


@numbers_of_heads
def test_prediction_is_the_mean_of_the_heads(layer, units_BU, heads):
    layer.divide(heads)
    by_head_HBC = layer.train()(units_BU).view(heads, len(units_BU), C)
    assert not torch.allclose(by_head_HBC[0], by_head_HBC[1])
    torch.testing.assert_close(layer.eval()(units_BU), by_head_HBC.mean(dim=0))


@numbers_of_heads
def test_a_head_reads_its_own_units_only(layer, units_BU, heads):
    layer.divide(heads)
    units_BU.requires_grad_()
    readers_U = torch.zeros(UNITS)
    for logits_BC in layer.train()(units_BU).view(heads, len(units_BU), C):
        (gradient_BU,) = torch.autograd.grad(logits_BC.sum(), units_BU, retain_graph=True)
        readers_U += (gradient_BU != 0).all(dim=0)
        assert ((gradient_BU == 0).all(dim=0) | (gradient_BU != 0).all(dim=0)).all()
    assert readers_U.tolist() == [1] * UNITS


def test_one_head_is_a_linear_layer(layer, units_BU):
    layer.divide(1)
    plain = nn.Linear(UNITS, C)
    plain.load_state_dict(layer.state_dict())
    for training in (True, False):
        torch.testing.assert_close(layer.train(training)(units_BU), plain(units_BU))


@both_networks
@pytest.mark.parametrize("heads", [2, 4])
def test_each_head_has_a_loss_of_its_own(name, heads):
    net = network(name)
    (record,) = records(net, name, epochs=1, batch_size=8, learning_rate=NO_STEP, heads=heads)
    found = {key: gradient(parameter) for key, parameter in net.named_parameters()}
    net.zero_grad()
    logits_HBC = net.train()(batch_for(net)).view(heads, len(CATEGORIES), C)
    labels_B = torch.tensor(CATEGORIES)
    loss = torch.stack([F.cross_entropy(logits_BC, labels_B) for logits_BC in logits_HBC]).mean()
    loss.backward()
    assert record.train_loss == pytest.approx(loss.item(), rel=1e-5)
    for key, parameter in net.named_parameters():
        torch.testing.assert_close(found[key], gradient(parameter))


@both_networks
def test_heads_weigh_titles_by_what_they_think_themselves(name):
    """With the generalised cross-entropy a title counts less in a head that finds its label unlikely."""
    net, heads, q = network(name), 3, 0.5
    with torch.no_grad():
        net.output.weight.mul_(30)  # so that heads disagree
    changes = {"epochs": 2, "batch_size": 8, "learning_rate": NO_STEP, "gce_q": q, "heads": heads}
    records(net, name, **changes)
    found = [gradient(parameter) for parameter in net.output.parameters()]
    net.zero_grad()
    labels_M = torch.tensor(CATEGORIES * heads)
    losses_M = F.cross_entropy(net.train()(batch_for(net)), labels_M, reduction="none")
    weight_M = (-q * losses_M.detach()).exp()
    assert weight_M.view(heads, -1).std(dim=0).max() > 0.1
    ((losses_M * weight_M).sum() / weight_M.sum()).backward()
    for ours, parameter in zip(found, net.output.parameters(), strict=True):
        torch.testing.assert_close(ours, gradient(parameter))


@both_networks
@pytest.mark.parametrize(("unreliable", "heads"), [(0, 1), (1, 4), (len(CATEGORIES), 4)])
def test_heads_follow_from_the_labels_that_are_said_to_be_unreliable(name, unreliable, heads):
    qualities_N = np.full(len(CATEGORIES), QUALITIES.index("reliable"), np.uint8)
    qualities_N[:unreliable] = QUALITIES.index("unreliable")
    titles = replace(encoded(), qualities=qualities_N)
    assert titles.unreliable == unreliable / len(titles)
    net = network(name)
    Trainer(net, titles, encoded(), C, settings(name, heads="auto"), 1, CPU)
    assert net.output.heads == heads


@both_networks
def test_more_heads_than_units_are_refused(name):
    net = network(name)
    units = net.output.in_features
    given = settings(name).model_copy(update={"heads": units + 1})  # which a section would refuse
    with pytest.raises(ValueError, match=rf"heads is {units + 1}, .* has {units} units"):
        list(fit(net, encoded(), encoded(), C, given, 1, CPU))


def test_a_network_that_ends_with_another_layer_is_refused_by_name():
    net = network("mlp")
    net.output = nn.Linear(net.output.in_features, C)
    with pytest.raises(TypeError, match=r"TitleMLP\.output is a Linear, not an Output"):
        records(net, "mlp")
