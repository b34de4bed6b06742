"""The templates of `dvc plots` and the page that they draw in, with the real DVC and a real browser."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vl_convert
import yaml

from small_project import commit, run
from titles.data.outcomes import Outcomes
from titles.evaluation.tables import write_tables
from titles.experiments import plots_page
from titles.params import Evaluate

ROOT = Path(__file__).parent.parent
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
TEMPLATES = {path.stem for path in (ROOT / ".dvc/plots").glob("*.json")}
SCRIPT = "</script><script>window.ran = 1</script>"
LABELS = [SCRIPT, "PHONES", "CASES", "TV[55]", 'A "B" & C']
SETTINGS = Evaluate(
    bootstrap_samples=100, calibration_bins=10, target_precision=0.9, confused_categories=4
)
EPOCHS = 3
DVC_PAGE = "dvc_plots/index.html"


def write_results(folder: Path, seed: int) -> None:
    """Curves and tables as the stages write them."""
    random = np.random.default_rng(seed)
    for name in ("cnn", "mlp"):
        curve = [
            {"epoch": epoch + 1}
            | {
                f"{kind}_{measure}": random.random()
                for kind in ("train", "validation")
                for measure in ("loss", "accuracy", "balanced_accuracy")
            }
            | {"learning_rate": random.random()}
            for epoch in range(EPOCHS)
        ]
        (folder / f"plots/{name}.json").write_text(json.dumps(curve))
    labels_N = random.choice(5, 300, p=[0.4, 0.2, 0.2, 0.1, 0.1])

    def outcomes(right: float) -> Outcomes:
        predicted_N = np.where(random.random(300) < right, labels_N, random.integers(0, 5, 300))
        rank_N = (predicted_N != labels_N).astype(np.int64)
        return Outcomes(labels_N, predicted_N, random.random(300), rank_N, random.random(300))

    models = {"cnn": outcomes(0.7), "mlp": outcomes(0.6), "average": outcomes(0.8)}
    sets = {
        name: {"tenth": range(1, 11), "coverage": random.random(10), "size": random.random(10) + 1}
        for name in models
    }
    write_tables(models, LABELS, SETTINGS, folder / "plots/evaluate", sets)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the project's plots: of the branch main, and others of the branch five."""
    folder = tmp_path_factory.mktemp("plots") / "project"
    (folder / "plots").mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml", ".dvc/config", ".dvc/.gitignore"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / ".dvc/plots").mkdir()
    for name in TEMPLATES:
        shutil.copy(ROOT / f".dvc/plots/{name}.json", folder / ".dvc/plots")
    shutil.copytree(ROOT / "metrics", folder / "metrics")  # which DVC reads too
    (folder / ".gitignore").write_text("/dvc_plots/\n")
    run(folder, "git", "init", "-q", "-b", "main")
    write_results(folder, 1)
    commit(folder, "main")
    run(folder, "git", "checkout", "-q", "-b", "five")
    write_results(folder, 2)
    commit(folder, "five")
    run(folder, "git", "checkout", "-q", "main")
    return folder


def svgs(folder: Path, *command: str) -> dict[str, str]:
    """What DVC would draw, by plot."""
    found = json.loads(run(folder, "dvc", "plots", *command, "--json"))
    assert "errors" not in found
    return {
        name: vl_convert.vegalite_to_svg(view["content"], vl_version="5.8", allowed_base_urls=[])
        for name, views in found["data"].items()
        for view in views
    }


@pytest.fixture(scope="module")
def shown(project: Path) -> dict[str, str]:
    return svgs(project, "show")


@pytest.fixture(scope="module")
def compared(project: Path) -> dict[str, str]:
    return svgs(project, "diff", "main", "five")


def visible(svg: str) -> list[str]:
    """The texts of a drawing, without those that are transparent."""
    texts = re.findall(r"<text([^>]*)>(.*?)</text>", svg)
    return [
        unescape(line)
        for attributes, text in texts
        if ' fill-opacity="0"' not in attributes
        for line in re.findall(r"[^<>]+(?=<|$)", re.sub(r"</?tspan[^>]*>", "<>", text))
    ]


def lines(svg: str) -> list[tuple[str, str]]:
    """Colour and dashes of each line."""
    groups = re.findall(r'<g class="mark-line role-mark[^>]*>(.*?)</g>', svg)
    marks = [mark for group in groups for mark in re.findall(r"<path[^>]*>", group)]
    return [
        (
            re.findall(r'stroke="([^"]*)"', mark)[0],
            *(re.findall(r'stroke-dasharray="([^"]*)"', mark) or [""]),
        )
        for mark in marks
    ]


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"plots/evaluate/{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_all_plots_are_drawn_by_templates_of_the_project_and_all_of_these_are_used() -> None:
    top = [settings for plot in PIPELINE["plots"] for settings in plot.values()]
    of_stages = [
        settings
        for stage in PIPELINE["stages"].values()
        for plot in stage.get("plots", [])
        for name, settings in plot.items()
        if not name.startswith("metrics/")
    ]
    assert {settings["template"] for settings in [*top, *of_stages]} == TEMPLATES


