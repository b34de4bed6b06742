"""The comparison of made-up experiments, and the page in a real browser."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from markdown_it import MarkdownIt

from titles import cli
from titles.data.outcomes import Outcomes
from titles.evaluation.metrics import paired_test
from titles.evaluation.predictions import Predictions
from titles.experiments.report import comparison, page
from titles.experiments.report.answer import other_titles
from titles.experiments.report.comparison import compare, differing_params
from titles.experiments.report.experiment import CURVES, Experiment
from titles.models.registry import CLASSIFIERS, NETWORKS
from titles.texts import texts

HOSTILE = '<script>document.title="hacked"</script>'
MARKDOWN = r"a|b *c* _d_ `e` [f](g) ![h](i) <j> &amp; \- \ ~~k~~ # l"
PARAMS = {"seed": 3, "prepare.source": "a.csv", "cnn.epochs": 5, "evaluate.bootstrap_samples": 200}
# Titles of each category; both are no multiple of the other, nor of anything else here.
ROWS = {"BIKES": 23, "CARS": 31, "DOGS": 7}


EN = texts("en")
html_text = partial(page.html_text, say=EN)
markdown_text = partial(page.markdown_text, say=EN)


def predicted(right: dict[str, int], names: dict[str, int] = ROWS, **changes: Any) -> Predictions:
    """Predictions that are right for the first so many titles of each category, and else say WRONG."""
    labels = sorted([*names, "WRONG"])
    truth = [name for name, rows in names.items() for _ in range(rows)]
    place = [row for rows in names.values() for row in range(rows)]
    given = [name if row < right[name] else "WRONG" for name, row in zip(truth, place, strict=True)]
    labels_N = np.array([labels.index(name) for name in truth])
    predicted_N = np.array([labels.index(name) for name in given])
    count = len(truth)
    outcomes = Outcomes(
        labels_N,
        predicted_N,
        np.linspace(0.2, 0.8, count),
        (labels_N != predicted_N).astype(np.int64),
        np.ones(count),
    )
    made = Predictions(
        np.arange(77, count + 77, dtype=np.uint64),
        ["a.csv"] * count,
        np.arange(2, count + 2),
        [f"{name.lower()} {row}" for name, row in zip(truth, place, strict=True)],
        labels,
        dict.fromkeys(CLASSIFIERS, outcomes),
    )
    return dataclasses.replace(made, **changes)


def experiment(name: str, predictions: Predictions, **params: Any) -> Experiment:
    score = {
        "balanced_accuracy": 0.51,
        "balanced_accuracy_low": 0.42,
        "balanced_accuracy_high": 0.63,
        "accuracy": 0.57,
        "loss": 1.23,
    }
    best = {
        "best_epoch": 2,
        "train_loss": 1.1,
        "validation_loss": 1.4,
        "validation_balanced_accuracy": 0.48,
    }
    curve = [(1, 0.31), (2, 0.48), (3, 0.46)]
    return Experiment(
        name,
        "0123456789abcdef",
        PARAMS | params,
        dict.fromkeys(CLASSIFIERS, score),
        dict.fromkeys(NETWORKS, best),
        {network: dict.fromkeys(CURVES, curve) for network in NETWORKS},
        predictions,
    )


OLD = experiment("old", predicted({"BIKES": 10, "CARS": 30, "DOGS": 1}))
NEW = experiment("new", predicted({"BIKES": 18, "CARS": 27, "DOGS": 6}), **{"cnn.epochs": 9})


def some_rows(predictions: Predictions, rows: Any) -> Predictions:
    rows = np.asarray(rows)
    assert predictions.keys_N is not None
    return Predictions(
        predictions.keys_N[rows],
        [predictions.files[row] for row in rows],
        predictions.lines_N[rows],
        [predictions.titles[row] for row in rows],
        predictions.labels,
        {
            name: Outcomes(*(values[rows] for values in vars(found).values()))
            for name, found in predictions.outcomes.items()
        },
    )


def test_only_parameters_that_differ_are_listed_and_one_that_is_missing_differs() -> None:
    third = experiment("third", OLD.predictions, **{"mlp.epochs": 4})
    assert differing_params([OLD, NEW, third]) == [
        ("cnn.epochs", [5, 9, 5]),
        ("mlp.epochs", [None, None, 4]),
    ]


def test_the_paired_tests_are_those_of_the_experiment_against_the_first() -> None:
    pair = compare(OLD, NEW, "average")
    assert (pair.other, pair.rows) == (None, sum(ROWS.values()))
    old, new = OLD.predictions.outcomes["cnn"], NEW.predictions.outcomes["cnn"]
    assert pair.tests == dict.fromkeys(CLASSIFIERS, paired_test(new, old, 200, 3))
    gain = np.mean([(18 - 10) / 23, (27 - 30) / 31, (6 - 1) / 7])
    assert pair.tests["cnn"]["difference"] == pytest.approx(gain, abs=1e-6)
    assert (pair.tests["cnn"]["only_one"], pair.tests["cnn"]["only_other"]) == (13, 3)


def test_categories_are_ranked_by_recall_and_small_ones_left_out() -> None:
    pair = compare(OLD, NEW, "mlp")
    (bikes,), (cars,) = pair.gained, pair.lost
    assert (bikes.category, bikes.rows, bikes.won, bikes.lost) == ("BIKES", 23, 8, 0)
    assert (bikes.before, bikes.after) == (10 / 23, 18 / 23)
    assert (cars.category, cars.rows, cars.won, cars.lost) == ("CARS", 31, 0, 3)
    many = {f"C{number:02}": 20 + number for number in range(15)}
    old = experiment("old", predicted(dict.fromkeys(many, 10), many))
    new = experiment("new", predicted(dict.fromkeys(many, 12), many))
    gained = compare(old, new, "cnn").gained
    # Two titles more are the more, the smaller the category.
    assert [change.category for change in gained] == sorted(many)[: comparison.CATEGORIES]
    assert compare(new, old, "cnn").lost[0].category == "C00"


def test_changed_titles_are_those_of_the_surest_new_answers() -> None:
    pair = compare(OLD, NEW, "cnn")
    # Confidence rises from title to title: the last ones come first.
    dogs = [f"dogs {row}" for row in (5, 4, 3, 2, 1)]
    assert [change.title for change in pair.repaired] == [
        *dogs,
        *(f"bikes {row}" for row in range(17, 10, -1)),
    ]
    assert len(pair.repaired) == comparison.TITLES < 13
    assert [change.title for change in pair.broken] == ["cars 29", "cars 28", "cars 27"]
    change = pair.broken[0]
    assert (change.category, change.before, change.after) == ("CARS", "CARS", "WRONG")
    assert change.line == NEW.predictions.lines_N[NEW.predictions.titles.index("cars 29")]


def test_the_order_of_titles_and_the_numbers_of_categories_do_not_matter() -> None:
    found = NEW.predictions
    turned = some_rows(found, np.arange(len(found))[::-1])
    # The same categories under other numbers, with one more that nothing has.
    labels = ["A NEW ONE", *reversed(turned.labels)]
    codes = np.array([labels.index(label) for label in turned.labels])
    renumbered = {
        name: dataclasses.replace(
            model, labels_N=codes[model.labels_N], predicted_N=codes[model.predicted_N]
        )
        for name, model in turned.outcomes.items()
    }
    other = experiment("new", dataclasses.replace(turned, labels=labels, outcomes=renumbered))
    assert dataclasses.replace(compare(OLD, other, "cnn"), experiment=NEW) == compare(OLD, NEW, "cnn")


def test_where_most_titles_are_shared_those_are_compared_and_it_is_said() -> None:
    part = experiment("part", some_rows(NEW.predictions, range(20, 61)), **{"prepare.split_seed": 4})
    pair = compare(OLD, part, "cnn")
    assert pair.rows == 41
    assert (
        "part was not evaluated on the same test titles as old (they differ in prepare.split_seed): "
        "41 of its 41" in other_titles(OLD, pair, EN)
    )
    assert pair.tests["mlp"]["only_one"] == 5
    assert [change.title for change in pair.broken] == ["cars 29", "cars 28", "cars 27"]


def test_only_what_decides_the_split_explains_other_test_titles() -> None:
    changed = {"prepare.digits": "zero", "seed": 8, "prepare.drift_length": 3, "prepare.min_count": 9}
    part = some_rows(NEW.predictions, range(20, 61))
    pair = compare(OLD, experiment("part", part, **changed), "cnn")
    assert "(their data differ)" in other_titles(OLD, pair, EN)
    changed |= {"prepare.min_rows": 9, "prepare.language": "spanish"}
    note = other_titles(OLD, compare(OLD, experiment("part", part, **changed), "cnn"), EN)
    (named,) = re.findall(r"they differ in (.*)\)", note)
    assert sorted(named.split(", ")) == ["prepare.language", "prepare.min_rows"]


@pytest.mark.parametrize(("first", "compared"), [(30, True), (31, False)])
def test_without_the_greater_part_in_common_there_are_no_tests(first: int, compared: bool) -> None:
    names = {"BIKES": 29, "CARS": 31}
    old = experiment("old", predicted({"BIKES": 5, "CARS": 5}, names))
    rows = range(first - 1, 60)
    pair = compare(old, experiment("new", some_rows(old.predictions, rows)), "cnn")
    assert (pair.rows > 0) == bool(pair.tests) == compared
    assert "their data differ" in other_titles(old, pair, EN)


def test_a_title_is_the_same_by_key_and_category_however_it_is_read_and_wherever_it_stands() -> None:
    found = OLD.predictions
    turned = some_rows(found, range(60, -1, -1))
    read = ["" for _ in turned.titles]
    other = dataclasses.replace(turned, titles=read, lines_N=turned.lines_N + 5, files=["b.csv"] * 61)
    one, two = comparison.common_rows(found, other)
    assert one.tolist() == [60 - row for row in two.tolist()]
    assert len(one) == 61
    assert found.keys_N is not None
    keys_N = found.keys_N.copy()
    keys_N[0] = 5
    labels = ["TRUCKS" if label == "CARS" else label for label in found.labels]
    for change, common in (({"keys_N": keys_N}, 60), ({"labels": labels}, 30)):
        other = dataclasses.replace(found, **change)
        assert len(comparison.common_rows(found, other)[0]) == common, change


def test_repeated_titles_are_paired_one_by_one() -> None:
    found = some_rows(OLD.predictions, [0, 0, 0, 1])
    other = some_rows(OLD.predictions, [1, 0, 0])
    one, two = comparison.common_rows(found, other)
    assert (one.tolist(), two.tolist()) == ([0, 1, 3], [1, 2, 0])


def test_without_keys_a_title_of_another_line_words_or_category_is_another_title() -> None:
    found = dataclasses.replace(OLD.predictions, keys_N=None)
    assert len(comparison.common_rows(found, OLD.predictions)[0]) == 61
    lines_N = found.lines_N.copy()
    lines_N[0] = 99
    titles = ["other words", *found.titles[1:]]
    labels = ["TRUCKS" if label == "CARS" else label for label in found.labels]
    for change, common in (
        ({"lines_N": lines_N}, 60),
        ({"titles": titles}, 60),
        ({"labels": labels}, 30),
    ):
        other = dataclasses.replace(found, **change)
        assert len(comparison.common_rows(found, other)[0]) == common, change


def cells(text: str) -> list[list[str]]:
    """The rows of all tables as a reader of Markdown shows them."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    rows: list[list[str]] = []
    for token, content in pairwise(tokens):
        if token.type == "tr_open":
            rows.append([])
        if token.type in ("td_open", "th_open"):
            children = content.children or []
            assert {child.type for child in children} <= {"text", "text_special"}, content.content
            rows[-1].append("".join(child.content for child in children))
    return rows


