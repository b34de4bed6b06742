"""Folders in which DVC cannot work. No package is needed: the doctor asks before they are installed."""

from __future__ import annotations

import re
from pathlib import Path

_MOVE = "move the project to a folder with plain letters and digits in its path"
# Progress bars of DVC take these for a template, and its configuration such a name.
_NOT_IN_DVC = re.compile(r"[{}]|%\(.*\)s")
# The addresses of DVC's temporary folders are not quoted, and their configuration is in ASCII.
_NOT_IN_TEMPORARY = re.compile(r"[^ -~]|[%?#{}]")


def unfit(folder: Path, temporary: bool = False) -> str:
    """Why DVC cannot work in a folder for a character in its path, and the remedy; "" if it can.

    Args:
        temporary: whether it is to run experiments there in its queue or in temporary folders.
    """
    found = (_NOT_IN_TEMPORARY if temporary else _NOT_IN_DVC).search(str(folder))
    if not found:
        return ""
    runs = " run experiments in its queue or with --temp" if temporary else " work"
    return f"DVC cannot{runs} in {folder}, for the {found[0]!r} in the path: {_MOVE}"
