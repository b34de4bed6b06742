"""What is left of stages that die, by real signals and at every change that they make to a file."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from crashes import DIED
from networks import params, write_prepared
from small_project import QUICK, ROOT, STAGES
from titles.datasets.sample import write_csv

pytestmark = pytest.mark.pipeline

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
OUTS = {
    stage: {
        out if isinstance(out, str) else next(iter(out))
        for kind in ("outs", "metrics", "plots")
        for out in PIPELINE[stage].get(kind, [])
    }
    for stage in STAGES
}
# These grow with each epoch: they may be short.
CURVES = {"plots/cnn.json", "plots/mlp.json"}
INPUTS = ["data", "models", "plots", "metrics", "predictions"]


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC", "MLFLOW", "TITLES"))}
    return kept | {
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",  # where nothing listens
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }


def bytes_of(place: Path) -> dict[str, bytes] | None:
    """A file, or all files of a folder; None where there is nothing."""
    if not place.exists():
        return None
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in files}


def is_start_of(curves: dict[str, bytes], whole: dict[str, bytes]) -> bool:
    """Whether the records are the first ones."""
    (found,), (expected,) = ([json.loads(table) for table in one.values()] for one in (curves, whole))
    return bool(found == expected[: len(found)])


# By signals.

KILLS = 24
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]


def outs_of(folder: Path, name: str) -> dict[str, dict[str, bytes] | None]:
    return {out: bytes_of(folder / out) for out in OUTS[f"train_{name}"]}


def start(folder: Path, name: str) -> subprocess.Popen[str]:
    """The stage as DVC starts it, which deletes the outputs before."""
    for out in OUTS[f"train_{name}"]:
        shutil.rmtree(folder / out, ignore_errors=True)
        if (folder / out).is_file():
            (folder / out).unlink()
    return subprocess.Popen(
        [sys.executable, "-u", "-m", f"titles.stages.train_{name}"],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.endures
@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_a_training_killed_again_and_again_ends_with_the_bytes_of_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    given = params(epochs=150, batch_size=1, dropout=0.3, word_dropout=0.2, schedule="one_cycle")
    for folder in (tmp_path / "unbroken", tmp_path / "broken"):
        folder.mkdir()
        monkeypatch.chdir(folder)
        write_prepared()
        Path("params.yaml").write_text(yaml.safe_dump(given.model_dump(mode="json")))
    done = start(tmp_path / "unbroken", name)
    output, _ = done.communicate()
    assert done.returncode == 0, output

    folder, moments = tmp_path / "broken", random.Random(f"{name} 20")
    killed, resumed = [], []
    while len(killed) < KILLS // 2:
        process, number = start(folder, name), SIGNALS[len(killed) % len(SIGNALS)]
        assert process.stdout is not None
        if moments.random() < 0.15:  # while it starts
            time.sleep(moments.uniform(0, 3))
            output = ""
        else:  # so many epochs later, and anywhere in the next
            lines = moments.randint(3, 10)
            output = "".join(process.stdout.readline() for _ in range(lines))
            time.sleep(moments.uniform(0, 0.03))
        assert process.poll() is None, output
        process.send_signal(number)
        output += process.communicate()[0]
        assert process.returncode in (-number, 128 + number), output
        assert "damaged" not in output
        curves, whole = bytes_of(folder / "plots" / name), bytes_of(tmp_path / "unbroken/plots" / name)
        assert not curves or (whole and is_start_of(curves, whole))
        killed.append(number.name)
        resumed += [int(epoch) for epoch in re.findall(r"resumed after epoch (\d+) of", output)]
    done = start(folder, name)
    output, _ = done.communicate()
    assert done.returncode == 0, output
    resumed += [int(epoch) for epoch in re.findall(r"resumed after epoch (\d+) of", output)]
    assert resumed == sorted(resumed)
    # How many epochs lie between two is up to how busy the machine is: a write waits for its time.
    assert len(resumed) >= KILLS // 4
    assert len(set(resumed)) > 1
    assert outs_of(folder, name) == outs_of(tmp_path / "unbroken", name)
    assert list((folder / ".titles/checkpoints").iterdir()) == []
    print(f"{name}: {len(killed)} kills survived, resumed after epochs {resumed}")


# At every change to a file.


class Crasher:
    """Runs stages in processes that die at a change to a file."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("crashes.py"))],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, stage: str, folder: Path, last: int = 0) -> tuple[int, int]:
        """The exit code and the number of changes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([stage, last, str(folder)]) + "\n")
        self._process.stdin.flush()
        code, changes = json.loads(self._process.stdout.readline())
        return code, changes

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


@pytest.fixture(scope="module")
def crasher() -> Iterator[Crasher]:
    crasher = Crasher()
    yield crasher
    crasher.end()


def write_params(folder: Path, **changes: object) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    for key, value in (QUICK | {"threads": 1, "min_steps": 5, "epochs": 3} | changes).items():
        text = re.sub(rf"^(  {key}:) \S+( \S+\])?", rf"\1 {value}", text, flags=re.M)
    (folder / "params.yaml").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, crasher: Crasher) -> tuple[Path, Path]:
    """Folders with all outputs: those of before, and those of other parameters and listings."""
    made = []
    for seed, dimension in ((7, 10), (8, 12)):
        folder = tmp_path_factory.mktemp("done")
        (folder / "data/raw").mkdir(parents=True)
        write_csv(400, seed, folder / "data/raw/sample.csv.gz", progress=False)
        (folder / "data/pretrained").mkdir()
        (folder / "data/pretrained/none").touch()
        write_params(folder, dimension=dimension)
        for stage in OUTS:
            assert crasher.run(stage, folder)[0] == 0, (folder / "output.log").read_text()
        made.append(folder)
    return made[0], made[1]


@pytest.mark.parametrize("places", ["last", pytest.param("many", marks=pytest.mark.endures)])
@pytest.mark.parametrize("stage", OUTS)
def test_a_stage_that_dies_at_a_change_to_a_file_leaves_nothing_that_looks_whole_and_is_not(
    tmp_path: Path, crasher: Crasher, done: tuple[Path, Path], stage: str, places: str
) -> None:
    old, new = done
    outs = OUTS[stage]
    before = {out: bytes_of(old / out) for out in outs}
    after = {out: bytes_of(new / out) for out in outs}
    _, changes = crasher.run(stage, shutil.copytree(new, tmp_path / "count"))
    # Outputs take their places at the last ones.
    deaths = sorted({changes // 2, *range(changes - 2, changes + 1)})
    if places == "many":
        between = range(3, changes, max(1, changes // 8))
        deaths = sorted({1, 2, *between, *range(changes - 7, changes + 1)} - set(deaths))
    for death in deaths:
        folder = tmp_path / str(death)
        shutil.copytree(new, folder)
        for out in outs:  # of an older run, as where the stage is run without DVC
            shutil.rmtree(folder / out) if (folder / out).is_dir() else (folder / out).unlink()
            copy = shutil.copytree if (old / out).is_dir() else shutil.copy
            copy(old / out, folder / out)
        code, _ = crasher.run(stage, folder, death)
        assert code == DIED, (folder / "output.log").read_text()
        for out in outs:
            found, whole = bytes_of(folder / out), after[out]
            short = out in CURVES and found and whole and is_start_of(found, whole)
            assert short or found in (None, before[out], whole), f"death {death}: {out}"
        code, _ = crasher.run(stage, folder)
        assert code == 0, (folder / "output.log").read_text()
        for out in OUTS[stage]:
            assert bytes_of(folder / out) == bytes_of(new / out), f"death {death}: {out}"
        shutil.rmtree(folder)
    print(f"{stage}: died at {len(deaths)} of {changes} changes")
