"""Commands of `titles`: what they take, and what does their work. Imports that take long wait for their
command, so that `titles --help` is quick."""

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
    """A whole number above 0, for argparse."""
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
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
    """--models: the folder of the networks' folders."""
    command.add_argument(
        "--models",
        type=Path,
        default="models",
        metavar="FOLDER",
        help="where the trained networks are (default: %(default)s)",
    )


def end_on_termination() -> None:
    """Let SIGTERM end the process as Ctrl-C does, so that it cleans up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
