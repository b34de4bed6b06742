"""What is installed, as files that others read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.pipeline, pytest.mark.endures]

ROOT = Path(__file__).parent.parent


def test_the_bill_of_materials_is_valid_and_names_what_is_installed(tmp_path: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    # The command of the Makefile, with another place for the file.
    printed = subprocess.run(
        ["make", "--dry-run", "sbom"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (line,) = [line for line in printed.stdout.splitlines() if line.startswith("cyclonedx-py ")]
    file = tmp_path / "sbom.json"
    command = line.replace("sbom.json", str(file)).replace(".venv/bin/python", sys.executable)
    subprocess.run(command.split(), cwd=ROOT, check=True)
    text = file.read_text(encoding="utf-8")
    found = json.loads(text)
    assert not JsonStrictValidator(SchemaVersion.from_version(found["specVersion"])).validate_str(text)
    named = {part["name"].lower() for part in found["components"]}
    assert {"torch", "dvc", "mlflow", "numpy"} <= named
    assert found["metadata"]["component"]["name"] == "titles"
