"""The doctor, tested on projects, servers and stores that are really broken."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from alembic.script import ScriptDirectory
from mlflow import MlflowClient

from killed import killed
from mlflow_server import closed_port
from servers import serve_http, serve_ssh
from small_project import commit, environment, run
from titles import cli, doctor
from titles.data import processor
from titles.doctor import probes

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).parent.parent
SECRET = "hush-this"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of one stage that has run, was pushed to its own remote, and committed."""
    folder = tmp_path_factory.mktemp("made") / "project"
    (folder / "remote").mkdir(parents=True)
    (folder / "remote/.keep").touch()
    locks = ROOT.glob("requirements*")
    for name in ("params.yaml", "pyproject.toml", ".gitattributes", *(path.name for path in locks)):
        shutil.copy(ROOT / name, folder / name)
    change(folder / "params.yaml", "device: auto", "device: cpu")
    change(folder / "params.yaml", "threads: 2", "threads: 1")
    stages = "stages:\n  copy:\n    cmd: cp given made\n    deps: [given]\n    outs: [made]\n"
    (folder / "dvc.yaml").write_text(stages)
    (folder / "given").write_text("content")
    (folder / "src").symlink_to(ROOT / "src")  # the code that runs is the folder's
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "dvc", "init", "-q")
    run(folder, "dvc", "remote", "add", "-q", "--default", "store", "remote")
    run(folder, "dvc", "remote", "modify", "store", "verify", "true")
    run(folder, "dvc", "repro", "-q")
    run(folder, "dvc", "push", "-q")
    commit(folder, "project")
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "project", symlinks=True))


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def examine(folder: Path, python: str = sys.executable, **variables: str) -> dict[str, Any]:
    """The findings of `titles doctor --json` in a folder: a list by check."""
    start = time.monotonic()
    done = subprocess.run(
        [python, "-m", "titles.cli", "doctor", "--json"],
        cwd=folder,
        env=environment() | {"PYTHONPATH": str(ROOT / "src")} | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    told = json.loads(done.stdout)
    levels = [finding["level"] for finding in told["checks"]]
    assert told["problems"] == levels.count("problem")
    assert told["warnings"] == levels.count("warning")
    assert done.returncode == (1 if told["problems"] else 0)
    assert SECRET not in done.stdout + done.stderr
    found: dict[str, Any] = {"seconds": time.monotonic() - start}
    for finding in told["checks"]:
        assert finding["do"] or finding["level"] == "ok", finding
        assert "\n" not in finding["found"] + finding["do"]
        found.setdefault(finding["check"], []).append(finding)
    return found


def told(found: dict[str, Any], check: str, level: str) -> str:
    """The only finding of a check, which must have that level: what was found, and what to do."""
    (finding,) = found[check]
    assert finding["level"] == level, finding
    return f"{finding['found']} -> {finding['do']}"


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
        and not path.relative_to(folder).as_posix().startswith((".dvc/tmp", ".git/index"))
    }


def test_a_healthy_project_is_called_so_and_nothing_in_it_changes(project: Path) -> None:
    before = content(project)
    found = examine(project)
    assert content(project) == before
    assert run(project, "git", "status", "--porcelain") == ""
    assert {one["level"] for name, all in found.items() if name != "seconds" for one in all} <= {
        "ok",
        *({"warning"} if found["lock"][0]["level"] == "warning" else set()),
    }
    expected = "python packages lock encoding git identity project params threads leftovers dvc remote"
    expected += " data workspace bytes disk mlflow\u00a0store"
    assert {name.replace("\u00a0", " ") for name in expected.split(" ")} <= set(found)
    assert "and in store" in told(found, "data", "ok")


