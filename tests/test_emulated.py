"""Other processors, emulated, give the bytes of this one.

qemu-x86_64, of Debian's package qemu-user, runs a program as if on another model of processor. It knows
AVX2 and not AVX-512: where this processor has AVX-512, equal hashes show that data/processor.py keeps
the libraries from it.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from processors import ROOT
from small_project import QUICK
from titles.data import processor
from titles.datasets.sample import write_csv

EMULATOR = "qemu-x86_64"
# Of Intel, AMD and Hygon, whose libraries tell them apart.
MODELS = ("Haswell", "EPYC", "Dhyana")
ROWS = 1_200

pytestmark = [
    pytest.mark.emulated,
    pytest.mark.endures,
    pytest.mark.skipif(
        not shutil.which(EMULATOR), reason=f"NOT RUN: {EMULATOR} is not installed, see CONTRIBUTING.md"
    ),
    pytest.mark.skipif(not processor.portable(), reason="NOT RUN: this is no x86-64 with AVX2"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The input of the stages, and titles."""
    folder = tmp_path_factory.mktemp("project")
    sample = folder / "data/raw/sample.csv.gz"
    sample.parent.mkdir(parents=True)
    write_csv(ROWS, 7, sample, progress=False)
    with gzip.open(sample, "rt", encoding="utf-8", newline="") as stream:
        titles = [row["title"] for row in csv.DictReader(stream)]
    (folder / "titles.txt").write_text("\n".join([*titles[:300], ""]), encoding="utf-8")
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    # qemu 7.2 crashes in loops of several threads; of parts, they are compared.
    for key, value in (QUICK | {"dimension": 32, "threads": 1}).items():
        params = re.sub(rf"^(  {key}:) \S+( \S+\])?", rf"\1 {value}", params, flags=re.M)
    (folder / "params.yaml").write_text(params, encoding="utf-8")
    return folder


def computed(model: str, *what: str, **variables: str) -> dict[str, Any]:
    """The machine and the hashes of tests/processors.py, on a model of processor or "" for this one."""
    emulator = [EMULATOR, "-cpu", model] if model else []
    passed = {k: v for k, v in os.environ.items() if k not in processor._SETTINGS}
    done = subprocess.run(
        [*emulator, sys.executable, str(ROOT / "tests/processors.py"), *what],
        env=passed | {"TITLES_MLFLOW": "off"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def of_stages(model: str, project: Path, folder: Path) -> dict[str, str]:
    shutil.copytree(project, folder)
    hashes: dict[str, str] = computed(model, "stages", str(folder))["hashes"]
    return hashes


@pytest.fixture(scope="module")
def here(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return of_stages("", project, tmp_path_factory.mktemp("here") / "project")


@pytest.fixture(scope="module")
def parts() -> dict[str, str]:
    hashes: dict[str, str] = computed("", "parts")["hashes"]
    return hashes


@pytest.mark.parametrize("model", MODELS)
def test_products_and_other_parts_are_the_same(model: str, parts: dict[str, str]) -> None:
    found = computed(model, "parts")
    assert found["machine"] == processor.PORTABLE_CLASS
    assert len(found["hashes"]) > 70
    assert found["hashes"] == parts


@pytest.mark.parametrize("model", MODELS)
def test_all_that_stages_predictions_and_exports_write_is_the_same(
    model: str, project: Path, here: dict[str, str], tmp_path: Path
) -> None:
    assert any(name.startswith("exported/") for name in here)
    assert {"predictions/test.parquet", "models/cnn/weights.safetensors"} < here.keys()
    found = of_stages(model, project, tmp_path / "project")
    assert {name for name in {**here, **found} if here.get(name) != found.get(name)} == set()


def test_without_the_settings_processors_differ() -> None:
    """These tests can fail: products by MKL are not the same."""
    code = (
        "import titles.data.processor as p; p._settled = p.Settled(False); "
        "import sys; sys.path.insert(0, 'tests'); import processors; print(processors.of_products(0, 8))"
    )
    found = []
    for model in ("", "Haswell"):
        emulator = [EMULATOR, "-cpu", model] if model else []
        passed = {k: v for k, v in os.environ.items() if k not in processor._SETTINGS}
        given = passed | {"MKL_CBWR": "AVX2"}
        command = [*emulator, sys.executable, "-W", "ignore", "-c", code]
        done = subprocess.run(command, env=given, cwd=ROOT, capture_output=True, text=True, check=True)
        found.append(done.stdout)
    assert found[0] != found[1]


def test_a_processor_without_avx2_trains(project: Path, here: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(project, tmp_path / "project")
    found = computed("Nehalem", "stages", str(tmp_path / "project"))
    assert found["machine"] != processor.PORTABLE_CLASS
    prepared = [name for name in here if name.startswith("data/prepared/")]
    assert {name: found["hashes"][name] for name in prepared} == {name: here[name] for name in prepared}
    model = json.loads((tmp_path / "project/models/mlp/model.json").read_bytes())
    assert model["training"]["machine"] == found["machine"]
