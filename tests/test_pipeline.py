"""The pipeline with real DVC, git and MLflow, on a small catalogue in a folder of its own."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from titles.sample import write_csv

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).parent.parent
STAGES = ["prepare", "embed", "train_cnn", "train_mlp", "evaluate"]
# Small enough for seconds; every kind of layer and split is still there.
QUICK = {
    "dimension": 24,
    "filter_count": 8,
    "fc_size": 16,
    "hidden_layers": [16],
    "epochs": 2,
    "min_steps": 20,
    "subword_buckets": 500,
    "bootstrap_samples": 100,
}


def _environment() -> dict[str, str]:
    # As in a shell where the virtual environment is active and nothing else is set up.
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC", "MLFLOW", "GIT_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {
        "PATH": path,
        "DVC_NO_ANALYTICS": "1",
        "GIT_AUTHOR_NAME": "t",
        "GIT_AUTHOR_EMAIL": "t@example.com",
        "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@example.com",
    }


def _run(folder: Path, *command: str, fails: bool = False) -> str:
    done = subprocess.run(
        command, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=300, check=False
    )
    output = done.stdout + done.stderr
    assert (done.returncode != 0) == fails, output
    return output


def _commit(folder: Path, message: str) -> None:
    _run(folder, "git", "add", "-A")
    _run(folder, "git", "commit", "-q", "-m", message)


def _lock(folder: Path) -> dict[str, Any]:
    stages: dict[str, Any] = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return stages


def _outs(folder: Path, stage: str) -> dict[str, str]:
    return {out["path"]: out["md5"] for out in _lock(folder)[stage]["outs"]}


def _ran(output: str) -> list[str]:
    return [stage for stage in STAGES if f"Running stage '{stage}'" in output]


def _mlflow_runs(folder: Path) -> list[Mapping[str, str]]:
    """The tags of each finished run in the local store."""
    with sqlite3.connect(folder / "mlflow.db") as store:
        rows = store.execute(
            "select t.run_uuid, t.key, t.value from tags t join runs r using (run_uuid) "
            "where r.status = 'FINISHED' order by r.start_time"
        )
        runs: dict[str, dict[str, str]] = {}
        for run, key, value in rows:
            runs.setdefault(run, {})[key] = value
    return list(runs.values())


def _write(path: Path, rows: list[tuple[str, ...]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return path


def make_project(folder: Path, rows: int) -> None:
    """The project as committed, with a small catalogue and quick parameters, run and pushed."""
    tracked = _run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("remote/", "data/raw/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    params = (folder / "params.yaml").read_text()
    for key, value in QUICK.items():
        params = re.sub(rf"^(  {key}:) \S+( \S+\])?", rf"\1 {value}", params, flags=re.M)
    (folder / "params.yaml").write_text(params)
    (folder / "dvc.lock").unlink(missing_ok=True)
    shutil.rmtree(folder / "metrics", ignore_errors=True)
    shutil.rmtree(folder / "plots", ignore_errors=True)
    (folder / "data/raw").mkdir(parents=True)
    write_csv(rows, 7, folder / "data/raw/sample.csv.gz", progress=False)
    _run(folder, "git", "init", "-q", "-b", "main")
    _run(folder, "dvc", "add", "-q", "data/raw/sample.csv.gz")
    _commit(folder, "project")
    output = _run(folder, "dvc", "repro")
    assert _ran(output) == STAGES
    _run(folder, "dvc", "push", "-q")
    _commit(folder, "run")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    make_project(folder, 6_000)
    return folder


@pytest.fixture
def clone(project: Path, tmp_path: Path) -> Path:
    _run(tmp_path, "git", "clone", "-q", str(project), "clone")
    return tmp_path / "clone"


def test_a_second_run_does_nothing(project: Path) -> None:
    output = _run(project, "dvc", "repro")
    assert _ran(output) == []
    assert "up to date" in output
    assert _run(project, "git", "status", "--porcelain") == ""


def test_the_same_parameters_give_the_same_bytes(clone: Path) -> None:
    _run(clone, "dvc", "pull", "-q", "data/raw/sample.csv.gz")
    assert _ran(_run(clone, "dvc", "repro", "-f")) == STAGES
    # Metrics, plots and the hashes of all outputs lie in git.
    assert _run(clone, "git", "status", "--porcelain") == ""


def test_another_machine_pulls_the_outputs_and_has_nothing_to_do(clone: Path) -> None:
    _run(clone, "dvc", "pull", "-q")
    _run(clone, "dvc", "status", "-q")
    assert _ran(_run(clone, "dvc", "repro")) == []
    assert (clone / "models/cnn/weights.safetensors").is_file()


def test_an_object_damaged_in_the_remote_is_refused(clone: Path) -> None:
    digest = _outs(clone, "train_mlp")["models/mlp"]
    listing = clone / "remote/files/md5" / digest[:2] / digest[2:]
    member = next(e["md5"] for e in json.loads(listing.read_text()) if e["relpath"] == "vocabulary.tsv")
    (clone / "remote/files/md5" / member[:2] / member[2:]).write_text("damaged")
    _run(clone, "dvc", "pull", "models/mlp", fails=True)
    assert not (clone / "models/mlp/vocabulary.tsv").exists()


def test_a_parameter_of_one_network_reruns_it_and_evaluate_alone(project: Path) -> None:
    output = _run(project, "dvc", "exp", "run", "-S", "cnn.filter_count=5", "--name", "narrow")
    assert _ran(output) == ["train_cnn", "evaluate"]
    shown = json.loads(_run(project, "dvc", "exp", "show", "--json"))
    revisions = {
        experiment["name"] or experiment["rev"]: experiment["data"]
        for baseline in shown
        for experiment in [baseline, *(e["revs"][0] for e in baseline["experiments"] or [])]
    }
    filters = {
        name: data["params"]["params.yaml"]["data"]["cnn"]["filter_count"]
        for name, data in revisions.items()
    }
    assert filters["narrow"] == 5
    assert filters["main"] == QUICK["filter_count"]
    scores = {name: data["metrics"]["metrics/evaluate.json"]["data"] for name, data in revisions.items()}
    assert scores["narrow"]["mlp"] == scores["main"]["mlp"]
    assert scores["narrow"]["cnn"] != scores["main"]["cnn"]
    _run(project, "git", "reset", "-q", "--hard")
    _run(project, "dvc", "checkout", "-q")


def test_a_temporary_run_lands_in_the_projects_mlflow_store(project: Path) -> None:
    before = len(_mlflow_runs(project))
    _run(project, "dvc", "exp", "run", "--temp", "-S", "mlp.epochs=1", "--name", "apart")
    (run,) = _mlflow_runs(project)[before:]
    assert run["dvc.experiment"] == "apart"
    assert run["dvc.stage"] == "train_mlp"
    assert run["git.revision"] == _run(project, "git", "rev-parse", "HEAD").strip()
    assert run["data.data/prepared/train"] == _outs(project, "prepare")["data/prepared/train"]


def test_a_queued_run_lands_in_the_projects_mlflow_store(project: Path) -> None:
    before = len(_mlflow_runs(project))
    _run(project, "dvc", "exp", "run", "--queue", "-S", "mlp.hidden_layers=[8]", "--name", "queued")
    _run(project, "dvc", "exp", "run", "--run-all")
    status = _run(project, "dvc", "queue", "status")
    assert status.count("Success") == 1, status
    (run,) = _mlflow_runs(project)[before:]
    assert run["dvc.experiment"] == "queued"


def test_a_wrong_parameter_is_refused_before_any_work(clone: Path) -> None:
    _run(clone, "dvc", "pull", "-q")
    misspelt = _run(clone, "dvc", "exp", "run", "-S", "cnn.epoch=5", fails=True)
    assert "epoch" in misspelt
    wrong = _run(clone, "dvc", "exp", "run", "-S", "cnn.dropout=1.5", "-S", "mlp.epochs=0", fails=True)
    assert "cnn.dropout" in wrong
    assert "mlp.epochs" in wrong
    assert "Traceback" not in wrong


@pytest.mark.parametrize(
    "plot",
    [
        "Loss",
        "Balanced accuracy",
        "Accuracy",
        "Reliability",
        "Confusion of the CNN",
        "Confusion of the MLP",
        "Hardest categories",
    ],
)
def test_a_plot_has_points(project: Path, plot: str) -> None:
    shown = json.loads(_run(project, "dvc", "plots", "show", "--json", plot))
    (views,) = shown["data"].values()
    points = [point for view in views for point in view["content"]["data"]["values"]]
    assert len(points) > 1


def test_the_projects_own_run_is_whole(tmp_path: Path) -> None:
    """What is committed: the lock fits code and parameters, and the remote has all its outputs."""
    _run(tmp_path, "git", "clone", "-q", str(ROOT), "clone")
    clone = tmp_path / "clone"
    _run(clone, "dvc", "pull", "-q")
    _run(clone, "dvc", "status", "-q")
    scores = json.loads((clone / "metrics/evaluate.json").read_text())
    assert scores["cnn"]["balanced_accuracy"] > 0.8
    assert scores["mlp"]["balanced_accuracy"] > 0.8


def _course_rows(split: str, count: int) -> list[dict[str, Any]]:
    nouns = {"BEERS": "cerveza", "CHAIRS": "silla", "LAMPS": "lampara"}
    return [
        {
            "language": "spanish",
            "label_quality": "reliable" if split == "test" else "unreliable",
            "title": f"{noun} {word} {split} {number}",
            "category": category,
            "split": split,
            "tokenized_title": [noun, word],
            "data": [1, 2],
            "target": 0,
            "n_labels": 3,
            "size": count,
        }
        for category, noun in nouns.items()
        for number, word in enumerate(["roja", "azul", "grande", "nueva"] * (count // 12))
    ]


def test_the_courses_files_run_through_all_stages_by_parameters_alone(clone: Path) -> None:
    folder = clone / "data/raw/course"
    folder.mkdir()
    sizes = {"train": 240, "validation": 48, "test": 36}
    for split, count in sizes.items():
        with gzip.open(folder / f"spanish.{split}.jsonl.gz", "wt", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in _course_rows(split, count))
    settings = (
        "prepare.source=data/raw/course",
        "prepare.language=spanish",
        "cnn.epochs=6",
        "mlp.epochs=6",
    )
    output = _run(clone, "dvc", "exp", "run", *(word for s in settings for word in ("-S", s)))
    assert _ran(output) == STAGES
    rows = json.loads((clone / "metrics/prepare.json").read_text())["rows"]
    assert {split: rows[split] for split in sizes} == sizes
    assert (
        json.loads((clone / "metrics/groups.json").read_text())["label_quality"]["reliable"]["rows"]
        == 36
    )


def test_real_listings_run_through_all_stages_by_parameters_alone(clone: Path) -> None:
    source = os.environ.get("TITLES_REAL_CSV")
    if not source:
        pytest.skip(
            "NOT RUN on real listings: set TITLES_REAL_CSV to a title,category CSV to include it"
        )
    shutil.copy(source, clone / "data/raw/real.csv")
    settings = ("prepare.source=data/raw/real.csv", "prepare.min_rows=2")
    output = _run(clone, "dvc", "exp", "run", *(word for s in settings for word in ("-S", s)))
    assert _ran(output) == STAGES