@pytest.mark.pipeline
@pytest.mark.parametrize("plot", ["Loss", "Balanced accuracy", "Accuracy", "Learning rate"])
def test_curves_have_a_colour_for_each_network(shown: dict[str, str], plot: str) -> None:
    texts = visible(shown[plot])
    assert {"CNN", "MLP", "epoch"} <= set(texts)
    assert not [text for text in texts if ".json" in text or "_" in text]
    colours = {colour for colour, _ in lines(shown[plot])}
    assert len(colours) == 2
    assert len(lines(shown[plot])) == (4 if plot == "Loss" else 2)


@pytest.mark.pipeline
def test_dashes_tell_train_from_validation_and_revisions_of_the_loss_stand_side_by_side(
    shown: dict[str, str], compared: dict[str, str]
) -> None:
    assert {"split", "train", "validation"} <= set(visible(shown["Loss"]))
    by_split = Counter(lines(shown["Loss"]))
    assert len(by_split) == 4
    assert len({dashes for _, dashes in by_split}) == 2
    texts = visible(compared["Loss"])
    assert texts.index("main") < texts.index("five")
    assert Counter(lines(compared["Loss"])) == by_split + by_split


@pytest.mark.pipeline
@pytest.mark.parametrize(
    "plot", ["Balanced accuracy", "Coverage", "Reliability", "Sets", "plots/mlp.json"]
)
def test_revisions_have_dashes_of_their_own_and_a_legend_if_there_are_several(
    shown: dict[str, str], compared: dict[str, str], plot: str
) -> None:
    assert not {"revision", "workspace"} & set(visible(shown[plot]))
    assert {"revision", "main", "five"} <= set(visible(compared[plot]))
    one, both = lines(shown[plot]), lines(compared[plot])
    assert len({dashes for _, dashes in one}) == 1
    assert len({dashes for _, dashes in both}) == 2
    assert len(set(both)) == len(both) == 2 * len(one)


@pytest.mark.pipeline
@pytest.mark.parametrize("plot", ["Coverage", "Reliability"])
def test_networks_and_their_average_are_named_as_in_texts(shown: dict[str, str], plot: str) -> None:
    texts = visible(shown[plot])
    assert {"CNN", "MLP", "average"} <= set(texts)
    assert not [text for text in texts if ".csv" in text]


@pytest.mark.pipeline
def test_the_diagonal_of_calibration_is_drawn_from_corner_to_corner(shown: dict[str, str]) -> None:
    rules = re.findall(r'<g class="mark-rule role-mark[^>]*>(.*?)</g>', shown["Reliability"])
    (line,) = re.findall(r"<line[^>]*>", "".join(rules))
    place = dict(re.findall(r'(\w+)="([^"]*)"', line))
    assert (place["transform"], place["x2"], place["y2"]) == ("translate(0,320)", "320", "-320")
    assert place["stroke"] == "#888"


@pytest.mark.pipeline
@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_cells_of_a_matrix_are_counts_and_categories_have_theirs(
    project: Path, shown: dict[str, str], compared: dict[str, str], name: str
) -> None:
    rows = table(project, f"confusion_{name}")
    cells = Counter((row["category"], row["given"]) for row in rows)
    totals = Counter(row["category"] for row in rows)
    svg = shown[f"Confusion of the {name.upper()}"]
    texts = visible(svg)
    for axis in ("category predicted", "true category (titles)"):
        assert axis in texts
    legend = texts.index("share of the")
    assert texts[legend + 1] == "true category"
    for category, count in totals.items():
        assert f"{category} ({count})" in texts
    numbers = Counter(text for text in texts if re.fullmatch(r"\d+", text))
    assert numbers == Counter(str(count) for count in cells.values())
    predicted = [text for text in texts if text in {*LABELS, "(other)"}]
    assert predicted[-1] == "(other)"
    both = visible(compared[f"Confusion of the {name.upper()}"])
    assert {"main", "five"} <= set(both)


@pytest.mark.pipeline
def test_the_hardest_categories_have_their_titles_and_recall(
    project: Path, shown: dict[str, str], compared: dict[str, str]
) -> None:
    rows = table(project, "hardest")
    texts = visible(shown["Hardest categories"])
    named = [text for text in texts if re.search(r" \(\d+\)$", text)]
    assert sorted(named) == sorted(f"{row['category']} ({row['rows']})" for row in rows)
    assert {f"{float(row['recall']):.2f}" for row in rows} <= set(texts)
    assert {"main", "five"} <= set(visible(compared["Hardest categories"]))


