"""The list of deliberate faults is up to date, and the page with what notices them too."""

from __future__ import annotations

import ast
import re

import pytest

from faults import MUTANTS, Mutant
from mutants import ROOT, text_of

PAGE = (ROOT / "docs/mutants.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_can_be_made_and_is_code(mutant: Mutant) -> None:
    changed = text_of(mutant).replace(mutant.old, mutant.new)
    if mutant.file.endswith(".py"):
        ast.parse(changed)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_page_names_a_test_that_notices_it_and_is_there(mutant: Mutant) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| {mutant.name} ")]
    file, name = re.findall(r"`(test_\w+\.py)::(\w+)`", row)[0]
    assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")


def test_what_is_to_be_changed_must_stand_there_once() -> None:
    with pytest.raises(ValueError, match="stands 0 times"):
        text_of(Mutant("a", "dvc.yaml", "no such line", "", ""))


def test_there_are_enough_of_them_and_names_differ() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20
