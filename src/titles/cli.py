"""The command line, `titles`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType

from titles.commands import Command, classify, data, doctor, experiments, search, serving
from titles.data import console, messages


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code, else 0, 1 for bad input and other errors, 2 for bad usage,
    130 when interrupted. An error is one line; TITLES_DEBUG=1 shows the trace."""
    with console.streams():
        return _ended(arguments)


def _ended(arguments: Sequence[str] | None) -> int:
    code = 0
    try:
        try:
            parser = _parser([data, experiments, search, classify, serving, doctor])
        except ImportError as error:
            print(f"{error}: only `titles doctor` works until it is installed", file=sys.stderr)
            parser = _parser([doctor])
        options = parser.parse_args(arguments)
        code = options.run(options) or 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if not (isinstance(error, BrokenPipeError) and console.reader_is_gone()):
            print(messages.failure(error), file=sys.stderr)
            return code or 1
    return code


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from titles.doctor.environment import version

        print(f"titles {version('titles') or 'of a folder that is not installed'}")
        parser.exit()


def _parser(groups: Sequence[ModuleType]) -> Command:
    parser = Command(
        prog="titles",
        description="Classify marketplace listing titles. The pipeline runs with `dvc exp run`.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version, and exit")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for group in groups:
        group.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
