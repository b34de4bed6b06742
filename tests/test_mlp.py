"""The leading words of the MLP: none, some, more than a title has."""

import pytest
import torch
import torch.nn.functional as F

from networks import TITLES, C, answers, batch_for, embedding
from titles.models.mlp import TitleMLP

PADDED_BL = torch.tensor([title + [0] * (6 - len(title)) for title in TITLES if min(title) > 0])


@pytest.fixture(params=[0, 1, 3, 9])
def net(request):
    torch.manual_seed(3)
    leading = request.param
    made = TitleMLP(embedding(True), C, leading_words=leading, hidden_layers=[7], dropout=0.0)
    return made.double().eval()


def test_the_mean_of_leading_words_stands_beside_that_of_all(net):
    for title in TITLES:
        vectors_LD = net.embedding.matrix()[[max(word, 1) for word in title]]
        means = [vectors_LD.mean(0)]
        if net.leading_words:
            means.append(vectors_LD[: net.leading_words].mean(0))
        expected_C = net.output(F.relu(net.hidden[0](torch.cat(means))))
        torch.testing.assert_close(answers(net, [title])[0], expected_C, rtol=1e-12, atol=1e-12)


def test_the_logits_of_padded_titles_are_those_of_batches(net):
    titles = [[word for word in title if word] for title in PADDED_BL.tolist()]
    found_BC = net.logits(net.embedding.matrix()[PADDED_BL], PADDED_BL > 0)
    torch.testing.assert_close(found_BC, answers(net, titles), rtol=1e-12, atol=1e-12)


def test_a_title_whose_leading_words_are_left_out_is_still_classified(net):
    made = batch_for(net, [TITLES[0]])
    logits_BC = net(made._replace(index_BL=made.index_BL * torch.tensor([0, 0, 1])))
    vector_D = net.embedding.matrix()[TITLES[0][2]]
    means = [vector_D]
    if net.leading_words:
        means.append(vector_D if net.leading_words > 2 else torch.zeros_like(vector_D))
    expected_C = net.output(F.relu(net.hidden[0](torch.cat(means))))
    torch.testing.assert_close(logits_BC[0], expected_C, rtol=1e-12, atol=1e-12)