@pytest.fixture(scope="module")
def installed(project: Path) -> Path:
    """The project with the page, whose plots are drawn once."""
    run(project, "python", "-m", "titles.experiments.plots_page", PYTHONPATH=str(ROOT / "src"))
    run(project, "dvc", "plots", "diff", "main", "five")
    return project


@pytest.mark.pipeline
def test_the_page_is_not_for_git_and_a_page_that_the_user_set_stays(installed: Path) -> None:
    assert run(installed, "git", "status", "--porcelain") == ""
    assert run(installed, "dvc", "config", "plots.html_template").strip() == "plots/page.html"
    run(installed, "dvc", "config", "--local", "plots.html_template", "own.html")
    run(installed, "python", "-m", "titles.experiments.plots_page", PYTHONPATH=str(ROOT / "src"))
    assert run(installed, "dvc", "config", "plots.html_template").strip() == "own.html"
    run(installed, "dvc", "config", "--local", "plots.html_template", "plots/page.html")


@pytest.mark.pipeline
def test_the_page_has_a_place_for_plots_the_libraries_and_their_licence() -> None:
    page = plots_page.page()
    assert page.count("{plot_divs}") == page.count("{refresh_tag}") == 1
    assert "{scripts}" not in page  # where DVC names addresses in the web
    assert "University of Washington Interactive Data Lab" in page
    assert not re.search(r"\[(style sheet|licence|libraries)\]", page)
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=.?https?:", page)


@pytest.mark.pipeline
@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (420, "dark")])
def test_a_browser_draws_all_plots_without_the_web_and_runs_no_category(
    browser: Any, installed: Path, width: int, scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    shown = context.new_page()
    asked: list[str] = []
    errors: list[str] = []
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("pageerror", lambda error: errors.append(str(error)))
    shown.on("console", lambda told: errors.append(told.text) if told.type == "error" else None)
    shown.goto((installed / DVC_PAGE).as_uri())
    shown.wait_for_function("document.querySelectorAll('main svg.marks').length == 11")
    assert shown.evaluate("document.querySelectorAll('main > div').length") == 11
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]
    assert errors == []
    assert shown.evaluate("window.ran") is None
    texts = shown.evaluate("[...document.querySelectorAll('svg text')].map(text => text.textContent)")
    assert [text for text in texts if text.replace("\u2060", "").startswith("</script>")]
    assert {"CNN", "MLP", "average", "main", "five"} <= set(texts)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    # Text stands out from the page.
    page, text = shown.evaluate(
        """["background-color", "fill"].map((name, place) => getComputedStyle(
             place ? document.querySelector("svg .role-title-text text") : document.body)[name]
             .match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0))"""
    )
    assert abs(page - text) > 380
    context.close()


def test_the_chart_of_the_benchmark_has_what_its_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from chart import accuracy_time, marks

    page = """# P\n\n## one\n
| classifier | balanced accuracy | 95 % interval | training s | training rows/s |
| --- | --- | --- | --- | --- |
| **CNN** | 0.8966 | 0.8885 .. 0.9040 | 1,078.7 | 592 |
| TF-IDF, SVM | 0.8418 | 0.8331 .. 1.0000 | 53.4 | 875 |

| classifier | setting | validation | fit s |  |
| --- | --- | --- | --- | --- |
| fastText | loss softmax | 0.7258 | 22.2 |  |
"""
    cnn, svm = marks(page)
    assert cnn == {
        "set": "one",
        "classifier": "CNN",
        "own": True,
        "score": 0.8966,
        "low": 0.8885,
        "high": 0.904,
        "seconds": 1078.7,
    }
    assert (svm["classifier"], svm["own"], svm["high"]) == ("TF-IDF, SVM", False, 1)
    with pytest.raises(ValueError, match="no table of scores"):
        list(marks("# P\n\n## one\n"))

    committed = (ROOT / "docs/benchmark.md").read_text(encoding="utf-8")
    found = list(marks(committed))
    assert sum(mark["own"] for mark in found) == committed.count("\n| **")
    tables = re.findall(
        r"^\| classifier \| balanced accuracy.*\n\| ---.*\n((?:\|.*\n)+)", committed, re.M
    )
    assert len(found) == sum(len(table.splitlines()) - table.count("not run:") for table in tables)
    texts = visible(vl_convert.vegalite_to_svg(accuracy_time(committed), allowed_base_urls=[]))
    for section in re.findall(r"^## (.+)", committed, re.M):
        assert texts.count(section) == (section != "Summary" and "-cut-" not in section)
    for name in ("CNN", "MLP", "CNN and MLP averaged", "fastText"):
        assert texts.count(name) == 1
