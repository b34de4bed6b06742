import pytest
import torch
import torch.nn.functional as F

from networks import (
    FREEZES,
    NAMES,
    ONE_WORD,
    SUBWORDS,
    TITLES,
    UNKNOWN_WORDS,
    WITH_AND_WITHOUT,
    C,
    answers,
    batch_for,
    embedding,
    gradient,
    network,
    vocabulary,
    word_vectors,
)
from titles.data.contract import UNK
from titles.models.parts import embedding as embedding_module

pytestmark = pytest.mark.parametrize("name", NAMES)
all_freezes = pytest.mark.parametrize("freeze", FREEZES)
with_and_without = pytest.mark.parametrize(
    "subwords", WITH_AND_WITHOUT.values(), ids=WITH_AND_WITHOUT.keys()
)
# All unknown words, alone and among known ones, twice in a title too.
OF_UNKNOWN = [[-1], [-2], [-3, -1, -3, -2], [4, -2, 6], [-1, 3]]


def precise(name, **kwargs):
    """In double precision, and with high biases, which an unmasked window on padding would show."""
    net = network(name, **kwargs).double().eval()
    with torch.no_grad():
        for key, values in net.named_parameters():
            if "bias" in key:
                values.add_(1)
    return net


def naive_vector(net, word):
    """A word's own vector plus the sum of its n-grams' over the root of their number, one at a time."""
    own_D = net.embedding.matrix()[word if word > 0 else UNK]
    if net.embedding.grams_RD is None:
        return own_D
    letters = vocabulary().words[word] if word > 0 else UNKNOWN_WORDS[-1 - word]
    grams = [net.embedding.grams_RD[bucket] for bucket in SUBWORDS.of([letters])[0].tolist()]
    return own_D + sum(grams) * torch.tensor(max(len(grams), 1), dtype=own_D.dtype).rsqrt()


def naive_cnn(net, title):
    vectors_LD = torch.stack([naive_vector(net, word) for word in title])
    pooled = []
    lengths = net.filters.lengths
    weights = net.filters.project.weight.split([10 * length for length in lengths])
    biases = net.filters.bias_F.split(10)
    for length, weight, bias_F in zip(lengths, weights, biases, strict=True):
        kernels_FDK = weight.view(length, 10, vectors_LD.shape[1]).permute(1, 2, 0)
        padded_DL = F.pad(vectors_LD.T, (0, length - 1))
        responses_FL = F.relu(F.conv1d(padded_DL, kernels_FDK, bias_F))
        assert responses_FL.shape[1] == len(title)
        pooled.append(responses_FL.max(dim=1).values)
    return net.output(F.relu(net.hidden(torch.cat(pooled))))


def naive_mlp(net, title):
    vectors_LD = torch.stack([naive_vector(net, word) for word in title])
    hidden = torch.cat([vectors_LD.mean(0), vectors_LD[: net.leading_words].mean(0)])
    for layer in net.hidden:
        hidden = F.relu(layer(hidden))
    return net.output(hidden)


NAIVE = {"cnn": naive_cnn, "mlp": naive_mlp}


@all_freezes
@with_and_without
def test_each_title_gets_what_a_naive_network_gives_it_alone(name, freeze, subwords):
    net = precise(name, freeze=freeze, subwords=subwords)
    for titles in (TITLES, OF_UNKNOWN):
        expected_BC = torch.stack([NAIVE[name](net, title) for title in titles])
        torch.testing.assert_close(answers(net, titles), expected_BC, rtol=1e-12, atol=1e-12)
        assert expected_BC.shape == (len(titles), C)


@all_freezes
@with_and_without
def test_every_parameter_gets_the_gradient_of_a_naive_network(name, freeze, subwords):
    net = precise(name, freeze=freeze, subwords=subwords)
    titles = TITLES + OF_UNKNOWN

    def gradients(logits_BC):
        net.zero_grad()
        F.cross_entropy(logits_BC, torch.arange(len(titles)) % C).backward()
        return {
            key: gradient(values) for key, values in net.named_parameters() if values.grad is not None
        }

    found = gradients(answers(net, titles))
    if freeze is not True:
        # `matrix` records no gradient: the naive network reads the learning rows themselves.
        tables = torch.cat([net.embedding.frozen_FD, net.embedding.trainable_VD])
        net.embedding.matrix = lambda: tables[net.embedding.row_V]
    expected = gradients(torch.stack([NAIVE[name](net, title) for title in titles]))
    for key, values in expected.items():
        torch.testing.assert_close(found[key], values, rtol=1e-10, atol=1e-12, msg=key)
    assert ("embedding.trainable_VD" in expected) == (freeze is not True)
    assert ("embedding.grams_RD" in expected) == (subwords is not None)


