"""What is said to have carried a decision did."""

import html
import io
import json
import re

import numpy as np
import pytest
import torch

from networks import LABEL_NAMES, batch_for
from saved_models import LETTERS, model, write_models
from titles.cli import main
from titles.predict.classifier import Classifier
from titles.predict.confidence import Threshold
from titles.predict.explain import Category, Explanation, explain, pooled
from titles.predict.explain_page import show, write_html
from titles.texts import LANGUAGES, texts

TITLE = "word5 word3 unheard word3 word9"
CHOICES = {"cnn": ["cnn"], "mlp": ["mlp"], "average": ["cnn", "mlp"]}


def classifier(choice, subwords=LETTERS):
    return Classifier([model(name, subwords) for name in CHOICES[choice]], torch.device("cpu"))


@pytest.mark.parametrize("choice", CHOICES)
def test_an_effect_is_what_the_log_probability_falls_by_without_the_word(choice):
    made = classifier(choice)
    found = explain(made, TITLE, 4)
    words = TITLE.split()
    ranked = made.top([TITLE], 4)
    assert found.words == words
    assert found.known == [True, True, False, True, True]
    assert [c.name for c in found.categories] == [LABEL_NAMES[c] for c in ranked.categories_NK[0]]
    np.testing.assert_allclose(
        [c.probability for c in found.categories], ranked.probabilities_NK[0], rtol=1e-5
    )
    for place in range(len(words)):
        left = " ".join(words[:place] + words[place + 1 :])
        without = made.top([left], 4)
        probability = dict(
            zip(without.categories_NK[0].tolist(), without.probabilities_NK[0].tolist(), strict=True)
        )
        for category in found.categories:
            now = probability[LABEL_NAMES.index(category.name)]
            assert category.effects[place] == pytest.approx(
                np.log(category.probability) - np.log(now), abs=1e-4
            )


def test_a_lone_word_is_compared_with_an_unknown_one():
    made = classifier("average")
    nothing_C = made.probabilities(made.encode([""]))[0]
    for category in explain(made, "word5", 4).categories:
        expected = np.log(category.probability / nothing_C[LABEL_NAMES.index(category.name)])
        assert category.effects == [pytest.approx(expected, abs=1e-4)]


