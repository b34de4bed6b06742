"""`titles doctor`. Imports only the standard library: it runs when packages are not installed."""

from __future__ import annotations

import argparse
import sys

from titles.commands import Commands, command


def add(commands: Commands) -> None:
    text = "find problems in the environment, and say how to fix them"
    doctor = command(commands, "doctor", _doctor, text)
    doctor.argument("--json", "print one JSON object", action="store_true")


def _doctor(options: argparse.Namespace) -> None:
    """Check Python and its packages, git, DVC and its remote, all data, parameters, disk and MLflow, and
    say how to fix problems. Changes nothing, prints no credentials, and gives servers only seconds to
    answer. Exits with 1 if there is a problem, with 0 otherwise."""
    from titles.doctor import examine
    from titles.doctor.findings import show

    if not show(examine(), options.json):
        sys.exit(1)