@all_freezes
@with_and_without
def test_padding_changes_neither_logits_nor_gradients(name, freeze, subwords):
    net = precise(name, freeze=freeze, subwords=subwords)

    def outcome(extra):
        net.zero_grad()
        logits_BC = answers(net, extra=extra)
        F.cross_entropy(logits_BC, torch.arange(len(logits_BC)) % C).backward()
        return [logits_BC.detach(), *map(gradient, net.parameters())]

    torch.testing.assert_close(outcome(7), outcome(0), rtol=1e-12, atol=1e-12)
    alone = torch.cat([answers(net, [title]) for title in TITLES])
    torch.testing.assert_close(answers(net), alone, rtol=1e-12, atol=1e-12)


@with_and_without
def test_words_left_out_are_words_that_add_nothing_and_start_no_window(name, subwords):
    net = precise(name, subwords=subwords)
    made = batch_for(net, [[8, 2, 9, 10]])
    without_second = made._replace(index_BL=made.index_BL * torch.tensor([1, 0, 1, 1]))
    moved = made._replace(index_BL=made.index_BL[:, [0, 2, 3]])
    assert not torch.allclose(net(without_second), net(moved))
    if name == "mlp":
        # The first word alone leads, as the second has left a gap.
        net.leading_words = 1
        torch.testing.assert_close(net(without_second), net(moved))
    else:
        # The first word alone and the last two words alone, with a gap where the second was.
        last = net(made._replace(index_BL=made.index_BL * torch.tensor([0, 0, 1, 1])))
        torch.testing.assert_close(last, net(made._replace(index_BL=made.index_BL[:, 2:])))


@all_freezes
@with_and_without
@pytest.mark.parametrize(
    "titles",
    [[TITLES[row] for row in ONE_WORD], [[-1], [-2, -3]], [[-2], [-2]]],
    ids=["known", "unknown", "unknown and too short for n-grams"],
)
def test_a_batch_of_short_titles_passes_and_learns(name, freeze, subwords, titles):
    net = network(name, freeze, dropout=0.5, subwords=subwords).train()
    loss = F.cross_entropy(answers(net, titles), torch.tensor([0, 3]))
    loss.backward()
    assert loss.isfinite()
    assert all(gradient(values).isfinite().all() for values in net.parameters())
    assert gradient(net.output.weight).any()


def test_unknown_words_differ_by_their_letters_and_not_without_letters(name):
    for subwords, differ in ((SUBWORDS, True), (None, False)):
        net = precise(name, subwords=subwords)
        one, other, known = answers(net, [[-1, 5], [-3, 5], [3, 5]])
        assert torch.allclose(one, other, rtol=0, atol=1e-9) != differ
        assert not torch.allclose(one, known, rtol=0, atol=1e-9)


@with_and_without
def test_a_word_is_read_the_same_in_any_company(name, subwords):
    net = precise(name, subwords=subwords)
    among_others = answers(net, [[9, 2], [-3, 4], [10], [-1, -2]])[1]
    torch.testing.assert_close(among_others, answers(net, [[-3, 4]])[0], rtol=1e-12, atol=1e-12)


@with_and_without
def test_the_order_of_words_counts_and_for_the_mlp_only_which_ones_lead(name, subwords):
    net = precise(name, subwords=subwords)
    one, first_two, others = answers(net, [[2, 5, 8, 9], [5, 2, 9, 8], [8, 5, 2, 9]])
    assert torch.allclose(one, first_two, rtol=0, atol=1e-9) == (name == "mlp")
    assert not torch.allclose(one, others, rtol=0, atol=1e-9)