def report_of(title: str, category: str, name: str) -> tuple[list[Experiment], list[Any]]:
    names = {category: 24, "CARS": 31}
    old = experiment("old", predicted({category: 4, "CARS": 8}, names), **{"embed.method": "word2vec"})
    titles = [f"{title} {row}" for row in range(55)]
    old = dataclasses.replace(old, predictions=dataclasses.replace(old.predictions, titles=titles))
    new = predicted({category: 9, "CARS": 6}, names, titles=titles)
    experiments = [old, trained(experiment(name, new, **{"embed.method": title}), 0.01)]
    return experiments, [compare(old, experiments[1], "average")]


def trained(one: Experiment, more: float, networks: Sequence[str] = NETWORKS) -> Experiment:
    """The experiment with other curves of some networks."""
    curve = [(1, 0.31 + more), (2, 0.48 + more), (3, 0.46 + more)]
    return dataclasses.replace(
        one, curves=one.curves | {network: dict.fromkeys(CURVES, curve) for network in networks}
    )


@pytest.mark.parametrize("text", [HOSTILE, MARKDOWN])
def test_markdown_reads_as_the_texts_that_were_put_into_it(text: str) -> None:
    experiments, pairs = report_of(text, text, text)
    rows = cells(markdown_text(experiments, pairs, "average"))
    differs = f"embed.method word2vec → {text}"
    scores = ["0.480", "0.510", "0.420 to 0.630", "0.570", "1.230"]
    assert [text, "0123456", differs, "55", "CNN", *scores] in rows
    assert ["embed.method", "word2vec", text] in rows
    assert [text, "24", "0.167", "0.375", "+0.208", "5", "0"] in rows
    assert [f"{text} 8", "a.csv 10", text, "WRONG", "0.289", text, "0.289"] in rows
    widths = {len(row) for row in rows}
    assert widths == {3, 6, 7, 9, 10}


