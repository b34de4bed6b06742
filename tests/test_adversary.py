"""Hostile cases of adversary.py, one test each: of each table the first row."""

from __future__ import annotations

from pathlib import Path

import pytest

import adversary  # noqa: F401, it loads the cases
from hostile.harness import CASES, attempt, chosen

pytestmark = [pytest.mark.pipeline, pytest.mark.endures]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adversary")


@pytest.mark.parametrize("key", chosen(rows=1), ids=lambda key: f"{key[0]}: {key[1]}")
def test_a_hostile_case_is_settled(key: tuple[str, str], shared: Path) -> None:
    outcome, reason = attempt(CASES[key], shared)
    if outcome == "skip":
        pytest.skip(f"NOT RUN: {reason}")
    assert outcome == "pass", reason
