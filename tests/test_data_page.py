"""`titles data`: the prepared data in figures, on a terminal and as a page."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from pseudo import foreign, pseudo, visible
from titles import cli
from titles.experiments.report import data, data_page
from titles.models.registry import load_params
from titles.stages import prepare
from titles.texts import texts

ROOT = Path(__file__).parent.parent
NAMES = [
    "<script>alert(1)</script>",
    "\ue000ROJO",
    "a,b;c",
    "&amp;<img src=x onerror=alert(1)>",
    "X" * 200,
]
COUNTS = [40, 30, 20, 12, 8]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a hostile catalogue, prepared; corrections, drift and rejected rows included."""
    monkeypatch.chdir(tmp_path)
    rows = [
        (f"título <b>{n}</b> palabra{n % 7} tipo{place}", name, "spanish" if n % 3 else "portuguese")
        for place, (name, count) in enumerate(zip(NAMES, COUNTS, strict=True))
        for n in range(count)
    ]
    Path("data/raw").mkdir(parents=True)
    with Path("data/raw/a<b>.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("title", "category", "language"))
        writer.writerows([*rows, rows[0], ("", "X", "spanish"), ("one", "RARE", "spanish")])
    with Path("fix.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("title", "category", "suggested", "accept"))
        writer.writerows([(*rows[0][:2], "a,b;c", "yes"), ("nada", "a,b;c", NAMES[0], "yes")])
    shares = {"categories": {"A": 1.0}, "languages": {"spanish": 1.0}}
    quantiles = {"p05": 1, "p25": 1, "p50": 1, "p75": 1, "p95": 1}
    profile = shares | {"rows": 9, "unknown_words": 0.0, "title_words": quantiles, "rejected": 0.0}
    Path("reference.json").write_text(json.dumps(profile))
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["prepare"] |= {"source": "data/raw/a<b>.csv", "min_rows": 2, "min_count": 1}
    values["prepare"] |= {"corrections": "fix.csv", "reference": "reference.json"}
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    prepare.main.__wrapped__()
    return json.loads(Path("metrics/prepare.json").read_text(encoding="utf-8"))


def shown(capsys, *arguments):
    capsys.readouterr()
    assert cli.main(["data", *arguments]) == 0
    return capsys.readouterr().out


def test_the_tables_have_all_figures_and_no_control_characters(project, capsys):
    told = shown(capsys)
    assert f"{project['rows']['read']} rows of data/raw/a<b>.csv: 5 categories" in told
    for name, count in {**project["rejected"], "train": project["rows"]["train"]}.items():
        assert re.search(rf"^{name} +{count} +\d+\.\d%$", told, re.M)
    assert re.search(r"^<script>alert\(1\)</script> +\d+ +\d+ +\d+ +\d+$", told, re.M)
    assert "the smallest is XXX" in told
    assert max(map(len, told.splitlines())) < 110
    assert re.search(r"^accepted rows of the table +2$", told, re.M)
    assert re.search(r"^set aside, title not in source +1$", told, re.M)
    assert re.search(r"^categories +1 +0\.1 +past the threshold$", told, re.M)
    assert re.search(r"^portuguese +\d+ +\d+ +\d+ +\d+$", told, re.M)
    assert all(letter.isprintable() for letter in told.replace("\n", ""))


def test_top_says_how_many_categories_are_listed(project, capsys):
    told = shown(capsys, "--top", "2")
    assert "2 largest categories" in told
    assert r"\ue000ROJO" in told
    assert "a,b;c" not in told


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_has_the_figures_escaped_and_needs_nothing_else(project, capsys):
    assert shown(capsys, "--html", "page.html") == ""
    text = Path("page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.isdisjoint({"script", "img", "iframe", "b"})
    assert not {name for name in page.attributes if name.startswith("on")}
    assert set(NAMES) - {NAMES[1]} <= set(page.text)
    assert r"\ue000ROJO" in page.text
    assert text.count("<svg") == 4
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text)
    assert "default-src 'none'" in text
    assert "\ue000" not in text
    assert {"past the threshold", "duplicate", "rare category", "titles corrected, train"} <= set(
        page.text
    )


def test_no_word_of_the_page_is_written_outside_the_catalogue(project):
    found = data.load(load_params().prepare)
    say = pseudo()
    data_page.write_page(found, Path("page.html"), say)
    text = Path("page.html").read_text(encoding="utf-8")
    known = [*NAMES, found.source, r"\ue000ROJO", "data prepared rejected csv"]
    assert foreign(visible(text), known) == set()
    keys = [f"data.{name}" for name in texts("en").sections["data"]]
    # The other two need more categories than fit into a table, and none.
    assert [key for key in keys if key not in say.used] == ["data.smallest", "data.none"]


@pytest.mark.parametrize(
    ("language", "told"),
    [("es_AR.UTF-8", "duplicada"), ("pt", "sem indicação"), ("en", "rare category")],
)
def test_the_page_is_in_the_language_that_is_chosen(project, capsys, monkeypatch, language, told):
    monkeypatch.setenv("TITLES_LANG", language)
    before = shown(capsys)
    assert "rare_category" in before
    shown(capsys, "--html", "page.html")
    text = Path("page.html").read_text(encoding="utf-8")
    assert f'<html lang="{language[:2]}">' in text
    assert told in Page(text).text
    monkeypatch.setenv("TITLES_LANG", "fr")
    assert cli.main(["data", "--html", "none.html"]) == 1
    assert "TITLES_LANG is 'fr': expected one of en, es, pt" in capsys.readouterr().err
    assert not Path("none.html").exists()


def test_without_drift_and_corrections_their_tables_are_left_out(project, capsys):
    values = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    values["prepare"] |= {"corrections": "data/corrections/none", "reference": "data/pretrained/none"}
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    prepare.main.__wrapped__()
    told = shown(capsys)
    assert "drift" not in told
    assert "corrections" not in told
    shown(capsys, "--html", "page.html")
    assert "Drift" not in Path("page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "metrics/prepare.json is missing: run `dvc repro prepare`"),
        ("{", "metrics/prepare.json is damaged"),
        ("[1]", "metrics/prepare.json is damaged"),
        ('{"rows": {}}', "metrics/prepare.json is damaged"),
    ],
)
def test_missing_and_damaged_figures_are_told(project, capsys, content, told):
    file = Path("metrics/prepare.json")
    file.unlink() if content is None else file.write_text(content)
    capsys.readouterr()
    assert cli.main(["data"]) == 1
    assert told in capsys.readouterr().err


def test_figures_of_another_run_are_not_shown_beside_the_data(project, capsys):
    project["rows"]["train"] += 1
    Path("metrics/prepare.json").write_text(json.dumps(project))
    assert cli.main(["data"]) == 1
    assert "are of different runs" in capsys.readouterr().err
