"""The project as it stands, small enough to run in seconds, in a git and DVC repository of its own.

One is run for all tests, the fixture `base` of conftest.py; who needs one takes a copy.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from titles.datasets.sample import write_csv

ROOT = Path(__file__).parent.parent
STAGES = ["prepare", "embed", "train_cnn", "train_mlp", "evaluate"]
ROWS = 3_000
# Every kind of layer and split is still there.
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


# Of whoever runs the tests: what changes what the project does, and what makes Python start slowly.
_NOT_PASSED_ON = ("DVC", "MLFLOW", "GIT_", "TITLES", "PYTHONDONTWRITEBYTECODE")


def environment(*, mlflow: bool = False) -> dict[str, str]:
    """That of a shell where the virtual environment is active and nothing else is set up.

    Args:
        mlflow: whether trainings are recorded there, which takes seconds each.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_PASSED_ON)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {
        "PATH": path,
        "DVC_NO_ANALYTICS": "1",
        "TITLES_LANG": "en",
        "TITLES_MLFLOW": "on" if mlflow else "off",
        "GIT_AUTHOR_NAME": "t",
        "GIT_AUTHOR_EMAIL": "t@example.com",
        "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@example.com",
    }


def run(folder: Path, *command: str, fails: bool = False, mlflow: bool = False, **variables: str) -> str:
    """Run a command to its end; its output. It must fail if `fails`, and must not otherwise.

    Args:
        variables: of the environment, beside those of `environment`.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(mlflow=mlflow) | variables,
        stdin=subprocess.DEVNULL,  # where a question would wait for ever
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert (done.returncode != 0) == fails, output
    return output


def commit(folder: Path, message: str) -> None:
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-q", "-m", message)


def put(path: Path, data: bytes) -> None:
    """Change a file as a disk does: it keeps inode, time and mode."""
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def outs(folder: Path, stage: str) -> dict[str, str]:
    """The hash of each output of a stage, as dvc.lock has it."""
    lock: dict[str, Any] = yaml.safe_load((folder / "dvc.lock").read_text())
    return {out["path"]: out["md5"] for out in lock["stages"][stage]["outs"]}


def ran(output: str) -> list[str]:
    """The stages that DVC says it ran."""
    return [stage for stage in STAGES if f"Running stage '{stage}'" in output]


def write_project(folder: Path, rows: int, **changes: object) -> None:
    """Commit the project with a small catalogue and quick parameters, without results.

    Args:
        changes: values of parameters, in all sections that have them.
    """
    tracked = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("remote/", "data/raw/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    params = (folder / "params.yaml").read_text()
    for key, value in (QUICK | changes).items():
        # The form in which DVC writes values back.
        one, items = ("", value) if isinstance(value, list) else (f" {value}", [])
        text = rf"\1{one}\2\n" + "".join(f"  - {item}\n" for item in items)
        params = re.sub(rf"^(  {key}:)(?: [^\s#]+)?( *#.*)?\n(?:  - .*\n)*", text, params, flags=re.M)
    (folder / "params.yaml").write_text(params)
    (folder / "dvc.lock").unlink(missing_ok=True)
    shutil.rmtree(folder / "metrics", ignore_errors=True)
    shutil.rmtree(folder / "plots", ignore_errors=True)
    (folder / "data/raw").mkdir(parents=True)
    write_csv(rows, 7, folder / "data/raw/sample.csv.gz", progress=False)
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "dvc", "add", "-q", "data/raw/sample.csv.gz")
    commit(folder, "project")


def experiment(folder: Path, name: str, *settings: str, mlflow: bool = False, **variables: str) -> str:
    """Output of an experiment; the workspace is as committed afterwards."""
    chosen = [word for setting in settings for word in ("-S", setting)]
    told = run(folder, "dvc", "exp", "run", "--name", name, *chosen, mlflow=mlflow, **variables)
    run(folder, "git", "reset", "-q", "--hard")
    run(folder, "dvc", "checkout", "-q")
    return told


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills, whoever asks first.

    Processes that ask at the same time wait for it. What one that died has left does not count, and what
    its children may still write meets nothing of the next one's.

    Args:
        folder: its place; the name gets something added.
    """
    done = folder.with_name(f"{folder.name}.done")
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not done.exists():
            place = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
            make(place)
            done.write_text(place.name)
    return folder.with_name(done.read_text())


def make_base(folder: Path) -> None:
    """The project, run, pushed to its own remote and committed, with the experiments "narrow", of a CNN
    with fewer filters, and "slow", of an MLP that learns slower. MLflow has recorded all trainings. What
    the commands printed is in .git/told/<name>.
    """
    write_project(folder, ROWS, threads=1)  # where a core is busy, two wait for each other
    told = {"main": run(folder, "dvc", "repro", mlflow=True)}
    run(folder, "dvc", "push", "-q")
    commit(folder, "run")
    for name, setting in (("narrow", "cnn.filter_count=5"), ("slow", "mlp.learning_rate=1e-3")):
        told[name] = experiment(folder, name, setting, mlflow=True)
    (folder / ".git/told").mkdir()
    for name, text in told.items():
        (folder / ".git/told" / name).write_text(text)


def copy(base: Path, folder: Path) -> Path:
    """The project that `make_base` made, in a folder that does not exist yet, as if made there."""
    shutil.copytree(
        base, folder, symlinks=True, ignore=lambda place, _: ["tmp"] if place.endswith(".dvc") else []
    )
    (folder / ".dvc/tmp").mkdir()
    with closing(sqlite3.connect(folder / "mlflow.db")) as store, store:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            store.execute(
                f"update {table} set {column} = replace({column}, ?, ?)",
                (base.as_uri(), folder.as_uri()),
            )
    return folder
