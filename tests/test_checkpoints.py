"""Trainings that are cut off and run again, beside the same without a break."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from contextlib import chdir, contextmanager, suppress
from copy import deepcopy
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file

from networks import (
    FREEZES,
    LETTERS,
    NAMES,
    NETWORKS,
    SUBWORDS,
    encoded,
    network,
    params,
    settings,
    write_prepared,
)
from titles.data import files
from titles.data.contract import METRICS, MODELS, PLOTS
from titles.models.parts.inference import set_up
from titles.tracking import recording
from titles.tracking.tracker import Tracker
from titles.training import checkpoints, trainer
from titles.training import run as training_run

# Every source of randomness is in use.
GIVEN = {
    "epochs": 6,
    "dropout": 0.3,
    "word_dropout": 0.2,
    "heads": 3,
    "gce_q": 0.5,
    "set_aside_below": 0.9,
    "schedule": "one_cycle",
    "weight_decay": 0.01,
    "learning_rate": 0.02,
}


class CutOff(BaseException):
    """What a kill is to a process that dies of it, as far as that can be told from inside."""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with prepared data; checkpoints are written after every epoch."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setattr(recording, "MlflowTracker", lambda *_: Tracker())
    monkeypatch.setattr(checkpoints, "_WRITES_BETWEEN", 0)
    with new_place(tmp_path / "project") as folder:
        yield folder


@contextmanager
def new_place(folder):
    folder.mkdir()
    with chdir(folder):
        write_prepared()
        yield folder


STEPS = 3  # of an epoch


def train(name="mlp", cut_at=None, cut_at_step=None, **changes):
    """Run the training; it is cut off in the midst of epoch `cut_at`, or of a step that it counts."""
    given = params(**GIVEN | changes)
    steps = 0
    if cut_at:
        cut_at_step = STEPS * (cut_at - 1) + 2

    def build(*args, **sizes):
        net = NETWORKS[name](*args, **sizes)
        net.register_forward_hook(hook)
        return net

    build.planned = NETWORKS[name].planned

    def hook(module, *_):
        nonlocal steps
        steps += module.training
        if steps == cut_at_step:
            raise CutOff

    def run():
        training_run.train(name, build, given)

    if cut_at_step:
        with pytest.raises(CutOff):
            run()
        shutil.rmtree(PLOTS, ignore_errors=True)  # as DVC does
    else:
        run()


def results():
    return {
        path.as_posix(): path.read_bytes()
        for folder in (MODELS, METRICS, PLOTS)
        for path in folder.rglob("*")
        if path.is_file() and "last_good" not in path.as_posix()
    }


def unbroken(folder, name="mlp", **changes):
    """The results of the same training without a break, made in a folder of its own."""
    with new_place(folder):
        train(name, **changes)
        return results()


def only_checkpoint():
    (found,) = checkpoints.FOLDER.glob("*.safetensors")
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("freeze", "letters"), [*((freeze, {}) for freeze in FREEZES), (False, LETTERS), (True, LETTERS)]
)
def test_a_training_cut_off_twice_ends_with_the_bytes_of_an_unbroken_one(
    tmp_path, capsys, name, freeze, letters
):
    changes = {"freeze_embeddings": freeze, **letters}
    expected = unbroken(tmp_path / "unbroken", name, **changes)
    capsys.readouterr()
    train(name, cut_at=3, **changes)
    train(name, cut_at=2, **changes)  # the fourth of all
    train(name, **changes)
    assert re.findall("resumed after epoch . of 6", capsys.readouterr().out) == [
        "resumed after epoch 2 of 6",
        "resumed after epoch 3 of 6",
    ]
    assert results() == expected
    assert list(checkpoints.FOLDER.iterdir()) == []


@pytest.fixture
def often(monkeypatch):
    """Checkpoints are written after every step, as if it took minutes."""
    monkeypatch.setattr(checkpoints, "_LONGEST_WITHOUT", 0)
    monkeypatch.setattr(trainer, "_STEPS_PER_CHECK", 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "changes", [{"freeze_embeddings": "partial", **LETTERS}, {"label_smoothing": 0.1, "patience": 2}]
)
def test_a_training_cut_off_within_epochs_ends_with_the_bytes_of_an_unbroken_one(
    tmp_path, capsys, often, name, seed, changes
):
    expected = unbroken(tmp_path / "unbroken", name, **changes)
    steps = STEPS * len(json.loads(expected[f"plots/{name}.json"]))
    done, wanted, rng = 0, [], np.random.default_rng(seed)
    capsys.readouterr()
    while done < steps - 4:
        made = int(rng.integers(0, 5))
        train(name, cut_at_step=made + 1, **changes)
        done += made
        epochs, step = divmod(done, STEPS)
        told = f"resumed after epoch {epochs} of 6{f', step {step} of 3 of the next' * (step > 0)}"
        wanted += [told] * (done > 0)
    train(name, **changes)
    assert re.findall("resumed after.*", capsys.readouterr().out) == wanted
    assert any("step" in line for line in wanted)
    assert results() == expected
    assert list(checkpoints.FOLDER.iterdir()) == []


def test_a_resumed_epoch_tells_the_pace_of_the_steps_that_were_left(monkeypatch):
    def learning():
        set_up(params().compute, 1)
        net, given = network("mlp"), settings("mlp", **GIVEN)
        return trainer.Trainer(net, encoded(), encoded(), 4, given, 1, torch.device("cpu"))

    first, states = learning(), []
    monkeypatch.setattr(trainer, "_STEPS_PER_CHECK", 1)
    whole = next(first.epochs(lambda: states.append(deepcopy(first.state()))))
    assert [numbers["step"] for _, numbers in states] == [1, 2]  # after the last, the epoch ends
    clock = count()
    monkeypatch.setattr(trainer.time, "perf_counter", lambda: float(next(clock)))
    resumed = learning()
    resumed.restore(*states[-1])
    record = next(resumed.epochs())
    left = record.titles_per_second
    assert left in (2, 3)  # in the clock's one second; batches are of 3, 3 and 2 in any order
    assert record.seconds == pytest.approx(8 / left + 1)
    assert (record.train_loss, record.validation_loss) == (whole.train_loss, whole.validation_loss)


def test_within_an_epoch_a_checkpoint_waits_for_minutes_and_ten_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_WRITES_BETWEEN", 10)
    now = 100.0
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now)
    checkpoint = checkpoints.Checkpoint(tmp_path / "any-key")

    def waited(seconds):
        """Whether one is due within an epoch after so long, and no second earlier."""
        nonlocal now
        now += seconds - 1
        early = checkpoint.due(within_epoch=True)
        now += 1
        return checkpoint.due(within_epoch=True) and not early

    assert waited(checkpoints._LONGEST_WITHOUT)
    for taken, wait in ((6.0, checkpoints._LONGEST_WITHOUT), (60.0, 600)):

        def slow(path, taken=taken):
            nonlocal now
            now += taken * path.is_file()  # its folder is synced as well

        monkeypatch.setattr(files, "to_disk", slow)
        checkpoint.write({"weight": torch.ones(3)}, {})
        assert waited(wait)


def test_data_that_changed_reaches_no_checkpoint_within_an_epoch(often, monkeypatch):
    def changed():
        raise ValueError("data changed")

    monkeypatch.setattr(training_run.inputs, "watch", changed)
    with pytest.raises(ValueError, match="data changed"):
        train()
    assert not list(checkpoints.FOLDER.glob("*.safetensors"))


@pytest.mark.parametrize("cut_at", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "changes", [{"patience": 2}, {"schedule": "constant"}, {"precision": "bfloat16"}]
)
def test_it_may_be_cut_off_in_any_epoch(tmp_path, cut_at, changes):
    changes |= {"epochs": 5}
    expected = unbroken(tmp_path / "unbroken", **changes)
    epochs = len(json.loads(expected["plots/mlp.json"]))
    if cut_at <= epochs:
        train(cut_at=cut_at, **changes)
    train(**changes)
    assert results() == expected


def test_patience_goes_on_counting(tmp_path, capsys):
    # Nothing is learnt: the first epoch stays the best.
    changes = {"learning_rate": 1e-30, "epochs": 9, "patience": 3, "dropout": 0.0, "word_dropout": 0.0}
    expected = unbroken(tmp_path / "unbroken", **changes)
    assert len(json.loads(expected["plots/mlp.json"])) == 4
    train(cut_at=4, **changes)
    capsys.readouterr()
    train(**changes)
    assert "resumed after epoch 3 of 9" in capsys.readouterr().out
    assert results() == expected


def test_the_best_epoch_of_before_the_break_is_kept_if_it_breaks_again(capsys):
    train(cut_at=4)
    train(cut_at=1)
    told = re.findall(r"epoch (\d), the best so far", capsys.readouterr().out)
    assert len(told) == 2
    assert told[0] == told[1]
    assert (MODELS / "mlp.last_good/weights.safetensors").is_file()


def test_a_training_cut_off_after_its_last_epoch_saves_without_another(tmp_path, capsys, monkeypatch):
    expected = unbroken(tmp_path / "unbroken")

    def cut_off(*_):
        raise CutOff

    with monkeypatch.context() as patched:
        patched.setattr(training_run.saved, "write", cut_off)
        with pytest.raises(CutOff):
            train()
    capsys.readouterr()
    train()
    assert "resumed after epoch 6 of 6" in (told := capsys.readouterr().out)
    assert "epoch 6/6" not in told
    assert results() == expected


def test_a_state_is_whole_after_its_way_through_a_file(tmp_path):
    def learning(seed):
        set_up(params().compute, seed)
        net = network("cnn", "partial", dropout=0.3, seed=seed, subwords=SUBWORDS)
        given = settings("cnn", **GIVEN)
        return trainer.Trainer(net, encoded(), encoded(), 4, given, seed, torch.device("cpu"))

    one = learning(1)
    next(one.epochs())
    tensors, numbers = one.state()
    checkpoint = checkpoints.Checkpoint(tmp_path / "any-key")
    checkpoint.write(tensors, numbers)
    read = checkpoint.read()
    assert read is not None
    assert read[1] == numbers
    assert set(read[0]) == set(tensors)
    assert all(torch.equal(read[0][key], tensors[key]) for key in tensors)
    assert any("optimiser.0" in key for key in tensors)
    assert any("optimiser.1" in key for key in tensors)
    expected = [(record.train_loss, record.validation_loss) for record in one.epochs()]
    other = learning(2)
    other.restore(*read)
    found = [(record.train_loss, record.validation_loss) for record in other.epochs()]
    assert found == expected
    assert len(found) == 5


def cut_short(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    path.write_bytes(b"")


def other_number(path):
    """One that keeps to the format: only the checksum tells."""
    with safe_open(path, framework="pt") as stream:
        metadata = stream.metadata()
        tensors = {name: stream.get_tensor(name).clone() for name in stream.keys()}  # noqa: SIM118
    metadata["numbers"] = metadata["numbers"].replace('"steps_done": 6', '"steps_done": 5')
    save_file(tensors, path, metadata)


def other_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def without_metadata(path):
    save_file({"network.weight": torch.ones(2)}, path)


def nothing_known(path):
    path.write_bytes(os.urandom(5000))


@pytest.mark.parametrize(
    "damage", [cut_short, empty, other_number, other_bit, without_metadata, nothing_known]
)
def test_a_damaged_checkpoint_is_told_and_the_training_starts_anew(tmp_path, capsys, damage):
    expected = unbroken(tmp_path / "unbroken")
    train(cut_at=3)
    before = only_checkpoint().read_bytes()
    damage(only_checkpoint())
    assert only_checkpoint().read_bytes() != before
    capsys.readouterr()
    train()
    told = capsys.readouterr()
    assert len(re.findall(r"(?m)^warning: .* the checkpoint .* is damaged: ", told.err)) == 1
    assert "resumed" not in told.out
    assert results() == expected


@pytest.mark.parametrize(
    "changes",
    [{"epochs": 7}, {"dropout": 0.31}, {"freeze_embeddings": True}, {"batch_size": 4}, LETTERS],
)
def test_a_checkpoint_is_not_used_for_other_parameters(tmp_path, capsys, changes):
    expected = unbroken(tmp_path / "unbroken", **changes)
    train(cut_at=4)
    capsys.readouterr()
    train(**changes)
    assert "resumed" not in capsys.readouterr().out
    assert results() == expected
    assert only_checkpoint()  # of the other training, which may still go on


@pytest.mark.parametrize(
    "file",
    [
        "data/prepared/train/word_ids.npy",
        "data/prepared/validation/labels.npy",
        "data/prepared/train/unknown_words.txt",
        "data/prepared/vocabulary.tsv",
        "data/prepared/labels.txt",
        "data/prepared/text.json",
        "data/embedded/matrix.npy",
    ],
)
def test_the_key_follows_each_file_that_is_read(monkeypatch, file):
    keys = []
    monkeypatch.setattr(checkpoints, "opened", lambda name, key: keys.append(key) or 1 / 0)

    def note_key():
        with pytest.raises(ZeroDivisionError):
            train()

    note_key()
    note_key()
    path = Path(file)
    if path.suffix == ".npy":
        array = np.load(path)
        array.flat[-1] += 1 if array.dtype.kind == "f" else -1
        np.save(path, array)
    elif path.name == "unknown_words.txt":
        path.write_text(path.read_text().replace("nuevo", "nueva"))
    elif path.name == "text.json":
        path.write_text(path.read_text().replace("17", "18"))
    else:
        path.write_text(path.read_text().replace("word5", "wort5").replace("EGGS", "EGG"))
    note_key()
    assert keys[0] == keys[1] != keys[2]


def test_the_key_follows_settings_code_and_the_number_of_processes(tmp_path, monkeypatch):
    def key(**changes):
        return checkpoints.key({"seed": 1} | changes, [])

    first = key()
    assert key(seed=2) != first
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.distributed, "world_size", lambda: 2)
        assert key() != first
    with monkeypatch.context() as patched:
        changed = tmp_path / "training.py"
        changed.write_text("# other code")
        patched.setattr("titles.training.trainer.__file__", str(changed))
        assert key() != first
    with monkeypatch.context() as patched:
        patched.setattr(torch, "__version__", "0")
        assert key() != first
    assert key() == first


def root_elsewhere(tmp_path, monkeypatch):
    """The project's own folder, as runs in temporary folders are told of it."""
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setenv("DVC_ROOT", str(root))
    return root


