"""What a check finds."""

from __future__ import annotations

from typing import NamedTuple

OK, WARNING, PROBLEM = "ok", "warning", "problem"

Config = dict[str, str]  # what `dvc config --list` says


class Finding(NamedTuple):
    """One line of what was found, and one of what to do, "" where nothing is to be done.

    level: OK, WARNING (works, but not as it should) or PROBLEM (something does not work).
    """

    check: str
    level: str
    found: str
    do: str = ""