def test_a_verdict_is_given_only_where_the_interval_leaves_out_zero() -> None:
    pairs = [compare(OLD, other, "cnn") for other in (NEW, OLD)] + [compare(NEW, OLD, "cnn")]
    for pair, told in zip(pairs, ("better", "the same", "worse"), strict=True):
        rows = cells(markdown_text([OLD, pair.experiment], [pair], "cnn"))
        assert {row[5] for row in rows if len(row) == 9} == {"Verdict", told}
    unsure = compare(OLD, experiment("new", predicted({"BIKES": 11, "CARS": 29, "DOGS": 1})), "cnn")
    rows = cells(markdown_text([OLD, NEW], [unsure], "cnn"))
    assert next(row for row in rows if len(row) == 9 and row[0] == "new")[5] == "not distinguishable"


def test_an_experiment_alone_has_scores_and_curves_and_no_comparison() -> None:
    text = html_text([OLD], [], "cnn")
    assert text.count("<svg") == 5
    assert "Only one experiment" in text
    assert "Better or not?" not in text


def with_rnn(one: Experiment) -> Experiment:
    """The experiment with a network more."""
    outcomes = one.predictions.outcomes | {"rnn": one.predictions.outcomes["mlp"]}
    return dataclasses.replace(
        one,
        scores=one.scores | {"rnn": one.scores["mlp"]},
        best=one.best | {"rnn": one.best["mlp"]},
        curves=one.curves | {"rnn": one.curves["mlp"]},
        predictions=dataclasses.replace(one.predictions, outcomes=outcomes),
    )


