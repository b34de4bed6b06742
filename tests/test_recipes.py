"""The commands of README.md and of the pages of docs/ do what the text says, on a small project.

The commands of README.md are those of the pages, which are run here. The Spanish documents have the same
commands: see test_translations.py. Further pages have tests of their own: see ELSEWHERE.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from documents import ROOT, Section, read, sections
from small_project import commit, experiment, ran, write_project
from small_project import run as run_without_mlflow

pytestmark = pytest.mark.pipeline
run = partial(run_without_mlflow, mlflow=True)

COMPARISON = sections(read("docs/experiments.md"))
# The sections whose commands are run, with their pages; those of docs/experiments.md come as well.
RUN = {
    "All commands": "docs/comparing.md",
    "What DVC shows": "docs/comparing.md",
    "Commands that predict": "docs/prediction.md",
    "MLflow": "docs/tracking.md",
    "Pretrained vectors": "docs/data.md",
    "A look at the data": "docs/data.md",
    "Croissant": "docs/data.md",
    "Remotes": "docs/sharing.md",
}
# Pages whose commands other files of tests run, or that have none of this project.
ELSEWHERE = {
    "docs/confidence.md": "test_pipeline.py",
    "docs/drift.md": "test_drift.py",
    "docs/serving.md": "test_serving_page.py",
    "docs/sharing.md": "test_remotes.py",
    "docs/benchmark.md": "a day",
}
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
ALL = [one for page in PAGES for one in sections(read(page))]

NOT_RUN = {
    "make run": "the project below is made by it; all sections need that",
    "make test": "runs this test",
    "make bench": "a day",
    "make pruebas": "seven trainings; test_queue.py has `titles pruebas` with two",
    "make scale": "hours; test_scale_run.py has it with few rows",
    "make scale ROWS=2000000": "the same",
    "titles pruebas experiments/large.yaml": "for millions of rows; test_scale_run.py has its settings",
    "dvc exp run --queue -S 'prepare.split_seed=1,2,3' -S 'seed=1,2,3' && dvc queue start --jobs 2": (
        "nine experiments; test_seeds.py has what is made of them"
    ),
    "titles search experiments/search.yaml": "30 trials; test_search_pipeline.py has five",
    "titles search experiments/search.yaml --trials 12": "the same",
    "make mlflow": "a server and a browser; test_mlflow_store.py has `titles mlflow sync`",
    "titles demo": "a page; test_demo.py has it",
    "titles serve": "a server; test_serving.py has it",
    "dvc repro embed": "half an experiment; test_concurrency.py has both trainings side by side",
    "dvc repro": "the same",
    "dvc repro --single-item train_cnn & dvc repro --single-item train_mlp & wait": "the same",
    "dask scheduler": "a server",
    "dask worker tcp://10.0.0.5:8786": "an address for example; test_scale.py has a cluster",
    "TITLES_SCHEDULER=tcp://10.0.0.5:8786 dvc exp run": "the same",
    "torchrun --standalone --nproc-per-node=2 -m titles.stages.train_cnn": "test_distributed.py has it",
    "dvc add data/raw/FILE": "any file of the reader's; test_drift.py has one",
    "dvc exp run -S prepare.source=data/raw/FILE": "the same",
    "cp audit.csv data/corrections/audit.csv && git add data/corrections/audit.csv": (
        "a person accepts rows before; test_audit.py has it"
    ),
    "dvc exp run -S prepare.corrections=data/corrections/audit.csv": "the same",
    "dvc exp run -S embed.method=encoder": "test_encoder.py has the vectors",
    "dvc exp run -S cnn.heads=4 -S mlp.heads=4": "test_experiment.py has heads",
    "dvc exp run -S cnn.batch_size=512 -S cnn.min_steps=null": "test_pipeline.py has it",
}
ROWS = 1_500
TITLES = 20


def titles(folder: Path) -> list[str]:
    """Some of the catalogue, one of them without a word."""
    with gzip.open(folder / "data/raw/sample.csv.gz", "rt", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return [row["title"] for row in rows[: TITLES - 1]] + ["***"]


def write(path: Path, *columns: list[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(zip(*columns, strict=True))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project after `make run` and a commit, with the files that the commands name."""
    folder = tmp_path_factory.mktemp("project")
    write_project(folder, ROWS)
    run(folder, "dvc", "push", "-q")
    some = titles(folder)
    write(folder / "catalogue.csv", ["name", *some], ["price", *("1" for _ in some)])
    numbers = [str(number) for number in range(len(some))]
    write(
        folder / "test.csv", ["id", *numbers], ["title", *some], ["language", *("spanish" for _ in some)]
    )
    with gzip.open(folder / "titles.txt.gz", "wt", encoding="utf-8") as stream:
        stream.writelines(f"{title}\n" for title in some)
    params = (folder / "params.yaml").read_text(encoding="utf-8")
    # The queue runs two experiments at once.
    (folder / "params.yaml").write_text(params.replace("threads: 2", "threads: 1"), encoding="utf-8")
    commit(folder, "files")
    (folder / ".venv").mkdir()
    (folder / ".venv/installed").touch()  # `make` has nothing to install
    output = run(folder, "make", "run")
    assert ran(output) == ["prepare", "embed", "train_cnn", "train_mlp", "evaluate"]
    assert "Nothing has changed" in run(folder, "make", "run")
    commit(folder, "run")
    yield folder
    run(folder, "dvc", "queue", "stop", "--kill")