def test_a_run_in_another_folder_goes_on_where_the_first_was_cut_off(tmp_path, monkeypatch, capsys):
    expected = unbroken(tmp_path / "unbroken")
    root_elsewhere(tmp_path, monkeypatch)
    train(cut_at=4)
    assert not checkpoints.FOLDER.exists()
    with new_place(tmp_path / "other"):
        capsys.readouterr()
        train()
        assert "resumed after epoch 3 of 6" in capsys.readouterr().out
        assert results() == expected


def test_the_same_training_in_two_folders_at_once_harms_neither(tmp_path, monkeypatch, capsys):
    expected = unbroken(tmp_path / "unbroken")
    folder = root_elsewhere(tmp_path, monkeypatch) / checkpoints.FOLDER
    train(cut_at=3)
    (kept,) = folder.glob("*.safetensors")
    before = kept.read_bytes()
    # as the other has it
    with FileLock(kept.with_suffix(".lock")), new_place(tmp_path / "second"):
        capsys.readouterr()
        train()
        told = capsys.readouterr().out
        assert "another process runs this training, no checkpoints here" in told
        assert "resumed" not in told
        assert results() == expected
        assert kept.read_bytes() == before
    with new_place(tmp_path / "third"):
        train()
        assert "resumed after epoch 2" in capsys.readouterr().out
        assert results() == expected


