"""`titles gate`: what passes, what does not, and the exit codes by which a script knows."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from test_report import NEW, OLD, PARAMS, experiment, predicted, some_rows, with_rnn
from titles.cli import main
from titles.evaluation.metrics import paired_test
from titles.experiments import gate
from titles.models.registry import CLASSIFIERS

WORSE = experiment("worse", predicted({"BIKES": 2, "CARS": 30, "DOGS": 1}))
PART = experiment("part", some_rows(OLD.predictions, range(20, 61)), seed=4)
FEW = experiment("few", some_rows(OLD.predictions, range(40, 61)))
LOST = dataclasses.replace(OLD, name="lost", predictions=None, notes=("no curve", "no predictions"))
WRONG = ("-0.1", "1", "nan", "inf", "x", "")
KNOWN = {e.name: e for e in (OLD, NEW, WORSE, PART, FEW, LOST)}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = KNOWN | {"rnn": with_rnn(OLD)}

    def load(name: str) -> Any:
        if name not in found:
            raise ValueError(f"there is no experiment named {name}")
        return found[name]

    monkeypatch.setattr(gate, "load", load)
    return found


def test_each_classifier_has_a_line_with_the_paired_test_of_reports(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["gate", "old", "worse"]) == 1
    old, worse = OLD.predictions.outcomes["cnn"], WORSE.predictions.outcomes["cnn"]
    test = paired_test(worse, old, PARAMS["evaluate.bootstrap_samples"], PARAMS["seed"])
    low, high = test["difference_low"], test["difference_high"]
    assert capsys.readouterr().out.splitlines() == [
        f"WORSE {name}: {(2 - 10) / 23 / 3:.4f} (95 % from {low:.4f} to {high:.4f}), margin 0.005"
        for name in CLASSIFIERS
    ]
    assert main(["gate", "old", "old"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"ok {name}: 0.0000 (95 % from 0.0000 to 0.0000), margin 0.005" for name in CLASSIFIERS
    ]
    assert main(["gate", "worse", "old"]) == 0


def test_a_candidate_is_worse_only_if_all_of_the_interval_is_below_the_margin() -> None:
    (check, *_), _ = gate.gate("old", "worse", 0.0)
    assert check.is_worse
    assert check.low < check.difference < check.high < 0
    for within, code in ((0.0, 1), (-check.high - 0.001, 1), (-check.high, 0), (-check.high + 0.001, 0)):
        assert main(["gate", "old", "worse", "--within", str(within)]) == code
    # Not better, but not surely worse either.
    assert not gate.Check("cnn", -0.01, -0.03, 0.01, 0.0).is_worse
    assert not gate.Check("cnn", -0.01, -0.02, 0.0, 0.0).is_worse
    assert gate.Check("cnn", -0.01, -0.02, -0.001, 0.0).is_worse


def test_one_worse_network_is_enough(known: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = OLD.predictions.outcomes | {"mlp": WORSE.predictions.outcomes["mlp"]}
    predictions = dataclasses.replace(OLD.predictions, outcomes=outcomes)
    known["mixed"] = dataclasses.replace(OLD, name="mixed", predictions=predictions)
    assert main(["gate", "old", "mixed"]) == 1
    verdicts = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert verdicts == ["WORSE" if name == "mlp" else "ok" for name in CLASSIFIERS]


def test_titles_that_both_have_are_compared_and_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", "old", "part"]) == 0
    told = capsys.readouterr()
    assert "note: part was not evaluated on the same test titles as old" in told.err
    assert len(told.out.splitlines()) == 3


@pytest.mark.parametrize(
    ("baseline", "candidate", "reason"),
    [
        ("old", "few", "too few test titles are in both: few was not"),
        ("old", "lost", "no predictions"),
        ("lost", "old", "no predictions"),
        ("old", "nowhere", "there is no experiment named nowhere"),
        ("rnn", "old", "old has no predictions of rnn"),
    ],
)
def test_what_cannot_be_compared_is_neither_fine_nor_worse(
    baseline: str, candidate: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gate", baseline, candidate]) == 3
    told = capsys.readouterr()
    assert told.err.startswith(f"error: not compared: {reason}")
    assert (told.out, told.err.count("\n")) == ("", 1)


def test_a_new_network_of_the_candidate_is_not_asked_of_the_baseline() -> None:
    assert main(["gate", "old", "rnn"]) == 0


def test_a_bug_does_not_pass_for_a_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gate, "load", lambda name: 1 / 0)
    assert main(["gate", "old", "new"]) == 3
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["old"], ["old", "new", "more"], *(["old", "new", f"--within={x}"] for x in WRONG)]
)
def test_bad_usage_has_a_code_of_its_own(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["gate", *arguments])
    assert ended.value.code == 2


SCRIPT = """
import sys
from titles.cli import main
from titles.experiments import gate
level, failing = float(sys.argv[1]), sys.argv[2:]
gate.gate = lambda *names: ([gate.Check("cnn", level, level, level, 0.0)], "a note" if failing else "")
sys.exit(main(["gate", "one", "other"]))
"""


@pytest.mark.parametrize(
    ("ending", "codes"),
    [
        ("| true", (0, 1)),
        (">&-", (0, 1)),
        ("> /dev/full", (3, 3)),
        ("> /dev/full 2> /dev/full", (3, 3)),
        ("x 2> /dev/full", (0, 1)),
        ("x 2>&-", (0, 1)),
    ],
)
def test_an_output_that_fails_does_not_change_the_verdict(
    ending: str, codes: tuple[int, int], tmp_path: Path
) -> None:
    (tmp_path / "gate.py").write_text(SCRIPT)
    for level, code in zip((0.1, -0.1), codes, strict=True):
        command = f"{sys.executable} gate.py {level} {ending}; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stderr
        assert done.returncode == code


def test_a_package_that_is_missing_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "titles.experiments.gate", None)
    assert main(["gate", "old", "new"]) == 3
    assert capsys.readouterr().err.startswith("error: not compared: ")
