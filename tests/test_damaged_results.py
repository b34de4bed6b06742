"""Results that are damaged or of another form end with one line that names the file."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from titles.evaluation import predictions
from titles.experiments import objects
from titles.experiments.report import experiment
from titles.experiments.results import results_at
from titles.experiments.store import DETAILS, Revision, stages_of
from titles.experiments.verify import refuse_other_machine
from titles.models.registry import AVERAGE

SCORES = {
    "balanced_accuracy": 0.5,
    "balanced_accuracy_low": 0.4,
    "balanced_accuracy_high": 0.6,
    "accuracy": 0.5,
    "loss": 1.2,
}
BEST = {
    "best_epoch": 1,
    "train_loss": 1.0,
    "validation_loss": 1.0,
    "validation_balanced_accuracy": 0.5,
}
CURVE = [{"epoch": 1, "train_loss": 1.0, "validation_loss": 1.0, "validation_balanced_accuracy": 0.5}]
FILES = {
    DETAILS.as_posix(): json.dumps({"models": {AVERAGE: SCORES, "cnn": SCORES}}),
    "metrics/cnn.json": json.dumps({"cnn": BEST}),
    "plots/cnn.json": json.dumps(CURVE),
    "params.yaml": "seed: 3\n",
}


@pytest.fixture
def revision(monkeypatch):
    """A commit with these files."""
    files = dict(FILES)

    def read(self, path):
        if path.as_posix() not in files:
            raise ValueError(f"{self.name} has no {path}")
        content = files[path.as_posix()]
        return content if isinstance(content, bytes) else content.encode()

    monkeypatch.setattr(Revision, "read", read)
    monkeypatch.setattr(experiment, "find", lambda name: Revision(name, "c" * 40, "", 0.0))
    return files


def models(**changes):
    return json.dumps({"models": {AVERAGE: SCORES | changes, "cnn": SCORES}})


DAMAGED = {
    "empty": b"",
    "cut short": FILES[DETAILS.as_posix()][:40],
    "not UTF-8": b'{"models": "\xff"}',
    "zeros": bytes(100),
    "a list": "[1, 2]",
    "a number": "3",
    "null": "null",
    "nested": "[" * 100_000,
    "digits": '{"models": ' + "9" * 5000 + "}",
    "no models": '{"models": {}}',
    "models is a list": '{"models": [1, 2]}',
    "models is text": '{"models": "x"}',
    "a model is a number": '{"models": {"cnn": 3}}',
    "a model is null": '{"models": {"cnn": null}}',
    "NaN": models(accuracy=float("nan")),
    "infinite": models(loss=float("inf")),
    "text for a number": models(accuracy="0.5"),
    "a list for a number": models(accuracy=[0.5]),
    "true for a number": models(accuracy=True),
    "null for a number": models(accuracy=None),
    "huge": models(accuracy=10**400),
    "a missing measure": '{"models": {"cnn": {"balanced_accuracy": 0.5}}}',
    "no measures": '{"models": {"cnn": {}}}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_scores_are_named(revision, content):
    revision[DETAILS.as_posix()] = content
    with pytest.raises(ValueError, match=r"metrics/details\.json of e"):
        experiment.load("e")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        "[]",
        "[" * 100_000,
        '{"cnn": 3}',
        '{"cnn": {}}',
        '{"cnn": {"best_epoch": "x"}}',
        "{}",
    ],
)
def test_a_damaged_best_epoch_is_noted_and_left_out(revision, content):
    revision["metrics/cnn.json"] = content
    found = experiment.load("e")
    assert not found.best
    assert any("metrics/cnn.json of e" in note for note in found.notes)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        "{}x",
        "3",
        "[3]",
        "[[1]]",
        "[" * 100_000,
        '[{"epoch": "x"}]',
        '[{"epoch": Infinity}]',
        '[{"epoch": 1, "train_loss": [1]}]',
        '[{"epoch": 1, "train_loss": ' + "9" * 400 + "}]",
    ],
)
def test_damaged_curves_are_noted_and_left_out(revision, content):
    revision["plots/cnn.json"] = content
    found = experiment.load("e")
    assert not found.curves
    assert any("plots/cnn.json of e is damaged" in note for note in found.notes)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", "[1]", "3", "a: [", "a: 2020-99-99", "[" * 400, "? [a]\n: 1"]
)
def test_damaged_params_are_named(revision, content):
    revision["params.yaml"] = content
    with pytest.raises(ValueError, match=r"params\.yaml of e is damaged"):
        _ = Revision("e", "c" * 40, "", 0.0).params


@pytest.mark.parametrize(
    "lock", [b"", b"[]", b"stages: 3", b"stages: [1]", b"stages: {a: 1}", b"[" * 400]
)
def test_a_damaged_lock_file_is_named(lock):
    with pytest.raises(ValueError, match=r"dvc\.lock of e is not a lock file"):
        stages_of(lock, "dvc.lock of e")


def table(**changes):
    columns = {
        "line": [2, 3],
        "title": ["a", "b"],
        "category": ["X", "Y"],
        "cnn": ["X", "Y"],
        "cnn_confidence": [0.5, 0.6],
        "cnn_rank": [0, 0],
        "cnn_loss": [0.1, 0.2],
    }
    stream = io.BytesIO()
    pq.write_table(pa.table(columns | changes), stream)
    stream.seek(0)
    return stream


NO_METRICS = ["[1]", "3", "{", '{"cnn": [1], "used": 2}', "[" * 100_000, "caf\udce9"]


@pytest.mark.parametrize("content", NO_METRICS, ids=range(len(NO_METRICS)))
def test_metrics_of_another_form_are_left_out(revision, content):
    written = content.encode("utf-8", "surrogateescape")
    out = {"path": "metrics/cnn.json", "md5": hashlib.md5(written).hexdigest()}
    stages = {name: {"params": {}, "deps": [], "outs": []} for name in ("prepare", "embed")}
    lock = {"stages": stages | {"train_cnn": {"params": {}, "deps": [], "outs": [out]}}}
    revision |= {"metrics/cnn.json": written, "dvc.lock": json.dumps(lock)}
    assert results_at(Revision("main", "c" * 40, "", 0.0)) == []


@pytest.mark.parametrize("content", NO_METRICS, ids=range(len(NO_METRICS)))
def test_metrics_of_another_form_name_no_machine(revision, content):
    revision["metrics/cnn.json"] = content.encode("utf-8", "surrogateescape")
    refuse_other_machine(Revision("main", "c" * 40, "", 0.0), ["train_cnn"])


def test_a_list_of_a_folder_that_is_none_is_named(tmp_path: Path):
    for content in (b"{}", b"[1]", b'[{"relpath": "a"}]', b"[" * 100_000):
        digest = f"{hashlib.md5(content).hexdigest()}.dir"
        path = objects.place(tmp_path, digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if content == b"{}":
            assert objects.named(tmp_path, digest) == [digest]
            continue
        with pytest.raises(ValueError, match="is not the list of a folder's files"):
            objects.named(tmp_path, digest)


def test_whole_predictions_are_read():
    assert list(predictions.read(table()).outcomes) == ["cnn"]


@pytest.mark.parametrize(
    "changes",
    [
        {"cnn": [1, 2]},
        {"cnn": ["X", None]},
        {"category": [None, "X"]},
        {"category": [1.0, 2.0]},
        {"cnn_confidence": ["0.5", "0.6"]},
        {"cnn_loss": [None, 0.1]},
        {"cnn_rank": [[0], [0]]},
        {"line": ["2", "3"]},
    ],
)
def test_predictions_of_other_types_are_refused(changes):
    with pytest.raises(ValueError, match="column"):
        predictions.read(table(**changes))


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="Parquet"):
        predictions.read(io.BytesIO(b"PAR1" * 10))
