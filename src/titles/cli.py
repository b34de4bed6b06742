"""The command line, `titles`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import ModuleType

from titles.commands import Command, classify, data, doctor, experiments, search, serving


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code, else 0, 1 for bad input, 2 for bad usage, 130 when
    interrupted."""
    try:
        parser = _parser([data, experiments, search, classify, serving, doctor])
    except ImportError as error:
        print(f"{error}: only `titles doctor` works until it is installed", file=sys.stderr)
        parser = _parser([doctor])
    options = parser.parse_args(arguments)
    code = 0
    try:
        code = options.run(options) or 0
        print(end="", flush=True)  # not by sys.stdout, which is None if it was closed
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        with suppress(OSError):  # stderr may fail as well
            print(f"error: {error}", file=sys.stderr)
        return code or 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return code


def _parser(groups: Sequence[ModuleType]) -> Command:
    parser = Command(
        prog="titles",
        description="Classify marketplace listing titles. The pipeline runs with `dvc exp run`.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for group in groups:
        group.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
