"""The command `titles`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from titles.commands import classify, data, doctor, experiments, serving, tracking


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns 0, 1 for bad input, 2 for bad usage, 130 when interrupted."""
    try:
        parser = _parser()
    except ImportError as error:
        print(f"{error}: only `titles doctor` works until it is installed", file=sys.stderr)
        parser = _parser_of([doctor])
    options = parser.parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has read enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    return _parser_of([data, experiments, tracking, classify, serving, doctor])


def _parser_of(groups: Sequence[ModuleType]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="titles",
        description="Marketplace listing titles into categories. The pipeline runs with `dvc exp run`.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for group in groups:
        group.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
