"""Experiments of two clones at the same moment, which share one cache of DVC."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from hashlib import md5
from pathlib import Path

import pytest

from small_project import STAGES, environment, outs, ran, run, write_project

pytestmark = [pytest.mark.pipeline, pytest.mark.endures]

CHANGES = {"cnn": "cnn.filter_count=5", "mlp": "mlp.hidden_layers=[8]"}
METRICS = ["metrics/evaluate.json", "metrics/details.json"]


def experiment(name: str) -> list[str]:
    return ["dvc", "exp", "run", "--name", name, "-S", CHANGES[name]]


def results(folder: Path) -> tuple[dict[str, str], list[str]]:
    """The hashes of all outputs in the lock, and the metrics as they lie there."""
    hashes = {path: digest for stage in STAGES for path, digest in outs(folder, stage).items()}
    return hashes, [(folder / name).read_text() for name in METRICS]


def objects(cache: Path) -> Iterator[tuple[str, str]]:
    """The name of each object of a cache, and the hash of what it holds."""
    for path in sorted((cache / "files/md5").glob("??/*")):
        yield path.parent.name + path.name.removesuffix(".dir"), md5(path.read_bytes()).hexdigest()


def at_once(commands: Mapping[Path, Sequence[Sequence[str]]]) -> list[str]:
    """Start all commands, by the folder to run them in, and wait; the output of each. None may fail."""
    processes = [
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for folder, some in commands.items()
        for command in some
    ]
    try:
        told = [process.communicate()[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, told, strict=True):
        assert process.returncode == 0, output
    return told


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with each experiment run alone, in a folder that has its name."""
    place = tmp_path_factory.mktemp("alone")
    (place / "project").mkdir()
    write_project(place / "project", 1_000)
    for name in CHANGES:
        run(place, "cp", "-r", "project", name)
        if name == "mlp":  # takes what it shares with the other from its cache
            shutil.copytree(place / "cnn/.dvc/cache", place / "mlp/.dvc/cache", dirs_exist_ok=True)
        run(place / name, *experiment(name))
    return place


def test_two_experiments_at_once_share_a_cache_and_end_as_if_alone(alone: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(alone / "project/.dvc/cache", cache)  # the catalogue, and no outputs
    before = len(list(objects(cache)))
    for name in CHANGES:
        run(tmp_path, "git", "clone", "-q", str(alone / "project"), name)
        run(tmp_path / name, "dvc", "cache", "dir", "--local", str(cache))
        run(tmp_path / name, "dvc", "config", "--local", "cache.shared", "group")
        run(tmp_path / name, "dvc", "checkout", "-q", "data/raw/sample.csv.gz")
    told = at_once({tmp_path / name: [experiment(name)] for name in CHANGES})
    for name in CHANGES:
        assert results(tmp_path / name) == results(alone / name)
    # They did what they have in common side by side, and not one after the other from the run cache.
    assert all("prepare" in ran(output) for output in told)
    found = list(objects(cache))
    assert len(found) > before + 20
    assert [name for name, digest in found if name != digest] == []
    assert not [path for path in cache.rglob("*") if path.is_file() and "tmp" in path.name]
    for name in CHANGES:
        run(tmp_path / name, "dvc", "status", "-q")  # nothing changed, nothing missing
        shutil.rmtree(tmp_path / name / "models")
        run(tmp_path / name, "dvc", "checkout", "-q")
        assert results(tmp_path / name) == results(alone / name)


def test_both_networks_train_side_by_side_in_one_workspace(alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(alone / "project", folder)
    run(folder, "dvc", "repro", "-q", "embed")
    at_once({folder: [["dvc", "repro", "--single-item", f"train_{network}"] for network in CHANGES]})
    assert ran(run(folder, "dvc", "repro")) == ["evaluate"]
    side_by_side = results(folder)
    shutil.rmtree(folder / ".dvc/cache/runs")
    run(folder, "dvc", "repro", "-q", "--force", "train_cnn", "train_mlp", "evaluate")
    assert results(folder) == side_by_side
