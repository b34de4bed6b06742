"""`titles pruebas` and `titles verify` with real DVC, its queue and workers, on a small project."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import yaml
from mlflow import MlflowClient

import small_project
from test_pipeline import mlflow_runs

pytestmark = pytest.mark.pipeline

TITLES = [sys.executable, "-m", "titles.cli"]
PLAN = """
about: Two small experiments
published_on: a napkin
settings:
  compute: {{threads: 1}}
  mlp: {{epochs: 1}}
experiments:
  quick-{mark}:
    network: cnn
    settings: {{cnn: {{epochs: 1, filter_count: {number}}}}}
    published: {{balanced_accuracy: 0.125, loss: 1}}
  slow-{mark}:
    network: cnn
    settings: {{cnn: {{epochs: {number}, patience: 0}}}}
"""
numbers = itertools.count(25)  # no experiment is like one before, whose results caches would have


@pytest.fixture(scope="module")
def project(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_project.copy(base, tmp_path_factory.mktemp("queue") / "project")


def titles(
    folder: Path, *arguments: str, temporary: Path | None = None, mlflow: bool = False
) -> subprocess.CompletedProcess[str]:
    variables = {"TMPDIR": str(temporary)} if temporary else {}
    return subprocess.run(
        [*TITLES, *arguments],
        cwd=folder,
        env=small_project.environment(mlflow=mlflow) | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def references(folder: Path) -> dict[str, str]:
    lines = small_project.run(
        folder, "git", "for-each-ref", "--format=%(refname:lstrip=4) %(objectname)", "refs/exps"
    )
    return dict(line.split(" ") for line in lines.splitlines())


def workers(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if "queue-worker" in process.cmdline() and Path(process.cwd()) == folder:
                found.append(process)
        except psutil.Error:
            continue
    return found


def until(happens: Callable[[], bool], seconds: float = 900) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.3)


def in_queue(folder: Path, name: str) -> list[str]:
    """The states of an experiment's entries in the queue."""
    status = small_project.run(folder, "dvc", "queue", "status")
    return re.findall(rf"^\w+ +{name} .* (\w+)\s*$", status, re.M)


def trainings(folder: Path, name: str) -> int:
    """Trainings that really ran to their end, not taken from a cache."""
    return sum(run.get("dvc.experiment") == name for run in mlflow_runs(folder))


def kill_workers(folder: Path) -> None:
    for worker in workers(folder):
        os.killpg(os.getpgid(worker.pid), signal.SIGKILL)


@contextmanager
def half_way(folder: Path, mark: str) -> Iterator[subprocess.Popen[bytes]]:
    """`titles pruebas plan.yaml` when one experiment is done and the other is training."""
    (folder / "plan.yaml").write_text(PLAN.format(mark=mark, number=next(numbers)))
    output = folder / ".dvc/tmp/told"
    with output.open("w") as told:
        command = subprocess.Popen(
            [*TITLES, "pruebas", "plan.yaml", "--jobs", "1"],
            cwd=folder,
            env=small_project.environment(mlflow=True),
            stdout=told,
            stderr=told,
        )
    try:
        until(lambda: f"slow-{mark}: running" in output.read_text() or command.poll() is not None)
        assert f"quick-{mark}: done" in output.read_text()
        until(lambda: training(folder))
        assert command.poll() is None, output.read_text()
        yield command
    finally:
        command.kill()
        command.wait()
        kill_workers(folder)
        (folder / "plan.yaml").unlink()


def training(folder: Path) -> bool:
    """Whether a run of the queue trains the CNN right now."""
    for worker in workers(folder):
        for process in worker.children(recursive=True):
            with suppress(psutil.Error):
                if "titles.stages.train_cnn" in process.cmdline():
                    return True
    return False


def interrupt(folder: Path, command: subprocess.Popen[bytes]) -> None:
    command.send_signal(signal.SIGINT)
    assert command.wait() == 130
    assert not workers(folder)
    assert "Traceback" not in (folder / ".dvc/tmp/told").read_text()


def kill(folder: Path, command: subprocess.Popen[bytes]) -> None:
    command.kill()
    command.wait()
    assert workers(folder)


def kill_all(folder: Path, command: subprocess.Popen[bytes]) -> None:
    kill(folder, command)
    kill_workers(folder)


