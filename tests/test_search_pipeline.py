"""`titles search` with real DVC on a small project: killed, interrupted, resumed, confirmed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import psutil
import pytest
import yaml
from optuna.trial import TrialState

import small_project
from titles.experiments.search.task import reference

pytestmark = pytest.mark.pipeline

TITLES = [sys.executable, "-m", "titles.cli"]
# A learning rate that diverges is one of the choices: the project's own code allows it.
SPACE = """
network: mlp
early_stopping: none
space:
  mlp.learning_rate: {choices: [4e-3, 1e+30, 0.02]}
  mlp.dropout: {low: 0.0, high: 0.75}
"""


@pytest.fixture(scope="module")
def project(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = small_project.copy(base, tmp_path_factory.mktemp("search") / "project")
    (folder / "space.yaml").write_text(SPACE)
    schema = folder / "src/titles/params.py"
    text = schema.read_text(encoding="utf-8")
    bound = "learning_rate: Annotated[Number, Field(gt=0, le=1000)]"
    assert bound in text
    schema.write_text(text.replace(bound, bound.replace("1000", "1e30")), encoding="utf-8")
    small_project.commit(folder, "space")
    return folder


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TITLES, "search", "space.yaml", "--name", "s", *arguments],
        cwd=folder,
        env=small_project.environment() | {"PYTHONPATH": str(folder / "src")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    told, _ = process.communicate()
    return process.returncode, told


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)


def below(folder: Path) -> list[psutil.Process]:
    """Processes that run in temporary folders of searches."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder / ".dvc/tmp/search"):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="s", storage=f"sqlite:///{folder}/search/s.db").trials


def names(folder: Path) -> list[str]:
    commit = small_project.run(folder, "git", "rev-parse", "HEAD").strip()
    place = reference(commit, "")
    told = small_project.run(folder, "git", "for-each-ref", "--format=%(refname)", place)
    return [name.removeprefix(place) for name in told.split()]


def assert_clean(folder: Path) -> None:
    """The repository is as committed, and nothing runs or is left in temporary folders."""
    assert small_project.run(folder, "git", "status", "--porcelain") == ""
    assert small_project.run(folder, "git", "symbolic-ref", "HEAD").strip() == "refs/heads/main"
    assert small_project.run(folder, "git", "stash", "list") == ""
    refs = small_project.run(folder, "git", "for-each-ref", "--format=%(refname)").split()
    assert [ref for ref in refs if not ref.startswith("refs/exps/")] == ["refs/heads/main"]
    assert below(folder) == []
    assert list((folder / ".dvc/tmp/search").glob("*/*/project")) == []


def test_a_search_that_is_killed_and_interrupted_goes_on_where_it_was(project: Path) -> None:
    wanted = ("--trials", "5", "--jobs", "2", "--confirm", "1", "--seeds", "3")
    place = project / ".dvc/tmp/search/s"

    killed = started(project, *wanted)
    wait_for((place / "s-1/epochs.jsonl").exists, killed)
    killed.kill()
    killed.communicate()
    before = {trial.number: trial.params for trial in trials(project)}
    assert small_project.run(project, "git", "status", "--porcelain") == ""

    interrupted = started(project, *wanted)
    wait_for(lambda: len(trials(project)) > 3, interrupted)
    interrupted.send_signal(signal.SIGINT)
    code, told = ended(interrupted)
    assert code == 130, told
    assert_clean(project)

    code, told = ended(started(project, *wanted))
    assert code == 0, told
    assert_clean(project)
    found = trials(project)
    assert [trial.number for trial in found] == [0, 1, 2, 3, 4]  # none twice, none lost
    assert {number: found[number].params for number in before} == before
    assert {trial.state for trial in found} == {TrialState.COMPLETE, TrialState.FAIL}

    # Complete trials are experiments with all their files; failed ones keep their reason and are none.
    made, locks = names(project), []
    for trial in found:
        if trial.state == TrialState.FAIL:
            assert "the loss is not finite" in trial.user_attrs["reason"]
            assert trial.params["mlp.learning_rate"] == 1e30
            assert f"s-{trial.number}" not in made
            log = (place / f"s-{trial.number}/log.txt").read_text()
            ran = re.findall(r"Running stage '(\w+)'", log)
            assert "train_mlp" in ran
            assert not {"prepare", "embed", "train_cnn"} & {*ran}
            continue
        ref = reference(
            small_project.run(project, "git", "rev-parse", "HEAD").strip(), f"s-{trial.number}"
        )
        files = small_project.run(project, "git", "ls-tree", "-r", "--name-only", ref).split()
        assert {"dvc.lock", "metrics/evaluate.json", "metrics/mlp.json", "plots/mlp.json"} <= {*files}
        metrics = json.loads(small_project.run(project, "git", "show", f"{ref}:metrics/mlp.json"))
        assert trial.values == [metrics["mlp"]["validation_balanced_accuracy"]]
        locks.append(
            yaml.safe_load(small_project.run(project, "git", "show", f"{ref}:dvc.lock"))["stages"]
        )
    # The stages that no parameter of the space concerns are shared.
    for stage in ("prepare", "embed", "train_cnn"):
        assert all(lock[stage] == locks[0][stage] for lock in locks)
    assert len({json.dumps(lock["train_mlp"]) for lock in locks}) == len(locks)
    shown = small_project.run(project, "dvc", "exp", "show", "--csv")
    assert all(f"s-{t.number}" in shown for t in found if t.state == TrialState.COMPLETE)

    # Nothing is to be done: the same command says the same again.
    again_code, again = ended(started(project, *wanted))
    assert again_code == 0, again
    assert "5 of 5 trials ended" in again
    assert names(project) == made
    verdict = re.compile(r"against params\.yaml: .*|no trial scored above params\.yaml.*")
    assert verdict.findall(again) == verdict.findall(told) != []
    page = (project / "search/s.html").read_text()
    assert "Trials</h2>" in page


