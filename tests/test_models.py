import pytest
import torch
import torch.nn.functional as F

from networks import FREEZES, NAMES, ONE_WORD, TITLES, C, embedding, network, tokens, word_vectors

pytestmark = pytest.mark.parametrize("name", NAMES)


def precise(name, **kwargs):
    """In double precision, and with high biases, which an unmasked window on padding would show."""
    net = network(name, **kwargs).double().eval()
    with torch.no_grad():
        for key, values in net.named_parameters():
            if "bias" in key:
                values.add_(1)
    return net


def naive_cnn(net, title):
    vectors_LD = net.embedding.matrix()[title]
    pooled = []
    for filters in net.filters:
        length = filters.length
        kernels_FDK = filters.project.weight.view(length, -1, vectors_LD.shape[1]).permute(1, 2, 0)
        padded_DL = F.pad(vectors_LD.T, (0, length - 1))
        responses_FL = F.relu(F.conv1d(padded_DL, kernels_FDK, filters.bias_F))
        assert responses_FL.shape[1] == len(title)
        pooled.append(responses_FL.max(dim=1).values)
    return net.output(F.relu(net.hidden(torch.cat(pooled))))


def naive_mlp(net, title):
    hidden = sum(net.embedding.matrix()[word] for word in title) / len(title)
    for layer in net.hidden:
        hidden = F.relu(layer(hidden))
    return net.output(hidden)


@pytest.mark.parametrize("freeze", FREEZES)
def test_each_title_gets_what_a_naive_network_gives_it_alone(name, freeze):
    net = precise(name, freeze=freeze)
    naive = {"cnn": naive_cnn, "mlp": naive_mlp}[name]
    expected_BC = torch.stack([naive(net, title) for title in TITLES])
    torch.testing.assert_close(net(tokens()), expected_BC, rtol=1e-12, atol=1e-12)
    assert expected_BC.shape == (len(TITLES), C)


@pytest.mark.parametrize("freeze", FREEZES)
def test_padding_changes_neither_logits_nor_gradients(name, freeze):
    net = precise(name, freeze=freeze)

    def outcome(tokens_BL):
        net.zero_grad()
        logits_BC = net(tokens_BL)
        F.cross_entropy(logits_BC, torch.arange(len(logits_BC)) % C).backward()
        return [logits_BC.detach(), *(values.grad.clone() for values in net.parameters())]

    torch.testing.assert_close(outcome(tokens(extra=7)), outcome(tokens()), rtol=1e-12, atol=1e-12)
    alone = torch.cat([net(tokens([title])) for title in TITLES])
    torch.testing.assert_close(net(tokens()), alone, rtol=1e-12, atol=1e-12)


def test_a_batch_of_one_word_titles_passes_and_learns(name):
    net = network(name, dropout=0.5).train()
    loss = F.cross_entropy(net(tokens([TITLES[row] for row in ONE_WORD])), torch.tensor([0, 3]))
    loss.backward()
    assert loss.isfinite()
    assert all(values.grad.isfinite().all() for values in net.parameters())


def test_word_order_counts_for_the_cnn_alone(name):
    net = precise(name)
    one, other = net(tokens([[2, 5, 8]])), net(tokens([[8, 5, 2]]))
    assert torch.allclose(one, other, rtol=0, atol=1e-9) == (name == "mlp")


def test_dropout_is_on_in_training_and_off_in_evaluation(name):
    dropping, plain = network(name, dropout=0.5), network(name, dropout=0.0)
    one, other = dropping.train()(tokens()), dropping(tokens())
    assert not torch.equal(one, other)
    dropping.eval()
    assert torch.equal(dropping(tokens()), plain.train()(tokens()))
    assert torch.equal(dropping(tokens()), dropping(tokens()))


def test_every_freeze_mode_starts_from_the_given_vectors(name):
    nets = [network(name, freeze=freeze) for freeze in FREEZES]
    for net in nets:
        assert torch.equal(net.embedding.matrix(), torch.from_numpy(word_vectors().matrix_VD))
        assert torch.equal(net(tokens()), nets[0](tokens()))
    learning = [sum(p.numel() for p in embedding(freeze).parameters()) for freeze in FREEZES]
    assert learning == [11 * 5, 5 * 5, 0]  # all but PAD; UNK and four words; none
