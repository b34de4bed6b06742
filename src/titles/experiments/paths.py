"""Folders in which DVC cannot work. No package is needed: the doctor asks before they are installed."""

from __future__ import annotations

import re
from pathlib import Path

_MOVE = "move the project to a folder with plain letters and digits in its path"
# Neither git's lists of folders nor a line of a message hold these: ends of lines, bytes not UTF-8.
_IN_NO_LINE = r"[\n\r\udc80-\udcff]"
# Progress bars of DVC take these for a template, and its configuration such a name.
_NOT_IN_DVC = re.compile(rf"[{{}}]|%\(.*\)s|{_IN_NO_LINE}")
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
    shown = re.sub(_IN_NO_LINE, "?", str(folder))
    return f"DVC cannot{runs} in {shown}, for the {found[0]!r} in the path: {_MOVE}"