@pytest.mark.parametrize("title", [[5, 3, 9, 3, 10, 2, 7], [4], [2, 8]])
def test_windows_are_those_that_won_the_networks_maximum(title):
    network = model("cnn").network
    batch = batch_for(network, [title])
    with torch.no_grad():
        embedded_UD = network.embedding(batch)
        expected_F = network.filters(embedded_UD, batch.index_BL)[0]
        found_F, start_F = pooled(network.filters, embedded_UD, batch.index_BL[0])
    torch.testing.assert_close(found_F, expected_F)
    # The title cut to the window that won responds as the whole title does.
    lengths_F = np.repeat(network.filters.lengths, len(found_F) // 3)
    for number, (start, length) in enumerate(zip(start_F.tolist(), lengths_F.tolist(), strict=True)):
        window = title[start : start + length]
        cut = batch_for(network, [window])
        with torch.no_grad():
            response = network.filters(network.embedding(cut), cut.index_BL)[0, number]
        torch.testing.assert_close(response, expected_F[number])


def test_contributions_of_windows_add_up_to_what_filters_add_to_the_logit(monkeypatch):
    monkeypatch.setattr("titles.predict.explain._WINDOWS", 1000)
    made = classifier("cnn")
    network = made.networks[0]
    # Without a hidden layer's kinks gradient x activation is exact: all its units pass.
    with torch.no_grad():
        network.hidden.bias.fill_(100)
        network.output.weight.abs_()
        network.hidden.weight.abs_()
    batch = batch_for(network, [[5, 3, 9]])
    with torch.no_grad():
        pooled_BF = network.filters(network.embedding(batch), batch.index_BL)
        added_C = network(batch)[0] - network.output(network.hidden(torch.zeros_like(pooled_BF)))[0]
    (best,) = explain(made, "word5 word3 word9", 1).categories
    total = sum(window.contribution for window in best.windows)
    assert total == pytest.approx(float(added_C[LABEL_NAMES.index(best.name)]), rel=1e-3)
    assert {window.words for window in best.windows} <= {
        *("word5", "word3", "word9", "word5 word3 word9", "word3 word9")
    }
    ranked = [window.contribution for window in best.windows]
    assert ranked == sorted(ranked, reverse=True)


def test_only_a_cnn_has_windows():
    assert not any(category.windows for category in explain(classifier("mlp"), TITLE).categories)
    assert any(category.windows for category in explain(classifier("average"), TITLE).categories)


@pytest.mark.parametrize("title", ["", "¿?", "\0"])
def test_where_there_is_no_word_there_is_nothing_to_explain(title):
    with pytest.raises(ValueError, match="has no word"):
        explain(classifier("mlp"), title)


# Drawn if a name has a _, and if an effect is large.
NOT_ALWAYS = {"wbr", "i"}
SCRIPT = '<script>alert("word3")</script><img src=x onerror=alert(1)> & word5'


def test_a_page_shows_a_script_and_does_not_run_it(tmp_path):
    found = explain(classifier("average"), SCRIPT + "\udcff")
    write_html(found, Threshold(0.5, 0.9), texts("en"), tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(&quot;word3&quot;)&lt;/script&gt;&lt;img" in page
    assert set(re.findall(r"<(\w+)", page)) - NOT_ALWAYS == {
        *("html", "meta", "title", "style", "section", "h1", "h2", "span"),
        *("table", "tr", "th", "td", "p", "footer", "br"),
    }
    assert "default-src 'none'" in page
    assert "http:" not in page
    assert "https:" not in page


@pytest.mark.pipeline
def test_a_browser_shows_hostile_words_and_categories_and_runs_none(browser, tmp_path):
    """Titles come from sellers, categories from a model's folder, which may come from anybody."""
    hostile = (
        "<script>document.title='hacked'</script>",
        '"><img src=x onerror="document.title=\'hacked\'">',
        "a\u2028b</style><svg onload=document.title='hacked'>",
    )
    write_models(tmp_path / "models")
    for labels in (tmp_path / "models").rglob("labels.txt"):
        names = sorted([*hostile, *LABEL_NAMES[len(hostile) :]])
        labels.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    title = f"word5 {' '.join(hostile)} word3"
    file = tmp_path / "a.html"
    arguments = ["explain", title, "--models", str(tmp_path / "models"), "--html", str(file)]
    assert main([*arguments, "--top", str(len(LABEL_NAMES))]) == 0
    shown = browser.new_page()
    requests, complaints = [], []
    shown.on("request", lambda request: requests.append(request.url))
    shown.on("console", lambda message: complaints.append(message.text))
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.goto(file.as_uri())
    assert shown.locator("script, img, svg").count() == 0
    assert "hacked" in shown.title()  # the title itself, as text
    assert shown.title().startswith("word5 <script>")
    for name in hostile:
        heading = shown.locator("h2", has_text=name.replace("\u2028", " ")).first
        assert heading.is_visible()
        assert name in heading.text_content()
    assert title in shown.locator("h1").text_content()
    assert requests == [file.as_uri()]
    assert complaints == []
    # The page forbids one that got in all the same.
    file.write_text(file.read_text(encoding="utf-8").replace("<h1>", f"{hostile[0]}<h1>"), "utf-8")
    shown.goto(file.as_uri())
    assert shown.locator("script").count() == 1
    assert shown.title() != "hacked"
    shown.close()


@pytest.fixture
def told(tmp_path, capsys):
    models = write_models(tmp_path / "models")

    def run(*arguments):
        code = main(["explain", "--models", str(models), *arguments])
        return code, *capsys.readouterr()

    return run


def test_the_command_shows_words_and_windows_without_colour_where_there_is_no_terminal(told):
    code, out, _ = told(TITLE, "--top", "2")
    assert code == 0
    assert "\x1b" not in out
    assert len(re.findall(r"^[A-Z]+ \d+\.\d%$", out, re.M)) == 2
    for word in ("word5", r"unheard\*"):
        assert len(re.findall(rf"^  {word} +[+-]\d\.\d\d( +█+|)$", out, re.M)) == 2
    assert "the model did not learn this word" in out
    assert "no threshold is known" in out
    assert told("?")[0] == 1


def test_the_command_says_whether_the_answer_is_sure(told):
    for at_least, badge in (("0", "sure"), ("1", "unsure")):
        code, out, _ = told(TITLE, "--at-least", at_least, "--top", "3")
        assert code == 0
        assert re.findall(r"^[A-Z]+ \d+\.\d%(.*)$", out, re.M) == [f"  {badge}", "", ""]
        assert "Sure: the first category is probable enough to be trusted, from " in out
    with pytest.raises(SystemExit):
        told(TITLE, "--at-least", "2")


def test_the_threshold_is_that_of_the_model_that_is_shown(told, tmp_path):
    (tmp_path / "metrics").mkdir()
    measured = {"average": {"threshold": 0.999999}, "mlp": {"threshold": 0.0, "precision_kept": 0.5}}
    (tmp_path / "metrics/details.json").write_text(json.dumps({"models": measured}))
    assert "%  unsure\n" in told(TITLE)[1]
    out = told(TITLE, "--model", "mlp")[1]
    assert "%  sure\n" in out
    assert "from 0.0% (50.0% of such test titles are right)" in out
    assert "no threshold is known" in told(TITLE, "--model", "cnn")[1]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_command_speaks_the_users_language(told, tmp_path, monkeypatch, language):
    say = texts(language)
    monkeypatch.setenv("TITLES_LANG", language)
    assert say("explain.unknown") in told(TITLE)[1]
    told(TITLE, "--html", str(tmp_path / "a.html"), "--at-least", "0")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert f'<html lang="{language}">' in page
    assert f">{say('words.sure')}</span>" in page
    assert html.escape(say("explain.unsure")) in page


def test_a_language_that_is_not_there_is_refused_in_one_line(told, monkeypatch):
    monkeypatch.setenv("TITLES_LANG", "de")
    code, out, err = told(TITLE)
    assert (code, out) == (1, "")
    assert err == "error: TITLES_LANG is 'de': expected one of en, es, pt\n"


def test_words_and_groups_are_shown_as_they_were_written():
    found = explain(classifier("average"), "WORD5, Wórd3 (UnHeard)")
    assert found.words == ["WORD5", "Wórd3", "UnHeard"]
    assert found.known == [True, False, False]  # the accent is kept
    groups = {window.words for category in found.categories for window in category.windows}
    assert groups <= {"WORD5", "Wórd3", "UnHeard", "WORD5 Wórd3", "Wórd3 UnHeard", "WORD5 Wórd3 UnHeard"}
    assert groups


def test_a_terminal_without_block_characters_has_bars_too(monkeypatch):
    made = Explanation("a b c", ["a", "b", "c"], [True] * 3, [Category("X", 0.9, [3.0, -1.0, 0.01], [])])
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    monkeypatch.setattr("sys.stdout", stream)
    show(made, None, texts("en"))
    stream.flush()
    lines = stream.buffer.getvalue().decode("ascii").splitlines()
    assert lines[:4] == [
        "X 90.0%",
        f"  a  +3.00         {'#' * 22}",
        f"  b  -1.00 {'#' * 8}",
        "  c  +0.01",
    ]


def test_colour_is_for_terminals_that_want_it(told, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")  # a dumb one has no colours
    assert "\x1b[" in told(TITLE)[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in told(TITLE)[1]


def test_the_command_writes_a_page(told, tmp_path):
    code, out, err = told(SCRIPT, "--html", str(tmp_path / "a.html"), "--model", "mlp")
    assert (code, out) == (0, "")
    assert "a.html" in err
    assert "&lt;script&gt;" in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert told(SCRIPT, "--html", str(tmp_path / "a.html" / "b.html"))[0] == 1
