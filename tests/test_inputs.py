"""What counts as a change of a stage's inputs while it runs, and what happens then."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from titles.data import inputs
from titles.data.inputs import ChangedError

PIPELINE = """
vars:
  - places: {letters: letters.txt}
stages:
  clean:
    cmd: python -m titles.stages.prepare
    deps: [code, "${prepare.source}", "${places.letters}", linked, missing, https://example.com/x]
    params: [seed, prepare, nets.cnn.epochs, {more.yaml: [size], all.json: }]
    outs: [made, made.txt: {cache: false}]
    plots: [grown.json: {x: epoch}]
  other:
    cmd: python -m titles.stages.embed
    deps: [elsewhere]
    params: [embed]
"""
PARAMETERS = """
seed: 1
prepare: {source: raw.csv, shares: [0.1, 0.2]}
embed: {window: 5}
nets: {cnn: {epochs: 3, size: 4}}
"""
BIG = bytes(range(256)) * 40_000


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with inputs of every kind, of which the stage "clean" has noted its own."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    for name in ("DVC_STAGE", "LOCAL_RANK", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name in ("code/sub", "code/__pycache__", "elsewhere"):
        Path(name).mkdir(parents=True)
    for name in ("code/a.py", "code/sub/b.py", "code/__pycache__/a.pyc", "letters.txt", "elsewhere/x"):
        Path(name).write_text(name)
    Path("raw.csv").write_bytes(BIG)
    (tmp_path / "cache").write_bytes(BIG)
    Path("linked").symlink_to(tmp_path / "cache")
    Path("dvc.yaml").write_text(PIPELINE)
    Path("params.yaml").write_text(PARAMETERS)
    Path("more.yaml").write_text("size: 3\nweight: 4\n")
    Path("all.json").write_text('{"a": {"b": 1}}')
    inputs.note("titles.stages.prepare")
    yield
    inputs._noted = None


def replaced(path: str, old: str, new: str) -> Callable[[], object]:
    def change() -> None:
        text = Path(path).read_text()
        assert text.count(old) == 1
        Path(path).write_text(text.replace(old, new))

    return change


def in_place(path: str) -> Callable[[], object]:
    """A change that keeps size, inode and time of the content."""

    def change() -> None:
        before = Path(path).stat()
        with Path(path).open("r+b") as stream:
            stream.seek(7)
            stream.write(b"!")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param(lambda: Path("code/a.py").write_text("x"), "code/a.py", id="edited"),
        pytest.param(in_place("code/a.py"), "code/a.py", id="edited, time set back"),
        pytest.param(lambda: Path("code/c.py").touch(), "code/c.py (new)", id="added"),
        pytest.param(lambda: Path("code/sub/b.py").unlink(), "code/sub/b.py (gone)", id="deleted"),
        pytest.param(lambda: Path("missing").write_text("x"), "missing (new)", id="no longer missing"),
        pytest.param(
            lambda: shutil.rmtree("code"), "code/a.py (gone) and code/sub/b.py (gone)", id="no folder"
        ),
        pytest.param(in_place("raw.csv"), "raw.csv", id="large, named by a parameter"),
        pytest.param(
            lambda: Path("letters.txt").write_text("x"), "letters.txt", id="named by a variable"
        ),
        pytest.param(in_place("../cache"), "linked", id="target of a link"),
        pytest.param(lambda: Path("linked").unlink(), "linked (gone)", id="link"),
        pytest.param(replaced("params.yaml", "seed: 1", "seed: 2"), "seed", id="parameter"),
        pytest.param(replaced("params.yaml", "seed: 1", "seed: true"), "seed", id="equal in Python"),
        pytest.param(replaced("params.yaml", "0.2]", "0.3]"), "prepare.shares", id="of a section"),
        pytest.param(
            replaced("params.yaml", "epochs: 3", "epochs: 4"), "nets.cnn.epochs", id="by dotted name"
        ),
        pytest.param(
            replaced("more.yaml", "size: 3", "size: 4"), "more.yaml:size", id="of another file"
        ),
        pytest.param(replaced("all.json", "1", "2"), "all.json:a.b", id="of all of a file"),
        pytest.param(lambda: Path("params.yaml").unlink(), "params.yaml", id="no parameters"),
        pytest.param(lambda: Path("params.yaml").write_text("a: ["), "params.yaml", id="broken"),
        pytest.param(lambda: Path("params.yaml").write_text("- a"), "params.yaml", id="a list"),
        pytest.param(lambda: Path("all.json").write_text("{"), "all.json", id="broken, all of it"),
        pytest.param(
            replaced("dvc.yaml", "deps: [code", "deps: [elsewhere, code"), "clean in dvc.yaml", id="deps"
        ),
        pytest.param(
            replaced("dvc.yaml", "-m titles.stages.prepare", "-c pass"),
            "clean in dvc.yaml",
            id="command",
        ),
    ],
)
def test_a_change_is_named(change: Callable[[], object], named: str) -> None:
    inputs.check()
    change()
    with pytest.raises(ChangedError) as error:
        inputs.check()
    message = str(error.value)
    assert message.startswith(f"{named} changed while clean ran: ")
    assert "`dvc checkout clean`" in message
    assert "\n" not in message


def touch(path: str) -> None:
    os.utime(path, ns=(1, 1))


def relink() -> None:
    """As DVC does: first a file becomes a link, then the link another file."""
    shutil.copy("raw.csv", "../object")
    Path("raw.csv").unlink()
    Path("raw.csv").symlink_to(Path("../object").resolve())
    Path("linked").unlink()
    Path("linked").hardlink_to("../object")


def undone() -> None:
    Path("code/a.py").write_text("x")
    Path("code/a.py").write_text("code/a.py")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda: None, id="nothing"),
        pytest.param(lambda: touch("raw.csv"), id="touched"),
        pytest.param(lambda: Path("code/a.py").chmod(0o444), id="mode"),
        pytest.param(relink, id="linked"),
        pytest.param(undone, id="undone"),
        pytest.param(replaced("params.yaml", "seed: 1", "# new\nseed:   1"), id="comment"),
        pytest.param(replaced("params.yaml", "window: 5", "window: 6"), id="parameter of another stage"),
        pytest.param(replaced("params.yaml", "size: 4", "size: 5"), id="parameter of the same section"),
        pytest.param(replaced("more.yaml", "weight: 4", "weight: 5"), id="parameter of another file"),
        pytest.param(replaced("dvc.yaml", "{x: epoch}", "{y: loss}"), id="plot"),
        pytest.param(replaced("dvc.yaml", "[elsewhere]", "[]"), id="another stage"),
        pytest.param(lambda: Path("elsewhere/x").write_text("y"), id="dependency of another stage"),
        pytest.param(lambda: Path("code/__pycache__/b.pyc").touch(), id="compiled"),
        pytest.param(lambda: Path("code/b.pyc").touch(), id="compiled, elsewhere"),
        pytest.param(lambda: Path("code/empty").mkdir(), id="empty folder"),
        pytest.param(lambda: Path("made").mkdir(), id="output"),
    ],
)
def test_what_changes_no_input_is_no_change(change: Callable[[], object]) -> None:
    change()
    inputs.check()
    inputs.watch()


def test_many_changes_are_counted() -> None:
    for number in range(9):
        Path(f"code/{number}.py").touch()
    with pytest.raises(ChangedError, match=r"^code/0.py \(new\), .*2.py \(new\) and 6 others changed"):
        inputs.check()


def test_content_that_has_not_changed_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    digest = inputs._digest
    monkeypatch.setattr(inputs, "_digest", lambda path: read.append(path) or digest(path))
    inputs.check()
    touch("raw.csv")
    inputs.check()
    inputs.check()
    assert read == [Path("raw.csv")]


def test_data_ends_a_long_stage_and_code_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    Path("code/a.py").write_text("x")
    inputs.watch()
    replaced("params.yaml", "seed: 1", "seed: 2")()
    inputs.watch()
    inputs.watch()
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(" changed while")[0] for line in told] == [
        "warning: code/a.py",
        "warning: code/a.py and seed",
    ]
    in_place("letters.txt")()
    with pytest.raises(ChangedError, match=r"^code/a\.py, letters\.txt and seed changed"):
        inputs.watch()


@pytest.mark.parametrize(
    ("variables", "module", "noted"),
    [
        ({}, "titles.stages.embed", "other"),
        ({"DVC_STAGE": "clean"}, "anything", "clean"),
        ({"DVC_STAGE": "sub/dvc.yaml:clean"}, "anything", "clean"),
        ({"DVC_STAGE": "clean@es"}, "anything", "clean"),
        ({"DVC_STAGE": "renamed"}, "titles.stages.embed", "other"),
        ({}, "titles.stages.emb", ""),
        ({"LOCAL_RANK": "0", "RANK": "0"}, "titles.stages.embed", "other"),
        ({"LOCAL_RANK": "1", "RANK": "1"}, "titles.stages.embed", ""),
        ({"RANK": "1"}, "titles.stages.embed", "other"),
    ],
)
def test_a_stage_is_found_by_its_name_in_dvc_or_by_its_module(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], module: str, noted: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    inputs._noted = None
    inputs.note(module)
    assert inputs._noted is not None
    assert inputs._noted.stage == noted


@pytest.mark.parametrize("pipeline", [None, "stages: [", "stages: [a]\n", "stages: {embed: 3}", "\0"])
@pytest.mark.parametrize("by_dvc", [True, False])
def test_without_its_stage_in_dvc_yaml_nothing_is_noted_and_dvc_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pipeline: str, by_dvc: bool
) -> None:
    Path("dvc.yaml").unlink() if pipeline is None else Path("dvc.yaml").write_text(pipeline)
    if by_dvc:
        monkeypatch.setenv("DVC_STAGE", "embed")
    inputs._noted = None
    with inputs.unchanged("titles.stages.embed"):
        Path("elsewhere/x").write_text("y")
    told = capsys.readouterr().err
    assert told == by_dvc * (
        "warning: dvc.yaml has no stage embed here: changes while it runs go unnoticed\n"
    )


def test_a_path_without_a_value_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    replaced("dvc.yaml", "[elsewhere]", '["${no.such}", elsewhere]')()
    inputs._noted = None
    inputs.note("titles.stages.embed")
    assert capsys.readouterr().err.startswith("warning: ${no.such} in dvc.yaml has no value: ")
    Path("elsewhere/x").write_text("y")
    with pytest.raises(ChangedError, match=r"^elsewhere/x changed"):
        inputs.check()


def test_what_a_stage_has_written_is_removed_and_what_was_there_stays() -> None:
    Path("made").mkdir()
    Path("made/old").touch()
    Path("made.txt").touch()
    inputs._noted = None

    @inputs.unchanged("titles.stages.prepare")
    def stage() -> None:
        Path("grown.json").write_text("[]")
        Path("made/new").touch()
        Path("code/a.py").write_text("x")

    with pytest.raises(ChangedError):
        stage()
    assert not Path("grown.json").exists()
    assert not Path("made").exists()
    assert Path("made.txt").exists()


def test_another_error_removes_nothing() -> None:
    @inputs.unchanged("titles.stages.prepare")
    def stage() -> None:
        Path("grown.json").write_text("[]")
        Path("code/a.py").write_text("x")
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        stage()
    assert Path("grown.json").exists()


def test_files_that_dvc_ignores_may_change() -> None:
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], check=True)
    Path(".dvcignore").write_text("*.swp\nscratch/\n")
    Path("code/sub/.dvcignore").write_text("notes.txt\n")
    inputs._noted = None
    inputs.note("titles.stages.prepare")
    Path("code/scratch/deep").mkdir(parents=True)
    for name in ("code/.a.py.swp", "code/scratch/deep/x.py", "code/sub/notes.txt"):
        Path(name).touch()
    inputs.check()
    Path("code/sub/notes.py").touch()
    with pytest.raises(ChangedError, match=r"^code/sub/notes.py \(new\) changed"):
        inputs.check()


@pytest.mark.parametrize(
    "options",
    [
        ["-m", "titles.stages.none"],
        ["-um", "titles.stages.none"],
        ["-mtitles.stages.none"],
        ["-W", "module", "-uBm", "titles.stages.none", "-m"],
    ],
    ids=" ".join,
)
def test_inputs_are_noted_before_python_looks_for_the_code_of_the_stage(options: list[str]) -> None:
    """The stage is found by its module: a path that has no value is told of it only."""
    Path("dvc.yaml").write_text(
        "stages: {a: {cmd: python -m titles.stages.none, deps: ['${no.such}']}, "
        "b: {cmd: python -m titles.stages.other, deps: ['${nor.this}']}}"
    )
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    noted, told, after = done.stderr.partition("warning: ${no.such} in dvc.yaml has no value")
    loaded = [line.split("|")[-1].strip() for line in noted.splitlines()]
    ours = {name for name in loaded if name.startswith("titles")}
    data = ("", ".announcement", ".documents", ".processor", ".messages", ".console", ".inputs")
    assert (ours, bool(told)) == ({"titles", *(f"titles.data{name}" for name in data)}, True)
    assert "No module named titles.stages.none" in after
    assert "nor.this" not in after
