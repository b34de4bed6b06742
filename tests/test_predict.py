"""Raw titles to ranked categories."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from networks import LABEL_NAMES, NAMES, TEXT_RULES, C, batch_for, network, vocabulary
from titles.data.subwords import Subwords
from titles.models.parts.saved import SavedModel, weights
from titles.predict.classifier import Classifier

CPU = torch.device("cpu")
RULES = TEXT_RULES.model_copy(update={"digits": "keep"})  # the words of the vocabulary hold digits
LETTERS = Subwords(shortest=3, longest=4, buckets=17)
TEXTS = ["Word5  WORD3", "word2", "word9 word4 word4 word10", "word7 word8"]
IDS = [[5, 3], [2], [9, 4, 4, 10], [7, 8]]


def model(name, subwords=None, labels=LABEL_NAMES):
    return SavedModel(name, {}, network(name, subwords=subwords), vocabulary(), labels, RULES)


def classifier(name, subwords=None):
    made = model(name, subwords)
    return Classifier([made], CPU), made.network


def pooled(one_NC, other_NC, share):
    product_NC = one_NC**share * other_NC ** (1 - share)
    return product_NC / product_NC.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", NAMES)
def test_categories_are_ranked_as_the_networks_probabilities_are(name):
    made, net = classifier(name)
    with torch.no_grad():
        expected_NC = net(batch_for(net, IDS)).softmax(dim=1).numpy()
    ranked = made.top(TEXTS, C)
    assert (ranked.categories_NK == np.argsort(-expected_NC, axis=1)).all()
    np.testing.assert_allclose(ranked.probabilities_NK, -np.sort(-expected_NC, axis=1), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_weights_whose_sums_are_no_numbers_are_an_error(name):
    made, net = classifier(name)
    with torch.no_grad():
        net.output.weight.fill_(3e38)
        net.output.bias.fill_(-3e38)
        for parameter in list(net.parameters())[:-2]:
            parameter.mul_(1e9)
    with pytest.raises(ValueError, match="no probabilities"):
        made.top(TEXTS, C)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("subwords", [None, LETTERS])
def test_a_title_is_told_the_same_alone_and_in_company(name, subwords):
    made, _ = classifier(name, subwords)
    texts = [*TEXTS, "never seen word5", "unheard"]
    together = made.top(texts, 2)
    for number, text in enumerate(texts):
        alone = made.top([text], 2)
        assert (alone.categories_NK[0] == together.categories_NK[number]).all()
        np.testing.assert_allclose(
            alone.probabilities_NK[0], together.probabilities_NK[number], rtol=1e-5
        )


@pytest.mark.parametrize("name", NAMES)
def test_unknown_words_differ_by_their_letters_alone(name):
    texts = ["unheard", "madeup"]
    with_letters, without = (classifier(name, s)[0].top(texts, C) for s in (LETTERS, None))
    np.testing.assert_allclose(without.probabilities_NK[0], without.probabilities_NK[1], rtol=1e-5)
    assert (with_letters.probabilities_NK[0] != with_letters.probabilities_NK[1]).any()


def test_a_title_without_words_gets_no_category_and_disturbs_no_other():
    made, _ = classifier("cnn", LETTERS)
    plain, mixed = made.top(TEXTS, 2), made.top(["", TEXTS[0], "?!", *TEXTS[1:]], 2)
    assert mixed.categories_NK[[0, 2]].tolist() == [[-1, -1]] * 2
    assert not mixed.probabilities_NK[[0, 2]].any()
    assert (mixed.categories_NK[[1, 3, 4, 5]] == plain.categories_NK).all()
    assert made.top(["", "..."], 2).categories_NK.tolist() == [[-1, -1]] * 2
    assert made.top([], 2).categories_NK.shape == (0, 2)


def test_a_title_of_a_megabyte_is_read_up_to_the_longest_that_training_takes():
    made, _ = classifier("cnn", LETTERS)
    longest = RULES.max_title_chars
    for endless in ("x" * 10**6, "word3 " * 10**6, "\u0301" * 10**6 + "a", "\ufdfa" * 10**6):
        tracemalloc.start()
        found = made.top([endless, "word2"], 2)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 500_000  # half of the title
        expected = made.top([endless[:longest], "word2"], 2)
        assert (found.probabilities_NK == expected.probabilities_NK).all()


@pytest.mark.parametrize("title", ["手机壳", "чехол", "unheard", "word3\0word2", "👍word3", "a" * 80])
@pytest.mark.parametrize("subwords", [None, LETTERS])
def test_whatever_holds_a_letter_is_classified(title, subwords):
    made = Classifier([model(name, subwords) for name in NAMES], CPU)
    ranked = made.top([title], C)
    assert sorted(ranked.categories_NK[0]) == list(range(C))
    assert ranked.probabilities_NK.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("title", ["", " ", "\0", "👍", "\u200d", "\udcff", "?!", "\u0301"])
def test_what_holds_no_letter_is_not(title):
    made, _ = classifier("mlp", LETTERS)
    assert made.top([title], 2).categories_NK.tolist() == [[-1, -1]]


def test_ten_thousand_titles_at_once_keep_their_order():
    made = Classifier([model(name, LETTERS) for name in NAMES], CPU)
    titles = [f"word{n % 10 + 2} " * (1 + n % 7) + f"new{n % 50}" for n in range(10_000)]
    ranked = made.top(titles, 2)
    for row in (0, 1, 4_999, 9_998, 9_999):
        alone = made.top([titles[row]], 2)
        assert (alone.categories_NK[0] == ranked.categories_NK[row]).all()
        np.testing.assert_allclose(alone.probabilities_NK[0], ranked.probabilities_NK[row], rtol=1e-5)


def test_a_title_without_words_has_the_probabilities_that_evaluate_gives_it():
    made, net = classifier("mlp", LETTERS)
    found_NC = made.probabilities(made.encode(["", TEXTS[0], "?", "", "unheard"]))
    with torch.no_grad():
        told_C = net(batch_for(net, [[]])).softmax(dim=1)[0].numpy()
    np.testing.assert_allclose(found_NC[[0, 2, 3]], np.tile(told_C, (3, 1)), rtol=1e-5)
    ranked = made.top([TEXTS[0], "unheard"], C)
    np.testing.assert_allclose(-np.sort(-found_NC[[1, 4]], axis=1), ranked.probabilities_NK, rtol=1e-5)


def test_networks_of_different_letters_are_averaged_too():
    models = [model("cnn", LETTERS), model("mlp", Subwords(shortest=2, longest=3, buckets=19))]
    both = Classifier(models, CPU)
    encoded = both.encode([*TEXTS, "unheard"])
    each = [Classifier([one], CPU).probabilities(encoded) for one in models]
    np.testing.assert_allclose(both.probabilities(encoded), pooled(*each, 0.5), rtol=1e-5)


def test_no_more_categories_are_given_than_there_are():
    made, _ = classifier("mlp")
    assert made.top(TEXTS, C + 3).categories_NK.shape == (len(TEXTS), C)
    with pytest.raises(ValueError, match="k is 0: it must be at least 1"):
        made.top(TEXTS, 0)


def test_rows_keep_their_order_across_batches(monkeypatch):
    made, _ = classifier("cnn")
    whole = made.top(TEXTS, 3)
    monkeypatch.setattr("titles.predict.classifier._BATCH", 2)
    assert (made.top(TEXTS, 3).categories_NK == whole.categories_NK).all()


def test_of_several_models_the_geometric_mean_counts_by_what_they_lost_on_validation():
    models = [
        replace(model("cnn", LETTERS), calibrated_loss=0.1),
        replace(model("mlp"), calibrated_loss=0.3),
    ]
    texts = [*TEXTS, "unheard"]
    both = Classifier(models, CPU).top(texts, C)
    by_category = []
    for one in (Classifier(models, CPU), *(Classifier([each], CPU) for each in models)):
        ranked = one.top(texts, C)
        probability_NC = np.zeros((len(texts), C))
        np.put_along_axis(probability_NC, ranked.categories_NK, ranked.probabilities_NK, axis=1)
        by_category.append(probability_NC)
    # Who lost a third has three times the say.
    np.testing.assert_allclose(by_category[0], pooled(*by_category[1:], 0.75), rtol=1e-5)
    assert (np.diff(both.probabilities_NK, axis=1) <= 0).all()


def test_networks_that_lost_nothing_have_the_same_say():
    models = [replace(model(name), calibrated_loss=0.0) for name in NAMES]
    assert weights(models).tolist() == [0.5, 0.5]


def test_models_of_different_data_are_not_averaged():
    with pytest.raises(ValueError, match="cnn and mlp were trained on different data"):
        Classifier([model("cnn"), model("mlp", labels=LABEL_NAMES[::-1])], CPU)
    with pytest.raises(ValueError, match="no model"):
        Classifier([], CPU)


def test_threads_that_share_a_classifier_get_what_one_alone_gets():
    made, _ = classifier("mlp", LETTERS)
    titles = [[f"unheard{number} word{2 + number % 9} new{number}"] for number in range(200)]
    alone = [made.top(title, C).probabilities_NK for title in titles]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda title: made.top(title, C).probabilities_NK, titles))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))
