import json
import os
import subprocess
import sys
import time

import pytest

from killed import killed
from mlflow_server import closed_port, running
from networks import params
from titles.tracking import recording
from titles.tracking.curves import DvcliveTracker
from titles.tracking.mlflow import concealed
from titles.tracking.tracker import Tracker

EPOCHS = [
    {"train/loss": 2.5, "validation/balanced_accuracy": 0.25},
    {"train/loss": 1.5, "validation/balanced_accuracy": 0.75},
    {"train/loss": 0.5, "validation/balanced_accuracy": 0.5},
]
SUMMARY = {"best_epoch": 2, "validation_balanced_accuracy": 0.75}
LOCK = """\
schema: '2.0'
stages:
  prepare:
    cmd: prepare
    deps:
    - {path: listings.csv.gz, md5: '00'}
    - {path: src/titles/prepare/text.py, md5: '99'}
    outs:
    - {path: data/prepared, md5: 11.dir}
  embed:
    cmd: embed
    deps:
    - {path: src/titles/embed/vectors.py, md5: '98'}
    outs:
    - {path: data/embedded, md5: 22.dir}
  train_mlp:
    cmd: train
    outs:
    - {path: models/mlp, md5: 33.dir}
"""


def tracked(name, given, plots):
    return recording.tracked(name, given, plots, None, (), {})


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A project's folder of its own, and nothing of a DVC or MLflow outside."""
    for key in list(os.environ):
        if key.startswith(("DVC_", "MLFLOW_TRACKING")):
            monkeypatch.delenv(key)
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return project


CURVES = "plots/mlp.json"


def record(tracker):
    for step, metrics in enumerate(EPOCHS, start=1):
        tracker.log(metrics, step)
    tracker.finish(SUMMARY)


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def curve(folder, metric="train_loss", file="plots/mlp.json"):
    return [(one["epoch"], one[metric]) for one in json.loads((folder / file).read_text())]


def test_dvclive_leaves_one_table_and_nothing_else(folder):
    tracker = DvcliveTracker(folder / CURVES)
    record(tracker)
    tracker.close(failed=False)
    assert files(folder) == {CURVES}
    assert curve(folder, "validation_balanced_accuracy") == [(1, 0.25), (2, 0.75), (3, 0.5)]


def test_a_second_training_replaces_the_curves_of_the_first(folder):
    for last in (3, 1):
        tracker = DvcliveTracker(folder / CURVES)
        for step in range(1, last + 1):
            tracker.log({"train/loss": last + 0.5}, step)
        tracker.close(failed=False)
    assert curve(folder) == [(1, 1.5)]


def test_curves_are_whole_at_any_moment(folder):
    tracker = DvcliveTracker(folder / CURVES)
    for step, metrics in enumerate(EPOCHS, start=1):
        tracker.log(metrics, step)
        assert len(curve(folder)) == step
    tracker.close(failed=True)
    # What a killed training leaves beside them goes when the next one starts.
    assert killed(folder / CURVES).exists()
    DvcliveTracker(folder / CURVES).close(failed=False)
    assert [path.name for path in (folder / "plots").iterdir()] == ["mlp.json"]


def test_a_repository_without_a_commit_is_told_before_the_training(folder):
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    with (
        pytest.raises(ValueError, match=r"no commit .*: `git add \. && git commit` first"),
        tracked("mlp", params(), folder / CURVES),
    ):
        raise AssertionError("it trains")


def test_the_plain_tracker_records_nothing(folder):
    record(Tracker())
    assert files(folder) == set()


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("http://me:pass%21word@host:5000", "at http://***@host:5000: *** refused, ***"),
        ("postgresql://me:p@ss/word@host/db", "at postgresql://***@host/db: *** refused, p"),
        ("http://host:5000", "at http://host:5000: pass%21word refused, pass!word"),
        ("", "at : pass%21word refused, pass!word"),
    ],
)
def test_credentials_are_concealed_however_they_are_written(monkeypatch, uri, told):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    text = "pass%21word refused, pass!word" if "p@ss" not in uri else "p@ss/word refused, p"
    assert concealed(f"at {uri}: {text}") == told