@pytest.mark.endures
@pytest.mark.parametrize("end", [interrupt, kill, kill_all])
def test_experiments_go_on_where_they_were_stopped(
    project: Path, end: Callable[[Path, subprocess.Popen[bytes]], None]
) -> None:
    quick, slow = f"quick-{end.__name__}", f"slow-{end.__name__}"
    with half_way(project, end.__name__) as command:
        before, trained = references(project), trainings(project, quick)
        assert quick in before
        assert slow not in before
        end(project, command)
        done = titles(project, "pruebas", "plan.yaml", "--jobs", "1", mlflow=True)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    after = references(project)
    assert after[quick] == before[quick]
    assert trainings(project, quick) == trained
    assert trainings(project, slow) == 1
    assert in_queue(project, quick) == ["Success"]
    assert in_queue(project, slow) == ["Success"]
    assert "1 of 2 done" in told
    scores = json.loads(
        small_project.run(project, "git", "show", f"{after[slow]}:metrics/evaluate.json")
    )
    (line,) = re.findall(rf"^{slow} .*", done.stdout, re.M)
    assert f"{scores['cnn.balanced_accuracy']:.3f}" in line
    (line,) = re.findall(rf"^{quick} .*", done.stdout, re.M)
    assert line.split()[-2:] == ["0.125", "1.000"]
    assert small_project.run(project, "git", "status", "--porcelain") == ""
    assert not list((project / ".dvc/tmp/exps").glob("tmp*"))


@pytest.mark.endures
def test_two_experiments_at_once_lose_nothing_in_the_store_they_share(project: Path) -> None:
    epochs = {f"beside-{epochs}": epochs for epochs in (30, 31)}
    for name, count in epochs.items():
        settings = (f"cnn.epochs={count}", "cnn.patience=0", "compute.threads=1")
        chosen = [word for setting in settings for word in ("-S", setting)]
        small_project.run(project, "dvc", "exp", "run", "--queue", "--name", name, *chosen)
    small_project.run(project, "dvc", "queue", "start", "--jobs", "2", mlflow=True)
    until(lambda: all(in_queue(project, name) == ["Success"] for name in epochs))
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    number = client.get_experiment_by_name("titles").experiment_id
    runs = {
        run.data.tags["dvc.experiment"]: run
        for run in client.search_runs([number], "tags.model = 'cnn'")
        if run.data.tags.get("dvc.experiment") in epochs
    }
    assert runs.keys() == epochs.keys()
    for name, run in runs.items():
        assert run.info.status == "FINISHED"
        for metric in ("train/loss", "validation/balanced_accuracy"):
            points = client.get_metric_history(run.info.run_id, metric)
            assert sorted(point.step for point in points) == [*range(1, epochs[name] + 1)]
        assert "best/best_epoch" in run.data.metrics
        told = small_project.run(project, "dvc", "queue", "logs", name)
        assert "database is locked" not in told
        assert "warning" not in told.lower()
    # They really trained at the same time.
    infos = [run.info for run in runs.values()]
    assert max(info.start_time for info in infos) < min(info.end_time for info in infos)


@pytest.fixture
def kept(project: Path) -> Iterator[Path]:
    """The project with an experiment `kept`, the committed run under that name."""
    small_project.run(project, "dvc", "exp", "save", "--name", "kept")
    yield project
    small_project.run(project, "dvc", "exp", "remove", "kept")
    (project / "plan.yaml").unlink(missing_ok=True)


def test_an_experiment_that_is_done_is_shown_at_once(kept: Path, tmp_path: Path) -> None:
    (kept / "plan.yaml").write_text("about: Done\nexperiments: {kept: {network: mlp}}")
    before = references(kept)
    done = titles(kept, "pruebas", "plan.yaml", "--md", str(tmp_path / "done.md"))
    assert done.returncode == 0, done.stderr
    assert "1 of 1 done, 0 in the queue" in done.stdout
    assert references(kept) == before
    score = json.loads((kept / "metrics/evaluate.json").read_text())["mlp.balanced_accuracy"]
    assert f"{score:.3f}" in done.stdout
    assert f"{score:.3f}" in (tmp_path / "done.md").read_text()


def test_a_name_that_another_experiment_has_is_not_taken_from_it(kept: Path) -> None:
    (kept / "plan.yaml").write_text(
        "about: Other\nexperiments: {kept: {network: cnn, settings: {cnn: {epochs: 7}}}}"
    )
    before = references(kept)
    done = titles(kept, "pruebas", "plan.yaml")
    assert done.returncode == 1
    assert f"cnn.epochs {small_project.QUICK['epochs']}, not 7" in done.stderr
    assert "dvc exp remove kept" in done.stderr
    assert references(kept) == before