@pytest.fixture
def committed(project: Path) -> Path:
    """The project as committed; experiments that others made are there."""
    run(project, "git", "reset", "-q", "--hard")
    run(project, "dvc", "checkout", "-q", "--force")
    return project


def shell(folder: Path, command: str) -> str:
    return run(folder, "bash", "-c", f"set -euo pipefail\n{command}")


def wait(folder: Path) -> None:
    """For all experiments of the queue."""
    end = time.monotonic() + 1500
    while re.search("Queued|Running", run(folder, "dvc", "queue", "status")):
        assert time.monotonic() < end
        time.sleep(1)


def follow(folder: Path, section: Section) -> dict[str, str]:
    """Run the commands of a section in order; what each printed."""
    printed = {}
    for command in section.commands:
        if command in NOT_RUN:
            continue
        if command.startswith("dvc remote add"):  # one instead of the other
            (folder / ".dvc/config.local").unlink(missing_ok=True)
        printed[command] = shell(folder, command)
        # Where the reader is told to wait, that has to do.
        if "dvc queue start" in command and not any(c.startswith("while ") for c in section.commands):
            wait(folder)
    if any("dvc queue start" in command for command in printed):
        assert "Failed" not in run(folder, "dvc", "queue", "status")
    return printed


def section(title: str) -> Section:
    page = RUN.get(title, "docs/experiments.md")
    (found,) = [one for one in sections(read(page)) if one.title == title]
    return found


def mentioned(folder: Path, title: str, command: str, **names: str) -> str:
    """Run a command that stands in the text of a section, with names in place of capitals."""
    assert command in section(title).code
    for capitals, name in names.items():
        command = command.replace(capitals, name)
    return shell(folder, command)


def page(printed: str) -> Path:
    """The file whose address `dvc plots` prints."""
    (address,) = re.findall(r"file://(\S+)", printed)
    return Path(address)


def test_every_command_is_run_or_said_not_to_be() -> None:
    run_here = {command for title in RUN for command in section(title).commands}
    run_here |= {command for one in COMPARISON for command in one.commands}
    for page in PAGES:
        if page not in ELSEWHERE:
            stand = {command for one in sections(read(page)) for command in one.commands}
            assert stand <= run_here | set(NOT_RUN), page


@pytest.mark.parametrize("command", NOT_RUN)
def test_a_command_that_is_not_run_still_stands_there(command: str) -> None:
    assert any(command in [*one.commands, *one.code] for one in ALL)


