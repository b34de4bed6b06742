"""Text for people: names from outside, and errors, on one line that cannot command a terminal."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
import unicodedata
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from types import TracebackType

DEBUG = "TITLES_DEBUG"

_MOST_CHARACTERS = 1600  # of an error: a screen of 24 lines with room for the prompt
_KEPT_END = 300  # of a longer one, which often ends with the cause
_JOINERS = "\u200c\u200d"  # which some scripts and emoji need
_NO_MEMORY = re.compile(r"(allocate|not enough|out of) memory|bad_alloc", re.I)
_NO_SPACE = re.compile(r"no space left|os error 28\b|disk is full|quota exceeded", re.I)
# Those of C0 and C1, and changes of direction.
_COMMANDS = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# Packages whose own exceptions tell of what they read, write or reach, rather than of a mistake here.
_OUTSIDE = {
    "_lzma": "packed data are damaged",
    "alembic": "MLflow's store",
    "dvc": "DVC",
    "dvc_data": "DVC",
    "dvc_objects": "DVC",
    "http": "HTTP",
    "mlflow": "MLflow",
    "onnxruntime": "ONNX Runtime",
    "optuna": "Optuna",
    "pyarrow": "Parquet",
    "requests": "HTTP",
    "safetensors": "weights",
    "safetensors_rust": "weights",
    "scmrepo": "git",
    "sqlalchemy": "a database",
    "sqlite3": "a database",
    "struct": "a file is damaged",
    "subprocess": "",
    "tarfile": "a packed file",
    "urllib3": "HTTP",
    "yaml": "YAML",
    "zipfile": "a packed file",
    "zlib": "packed data are damaged",
}


def printable(text: str, kept: str = "") -> str:
    """The text with whatever a terminal could obey or not show written out as escapes.

    These are control characters, marks of direction and other invisible ones, separators of lines, and
    bytes that are not UTF-8. Joiners and spaces of any width stay.

    Args:
        kept: characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept or _is_shown(c) else _escaped(c) for c in text)


def has_commands(text: str) -> bool:
    """Whether a name holds characters that command a terminal or a page, which no name needs."""
    return bool(_COMMANDS.search(text))


def _is_shown(letter: str) -> bool:
    return letter in _JOINERS or unicodedata.category(letter) == "Zs"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def on_one_line(text: str) -> str:
    """The text on one line of at most a screen, printable."""
    joined = ""
    # splitlines() would also split names at U+2028 and the like.
    for line in filter(None, map(str.strip, text.split("\n"))):
        joined += ("" if not joined else " " if joined[-1] in ":,;." else "; ") + printable(line)
    if len(joined) > _MOST_CHARACTERS:
        joined = f"{joined[: _MOST_CHARACTERS - _KEPT_END]} ... {joined[-_KEPT_END:]}"
    return joined


def told(error: BaseException) -> str:
    """An exception as one line for the user.

    What comes from outside, such as bad input, damaged files, full disks, lack of memory and failures of
    programs, is told plainly. Any other exception is a bug: it is named, with the way to its trace.
    """
    text = str(error)
    if _is_lack_of_memory(error):
        found = f"not enough memory: {text}" if text else "not enough memory"
    elif _NO_SPACE.search(text):
        found = f"{_of_system(error)}: free some space, then run it again"
    elif isinstance(error, UnicodeError):
        found = f"text is not in the encoding that is expected: {text}"
    elif isinstance(error, OSError):
        found = _of_system(error)
    elif isinstance(error, ValueError):
        found = text
    elif isinstance(error, ImportError):
        found = f"{text}: `titles doctor` checks the installation"
    elif isinstance(error, RecursionError):
        found = "the input is nested too deeply"
    elif isinstance(error, EOFError):
        found = f"a file ends too early: {text}"
    elif isinstance(error, BrokenExecutor):
        found = (
            "a worker process was ended from outside, often for lack of memory: run it again, with "
            "fewer processes or more memory"
        )
    elif (package := _outside(error)) is not None:
        found = f"{package}: {text}" if package else text
    else:
        name = type(error).__name__
        found = f"{name}: {text}" if text else name
        found = f"{on_one_line(found)} (not expected; {DEBUG}=1 shows the trace)"
    return on_one_line(found) or type(error).__name__


def failure(error: BaseException) -> str:
    """The line that ends a program after an exception; its trace is printed before if TITLES_DEBUG is
    set."""
    if os.environ.get(DEBUG) and sys.stderr is not None:
        traceback.print_exception(error)
    return f"error: {told(error)}"


def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """In place of Python's own, which prints the trace."""
    text = "interrupted" if isinstance(error, KeyboardInterrupt) else failure(error)
    with suppress(OSError):  # stderr may fail as well
        print(text, file=sys.stderr)


def _is_lack_of_memory(error: BaseException) -> bool:
    """Also of torch, which raises RuntimeError, and of the system."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


def _of_system(error: BaseException) -> str:
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    if error.errno == errno.EBADF and error.filename is None:
        return "the standard input or output is closed"
    names = [os.fsdecode(n) for n in (error.filename, error.filename2) if isinstance(n, str | bytes)]
    return ": ".join([" -> ".join(names), error.strerror] if names else [error.strerror])


def _outside(error: BaseException) -> str | None:
    """What an exception of a package is about; None for those of Python and of this package."""
    packages = [kind.__module__.partition(".")[0] for kind in type(error).__mro__]
    return next((_OUTSIDE[package] for package in packages if package in _OUTSIDE), None)