def test_a_second_training_in_the_same_folder_is_refused(monkeypatch):
    monkeypatch.setattr(checkpoints, "_PATIENCE", 0.1)
    checkpoints.FOLDER.mkdir(parents=True)
    with (
        FileLock(checkpoints.FOLDER.parent / "mlp.lock"),
        pytest.raises(ValueError, match="another process is training mlp in this folder"),
    ):
        train()
    train()


def test_without_a_place_for_checkpoints_training_works_and_says_so(tmp_path, monkeypatch, capsys):
    expected = unbroken(tmp_path / "unbroken")
    root = root_elsewhere(tmp_path, monkeypatch)
    (root / ".titles").write_text("a file where a folder should be")
    capsys.readouterr()
    train()
    assert capsys.readouterr().err.count("warning: no checkpoints in ") == 1
    assert results() == expected


def test_a_checkpoint_that_cannot_be_written_ends_no_training(tmp_path, monkeypatch, capsys):
    expected = unbroken(tmp_path / "unbroken")

    def full(path):
        if path.suffix == ".safetensors" and path.parent.parent.name == "checkpoints":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "to_disk", full)
    capsys.readouterr()
    train()
    assert capsys.readouterr().err.count("No space left on device") == 6
    assert results() == expected


def test_what_nobody_goes_on_with_is_removed_after_two_weeks():
    train(cut_at=2, epochs=4)
    train(cut_at=2, epochs=5)
    train(cut_at=2, epochs=7)
    old, young, held = sorted(checkpoints.FOLDER.glob("*.safetensors"))
    day = 24 * 3600
    for kept, days in ((old, 14.1), (young, 13.9), (held, 15)):
        for path in kept.parent.glob(f"{kept.stem}.*"):
            os.utime(path, (time.time() - days * day,) * 2)
    with FileLock(held.with_suffix(".lock")):
        train()
    left = {path.name for path in checkpoints.FOLDER.iterdir()}
    expected = {f"{path.stem}{suffix}" for path in (young, held) for suffix in (".lock", ".safetensors")}
    assert left == expected