def test_a_password_or_token_of_its_own_is_concealed_too(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hush")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "still")
    assert concealed("hush, be still") == "***, be ***"


def test_a_run_keeps_no_credentials_of_addresses(folder, monkeypatch, capsys):
    hidden = "https://ana:hush-this@host/rows.csv"
    subprocess.run(["git", "init", "-q"], check=True)
    someone = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run(["git", *someone, "commit", "-q", "--allow-empty", "-m", "start"], check=True)
    subprocess.run(["git", "remote", "add", "origin", hidden], check=True)
    (folder / "dvc.lock").write_text(LOCK.replace("listings.csv.gz", f"'{hidden}'"))
    monkeypatch.setenv("DVC_STAGE", "train_mlp")
    given = params()
    given = given.model_copy(update={"prepare": given.prepare.model_copy(update={"source": hidden})})
    with tracked("mlp", given, folder / "plots") as tracker:
        record(tracker)
    assert "hush-this" not in "".join(capsys.readouterr())
    _, _, run = run_of(f"sqlite:///{folder}/mlflow.db")
    assert run.data.params["prepare.source"] == "https://host/rows.csv"
    assert run.data.tags["data.https://host/rows.csv"] == "00"
    written = b"".join(
        path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("dvc.lock", "config")
    )
    assert b"https://host/rows.csv" in written
    assert b"hush-this" not in written


def test_without_mlflow_curves_alone_are_written(folder, monkeypatch):
    monkeypatch.setenv("TITLES_MLFLOW", "off")
    with tracked("mlp", params(), folder / CURVES) as tracker:
        record(tracker)
    assert files(folder) == {CURVES}


def test_a_choice_about_mlflow_that_is_unknown_is_refused(folder, monkeypatch):
    monkeypatch.setenv("TITLES_MLFLOW", "no")
    with (
        pytest.raises(ValueError, match="TITLES_MLFLOW is 'no', expected on or off"),
        tracked("mlp", params(), folder / CURVES),
    ):
        raise AssertionError("it trains")


@pytest.mark.pipeline
def test_no_tracker_is_loaded_before_it_records():
    code = "import sys; from titles.stages import train_cnn, train_mlp, evaluate;"
    code += "print({'mlflow', 'dvclive', 'dvc'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def run_of(uri):
    """The only run of a store, waited for by nobody: it is there or it is not."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("titles")
    (run,) = client.search_runs([experiment.experiment_id])
    return client, experiment, run


def assert_all_is_recorded(uri, status):
    client, experiment, run = run_of(uri)
    assert run.info.status == status
    given = params()
    expected = {"seed": "3", "compute.device": "cpu", "mlp.hidden_layers": "[13, 14]"}
    expected |= {"cnn.freeze_embeddings": "False", "prepare.min_rows": str(given.prepare.min_rows)}
    assert run.data.params.items() >= expected.items()
    sections = given.model_dump().values()
    count = sum(len(section) if isinstance(section, dict) else 1 for section in sections)
    assert len(run.data.params) == count
    for metric in EPOCHS[0]:
        history = sorted(client.get_metric_history(run.info.run_id, metric), key=lambda m: m.step)
        assert [(m.step, m.value) for m in history] == [
            (step, metrics[metric]) for step, metrics in enumerate(EPOCHS, start=1)
        ]
    if status == "FINISHED":
        for key, value in SUMMARY.items():
            assert run.data.metrics[f"best/{key}"] == value
    return experiment, run


@pytest.mark.pipeline
def test_without_a_server_training_goes_on_with_one_warning_and_within_seconds(
    folder, monkeypatch, capfd
):
    import mlflow  # noqa: F401, its import is not what is measured

    with closed_port() as port:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:pass%21word@127.0.0.1:{port}")
        started = time.monotonic()
        with tracked("mlp", params(), folder / CURVES) as tracker:
            record(tracker)
        assert time.monotonic() - started < 20
    lines = [line for line in capfd.readouterr().err.splitlines() if "warning" in line.lower()]
    assert len(lines) == 1
    assert lines[0].startswith("warning: MLflow does not record this training: ")
    assert "word" not in lines[0]
    assert len(curve(folder)) == 3


@pytest.mark.pipeline
def test_a_training_says_that_its_experiment_was_deleted_in_mlflow(folder, monkeypatch, capfd):
    from mlflow import MlflowClient

    uri = f"sqlite:///{folder}/other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = MlflowClient(uri)
    number = client.create_experiment("titles")
    client.delete_experiment(number)
    with tracked("mlp", params(), folder / CURVES) as tracker:
        record(tracker)
    told = capfd.readouterr().err
    assert (
        "warning: MLflow does not record this training: MLflow's experiment 'titles' was deleted" in told
    )
    assert f"`mlflow experiments restore --experiment-id {number}`" in told
    assert len(curve(folder)) == 3


@pytest.mark.pipeline
@pytest.mark.parametrize("failure", [None, KeyboardInterrupt])
def test_the_local_store_holds_one_run_with_all_that_leads_back_to_it(
    folder, monkeypatch, tmp_path, failure
):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@localhost")
        found = subprocess.run(
            ["git", *identity, *arguments], check=True, capture_output=True, text=True
        )
        return found.stdout.strip()

    git("init", "-q")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    (folder / "dvc.lock").write_text(LOCK)
    git("add", ".")
    git("commit", "-q", "-m", "a project")
    root = tmp_path / "parent"
    root.mkdir()
    before = {path for path in files(folder) if not path.startswith((".git/", ".dvc/"))}
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.setenv("DVC_STAGE", "train_mlp")
    monkeypatch.setenv("DVC_EXP_NAME", "brave-title")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "0123abc")

    def train():
        with tracked("mlp", params(), folder / CURVES) as tracker:
            record(tracker)
            if failure:
                raise failure

    if failure:
        with pytest.raises(failure):
            train()
    else:
        train()

    # The parent repository has the store, not the folder that a temporary run leaves behind.
    uri = f"sqlite:///{root}/mlflow.db"
    experiment, run = assert_all_is_recorded(uri, "FAILED" if failure else "FINISHED")
    assert experiment.artifact_location == f"{root.as_uri()}/mlruns"
    assert run.info.run_name == "brave-title mlp"
    tags = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
    assert tags == {
        "model": "mlp",
        "source": "live",
        "git.revision": git("rev-parse", "HEAD"),
        "dvc.stage": "train_mlp",
        "dvc.experiment": "brave-title",
        "dvc.baseline": "0123abc",
        "data.listings.csv.gz": "00",
        "data.data/prepared": "11.dir",
        "data.data/embedded": "22.dir",
    }
    made = {path for path in files(folder) if not path.startswith((".git/", ".dvc/"))} - before
    assert made == {CURVES}
    assert git("for-each-ref", "refs/exps") == ""


@pytest.mark.pipeline
def test_runs_share_the_store_and_may_lack_git_and_dvc(folder):
    from mlflow import MlflowClient

    for name in ("cnn", "mlp"):
        with tracked(name, params(), folder / "plots" / f"{name}.json") as tracker:
            record(tracker)
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("titles")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name for run in runs} == {"workspace cnn", "workspace mlp"}
    assert all("dvc.stage" not in run.data.tags for run in runs)


@pytest.fixture
def server(tmp_path):
    with running(tmp_path, "--default-artifact-root", (tmp_path / "artifacts").as_uri()) as served:
        yield served


@pytest.mark.pipeline
def test_a_server_receives_the_run_and_its_end_midway_ends_only_the_recording(
    folder, monkeypatch, server, capfd
):
    address, stop = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace("//", "//me:hush@"))
    with tracked("mlp", params(), folder / CURVES) as tracker:
        record(tracker)
    assert_all_is_recorded(address, "FINISHED")
    told = capfd.readouterr()
    assert "warning" not in told.err
    assert "hush" not in told.out + told.err
    assert not (folder / "mlflow.db").exists()

    started = time.monotonic()
    with tracked("mlp", params(), folder / CURVES) as tracker:
        tracker.log(EPOCHS[0], 1)
        stop()
        tracker.log(EPOCHS[1], 2)
        tracker.log(EPOCHS[2], 3)
    assert time.monotonic() - started < 40
    assert capfd.readouterr().err.count("warning: MLflow does not record") == 1
    assert len(curve(folder)) == 3
