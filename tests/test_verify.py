"""What a second run is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from titles.data import processor
from titles.experiments.store import Revision
from titles.experiments.verify import (
    Verification,
    compare,
    refuse_other_machine,
    shown,
    stale,
    verdict,
)

AT = Revision("main", "0" * 40, "", 0)


def lock(code: str = "c", made: str = "m", seed: int = 1) -> dict[str, dict[str, Any]]:
    return {
        "one": {
            "cmd": "x",
            "deps": [{"path": "src/one.py", "md5": code}],
            "outs": [{"path": "data/one", "md5": made}, {"path": "metrics/one.json", "md5": "j"}],
        },
        "two": {
            "cmd": "y",
            "deps": [{"path": "data/one", "md5": made}],
            "params": {"params.yaml": {"seed": seed}},
            "outs": [{"path": "models/two", "md5": "t"}],
        },
    }


def test_each_output_is_compared_by_its_hash() -> None:
    found = compare(lock(), lock(made="other"), ["one", "two"])
    assert [(o.stage, o.path, o.same) for o in found] == [
        ("one", "data/one", False),
        ("one", "metrics/one.json", True),
        ("two", "models/two", True),
    ]
    assert [o.path for o in compare(lock(), lock(), ["two"])] == ["models/two"]


def test_an_output_that_is_only_on_one_side_is_a_difference() -> None:
    fewer = lock()
    fewer["one"]["outs"].pop()
    for before, after in ((lock(), fewer), (fewer, lock())):
        different = [o for o in compare(before, after, ["one"]) if not o.same]
        assert [o.path for o in different] == ["metrics/one.json"]
        assert "missing" in different[0]


def test_a_lock_that_does_not_fit_what_is_committed_is_told_from_rounding() -> None:
    assert stale(lock(), lock(made="other"), ["one", "two"]) == []
    assert stale(lock(), lock(code="d", seed=2), ["one", "two"]) == ["src/one.py", "parameters of two"]
    different = Verification(AT, compare(lock(), lock(made="o"), ["one"]), ["src/one.py"])
    assert "written with other src/one.py" in verdict(different)
    assert "DIFFERENT" in shown(different)


class Recorded:
    """An experiment as far as its machine goes."""

    name = "main"

    def __init__(self, machine: str | None, portable: bool | None) -> None:
        self.params = {"compute.device": "cpu", "compute.portable": portable}
        self.used = {"machine": machine} if machine else {}

    def json(self, path: Path) -> dict[str, Any]:
        if path.name == "cnn.json":
            return {"used": self.used}
        raise ValueError(f"{path} is not there")


@pytest.mark.parametrize(
    ("there", "portable", "stages", "refused"),
    [
        ("x86-64 with AVX2", True, ["embed", "evaluate"], False),
        ("GPU NVIDIA H200", True, ["train_cnn"], True),
        ("GPU NVIDIA H200", True, ["prepare"], False),
        ("x86_64, another, avx2", False, ["prepare", "embed"], True),
        (None, None, ["embed"], False),
        (None, True, ["train_cnn"], False),
    ],
)
def test_bytes_are_compared_within_a_class_of_machines(
    there: str | None,
    portable: bool | None,
    stages: list[str],
    refused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processor, "_has_avx2", lambda: True)
    recorded: Any = Recorded(there, portable)
    if not refused:
        refuse_other_machine(recorded, stages)
        return
    with pytest.raises(ValueError, match=f"main was run on {there}, and this machine is .*report"):
        refuse_other_machine(recorded, stages)
