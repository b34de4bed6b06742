"""Words for findings: one line, short, without secrets."""

from __future__ import annotations

import os
import re

NAMED = 5  # names in a line, at the most
_LONGEST = 400  # characters of a line


def address(url: str) -> str:
    """An address without user, password, query and fragment, where tokens stand."""
    scheme, found, rest = url.partition("://")
    if not found:
        return url
    authority = rest.rpartition("@")[2]
    return f"{scheme}://{re.split('[?#]', authority)[0]}"


def line(text: str) -> str:
    """One line, printable, without what looks like a credential in an address."""
    text = " ".join(re.sub(r"(\w[\w+.-]*://)\S*@", r"\1***@", text).split())
    for key, secret in os.environ.items():
        if re.search("PASSWORD|TOKEN|SECRET", key) and len(secret) > 3:
            text = text.replace(secret, "***")
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def size(count: float) -> str:
    """Bytes, in a unit that keeps the number short."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