@with_and_without
def test_dropout_is_on_in_training_and_off_in_evaluation(name, subwords):
    dropping, plain = (network(name, dropout=dropped, subwords=subwords) for dropped in (0.5, 0.0))
    one, other = answers(dropping.train()), answers(dropping)
    assert not torch.equal(one, other)
    dropping.eval()
    assert torch.equal(answers(dropping), answers(plain.train()))
    assert torch.equal(answers(dropping), answers(dropping))


@with_and_without
def test_every_freeze_mode_starts_from_the_given_vectors(name, subwords):
    nets = [network(name, freeze=freeze, subwords=subwords) for freeze in FREEZES]
    for net in nets:
        assert torch.equal(net.embedding.matrix(), torch.from_numpy(word_vectors().matrix_VD))
        assert torch.equal(answers(net), answers(nets[0]))
    learning = [sum(p.numel() for p in embedding(freeze, subwords).parameters()) for freeze in FREEZES]
    of_letters = 37 * 5 if subwords else 0
    # All but PAD; UNK and four words; none.
    assert learning == [11 * 5 + of_letters, 5 * 5 + of_letters, of_letters]


@all_freezes
@with_and_without
def test_sparse_gradients_are_the_dense_ones_and_name_each_row_once(name, freeze, subwords, monkeypatch):
    titles = TITLES + OF_UNKNOWN  # with letters, several words have the row of the unknown word
    found = []
    for sparse in (True, False):
        net = precise(name, freeze=freeze, subwords=subwords)
        if not sparse:
            monkeypatch.setattr(
                embedding_module, "embedding_lookup", lambda table_RD, index, **_: table_RD[index]
            )
        F.cross_entropy(answers(net, titles), torch.arange(len(titles)) % C).backward()
        for values in net.embedding.parameters():
            assert values.grad.is_sparse == sparse
            if sparse:
                named = values.grad._indices()[0].tolist()
                assert len(set(named)) == len(named)
        found.append([gradient(values) for values in net.parameters()])
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def logits_of_no_words(name, net):
    """What is left of a network when nothing comes from the words."""
    if name == "cnn":
        return net.output(F.relu(net.hidden(torch.zeros(1, net.hidden.in_features).double())))
    hidden = torch.zeros(1, net.hidden[0].in_features).double()
    for layer in net.hidden:
        hidden = F.relu(layer(hidden))
    return net.output(hidden)


@all_freezes
@with_and_without
def test_a_title_without_words_gets_the_biases_whatever_else_is_in_the_batch(name, freeze, subwords):
    net = precise(name, freeze=freeze, subwords=subwords)
    wanted_C = logits_of_no_words(name, net)[0]
    assert wanted_C.isfinite().all()
    for titles in ([[]], [[], []], [[], *TITLES, []], [[3, -1], [], [5] * 9], [*OF_UNKNOWN, []]):
        found_BC = answers(net, titles)
        for title, found_C in zip(titles, found_BC, strict=True):
            alone_C = answers(net, [title])[0]
            torch.testing.assert_close(found_C, alone_C if title else wanted_C)
        plain_BC = net.logits(*inputs_of_logits(net, titles))
        torch.testing.assert_close(plain_BC, found_BC)
        torch.testing.assert_close(answers(net, titles, extra=3), found_BC)


def inputs_of_logits(net, titles):
    batch = batch_for(net, titles)
    return F.embedding(batch.index_BL, net.embedding(batch)), batch.index_BL > 0


@with_and_without
def test_a_title_without_words_gives_gradients_to_no_word(name, subwords):
    net = precise(name, subwords=subwords).train()
    answers(net, [[]]).sum().backward()
    for key, values in net.named_parameters():
        if key.startswith("embedding.") and values.grad is not None:
            assert not gradient(values).any()
    net.zero_grad()
    answers(net, [[], [3, 4], []]).sum().backward()
    mixed = {k: gradient(v) for k, v in net.named_parameters() if k.startswith("embedding.")}
    net.zero_grad()
    answers(net, [[3, 4]]).sum().backward()
    for key, values in net.named_parameters():
        if key.startswith("embedding."):
            torch.testing.assert_close(mixed[key], gradient(values))
