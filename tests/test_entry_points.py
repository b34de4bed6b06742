import csv
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml

from titles.data.announcement import announce
from titles.stages import embed, entry_point, prepare

COMMITTED = Path(__file__).parent.parent / "params.yaml"


@pytest.fixture(autouse=True)
def handler_put_back():
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        pytest.param("pass", 0, "", id="no error"),
        pytest.param(
            "raise ValueError('x has 3, expected 2')", 1, "error: x has 3, expected 2\n", id="user"
        ),
        pytest.param("raise KeyboardInterrupt", 130, "interrupted\n", id="interrupt"),
        pytest.param("os.kill(os.getpid(), signal.SIGTERM)", 143, "", id="termination"),
    ],
)
def test_what_goes_wrong_for_a_user_is_one_line_and_an_exit_code(body, code, told):
    script = (
        "import os, signal\nfrom titles.stages import entry_point\n"
        f"@entry_point\ndef main():\n    {body}\nmain()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TITLES_DEBUG"}
    ran = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (code, "", told)


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"DVC_STAGE": "train_cnn"}, "stage 3 of 5\n"),
        ({"DVC_STAGE": "train_cnn", "RANK": "0"}, "stage 3 of 5\n"),
        ({"DVC_STAGE": "train_cnn", "RANK": "1"}, ""),
        ({"DVC_STAGE": "other/dvc.yaml:train_cnn"}, ""),
        ({}, ""),
    ],
)
def test_a_stage_that_dvc_runs_says_which_of_how_many_it_is(environment, told, monkeypatch, capsys):
    monkeypatch.chdir(COMMITTED.parent)
    for name in ("DVC_STAGE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    announce()
    assert capsys.readouterr().err == told


def test_stages_are_numbered_as_they_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    stages = (
        "stages: {last: {deps: [{b: {x: 1}}, c]}, first: {outs: [a]}, second: {deps: [a], outs: [c]}}"
    )
    (tmp_path / "dvc.yaml").write_text(stages)
    for name in ("first", "second", "last"):
        monkeypatch.setenv("DVC_STAGE", name)
        announce()
    assert capsys.readouterr().err == "stage 1 of 3\nstage 2 of 3\nstage 3 of 3\n"


@pytest.mark.parametrize(
    "content", [None, b"stages: 3", b"- a", b"a: [", b"\xff", b"stages: {train_cnn: 3}"]
)
def test_a_pipeline_that_cannot_be_read_has_no_number(content, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "train_cnn")
    if content is not None:
        (tmp_path / "dvc.yaml").write_bytes(content)
    announce()
    assert capsys.readouterr().err == ""


def raising(error):
    raise error


@pytest.mark.parametrize("error", [AssertionError("ours"), ValueError("theirs")])
def test_the_trace_is_shown_on_request(error, monkeypatch, capsys):
    run = entry_point(partial(raising, error))
    monkeypatch.delenv("TITLES_DEBUG", raising=False)
    with pytest.raises(SystemExit, match=f"^error: .*{error}") as caught:
        run()
    assert caught.value.__cause__ is error  # which pytest shows
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("TITLES_DEBUG", "1")
    with pytest.raises(SystemExit):
        run()
    assert "Traceback" in capsys.readouterr().err


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder with the committed parameters, some of them changed, and 60 rows to read."""
    monkeypatch.chdir(tmp_path)

    def build(**sections):
        values = yaml.safe_load(COMMITTED.read_text(encoding="utf-8"))
        values["prepare"]["source"] = "listing.csv"
        values["embed"]["dimension"] = 5
        for section, changes in sections.items():
            values[section] |= changes
        Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        with Path("listing.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["title", "label_quality", "language", "category"])
            for number in range(60):
                noun = ("Mesa", "Funda")[number % 2]
                writer.writerow([f"{noun} Roja m{number}", "reliable", "spanish", noun.upper()])
        return tmp_path

    return build


@pytest.mark.parametrize("method", ["ppmi", "encoder"])
def test_prepare_and_embed_write_what_the_pipeline_declares(project, capsys, method):
    project(embed={"method": method})
    prepare.main()
    embed.main()
    told = capsys.readouterr().out
    assert (
        "prepare: 60 rows read; train 48, validation 4, calibration 2, test 6; 2 categories, 5 words"
        in told
    )
    assert f"embed: 5 words of 5 dimensions ({method}); vectors for 100.0% of words and 66.7%" in told
    metrics = json.loads(Path("metrics/embed.json").read_text())
    assert metrics == {
        "dimension": 5,
        "coverage": {"words": 1.0, "tokens": 0.666667},
    }
    assert json.loads(Path("metrics/prepare.json").read_text())["rows"]["read"] == 60
    assert sorted(path.name for path in Path("data").iterdir()) == ["embedded", "prepared"]


def test_embed_reads_a_pretrained_file_as_titles_are_read(project):
    folder = project(embed={"method": "pretrained", "pretrained": "vectors.txt", "dimension": 2})
    (folder / "vectors.txt").write_text("2 2\nMESA 1 2\nmadera 3 4\n", encoding="utf-8")
    prepare.main()
    embed.main()
    words = Path("data/prepared/vocabulary.tsv").read_text(encoding="utf-8").split()[::2]
    matrix = np.load("data/embedded/matrix.npy")
    assert matrix[words.index("mesa")].tolist() == [1, 2]
    assert np.load("data/embedded/has_vector.npy")[words.index("funda")] == np.False_
    assert json.loads(Path("metrics/embed.json").read_text())["coverage"]["words"] == 0.333333


def test_a_stage_ends_with_a_message_and_without_output_where_its_input_is_wrong(project):
    project(embed={"dimension": 0})
    with pytest.raises(SystemExit) as caught:
        prepare.main()
    assert "embed.dimension: Input should be greater than or equal to 1" in str(caught.value.code)
    project()
    with pytest.raises(SystemExit) as caught:
        embed.main()
    assert "vocabulary.tsv is missing: run `dvc repro`" in str(caught.value.code)
    assert not Path("data").exists()
    assert not Path("metrics").exists()
