"""Parameters and data hashes of a run, as its records name them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROJECT = "TITLES_PROJECT"


def project_folder() -> Path:
    """The project that a run belongs to, where records and checkpoints outlive a temporary folder.

    In the temporary folders of DVC it is in DVC_ROOT, in those of a search in TITLES_PROJECT.
    """
    return Path(os.environ.get(PROJECT) or os.environ.get("DVC_ROOT", ".")).resolve()


def sqlite_uri(file: Path) -> str:
    """The URI of an SQLite file for MLflow and Optuna, whatever characters its path has."""
    from sqlalchemy import URL  # slow to import

    return URL.create("sqlite", database=str(file)).render_as_string()


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of nested sections under dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def flat_text(values: Mapping[str, Any]) -> dict[str, str]:
    """`flat` with values as text, URLs without user and password."""
    return {key: without_login(str(value)) for key, value in flat(values).items()}


def data_hashes(stages: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of the source and of what the stages before training made.

    Args:
        stages: those of a dvc.lock.
    """
    return {
        without_login(item["path"]): item["md5"]
        for stage in ("prepare", "embed")
        for item in stages[stage].get("deps", []) + stages[stage].get("outs", [])
        if "md5" in item and not item["path"].startswith("src/")
    }


def without_login(text: str) -> str:
    """A text without the user and password of its URLs."""
    return re.sub(r"(\w[\w+.-]*://)\S*@", r"\1", text)