@pytest.mark.endures
def test_the_first_comparison_goes_as_it_is_told(committed: Path) -> None:
    printed: dict[str, str] = {}
    states: list[str] = []
    tables: list[str] = []
    for one in COMPARISON:
        printed |= follow(committed, one)
        if "titles table" in one.commands:
            tables.append(printed["titles table"])
        if "git checkout ." in one.commands:
            states.append(run(committed, "git", "status", "--porcelain"))
            run(committed, "dvc", "status", "-q")
    assert states == ["", ""]

    wider, deeper, *_ = (out for command, out in printed.items() if " --name " in command)
    assert ran(wider) == ran(deeper) == ["train_mlp", "evaluate"]
    assert "mlp.balanced_accuracy" in printed["dvc metrics diff --targets metrics/evaluate.json"]
    assert "mlp.hidden_layers" in printed["dvc params diff"]
    assert "1024" in printed["dvc params diff"]
    assert page(printed["dvc plots diff --targets Loss"]).is_file()
    assert "[512, 256]" in printed["dvc exp diff wider deeper"]
    assert "deeper" in (committed / "report.md").read_text(encoding="utf-8")
    assert (committed / "report.html").is_file()

    both, many = tables
    assert re.search(r"wider.*\[1024\]", both)
    assert re.search(r"deeper.*\[512, 256\]", both)
    assert {"0.3", "0.7"} <= set(many.split())
    assert len(re.findall(r" 3 .* 1 2 3$", printed["titles seeds"], re.M)) == 3
    # The committed run and `wider` are a pair too, of the seed in params.yaml.
    assert "mlp.hidden_layers [16] -> [1024]" in printed["titles seeds main wider"]
    assert (
        "cnn: wider is the same as main in all 4 pairs of equal seeds."
        in printed["titles seeds main wider"]
    )
    assert "metrics/mlp.json" in printed["git diff --stat"]
    verified = printed["titles verify wider --stage train_mlp"]
    assert re.search(r"^all 3 outputs of \w{7} are the same$", verified, re.M)

    status = mentioned(committed, "Many at once", "dvc queue status")
    name = re.findall(r"^\w+ +(\S+) .* Success", status, re.M)[0]
    logs = mentioned(committed, "Many at once", "dvc queue logs NAME", NAME=name)
    assert "Running stage" in logs
    goes_on = "Where to go on"
    mentioned(committed, goes_on, "dvc exp rename OLD NEW", OLD="wider", NEW="widest")
    mentioned(committed, goes_on, "dvc exp remove NAME", NAME="deeper")
    names = mentioned(committed, goes_on, "dvc exp list")
    assert "widest" in names
    assert "wider" not in names
    assert "deeper" not in names


@pytest.mark.endures
def test_experiments_are_run_and_compared_as_the_page_tells(committed: Path) -> None:
    printed = follow(committed, section("All commands")) | follow(committed, section("What DVC shows"))
    five = printed["dvc exp run --name five -S cnn.epochs=5"]
    assert ran(five) == ["train_cnn", "evaluate"]
    assert "five" in printed["make table"]
    assert "cnn.epochs" in printed["make table"]
    assert "five" in (committed / "report.md").read_text(encoding="utf-8")
    assert "1 2 3 2019" in printed["titles seeds"]
    assert "by one pair of runs, " in printed["titles seeds main five"]
    assert "ok mlp: 0.0000" in printed["titles gate main five"]
    assert re.search(r"^all \d+ outputs of \w{7} are the same$", printed["titles verify five"], re.M)
    assert "epochs: 5 " in (committed / "params.yaml").read_text(encoding="utf-8")
    _, shown = (out for command, out in printed.items() if command.startswith("dvc exp show"))
    assert re.search(r"^\|.*five.*\| 5 ", shown, re.M)
    assert "cnn.epochs" in printed["dvc exp diff main five"]
    assert "cnn.balanced_accuracy" in printed["dvc metrics diff main five"]
    assert page(printed["dvc plots diff main five"]).is_file()


