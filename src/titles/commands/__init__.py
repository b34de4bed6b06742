"""The commands of `titles` and their arguments. Slow imports are inside the commands, so that
`titles --help` is quick."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from titles.models.registry import AVERAGE, NETWORKS

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def positive(text: str) -> int:
    """A positive integer, for argparse."""
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def add_model(command: argparse.ArgumentParser) -> None:
    """--model: one network, or the average."""
    command.add_argument(
        "--model",
        choices=[AVERAGE, *NETWORKS],
        default=AVERAGE,
        help="network, or the average of all (default: %(default)s)",
    )


def add_network(command: argparse.ArgumentParser, default: str) -> None:
    """--model: one network."""
    command.add_argument(
        "--model", choices=list(NETWORKS), default=default, help="network (default: %(default)s)"
    )


def add_models(command: argparse.ArgumentParser) -> None:
    """--models: the folder with a folder for each network."""
    command.add_argument(
        "--models",
        type=Path,
        default="models",
        metavar="FOLDER",
        help="folder of the trained networks (default: %(default)s)",
    )


def end_on_termination() -> None:
    """Let SIGTERM end the process with cleanup, like Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
