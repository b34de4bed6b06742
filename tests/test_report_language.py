"""Every text of a report is of the catalogue, and so in the language of whoever reads it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import pytest

from pseudo import Pseudo, foreign, pseudo, visible
from small_project import ROOT
from test_report import NEW, OLD, experiment, report_of, some_rows, trained
from test_report_answer import OTHER, UNSURE, WORSE, on_validation, with_inputs
from titles.experiments.report import page
from titles.experiments.report.answer import answer
from titles.experiments.report.comparison import compare
from titles.experiments.report.experiment import Experiment, Inputs
from titles.texts import LANGUAGES, texts

TEMPLATES = ROOT / "src/titles/experiments/report/templates"
# Those of the search and of `dvc plots` are in English.
TRANSLATED = ("head.html", "report.html", "report.md", "data.html")

ALIKE = dataclasses.replace(OLD, name="alike")
LOST = dataclasses.replace(NEW, name="lost", predictions=None)
SHARED = experiment("shared", some_rows(NEW.predictions, range(20, 61)), **{"prepare.min_rows": 4})
ELSEWHERE = experiment("elsewhere", some_rows(NEW.predictions, range(20, 61)))
MANY = {f"cnn.p{number}": number for number in range(6)}
CODE = with_inputs(
    experiment("code", NEW.predictions),
    training={"train_cnn": "b" * 32},
    cnn={"evaluate": "e" * 9},
    machines={"cnn": "gpu"},
)
assert CODE.inputs
MORE = dataclasses.replace(
    CODE, name="more", inputs=Inputs({**CODE.inputs.read, "src/titles/data": {"prepare": "f" * 9}})
)
OTHERS = (UNSURE, WORSE, NEW, ALIKE)
LINES = [trained(experiment(f"run-{n}", NEW.predictions), n / 100) for n in range(1, 8)]
# Together they show every text: a text that none of them shows fails.
CASES: dict[str, tuple[str, list[Experiment]]] = {
    "one": ("average", [OLD]),
    "better": ("cnn", [OLD, trained(NEW, 0.1)]),
    "worse": ("average", [OLD, WORSE]),
    "unsure": ("average", [OLD, UNSURE]),
    "same": ("cnn", [OLD, ALIKE]),
    "lost": ("average", [OLD, LOST]),
    "other titles": ("average", [OLD, OTHER]),
    "shared titles": ("average", [OLD, SHARED, ELSEWHERE]),
    "many": ("average", [on_validation(OLD, 0.5), *(on_validation(one, 0.4) for one in OTHERS)]),
    "chosen": ("cnn", [OLD, on_validation(NEW, 0.9), OTHER]),
    "without validation": ("average", [OLD, NEW, UNSURE]),
    "many lines": ("cnn", [OLD, *LINES]),
    "inputs": ("cnn", [with_inputs(OLD), CODE, MORE, dataclasses.replace(NEW, inputs=None)]),
    "same inputs": ("cnn", [with_inputs(OLD), with_inputs(UNSURE)]),
    "same known inputs": ("cnn", [with_inputs(OLD), with_inputs(UNSURE), NEW]),
    "unexplained": ("cnn", [with_inputs(OLD), on_validation(with_inputs(ALIKE), 0.3)]),
    "parameters": ("cnn", [OLD, experiment("params", NEW.predictions, **MANY)]),
    "notes": ("cnn", [OLD, dataclasses.replace(trained(NEW, 0.1), curves={}, notes=["a message"])]),
}


def rendered(say: Any, model: str, experiments: Sequence[Experiment]) -> tuple[str, str, str]:
    """The page, the Markdown, and what a terminal shows."""
    pairs = [compare(experiments[0], other, model) for other in experiments[1:]]
    shown = answer(experiments, pairs, model, say)
    return (
        page.html_text(experiments, pairs, model, say),
        page.markdown_text(experiments, pairs, model, say),
        str(shown),
    )


def known(experiments: Sequence[Experiment]) -> list[str]:
    """The words of the data: names of experiments, parameters, categories, paths, and titles."""
    found = [
        "CNN MLP titles report model average cnn mlp",
        *(note for e in experiments for note in e.notes),
    ]
    for one in experiments:
        found += [one.name, one.commit, *one.params, *map(str, one.params.values())]
        if one.predictions:
            found += [*one.predictions.labels, *one.predictions.titles, *one.predictions.files]
        if one.inputs:
            hashes = [h for read in one.inputs.read.values() for h in read.values()]
            stages = [stage for read in one.inputs.read.values() for stage in read]
            found += [*one.inputs.read, *one.inputs.machines.values(), *hashes, *stages]
    return [*found, *(word[:7] for word in found)]


@pytest.fixture(scope="module")
def shown() -> tuple[dict[str, tuple[str, str, str]], set[str]]:
    """All cases in the pseudo-language, and the keys of the texts that they show."""
    say = pseudo()
    return {case: rendered(say, model, found) for case, (model, found) in CASES.items()}, say.used


@pytest.mark.parametrize("case", CASES)
def test_no_word_of_a_report_is_written_outside_the_catalogue(case: str, shown: Any) -> None:
    html, markdown, told = shown[0][case]
    words = known(CASES[case][1])
    assert foreign(visible(html), words) == set()
    assert foreign([re.sub(r"</?(details|summary)>", "", markdown), told], words) == set()


def test_every_text_of_the_report_is_shown_by_a_case(shown: Any) -> None:
    sections = ("answer", "report", "verdicts")
    assert [key for key in keys(pseudo()) if key.startswith(sections) and key not in shown[1]] == []


def keys(say: Pseudo) -> list[str]:
    return [f"{section}.{name}" for section, found in say.sections.items() for name in found]


@pytest.mark.parametrize("name", TRANSLATED)
def test_a_template_has_no_text_of_its_own(name: str) -> None:
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    text = re.sub(r"\{%.*?%\}|\{#.*?#\}", "", text, flags=re.S)
    text = re.sub(r"\{\{.*?\}\}", "0", text, flags=re.S)
    assert foreign(visible(text), ["details summary" if name.endswith(".md") else ""]) == set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_report_is_in_the_language_and_figures_are_the_same(language: str) -> None:
    say = texts(language)
    html, markdown, told = rendered(say, "average", CASES["better"][1])
    assert f'<html lang="{language}">' in html
    assert f"<h2>{say('report.scores')}</h2>" in html
    assert f"## {say('report.scores')}" in markdown
    assert told.split(".")[0] in html
    english = rendered(texts("en"), "average", CASES["better"][1])
    figures = re.compile(r"[+-]?\d+\.\d+")
    assert figures.findall(markdown) == figures.findall(english[1])
    assert figures.findall(told) == figures.findall(english[2])


def test_names_are_escaped_in_each_language() -> None:
    hostile = "<script>alert(1)</script> {name} %s `x` | *y*"
    experiments, pairs = report_of(hostile, hostile, hostile)
    for language in LANGUAGES:
        text = page.html_text(experiments, pairs, "average", texts(language))
        assert "<script" not in text
        assert text.count("&lt;script&gt;alert(1)&lt;/script&gt; {name} %s `x`") > 10