def test_every_fault_of_a_project_has_its_own_finding(project: Path) -> None:
    change(project / "pyproject.toml", ">=3.11,<3.14", ">=3.99")
    change(project / "pyproject.toml", '"numpy>=2.4"', '"numpy>=999", "titles-needs-this-one>=1"')
    change(project / "requirements.lock", "\ntqdm==", "\ntqdm==0.")
    change(project / "params.yaml", "threads: 1", "threads: 999")
    (project / ".gitattributes").write_text("")
    run(project, "git", "config", "core.autocrlf", "true")
    run(project, "dvc", "remote", "modify", "store", "verify", "false")
    change(project / "dvc.lock", "size: 7", "size: 10000000000000000")
    (project / "models").mkdir()
    left = [killed(project / "report.html"), killed(project / "models/cnn")]
    (project / ".a.0123456789abcdef.old.partial").mkdir()
    for name in ("of_the_user.partial", "models/mlp.last_good/b"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    (project / "data/raw").mkdir(parents=True)
    (project / "data/raw/a.gz.part").touch()
    (project / ".dvc/tmp/exps/tmpabc").mkdir(parents=True)
    (project / "DVC.YAML").symlink_to("dvc.yaml")
    (project / "given").write_text("other")
    nobody = {"GIT_AUTHOR_NAME": "", "GIT_AUTHOR_EMAIL": "", "HOME": str(project / "nowhere")}
    found = examine(project, XDG_CONFIG_HOME=str(project / "nowhere"), **nobody)

    assert "expected >=3.99" in told(found, "python", "problem")
    missing, unfit = found["packages"]
    assert (missing["level"], missing["found"]) == ("problem", "not installed: titles-needs-this-one")
    assert (unfit["level"], unfit["found"][:30]) == ("problem", "unsupported versions: numpy 2.4."[:30])
    assert "tqdm" in told(found, "lock", "warning")
    assert "999" in told(found, "threads", "warning")
    assert "core.autocrlf is true" in told(found, "line endings", "problem")
    assert "dvc remote modify --local store verify true" in told(found, "verify", "warning")
    assert "copy" in told(found, "workspace", "warning")
    assert "20.0PB" in told(found, "disk", "problem")
    assert "user.name" in told(found, "identity", "warning")
    assert "same here" in told(found, "file names", "ok")
    leftovers = " ".join(f"{one['found']} {one['do']}" for one in found["leftovers"])
    assert {one["level"] for one in found["leftovers"]} == {"warning"}
    for command in (
        "rm -r " + shlex.join(sorted(str(place.relative_to(project)) for place in left)),
        "rm -r .a.0123456789abcdef.old.partial",
        "rm -r data/raw/a.gz.part",
        "rm -r models/mlp.last_good",
        "rm -r .dvc/tmp/exps/tmpabc",
    ):
        assert command in leftovers
    assert "of_the_user" not in leftovers


def test_wrong_parameters_are_all_named(project: Path) -> None:
    change(project / "params.yaml", "device: cpu", "devise: cpu")
    change(project / "params.yaml", "seed: 2019", "seed: -1")
    found = examine(project)
    assert "did you mean device?" in told(found, "params", "problem")
    assert "seed" in told(found, "params", "problem")
    assert "threads" not in found


def test_the_processor_is_told_with_its_limits(project: Path) -> None:
    expected = "same bytes on every x86-64 with AVX2" if processor.portable() else "which this is not"
    (one,) = examine(project)["processor"]
    assert expected in one["found"]
    change(project / "params.yaml", "portable: true", "portable: false")
    assert "bytes are those of" in told(examine(project), "processor", "ok")


@pytest.mark.skipif(not processor.portable(), reason="NOT RUN: needs x86-64 with AVX2")
def test_settings_of_the_user_and_emulated_products_are_found(project: Path) -> None:
    params = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(params.replace("precision: float32", "precision: bfloat16", 1))
    found = examine(project, ONEDNN_MAX_CPU_ISA="AVX512_CORE")
    assert "ONEDNN_MAX_CPU_ISA=AVX512_CORE is set" in told(found, "processor", "problem")
    assert "emulated with compute.portable" in told(found, "precision", "warning")


@pytest.mark.endures
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_asked_for_and_absent_is_a_problem(project: Path) -> None:
    change(project / "params.yaml", "device: cpu", "device: cuda")
    assert "compute.device=auto" in told(examine(project), "device", "problem")
    change(project / "params.yaml", "device: cuda", "device: auto")
    assert "the CPU" in told(examine(project), "device", "ok")


def test_without_git_the_rest_is_still_looked_at(project: Path) -> None:
    found = examine(project, PATH="/nonexistent")
    assert "git cannot be run: No such file" in told(found, "git", "problem")
    assert "params.yaml is valid" in told(found, "params", "ok")
    assert "remote" in found


def test_a_folder_without_history_or_dvc_is_told_to_be(project: Path) -> None:
    shutil.rmtree(project / ".dvc")
    shutil.rmtree(project / ".git")
    found = examine(project)
    assert "git clone" in told(found, "git", "problem")
    assert "dvc init" in told(found, "dvc", "problem")
    run(project, "git", "init", "-q")
    assert "no commit" in told(examine(project), "git", "problem")


def test_a_configuration_that_dvc_does_not_read_is_a_problem(project: Path) -> None:
    (project / ".dvc/config").write_text("[core\n")
    assert "dvc config --list" in told(examine(project), "dvc", "problem")


def test_a_page_of_plots_that_is_missing_is_a_problem(project: Path) -> None:
    run(project, "dvc", "config", "--local", "plots.html_template", "plots/page.html")
    assert "make install" in told(examine(project), "plots", "problem")
    (project / ".dvc/plots").mkdir(exist_ok=True)
    (project / ".dvc/plots/page.html").write_text("{plot_divs}")
    assert "plots" not in examine(project)


def test_data_is_looked_for_in_cache_and_remote(project: Path) -> None:
    (object_,) = (path for path in (project / "remote").rglob("*") if len(path.name) == 30)
    object_.unlink()
    assert "here, but not in store: made" in told(examine(project), "data", "ok")
    shutil.rmtree(project / ".dvc/cache")
    assert "neither here nor in store: made" in told(examine(project), "data", "problem")


def test_data_in_the_remote_alone_wants_a_pull(project: Path) -> None:
    shutil.rmtree(project / ".dvc/cache")
    (project / "made").unlink()
    found = examine(project)
    assert told(found, "data", "warning") == "only in store: made -> `dvc pull`"
    assert "copy" in told(found, "workspace", "warning")


def test_without_a_lock_nothing_has_run(project: Path) -> None:
    (project / "dvc.lock").unlink()
    assert "dvc exp run" in told(examine(project), "workspace", "warning")


def test_a_folder_that_is_gone_is_no_remote(project: Path) -> None:
    shutil.rmtree(project / "remote")
    found = examine(project)
    assert "No such file or directory" in told(found, "remote", "problem")
    assert told(found, "data", "ok").startswith("all data is in the cache ->")


def test_no_default_remote_and_one_that_does_not_exist_are_told_apart(project: Path) -> None:
    run(project, "dvc", "config", "core.remote", "mine")
    assert "'mine' has no address" in told(examine(project), "remote", "problem")
    run(project, "dvc", "config", "--unset", "core.remote")
    assert "no default remote" in told(examine(project), "remote", "warning")


def use(project: Path, url: str) -> None:
    run(project, "dvc", "remote", "add", "-q", "-f", "--local", "--default", "mine", url)


@pytest.fixture
def silent() -> Iterator[int]:
    """A local port that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    "kind", ["http", *(pytest.param(kind, marks=pytest.mark.endures) for kind in ("webdav", "ssh"))]
)
def test_servers_that_are_gone_or_silent_are_found_in_seconds(
    project: Path, silent: int, kind: str
) -> None:
    use(project, f"{kind}://ana:{SECRET}@127.0.0.1:{silent}/titles?token={SECRET}")
    mlflow = f"http://ana:{SECRET}@127.0.0.1:{silent}"
    found = examine(project, MLFLOW_TRACKING_URI=mlflow, MLFLOW_TRACKING_PASSWORD=SECRET)
    expected = f"mine, {kind}://127.0.0.1:{silent}/titles: no answer within 5 s"
    assert expected in told(found, "remote", "problem")
    assert f"http://127.0.0.1:{silent}: no answer" in told(found, "mlflow server", "problem")
    assert "not in" not in told(found, "data", "ok")
    assert found["seconds"] < 60

    with closed_port() as port:
        use(project, f"{kind}://127.0.0.1:{port}/titles")
        found = examine(project, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}")
    assert "Connection refused" in told(found, "remote", "problem")
    assert "Connection refused" in told(found, "mlflow server", "problem")


def test_servers_that_answer_are_reached_and_asked_for_the_data(project: Path, tmp_path: Path) -> None:
    with serve_http(project / "remote") as url:
        use(project, url)
        found = examine(project, MLFLOW_TRACKING_URI=url)
        assert "answers 200" in told(found, "remote", "ok")
        assert "verify" in found  # the new remote has none
        assert told(found, "data", "ok").startswith("all data is in the cache and in mine")
        # Some web server is no MLflow.
        assert "answers 404" in told(found, "mlflow server", "warning")
    with serve_ssh(tmp_path) as url:
        use(project, url)
        assert "answers" in told(examine(project), "remote", "ok")


def test_a_program_that_never_ends_is_given_up(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/git").write_text("#!/bin/sh\nsleep 600 &\nsleep 600\n")
    (tmp_path / "bin/git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setitem(probes.TIMEOUTS, "git", 0.3)
    monkeypatch.chdir(tmp_path)
    start = time.monotonic()
    finding = next(one for one in doctor.examine() if one.check == "git")
    assert (finding.level, finding.found) == (
        "problem",
        "git cannot be run: it did not end within 0.3 s",
    )
    assert time.monotonic() - start < 10


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.mark.endures
def test_a_store_of_mlflow_must_have_the_schema_of_the_installed_one(project: Path, store: Path) -> None:
    shutil.copy(store, project / "mlflow.db")
    assert "fits MLflow" in told(examine(project), "mlflow store", "ok")
    where = find_spec("mlflow")
    assert where is not None
    assert where.submodule_search_locations is not None
    scripts = ScriptDirectory(f"{where.submodule_search_locations[0]}/store/db_migrations")
    older = [script.revision for script in scripts.walk_revisions()][1]
    for revision, expected in (
        (older, "is of an older version"),  # what to do: test_local_store.py
        ("ffffffffffff", "newer version"),
    ):
        with closing(sqlite3.connect(project / "mlflow.db")) as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", [revision])
            connection.commit()
        before = (project / "mlflow.db").read_bytes()
        assert expected in told(examine(project), "mlflow store", "problem")
        assert (project / "mlflow.db").read_bytes() == before
    (project / "mlflow.db").write_text("no database")
    assert "no whole store of MLflow" in told(examine(project), "mlflow store", "problem")


@pytest.mark.parametrize("uri", ["mlruns", "file:///srv/mlruns"])
def test_a_store_that_mlflow_no_longer_takes_is_told(tmp_path: Path, uri: str) -> None:
    assert "no longer supports" in told(
        examine(tmp_path, MLFLOW_TRACKING_URI=uri), "mlflow server", "problem"
    )


def test_locks_are_told_apart_into_damaged_held_and_let_go(project: Path) -> None:
    lock = project / ".dvc/tmp/rwlock"
    holder = {"write": {str(project / "made"): {"pid": os.getpid(), "cmd": "dvc repro"}}, "read": {}}
    left = killed(project / "a")
    lock.write_text(json.dumps(holder))
    assert f"DVC is running (process {os.getpid()})" in told(examine(project), "leftovers", "ok")
    ended = subprocess.Popen(["true"])
    ended.wait()
    holder["write"][str(project / "made")]["pid"] = ended.pid
    lock.write_text(json.dumps(holder))
    assert left.name in told(examine(project), "leftovers", "warning")
    lock.write_text("")
    shutil.rmtree(left)
    damaged, *_ = examine(project)["leftovers"]
    assert damaged["level"] == "problem"
    assert damaged["do"].endswith("`rm .dvc/tmp/rwlock`")


def test_a_project_that_dvc_has_locked_is_told_and_not_waited_for(project: Path) -> None:
    with (project / ".dvc/tmp/lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        found = examine(project)
    assert "lock" in told(found, "workspace", "problem")
    assert found["seconds"] < 60


def test_text_must_be_utf8(project: Path) -> None:
    found = examine(project, LC_ALL="POSIX", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert "output: " in told(found, "encoding", "problem")
    assert "PYTHONUTF8=1" in told(found, "encoding", "problem")


def test_outside_of_a_project_and_below_one_it_says_so(project: Path, tmp_path: Path) -> None:
    found = examine(tmp_path)
    assert "outside of a project" in told(found, "project", "warning")
    assert {"python", "packages", "git"} < set(found)
    assert "dvc" not in found
    (project / "notes").mkdir()
    found = examine(project / "notes")
    assert f"cd {project}" in told(found, "project", "warning")
    assert "dvc" in found


def test_code_of_another_folder_is_told(project: Path) -> None:
    (project / "src").unlink()
    assert "stages run the code in" in told(examine(project), "project", "warning")


def test_it_works_where_no_package_is_installed(project: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    found = examine(project, str(tmp_path / "bare/bin/python"))
    assert told(found, "packages", "problem") == (
        "cannot be checked: packaging is not installed -> `make install`"
    )
    assert "git" in found
    assert "No module named dvc" in told(found, "dvc", "problem")


def test_it_prints_lines_in_colour_for_those_who_want_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor"])
    out = capsys.readouterr().out
    assert caught.value.code == 1
    assert "problem  git           git cannot be run: No such file or directory\n" in out
    assert "                       -> install git" in out
    assert out.splitlines()[-1].startswith("problems: 1, warnings: ")
    assert "\x1b" not in out
    monkeypatch.setenv("FORCE_COLOR", "1")
    with pytest.raises(SystemExit):
        cli.main(["doctor"])
    assert "\x1b[1;31mproblem" in capsys.readouterr().out


def test_what_files_are_called_cannot_write_to_the_terminal(project: Path) -> None:
    killed(project / "a\x1b[2J\nb")
    assert "a?[2J b." in told(examine(project), "leftovers", "warning")
