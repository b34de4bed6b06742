"""Findings as people and programs read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from titles.doctor.finding import OK, PROBLEM, WARNING, Finding


def show(findings: Iterable[Finding], as_json: bool) -> bool:
    """Print findings, in colour on a terminal unless NO_COLOR is set; whether none is a problem."""
    counts = {OK: 0, WARNING: 0, PROBLEM: 0}
    told = []
    line = _printer()
    for finding in findings:
        counts[finding.level] += 1
        told.append(finding._asdict())
        if not as_json:
            line(finding)
    if as_json:
        print(json.dumps({"problems": counts[PROBLEM], "warnings": counts[WARNING], "checks": told}))
    else:
        print(f"problems: {counts[PROBLEM]}, warnings: {counts[WARNING]}")
    return not counts[PROBLEM]


def _printer() -> Callable[[Finding], None]:
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:  # the finding says so
        return lambda finding: print(*_lines(finding), sep="\n", flush=True)
    console = Console(highlight=False)
    colours = {OK: "green", WARNING: "yellow", PROBLEM: "bold red"}

    def line(finding: Finding) -> None:
        first, *rest = _lines(finding)
        text = Text(first)
        text.stylize(colours[finding.level], 0, len(finding.level))
        console.print(text, soft_wrap=True)
        for other in rest:
            console.print(Text(other, "bold" if finding.level == PROBLEM else ""), soft_wrap=True)

    return line


def _lines(finding: Finding) -> list[str]:
    lines = [f"{finding.level:8} {finding.check:13} {finding.found}"]
    return [*lines, *[f"{'':22} -> {finding.do}"] * bool(finding.do)]
