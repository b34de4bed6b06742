"""Findings, their text and how they are printed."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

from titles.data import console
from titles.listings.names import listed as quoted

OK, WARNING, PROBLEM = "ok", "warning", "problem"
MOST_NAMES = 5  # names listed in a finding
_MOST_CHARACTERS = 400
_COLOURS = {OK: "32", WARNING: "33", PROBLEM: "1;31"}


class Finding(NamedTuple):
    """One line about what was found, and one about what to do, which may be "".

    level: OK, WARNING (works, but not as it should) or PROBLEM (something does not work).
    """

    check: str
    level: str
    found: str
    do: str


def _finding(level: str, check: str, found: str, do: str = "") -> Finding:
    return Finding(check, level, _one_line(found), _one_line(do))


ok, warning, problem = (partial(_finding, level) for level in (OK, WARNING, PROBLEM))


def show(findings: Iterable[Finding], as_json: bool) -> bool:
    """Print findings as they come, or as one JSON object; returns whether none is a problem."""
    shown = []
    for finding in findings:
        shown.append(finding)
        if not as_json:
            _print(finding)
    problems, warnings = (sum(f.level == level for f in shown) for level in (PROBLEM, WARNING))
    if as_json:
        checks = [finding._asdict() for finding in shown]
        print(json.dumps({"problems": problems, "warnings": warnings, "checks": checks}))
    else:
        print(f"problems: {problems}, warnings: {warnings}")
    return not problems


def _print(finding: Finding) -> None:
    """In colour on a terminal, by the rules of `rich`, which may not be installed."""
    level = f"{finding.level:8}"
    is_terminal = sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    if not os.environ.get("NO_COLOR") and (is_terminal or os.environ.get("FORCE_COLOR")):
        level = f"\x1b[{_COLOURS[finding.level]}m{level}\x1b[0m"
    print(level, end=" ", file=console.raw(sys.stdout), flush=True)
    print(f"{finding.check:13} {finding.found}", flush=True)
    if finding.do:
        print(f"{'':22} -> {finding.do}", flush=True)


def _one_line(text: str) -> str:
    """Text on one line, printable, without credentials."""
    text = " ".join(re.sub(r"(\w[\w+.-]*://)\S*@", r"\1***@", text).split())
    for key, secret in os.environ.items():
        if re.search("PASSWORD|TOKEN|SECRET", key) and len(secret) > 3:
            text = text.replace(secret, "***")
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"


def public(url: str) -> str:
    """An address without its user, password, query and fragment, where tokens stand."""
    return re.sub("(?<=://).*@|[?#].*", "", url) if "://" in url else url


def listed(names: Sequence[object]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - MOST_NAMES
    return ", ".join(map(str, names[:MOST_NAMES])) + (f" and {more} more" if more > 0 else "")


def listed_files(names: Sequence[object]) -> str:
    """As `listed`; names that hold commas stand in quotes."""
    return quoted(list(map(str, names)), MOST_NAMES)