@pytest.mark.endures
def test_titles_are_classified_as_the_page_tells(committed: Path) -> None:
    printed = follow(committed, section("Commands that predict"))
    (told,) = (out for command, out in printed.items() if command.startswith("zcat"))
    objects = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    assert [one["title"] for one in objects] == titles(committed)
    found = pq.read_table(committed / "found.parquet").to_pylist()
    assert [row["name"] for row in found] == titles(committed)
    assert [row["problem"] is None for row in found] == [True] * (TITLES - 1) + [False]
    with (committed / "submission.csv").open(encoding="utf-8", newline="") as stream:
        assert [row["id"] for row in csv.DictReader(stream)] == [str(n) for n in range(TITLES)]
    assert "Funda" in (committed / "why.html").read_text(encoding="utf-8")
    assert (committed / "audit.csv").read_text(encoding="utf-8").startswith("rank,line,title")


@pytest.mark.endures
def test_mlflow_is_filled_as_the_page_tells(committed: Path) -> None:
    if "five" not in run(committed, "dvc", "exp", "list", "--name-only").split():
        experiment(committed, "five", "cnn.epochs=5", mlflow=True)
    printed = follow(committed, section("MLflow"))
    runs = re.findall(r"\b[0-9a-f]{32}\b", printed["titles mlflow find five"])
    assert len(set(runs)) >= 2
    assert "models:/titles" in printed["titles mlflow register five"]
    loaded = "import mlflow; " + next(
        content
        for one in sections(read("docs/tracking.md"))
        for language, content in one.blocks
        if language == "python"
    ).replace("mlflow.pyfunc", "mlflow.set_tracking_uri('sqlite:///mlflow.db'); print(mlflow.pyfunc", 1)
    told = run(committed, "python", "-c", f"{loaded.strip()}.to_dict())")
    assert "'probability': {0: " in told


@pytest.mark.endures
def test_the_data_is_shown_as_the_page_tells(committed: Path) -> None:
    shown, _ = follow(committed, section("A look at the data")).values()
    assert f"{ROWS:,} rows of data/raw/sample.csv.gz: " in shown
    assert "<svg" in (committed / "data.html").read_text(encoding="utf-8")
    assert run(committed, "git", "status", "--porcelain") == ""


@pytest.mark.endures
def test_a_file_is_described_as_the_page_tells(committed: Path) -> None:
    (told,) = follow(committed, section("Croissant")).values()
    assert f"data/raw/sample.croissant.json describes {ROWS:,} rows" in told
    text = (committed / "data/raw/sample.croissant.json").read_text(encoding="utf-8")
    sample = (committed / "data/raw/sample.csv.gz").read_bytes()
    assert hashlib.sha256(sample).hexdigest() in text


@pytest.mark.endures
def test_pretrained_vectors_and_remotes_are_taken_as_the_pages_tell(committed: Path) -> None:
    words = (committed / "data/prepared/vocabulary.tsv").read_text(encoding="utf-8").split()[2::2][:50]
    with (committed / "data/pretrained/FILE").open("w", encoding="utf-8") as stream:
        stream.write(f"{len(words)} 300\n")
        stream.writelines(f"{word} {' '.join(['0.5'] * 300)}\n" for word in words)
    try:
        printed = follow(committed, section("Pretrained vectors"))
        follow(committed, section("Remotes"))
        config = (committed / ".dvc/config.local").read_text(encoding="utf-8")
        assert 'remote "mine"' not in run(committed, "git", "diff", "HEAD")
    finally:
        (committed / ".dvc/config.local").unlink(missing_ok=True)
        (committed / "data/pretrained/FILE").unlink()
    (trained,) = (out for command, out in printed.items() if command.startswith("dvc exp run"))
    assert ran(trained) == ["embed", "train_cnn", "train_mlp", "evaluate"]
    assert json.loads((committed / "metrics/embed.json").read_text())["dimension"] == 300
    assert "s3://bucket/titles" in config
    assert "verify = true" in config
