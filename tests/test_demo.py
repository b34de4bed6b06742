"""`titles demo`, in a real browser; only this machine can reach the page."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from documents import read
from mlflow_server import closed_port
from networks import LABEL_NAMES, NAMES
from prepared_examples import write_examples
from saved_models import RULES, write_models
from test_serving import HOST, answers, running
from titles.cli import main
from titles.predict.bars import bars
from titles.predict.classifier import Classifier
from titles.predict.confidence import Threshold
from titles.predict.explain import explain
from titles.predict.explain_page import macros
from titles.serve.demo.comparison import Comparison
from titles.serve.demo.page import markdown_escaped
from titles.texts import LANGUAGES, texts

pytestmark = pytest.mark.pipeline

TITLE = "Word5 word3, unheard (word9)"
CHOICES = ("average", "cnn", "mlp")
HEADINGS = ("Average", "CNN", "MLP")
# The average has none.
THRESHOLDS = {"cnn": Threshold(0.0, 0.9), "mlp": Threshold(0.9999)}
BADGES = {"cnn": ["sure"], "mlp": ["unsure"], "average": []}
SAY = texts("en")
NO_TITLE = SAY("demo.no_title_examples")
NO_WORD = SAY("demo.no_word")
NO_KNOWN_WORD = SAY("demo.no_known_word")
# Titles come from sellers, categories from a model's folder, which may come from anybody.
HOSTILE = (
    "<script>window.hacked=1</script>",
    '"><img src=x onerror="window.hacked=1">',
    "</style><svg onload=window.hacked=1>[a](javascript:hacked=1)",
)
EXAMPLES = (
    "Word5 Word3 red",
    "<b>word2</b> :red[word3] $a$ ![x](y)",
    "Ação *word7* _blue_ ~word8~ `green`",
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks whose categories have hostile names."""
    made = write_models(tmp_path_factory.mktemp("trained") / "models")
    names = sorted([*HOSTILE, *LABEL_NAMES[len(HOSTILE) :]])
    for labels in made.rglob("labels.txt"):
        labels.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    write_examples(made.parent, EXAMPLES, ["spanish", "spanish", "portuguese"])
    (made.parent / "metrics").mkdir()
    measured = {
        name: {"threshold": one.probability, "precision_kept": one.precision}
        for name, one in THRESHOLDS.items()
    }
    (made.parent / "metrics/details.json").write_text(json.dumps({"models": measured}))
    return made


def folders(models: Path) -> list[Path]:
    return [models / name for name in NAMES]


def command(models: Path, port: int) -> list[str]:
    words = [sys.executable, "-m", "titles.cli", "demo"]
    return [*words, "--models", str(models), "--port", str(port)]


@pytest.fixture(scope="module")
def served(
    models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, psutil.Process]]:
    """The port of the demo, and its process."""
    with closed_port() as port:
        pass
    with running(command(models, port), port, tmp_path_factory.mktemp("served")) as process:
        yield port, psutil.Process(process.pid)


class Visit:
    """The page in a browser that reaches nothing else; records requests elsewhere and error messages."""

    def __init__(self, browser: Any, port: int, **options: Any) -> None:
        self.own = f"http://{HOST}:{port}/"
        self.elsewhere: list[str] = []
        self.complaints: list[str] = []
        self.context = browser.new_context(**options)
        self.context.route("**/*", self._route)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(self.own)
        self.told(NO_TITLE)

    def _route(self, route: Any) -> None:
        if route.request.url.startswith((self.own, "data:")):
            route.continue_()
        else:
            self.elsewhere.append(route.request.url)
            route.abort()

    @property
    def title(self) -> Any:
        return self.page.get_by_role("textbox")

    def ask(self, title: str) -> None:
        self.title.fill(title)
        self.title.press("Enter")

    def told(self, text: str) -> None:
        self.page.get_by_text(text, exact=True).wait_for()

    def answers(self, count: int = 3) -> Any:
        self.page.locator(".answer").nth(count - 1).wait_for()
        return self.page.locator(".answer")


