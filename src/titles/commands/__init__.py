"""The commands of `titles` and their arguments. Slow imports are inside the commands, so that
`titles --help` is quick."""

from __future__ import annotations

import argparse
import inspect
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from titles.models.registry import AVERAGE, NETWORKS

Commands: TypeAlias = "argparse._SubParsersAction[Command]"


class Command(argparse.ArgumentParser):
    """The parser of a command or of a group of commands."""

    def argument(self, name: str, help: str, **settings: Any) -> None:
        """Add an argument. A default is appended to its help, unless it is None, 0 or empty."""
        shown = f"{help} (default: %(default)s)".strip() if settings.get("default") else help
        if "action" not in settings:
            settings.setdefault("type", text)
        self.add_argument(name, help=shown, **settings)

    def network(self, default: str) -> None:
        """Add --model: one network, or the average if that is the default."""
        averages = [AVERAGE] if default == AVERAGE else []
        text = "network" + ", or the average of all" * len(averages)
        self.argument("--model", text, choices=[*averages, *NETWORKS], default=default)

    def models(self, default: str = AVERAGE) -> None:
        """Add --model, and --models: the folder with a folder for each network."""
        self.network(default)
        text = "folder of the trained networks"
        self.argument("--models", text, type=Path, default="models", metavar="FOLDER")


def text(argument: str) -> str:
    """An argument that is no path: as UTF-8 where its bytes are, whatever the locale reads them as."""
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        return argument


def command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    help: str,
    epilog: str = "",
) -> Command:
    """Add a command, described by the docstring of `run`, which may return an exit code."""
    made = commands.add_parser(name, help=help, description=inspect.getdoc(run), epilog=epilog)
    made.set_defaults(run=run)
    return made


MOST = 1_000_000_000
_DIGITS = 20  # more are no number of anything


def positive(text: str, kind: str = "", most: int = MOST) -> int:
    """An integer from 1 to `most`, for argparse."""
    kind = kind or f"an integer from 1 to {most}"
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS else 0
    if not 0 < number <= most:
        shown = text if len(text) <= _DIGITS else f"{text[:_DIGITS]}..."
        raise argparse.ArgumentTypeError(f"{shown!r} is not {kind}")
    return number


def probability(text: str) -> float:
    """A number from 0 to 1, for argparse."""
    with suppress(ValueError):
        if 0 <= (value := float(text)) <= 1:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")


def coverage(text: str) -> float:
    """A level of sets of answers, for argparse."""
    with suppress(ValueError):
        if 0.5 <= (value := float(text)) <= 0.99:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0.5 to 0.99")


def end_on_termination() -> None:
    """Let SIGTERM, and the end of the terminal, end the process with cleanup, like Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under `nohup`
            signal.signal(number, lambda number, _: sys.exit(128 + number))