def test_networks_that_all_experiments_have_are_compared_and_no_others() -> None:
    old, new = with_rnn(OLD), with_rnn(NEW)
    pair = compare(old, new, "rnn")
    assert list(pair.tests) == [*CLASSIFIERS, "rnn"]
    text = html_text([old, trained(new, 0.1, ["cnn", "rnn"])], [pair], "rnn")
    assert text.count("<svg") == 2 + 2 * 2
    assert "Answers of the RNN." in text
    assert "Trained as in old: MLP of new" in text
    pair = compare(OLD, new, "cnn")
    assert list(pair.tests) == list(CLASSIFIERS)
    rows = cells(markdown_text([OLD, new], [pair], "cnn"))
    assert [row[4] for row in rows if len(row) == 10][1:] == ["Average"] * 2 + ["CNN"] * 2 + ["MLP"] * 2
    with pytest.raises(ValueError, match="old has no rnn: it has cnn, mlp, average"):
        compare(OLD, new, "rnn")


def test_a_title_of_several_files_is_named_by_file_and_line() -> None:
    pair = compare(OLD, NEW, "cnn")
    title = pair.repaired[0]._asdict() | {"file": "part-2.csv"}
    pair = dataclasses.replace(pair, repaired=[SimpleNamespace(**title)])
    assert f"| part-2.csv {title['line']} |" in markdown_text([OLD, NEW], [pair], "cnn")
    assert f"part-2.csv line {title['line']}<" in html_text([OLD, NEW], [pair], "cnn")
    title["file"] = ""
    pair = dataclasses.replace(pair, repaired=[SimpleNamespace(**title)])
    assert f"| {title['line']} |" in markdown_text([OLD, NEW], [pair], "cnn")