@pytest.fixture
def visit(browser: Any, served: tuple[int, Any]) -> Iterator[Visit]:
    made = Visit(browser, served[0])
    yield made
    assert made.elsewhere == []
    # One line of Streamlit's own, for search engines, is no part of a file and is refused.
    (refused,) = made.complaints
    assert "inline script violates" in refused
    assert made.page.evaluate("window.hacked") is None
    made.context.close()


# -- what is compared


def test_each_network_and_the_average_are_explained_side_by_side(models: Path) -> None:
    found = Comparison(folders(models)).explain(TITLE)
    assert tuple(found) == CHOICES
    for choice, answer in found.items():
        alone = Classifier.read(models, choice, torch.device("cpu"))
        assert answer == (explain(alone, TITLE, 5), THRESHOLDS.get(choice))


def test_one_threshold_can_be_given_for_all(models: Path) -> None:
    found = Comparison(folders(models), 0.25).explain(TITLE)
    assert {answer.threshold for answer in found.values()} == {Threshold(0.25)}


def test_one_network_has_no_average_and_a_title_without_a_word_no_answer(models: Path) -> None:
    comparison = Comparison([models / "mlp"])
    assert list(comparison.explain(TITLE)) == ["mlp"]
    assert comparison.explain("***\0") == {}
    assert comparison.max_title_chars == RULES.max_title_chars


def test_names_and_words_are_drawn_as_text(models: Path) -> None:
    found = Comparison(folders(models)).explain(TITLE)
    drawn = macros().answer(HOSTILE[0], *found["cnn"], SAY)
    assert "<script" not in drawn
    assert "<img" not in drawn
    assert "&lt;script&gt;window.hacked" in drawn
    assert "unheard*" in drawn


# -- before the server starts


def test_a_port_in_use_is_told_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "--models", str(tmp_path / "none"), "--port", str(port)]) == 1
    told = capsys.readouterr().err
    assert (
        f"cannot serve at port {port} of {HOST}: Address already in use. Choose a different --port,"
        in told
    )


def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with closed_port() as port:
        pass
    for module in [name for name in sys.modules if name.split(".")[0] == "streamlit"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "streamlit", None)
    assert main(["demo", "--port", str(port)]) == 1
    project = tomllib.loads(read("pyproject.toml"))["project"]
    (wanted,) = project["optional-dependencies"]["demo"]
    told = f"Streamlit is missing or too old: `make install-dev`, or pip install '{wanted}'"
    assert told in capsys.readouterr().err


def test_models_that_cannot_be_shown_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closed_port() as port:
        pass
    arguments = ["demo", "--models", str(tmp_path), "--port", str(port)]
    assert main(arguments) == 1
    assert "model.json is missing: run `dvc repro`, or `dvc pull`" in capsys.readouterr().err
    write_models(tmp_path)
    file = tmp_path / "mlp" / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 0}))
    assert main(arguments) == 1
    assert "has model format 0, this version reads" in capsys.readouterr().err


# -- the server