def test_without_a_place_nothing_is_due_written_read_or_removed(tmp_path):
    checkpoint = checkpoints.Checkpoint(None)
    assert not checkpoint.due()
    checkpoint.write({"a": torch.ones(1)}, {})
    assert checkpoint.read() is None
    checkpoint.remove()
    assert not checkpoints.FOLDER.exists()


def test_a_training_that_is_at_work_or_left_no_run_is_not_abandoned():
    for name in ("left", "at-work", "without-run"):
        with suppress(CutOff), checkpoints.opened("mlp", name) as checkpoint:
            if name != "without-run":
                checkpoint.run.write_text("the id of a run")
            raise CutOff
    with (
        FileLock(checkpoints.FOLDER / "mlp-at-work.lock"),
        checkpoints.opened("mlp", "new") as checkpoint,
    ):
        assert [path.name for path in checkpoint.abandoned] == ["mlp-left.run"]


def test_writing_takes_a_tenth_of_the_time_at_the_most(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_WRITES_BETWEEN", 10)
    now = 100.0
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now)
    checkpoint = checkpoints.Checkpoint(tmp_path / "any-key")

    def slow(_):
        nonlocal now
        now += 3.0

    monkeypatch.setattr(files, "to_disk", slow)
    assert checkpoint.due()  # the first shows what a write takes
    checkpoint.write({"weight": torch.ones(3)}, {})
    found = []
    for _ in range(61):
        found.append(checkpoint.due())
        now += 1
    assert found == [False] * 60 + [True]


def test_how_often_checkpoints_are_written_changes_no_result(tmp_path, monkeypatch):
    expected = unbroken(tmp_path / "unbroken")
    monkeypatch.setattr(checkpoints, "_WRITES_BETWEEN", 1e9)
    train(cut_at=5)
    train()
    assert results() == expected