def test_the_same_experiments_give_the_same_bytes() -> None:
    pair = compare(OLD, NEW, "cnn")
    once, again = (html_text([OLD, NEW], [pair], "cnn") for _ in range(2))
    assert once == again


def test_names_and_files_that_are_twice_the_same_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", "a", "a"]) == 1
    assert cli.main(["report", "a", "--out", "x.md"]) == 1
    assert capsys.readouterr().err == (
        "error: an experiment is named twice\n"
        "error: x.md cannot be both the page and the Markdown: name another --markdown\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_page_holds_hostile_texts_as_text_alone() -> None:
    experiments, pairs = report_of(HOSTILE, HOSTILE, HOSTILE)
    text = html_text(experiments, pairs, "average")
    assert HOSTILE not in text
    assert "<script" not in text
    assert text.count("&lt;script") > 10


@pytest.mark.pipeline
@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_hostile_texts_and_runs_fetches_and_complains_of_nothing(
    browser: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    experiments, pairs = report_of(HOSTILE, HOSTILE, HOSTILE)
    file = tmp_path / "report.html"
    file.write_text(html_text(experiments, pairs, "average"), encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    shown = context.new_page()
    requests: list[str] = []
    complaints: list[str] = []
    shown.on("request", lambda request: requests.append(request.url))
    shown.on("console", lambda message: complaints.append(message.text))
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.goto(file.as_uri())
    assert shown.title() == "Experiments beside old"
    assert shown.locator("script").count() == 0
    cell = shown.locator("td.title", has_text=f"{HOSTILE} 8 ").first
    assert cell.is_visible()
    for place in ("h3", "tbody th", "thead th", "td.name", "svg text"):
        assert shown.locator(place, has_text=HOSTILE).first.is_visible(), place
    charts = shown.locator("div[role=img]")
    assert charts.count() == 6
    for chart in charts.all():
        assert chart.get_attribute("aria-label")
        box = chart.locator("svg").bounding_box()
        assert box["width"] > 250
        assert box["height"] > 100
    # Tables scroll within themselves; the page does not.
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    text, ground = shown.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert (sum(rgb(text)) > sum(rgb(ground))) == (scheme == "dark")
    axis = shown.locator("svg text").first.evaluate("element => getComputedStyle(element).fill")
    assert rgb(axis) == rgb(text)
    assert requests == [file.as_uri()]
    assert complaints == []
    context.close()


@pytest.mark.pipeline
def test_the_page_forbids_a_script_even_if_one_got_in(browser: Any, tmp_path: Path) -> None:
    text = html_text([OLD], [], "cnn").replace("</main>", f"{HOSTILE}</main>")
    file = tmp_path / "report.html"
    file.write_text(text, encoding="utf-8")
    shown = browser.new_page()
    shown.goto(file.as_uri())
    assert shown.locator("script").count() == 1
    assert shown.title() == "Experiments beside old"
    shown.close()


def rgb(colour: str) -> list[int]:
    return [int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(", ")]
