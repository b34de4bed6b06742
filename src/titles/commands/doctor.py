"""What is wrong here. Imports nothing that has to be installed: it is there when packages are not."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from titles.commands import Commands


def add(commands: Commands) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="say what is wrong with the environment, and what to do",
        description="Look at Python and its packages, git, DVC and its remote, all data, parameters, "
        "disk and MLflow, and say what is wrong and what to do about it. Changes nothing, prints no "
        "credentials, and waits for no server longer than seconds. Ends with 1 if there is a problem, "
        "with 0 otherwise.",
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> None:
    from titles.doctor import examine
    from titles.doctor.report import show

    if not show(examine(Path.cwd()), options.json):
        sys.exit(1)