def status(port: int, path: str = "/", **headers: str) -> tuple[int, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    response = connection.getresponse()
    connection.close()
    return response.status, response.headers


SOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@pytest.mark.parametrize(
    ("path", "headers", "good"),
    [("/", {}, 200), ("/_stcore/health", {}, 200), ("/_stcore/stream", SOCKET, 101)],
    ids=["page", "health", "socket"],
)
def test_only_the_page_itself_is_answered(
    served: tuple[int, Any], path: str, headers: dict[str, str], good: int
) -> None:
    port, _ = served
    own = f"{HOST}:{port}"
    assert status(port, path, **headers, Origin=f"http://{own}")[0] == good
    assert status(port, path, **headers, Host=f"localhost:{port}")[0] == good
    for origin in ("http://example.com", f"http://{HOST}:1", f"https://{own}", "null"):
        assert status(port, path, **headers, Origin=origin)[0] == 403
    for host in ("example.com", f"example.com:{port}", ""):
        assert status(port, path, **headers, Host=host, Origin=f"http://{host}")[0] == 400


def test_what_it_listens_at_and_is_connected_to_is_this_machine(served: tuple[int, Any]) -> None:
    port, process = served
    assert status(port, Origin="http://example.com")[0] == 403  # Streamlit would ask outside
    connections = [c for p in (process, *process.children(True)) for c in p.net_connections("inet")]
    assert [c.laddr for c in connections if c.status == "LISTEN"] == [(HOST, port)]
    assert {c.raddr.ip for c in connections if c.raddr} <= {HOST}


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL]
)
def test_it_ends_as_other_servers_do_also_while_a_page_is_open(
    browser: Any, models: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with closed_port() as port:
        pass
    with running(command(models, port), port, tmp_path) as process:
        visit = Visit(browser, port)
        visit.ask(TITLE)
        visit.answers()
        os.kill(process.pid, number)
        code = process.wait(300)
        visit.context.close()
    handled = number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    assert code == (128 + number if handled else -number)
    assert not answers(port)
    assert "Traceback" not in (tmp_path / "server.log").read_text()


# -- the page


def test_a_title_gets_what_the_networks_say_and_needs_nothing_from_outside(
    visit: Visit, models: Path
) -> None:
    visit.ask(TITLE)
    shown = visit.answers()
    headings = "all => all.map(one => one.firstChild.textContent.trim())"
    assert shown.locator("h3").evaluate_all(headings) == list(HEADINGS)
    for place, (name, answer) in enumerate(Comparison(folders(models)).explain(TITLE).items()):
        explanation = answer.explanation
        assert shown.nth(place).locator(".badge").all_text_contents() == BADGES[name]
        # The average's groups of words are those of the CNN.
        assert shown.nth(place).get_by_text(SAY("explain.groups")).count() == (
            len(explanation.categories) if name == "cnn" else 0
        )
        rows = shown.nth(place).locator("details")
        for number, category in enumerate(explanation.categories):
            row = rows.nth(number)
            assert row.locator("summary").text_content() == f"{category.name}{category.probability:.1%}"
            words = row.locator("th")
            assert words.first.is_visible() == (number == 0)
            row.locator("summary").click()
            assert words.first.is_visible() == (number > 0)
            assert words.all_text_contents() == [
                word if known else f"{word}*"
                for word, known in zip(explanation.words, explanation.known, strict=True)
            ]
            effects = [float(text) for text in row.locator("td.effect").all_text_contents()]
            assert effects == pytest.approx(category.effects, abs=0.006)
            drawn = row.locator("tr").evaluate_all(
                "all => all.map(one => one.querySelector('i')).map(one => one && one.className)"
            )
            expected = [bar.side for bar in bars(category.effects).bars]
            assert drawn == [None if side == "none" else side for side in expected]
            for bar in row.locator("i").all():
                red, green, _ = map(
                    int,
                    bar.evaluate("one => getComputedStyle(one).backgroundColor")[4:-1].split(","),
                )
                assert (green > red) == (bar.get_attribute("class") == "for")
    assert visit.page.locator(".legend").inner_text().splitlines() == [
        SAY("explain.bars"),
        SAY("explain.windows"),
        SAY("explain.unknown"),
        "Sure: the first category is probable enough to be trusted, CNN from 0.0% (90.0% of such test "
        "titles are right) and MLP from 100.0%.",
        SAY("explain.unsure"),
    ]


def test_scripts_in_titles_and_categories_are_shown_and_never_run(visit: Visit) -> None:
    title = f"word5 {' '.join(HOSTILE)} word3"
    visit.ask(title)
    shown = visit.answers()
    assert visit.title.input_value() == title
    assert "script" in shown.first.locator("th").all_inner_texts()[1]
    for name in HOSTILE:
        assert shown.first.locator("summary", has_text=name).is_visible()
    assert shown.locator("script, img, svg, a").count() == 0
    assert visit.page.evaluate("window.hacked") is None
    # The page forbids one that got in all the same.
    visit.page.evaluate(
        "const s = document.createElement('script'); s.text = 'window.hacked=1'; document.body.append(s)"
    )
    assert "inline script violates" in visit.complaints.pop()


def test_odd_titles_get_a_clear_answer(visit: Visit) -> None:
    for title, told, answered in (
        ("***", NO_WORD, False),
        ("\0", NO_WORD, False),
        ("😀 😀", NO_WORD, False),
        ("   ", NO_WORD, False),
        ("xqzt vvkq", NO_KNOWN_WORD, True),
        ("word5\0word3 😀\ud800", SAY("explain.bars"), True),
        ("word5 " * 2**18, "The title has 1,572,864 characters; only the first 90 are read.", True),
        ("a" * 2**20, "The title has 1,048,576 characters; only the first 90 are read.", True),
    ):
        visit.ask(title)
        visit.page.get_by_text(told).wait_for()
        if answered:
            assert visit.answers().locator("summary").count() == 3 * len(LABEL_NAMES)
        else:
            assert visit.page.locator(".answer").count() == 0
        assert visit.page.locator(".stException").count() == 0
        visit.ask("")
        visit.told(NO_TITLE)


def test_examples_are_taken_by_a_click_and_a_phone_shows_all_of_a_line(
    browser: Any, served: tuple[int, Any]
) -> None:
    visit = Visit(browser, served[0], viewport={"width": 420, "height": 800})
    for example in EXAMPLES:
        visit.page.get_by_role("button", name=example).click()
        visit.page.wait_for_function(
            "title => document.querySelector('input[type=text]').value === title", arg=example
        )
        visit.answers()
    visit.ask("a" * 90)
    visit.told(NO_KNOWN_WORD)
    visit.answers()
    assert visit.page.evaluate(
        "[...document.querySelectorAll('.answer *')].every(e => e.getBoundingClientRect().right <= 420)"
    )
    visit.context.close()


def test_the_page_is_in_the_language_of_the_visitor_who_can_switch_it(
    browser: Any, models: Path, tmp_path: Path
) -> None:
    with closed_port() as port:
        pass
    words = ["env", "-u", "TITLES_LANG", *command(models, port)]
    with running(words, port, tmp_path):
        for locale, first, other in (("pt-BR", "pt", "es"), ("de-DE", "en", "pt")):
            context = browser.new_context(locale=locale)
            page = context.new_page()
            page.goto(f"http://{HOST}:{port}/")
            for language in (first, other):
                say = texts(language)
                page.get_by_text(LANGUAGES[language], exact=True).click()
                page.get_by_role("heading", name=say("demo.heading")).wait_for()
                if language == first:
                    page.get_by_role("textbox").fill(TITLE)
                    page.get_by_role("textbox").press("Enter")
                assert page.get_by_role("textbox").input_value() == TITLE  # a switch keeps it
                page.get_by_text(say("explain.unsure")).wait_for()
                page.locator(".answer h3", has_text=say("words.average")).wait_for()
                languages = [say(f"languages.{name}") for name in ("spanish", "portuguese")]
                label = page.get_by_test_id("stTextInput").locator("label").inner_text()
                assert all(name in label for name in languages)
            context.close()


def test_a_language_that_is_not_there_is_told_before_anything_is_loaded(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TITLES_LANG", "de")
    with closed_port() as port:
        pass
    assert main(["demo", "--models", str(models), "--port", str(port)]) == 1
    assert "TITLES_LANG is 'de': expected one of en, es, pt" in capsys.readouterr().err


def test_a_title_on_a_button_is_no_markdown() -> None:
    assert markdown_escaped("a *b* [c](d) :red[e] <f> $g$ 1.5 Ação") == (
        r"a \*b\* \[c\]\(d\) \:red\[e\] \<f\> \$g\$ 1\.5 Ação"
    )
