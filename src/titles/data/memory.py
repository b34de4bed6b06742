"""The memory of this machine: what cannot fit is refused before it is asked for.

Linux promises more memory than there is, and ends a process, or another one, once it is used.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_GIB = 1 << 30


def available() -> int:
    """Bytes of memory of the machine, or of the container around this process."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # "max"
        found = min(found, int(_GROUP_LIMIT.read_text(encoding="ascii")))
    return found


def check(needed: int, purpose: str) -> None:
    """Refuse what needs more bytes than all the memory.

    Args:
        purpose: names what needs them, and the parameters that it follows from.

    Raises:
        ValueError: there are fewer.
    """
    if needed > (have := available()):
        raise ValueError(
            f"{purpose} need {needed / _GIB:.1f} GiB of memory, this machine has {have / _GIB:.1f} GiB"
        )
