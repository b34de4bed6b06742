"""Text from outside never commands a terminal, a page or a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import subprocess
import zipfile

from hostile.harness import _UNSAFE, Place, case, cases, excerpt, one_line, orderly

KIND = "terminal"
EVIL = {
    "an escape sequence": "\x1b]0;owned\x07\x1b[2J",
    "C1": "\x9b31mred",
    "a right-to-left override": "\u202egnp.exe",
    "an isolate": "\u2066x\u2069",
    "a bell and backspaces": "\x07\x08\x08\x08",
    "a line feed": "a\nerror: all is well",
    "a carriage return": "a\rerror: all is well",
    "a line separator": "a\u2028b",
}
SCRIPT = "</script><img src=x onerror=alert(1)>"
YAML_EVIL = {name: json.dumps(text) for name, text in EVIL.items()}


@cases(KIND, {f"prepare: a category with {name}": text for name, text in EVIL.items()})
def category(place: Place, text: str) -> None:
    """Rejected and counted, or one spelling of it that is safe; what is printed is safe anyway."""
    place.listing([(f"palabra{n} otra", f"KIND {text}") for n in range(20)])
    place.parameters()
    done = place.done("prepare", makes=["data", "metrics"])
    labels = (place / "data/prepared/labels.txt").read_text(encoding="utf-8")
    assert not _UNSAFE.search(labels), f"labels: {excerpt(labels)}"
    assert not _UNSAFE.search(done.out.decode()), excerpt(done.out.decode())
    metrics = json.loads((place / "metrics/prepare.json").read_text())
    rows = metrics["rows"]
    used = sum(rows[split] for split in ("train", "validation", "calibration", "test"))
    assert used + sum(metrics["rejected"].values()) == 320


@cases(KIND, {f"labels.txt with {name}": text for name, text in EVIL.items() if "\n" not in text})
def label_of_a_model(place: Place, text: str) -> None:
    file = place.models() / "cnn/labels.txt"
    file.write_text(
        "".join(f"{name}\n" for name in sorted(["BIKES", text, "DOGS", "EGGS"])), encoding="utf-8"
    )
    place.refused("predict", "--model", "cnn", "word2", says="labels.txt")


@cases(KIND, {f"model.json with {name}": text for name, text in EVIL.items()})
def model_names(place: Place, text: str) -> None:
    file = place.models() / "cnn/model.json"
    good = json.loads(file.read_text())
    for change in ({"architecture": text}, {"format": text}, {"settings": good["settings"] | {text: 1}}):
        file.write_text(json.dumps(good | change))
        place.refused("predict", "--model", "cnn", "word2", says="cnn")
    name = json.dumps({text: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    file.write_text(json.dumps(good))
    (place / "models/cnn/weights.safetensors").write_bytes(
        len(name).to_bytes(8, "little") + name + bytes(4)
    )
    place.refused("predict", "--model", "cnn", "word2", says="cnn")


@cases(KIND, {f"names with {name}": text for name, text in EVIL.items()})
def names(place: Place, text: str) -> None:
    place.models()
    place.write("in.csv", f'"{text}",other\nword2,1\n')
    place.refused("predict", "--file", "in.csv", says="title")
    place.refused("predict", "--file", "in.csv", "--column", text + "x")
    place.write("in.jsonl", json.dumps({text: "word2"}) + "\n")
    place.settled("predict", "--file", "in.jsonl")
    place.refused("predict", "--file", f"{text}.csv")
    place.refused("predict", "--models", text, "word2")
    place.write(f"{text}.csv", "none\nword2\n")
    place.refused("predict", "--file", f"{text}.csv", says="title")


@cases(KIND, {f"arguments with {name}": text for name, text in EVIL.items()})
def arguments(place: Place, text: str) -> None:
    for command in (
        ("predict", "word2", f"--{text}"),
        ("predict", "word2", f"--t={text}"),
        (text,),
        ("predict", "word2", "--model", text),
        ("predict", "word2", "--at-least", text),
        ("sample", "a.csv", "--rows", text),
        ("gate", "a", "b", "--within", text),
    ):
        before = place.entries()
        done = place.run(*command)
        assert done.code == 2, f"{command}: exit code {done.code}"
        one_line(done)
        place.unchanged(before)


@cases(KIND, {f"params.yaml with {name}": text for name, text in YAML_EVIL.items()})
def parameters(place: Place, text: str) -> None:
    place.listing()
    good = place.parameters().read_text()
    place.write("params.yaml", good + f"{text}: 1\n")
    place.refused("prepare", says="params.yaml")
    place.write(
        "params.yaml", re.sub("^  language: .*", lambda _: f"  language: {text}", good, flags=re.M)
    )
    place.refused("prepare", says="language")
    place.write("params.yaml", re.sub("^  source: .*", lambda _: f"  source: {text}", good, flags=re.M))
    place.refused("prepare")


@cases(KIND, {f"prepare: files with {name}": text for name, text in EVIL.items()})
def names_of_sources(place: Place, text: str) -> None:
    place.listing(name=f"shards/{text}.csv")
    place.write(f"shards/no{text}.csv", "no,header\n")
    place.parameters(source="shards")
    place.refused("prepare", says="header|column|title")
    with zipfile.ZipFile(place / "two.zip", "w") as archive:
        archive.writestr(f"{text}1.csv", "title\n")
        archive.writestr(f"{text}2.csv", "title\n")
    place.parameters(source="two.zip")
    place.refused("prepare", says="zip")


@cases(KIND, {f"experiments with {name}": text for name, text in EVIL.items()})
def revisions(place: Place, text: str) -> None:
    place.project()
    place.refused("report", text, "main")
    place.refused("gate", "main", text, code=3)
    place.refused("seeds", "--rev", text)
    place.refused("report", "main", "--out", f"params.yaml/{text}.html")


@cases(KIND, {f"variables with {name}": text for name, text in EVIL.items()})
def variables(place: Place, text: str) -> None:
    place.listing()
    place.parameters()
    for name in ("DVC_EXP_NAME", "DVC_STAGE", "MLFLOW_TRACKING_URI", "TITLES_DEBUG_", "COLUMNS", "TERM"):
        done = place.settled("prepare", variables={name: text}, makes=["data", "metrics"])
        assert done.code == 0, f"{name}: {excerpt(done.err)}"


def on_a_terminal(place: Place, *command: str) -> tuple[int, str]:
    """Exit code and what a terminal of 80 columns gets."""
    leader, follower = pty.openpty()
    process = place.start(
        *command,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        variables={"TERM": "xterm", "COLUMNS": "80"},
    )
    os.close(follower)
    told = b""
    while True:
        try:
            block = os.read(leader, 65536)
        except OSError:  # the terminal's other end is closed
            break
        if not block:
            break
        told += block
    os.close(leader)
    return process.wait(60), told.decode("utf-8", "surrogateescape")


@cases(KIND, {f"a table on a terminal: {name}": text for name, text in EVIL.items()})
def table(place: Place, text: str) -> None:
    place.models()
    place.write("in.csv", f'title,category\n"word2 {text}",x\nword3,y\n')
    for command in (
        ("predict", "--file", "in.csv"),
        ("predict", f"word2 {text}"),
        ("explain", f"word2 {text}"),
    ):
        code, told = on_a_terminal(place, *command)
        assert code == 0, excerpt(told)
        plain = re.sub(r"\x1b\[[0-9;]*m|\r\n", "", told)  # colours are ours
        plain = re.sub(r"\r.*?titles/s\]|\r\x1b\[A|\r +\r", "", plain)
        assert not (found := _UNSAFE.search(plain)), (
            f"{command[0]}: {found and excerpt(plain[found.start() :])}"
        )


@case(KIND, "an error on a terminal has the colour of nobody's text")
def error_on_a_terminal(place: Place) -> None:
    for text in EVIL.values():
        code, told = on_a_terminal(place, "predict", "--file", f"{text}.csv")
        assert code == 1, excerpt(told)
        plain = re.sub(r"\x1b\[[0-9;]*m|\r\n", "", told)
        assert not _UNSAFE.search(plain), excerpt(told)


@cases(
    KIND,
    {
        "a script": SCRIPT,
        "quotes": "\"'><svg onload=alert(1)>",
        "braces": "{{7*7}}{%raw%}",
        "a comment": "<!-- <script>",
    },
)
def pages(place: Place, text: str) -> None:
    models = place.models()
    for name in ("cnn", "mlp"):
        (models / name / "labels.txt").write_text(
            "".join(f"{each}\n" for each in sorted(["BIKES", text, "DOGS", "EGGS"]))
        )
    place.done("explain", f"word2 {text} word3", "--html", "why.html", makes=["why.html"])
    page = (place / "why.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page, "a title's image is in the page"
    assert "<svg onload" not in page
    assert page.count("<!--") - page.count("-->") <= 0


@case(KIND, "the page of DVC's plots, and the report, of a category that ends a script")
def plots(place: Place) -> None:
    place.project()
    lines = "".join(f'"palabra{n} cosa{n % 9} unica","{SCRIPT}"\n' for n in range(90))
    others = "".join(f"palabra{n} algo{n % 9},KIND{n % 3}\n" for n in range(200))
    place.write("data/raw/evil.csv", "title,category\n" + lines + others)
    params = (place / "params.yaml").read_text().replace("data/raw/sample.csv.gz", "data/raw/evil.csv")
    (place / "params.yaml").write_text(params)
    for command in (["dvc", "repro"], ["dvc", "plots", "show", "-o", "shown"]):
        done = subprocess.run(
            command, cwd=place.folder, env=place.environment, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr[-300:]
    page = (place / "shown/index.html").read_text(encoding="utf-8")
    assert SCRIPT not in page, "a category ends the page's script"
    place.done("report", "main", "workspace", makes=["report.html", "report.md"])
    page = (place / "report.html").read_text(encoding="utf-8")
    assert SCRIPT not in page, "a category ends the report's script"
    markdown = (place / "report.md").read_text(encoding="utf-8")
    plain = re.sub(r"`[^`]*`", "", markdown)
    assert not re.search(r"(?<!\\)<img src=x", plain), "HTML in Markdown"


FORMULAS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1+1",
    "=cmd|' /C calc'!A0",
    " =1+1",
    "\n=1",
    "\uff1d1+1",
]
SAFE = ["word2", "a=b", "1-1", "'=1"]


@case(KIND, "predict --escape-formulas")
def formulas(place: Place) -> None:
    models = place.models()
    for name in ("cnn", "mlp"):
        (models / name / "labels.txt").write_text("+CARS\n-DOGS\n=BIKES()\n@EGGS\n")
    with (place / "in.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["title", "=HEAD()"], *([text, text] for text in FORMULAS + SAFE)])

    def read(*options: str) -> list[list[str]]:
        done = place.done("predict", "--file", "in.csv", "--top", "1", *options)
        return list(csv.reader(io.StringIO(done.out.decode(), newline="")))

    plain, escaped = read(), read("--escape-formulas")
    assert len(plain) == len(escaped) == len(FORMULAS) + len(SAFE) + 1
    for before, after in zip(plain, escaped, strict=True):
        for old, new in zip(before, after, strict=True):
            risky = old[:1] in ("=", "+", "-", "@", "\t", "\r")
            if risky:
                assert new == f"'{old}", f"{old!a} becomes {new!a}"
            elif old[:1] not in (" ", "\n", "\uff1d", "'"):  # of which opinions differ
                assert new == old, f"{old!a} becomes {new!a}"
    assert any("=1+1" in row for row in plain), "without the option nothing changes"
    place.done(
        "predict", "--file", "in.csv", "--escape-formulas", "--out", "out.csv.gz", makes=["out.csv.gz"]
    )


@case(KIND, "audit --escape-formulas")
def formulas_of_audit(place: Place) -> None:
    place.listing([(f"palabra{n} cosa{n % 7}", "=EVIL()") for n in range(100)])
    place.parameters()
    place.done("prepare", makes=["data", "metrics"])
    place.done("embed", makes=["data", "metrics"])
    place.done("audit", "--folds", "2", "--escape-formulas", "--out", "audit.csv", makes=["audit.csv"])
    with (place / "audit.csv").open(newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert "'=EVIL()" in cells, "no row of that category was suspected"
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "@")]


@case(KIND, "the rules of this module find what they look for")
def own_rules(place: Place) -> None:
    from hostile.harness import Done

    for text in EVIL.values():
        if "\n" in text:
            continue
        try:
            orderly(Done(1, b"", f"error: {text}\n", 0))
        except AssertionError:
            continue
        raise AssertionError(f"{text!a} passes for safe")
