"""The project as it stands, small enough to run in seconds, in a git and DVC repository of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from titles.sample import write_csv

ROOT = Path(__file__).parent.parent
STAGES = ["prepare", "embed", "train_cnn", "train_mlp", "evaluate"]
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


def environment() -> dict[str, str]:
    """That of a shell where the virtual environment is active and nothing else is set up."""
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


def run(folder: Path, *command: str, fails: bool = False) -> str:
    """Run a command to its end; its output. It must fail if `fails`, and must not otherwise."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,  # where a question would wait for ever
        capture_output=True,
        text=True,
        timeout=300,
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


def write_project(folder: Path, rows: int) -> None:
    """Commit the project with a small catalogue and quick parameters, without results."""
    tracked = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
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
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "dvc", "add", "-q", "data/raw/sample.csv.gz")
    commit(folder, "project")