def test_other_code_makes_another_experiment(kept: Path) -> None:
    (kept / "plan.yaml").write_text("about: Other\nexperiments: {kept: {network: mlp}}")
    with (kept / "src/titles/models/cnn.py").open("a") as code:
        code.write("# edited\n")
    done = titles(kept, "pruebas", "plan.yaml")
    small_project.run(kept, "git", "checkout", "-q", "src")
    assert done.returncode == 1
    assert "other code or data: src/titles/models/cnn.py" in done.stderr


def test_a_failed_experiment_is_named_with_its_log_and_the_others_are_done(project: Path) -> None:
    plan = project / "plan.yaml"
    plan.write_text("""
about: One of two fails
experiments:
  sound: {network: mlp, settings: {mlp: {epochs: 1, hidden_layers: [5]}}}
  broken: {network: mlp, settings: {prepare: {source: data/raw/nope.csv}}}
""")
    done = titles(project, "pruebas", "plan.yaml", mlflow=True)
    assert done.returncode == 1
    assert "1 of 2 experiments failed: broken" in done.stderr
    assert "data/raw/nope.csv" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "sound" in references(project)
    assert in_queue(project, "broken") == ["Failed"]
    # Trained in a folder that is gone, it stands in the project's own store.
    (made,) = [run for run in mlflow_runs(project) if run.get("dvc.experiment") == "sound"]
    assert made["dvc.stage"] == "train_mlp"
    assert made["git.revision"] == small_project.run(project, "git", "rev-parse", "HEAD").strip()
    plan.unlink()


@pytest.mark.endures
def test_an_experiment_that_is_run_again_gives_the_same_bytes(kept: Path, tmp_path: Path) -> None:
    cache = sorted((kept / ".dvc/cache").rglob("*"))
    done = titles(kept, "verify", "kept", temporary=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for stage in small_project.STAGES:
        assert f"Running stage '{stage}'" in done.stdout
        assert re.search(rf"^{stage} +\S+ +(\w{{7}}) +\1 +same$", done.stdout, re.M)
    assert re.search(r"^all \d+ outputs of \w{7} are the same$", done.stdout, re.M)
    assert sorted((kept / ".dvc/cache").rglob("*")) == cache
    assert not list(tmp_path.glob("titles-verify-*"))
    assert small_project.run(kept, "git", "status", "--porcelain") == ""


def test_a_hash_that_was_tampered_with_is_noticed(project: Path, tmp_path: Path) -> None:
    lock = project / "dvc.lock"
    stages = yaml.safe_load(lock.read_text())
    (metrics,) = (
        out for out in stages["stages"]["train_mlp"]["outs"] if out["path"] == "metrics/mlp.json"
    )
    metrics["md5"] = "0" * 32
    lock.write_text(yaml.safe_dump(stages))
    small_project.commit(project, "tampered")
    try:
        done = titles(project, "verify", "--stage", "train_mlp", "--keep", temporary=tmp_path)
    finally:
        small_project.run(project, "git", "reset", "-q", "--hard", "HEAD~1")
    assert done.returncode == 1
    assert re.search(r"^train_mlp +metrics/mlp.json +0000000 +\w{7} +DIFFERENT$", done.stdout, re.M)
    assert re.search(r"^train_mlp +models/mlp +(\w{7}) +\1 +same$", done.stdout, re.M)
    assert "Running stage 'train_cnn'" not in done.stdout
    assert "1 of 3 outputs" in done.stderr
    assert "Another version of torch, numpy or gensim rounds differently" in done.stderr
    (kept,) = tmp_path.glob("titles-verify-*")
    assert (kept / "project/models/mlp/weights.safetensors").is_file()


@pytest.mark.endures
def test_an_interrupt_of_verify_leaves_no_folder(project: Path, tmp_path: Path) -> None:
    with (tmp_path / "told").open("w") as told:
        command = subprocess.Popen(
            [*TITLES, "verify"],
            cwd=project,
            env=small_project.environment() | {"TMPDIR": str(tmp_path)},
            stdout=told,
            stderr=told,
        )
    until(lambda: "Running stage" in (tmp_path / "told").read_text())
    assert list(tmp_path.glob("titles-verify-*"))
    command.send_signal(signal.SIGINT)
    assert command.wait() == 130
    assert not list(tmp_path.glob("titles-verify-*"))


def test_what_is_unknown_is_told(project: Path) -> None:
    assert "named 'nope'" in titles(project, "verify", "nope").stderr
    done = titles(project, "verify", "--stage", "train_rnn")
    assert done.returncode == 1
    assert "train_rnn; it has prepare, embed" in done.stderr