def test_a_search_refuses_what_would_not_compare(project: Path) -> None:
    """Runs after the search above, or begins a study of its own; it trains nothing."""
    (project / "search").mkdir(exist_ok=True)
    params = project / "params.yaml"
    committed = params.read_text()
    try:
        params.write_text(committed.replace("leading_words: 2", "leading_words: 1"))
        code, told = ended(started(project, "--trials", "1"))
    finally:
        params.write_text(committed)
    assert (code, "params.yaml differ from the commit" in told) == (1, True), told
    (project / "space.yaml").write_text(SPACE.replace("mlp.dropout", "mlp.dropuot"))
    code, told = ended(started(project, "--trials", "1"))
    (project / "space.yaml").write_text(SPACE)
    assert (code, "did you mean mlp.dropout?" in told) == (1, True), told


def test_names_of_an_earlier_search_are_not_taken_for_this_ones(project: Path) -> None:
    commit = small_project.run(project, "git", "rev-parse", "HEAD").strip()
    small_project.run(project, "git", "update-ref", reference(commit, "other-3"), commit)
    code, told = ended(started(project, "--trials", "1", "--name", "other"))
    small_project.run(project, "git", "update-ref", "-d", reference(commit, "other-3"))
    assert code == 1, told
    assert "`dvc exp remove other-3`" in told
    assert not (project / "search/other.db").exists()


def test_a_training_that_is_told_to_stop_leaves_no_model_and_no_checkpoint(
    base: Path, tmp_path: Path
) -> None:
    folder = small_project.copy(base, tmp_path / "project")
    trial = tmp_path / "trial"
    trial.mkdir()
    (trial / "search.pid").write_text(str(os.getpid()))
    (trial / "answers.jsonl").write_text('{"stop": ""}\n{"stop": "it is below the median"}\n')
    before = (folder / "metrics/mlp.json").read_bytes()
    # With other parameters than those of the run, so that none of its bytes could be there by chance.
    params = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(params.replace("leading_words: 2", "leading_words: 1"))
    done = subprocess.run(
        [sys.executable, "-m", "titles.stages.train_mlp"],
        cwd=folder,
        env=small_project.environment() | {"TITLES_TRIAL": str(trial), "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    line = "error: stopped by the search after epoch 2 of mlp: it is below the median\n"
    assert done.stderr.endswith(line), done.stderr
    assert (folder / "metrics/mlp.json").read_bytes() == before
    assert not list((folder / ".titles/checkpoints").glob("mlp-*"))
    epochs = [json.loads(text) for text in (trial / "epochs.jsonl").read_text().splitlines()]
    assert [(epoch["network"], epoch["epoch"]) for epoch in epochs] == [("mlp", 1), ("mlp", 2)]
