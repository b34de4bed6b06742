"""Names as users write them: categories, and columns of files."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from functools import lru_cache

from titles.data.messages import printable

# Copied from pages and spreadsheets, and not seen: soft hyphens, zero-width spaces, byte order marks,
# marks of direction, selectors of a glyph. As in titles, but joiners stay, which some scripts need.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    "\ufff9-\ufffb]+"
)


_MOST_LETTERS = 200  # of a name in a list
# Without quotes, a list would show another number of names, or hide where one ends.
_PLAIN = re.compile(r"[^\s,;\"']([^,;\"]*[^\s,;\"'])?")


def listed(names: Sequence[str], most: int | None = None) -> str:
    """The first names, separated by commas, and how many more there are.

    Control characters are written out. Names that are empty or hold a comma, a semicolon, a quote or
    outer spaces stand in double quotes. Very long ones are cut.
    """
    shown = [_cut(printable(name)) for name in names[:most]]
    shown = [name if _PLAIN.fullmatch(name) else _in_quotes(name) for name in shown]
    more = len(names) - len(shown)
    return ", ".join(shown) + f" and {more:,} more" * (more > 0)


def _cut(name: str) -> str:
    return name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…"


def _in_quotes(name: str) -> str:
    """As in a CSV."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def canonical(name: str) -> str:
    """The one spelling of names that look the same: composed accents (NFC), single spaces in place of
    any white space, none at the ends, no invisible characters. Case counts."""
    return _remembered(name) if len(name) <= _REMEMBERED else _canonical(name)


def _canonical(name: str) -> str:
    if not name.isascii():
        name = unicodedata.normalize("NFC", _INVISIBLE.sub("", name))
    return " ".join(name.split())


def are_canonical(names: Collection[str]) -> bool:
    """Whether each name is printable, not empty and its own canonical spelling.

    All at once: a call for each name costs four times as much.
    """
    if "" in names or not "".join(names).isprintable():
        return False
    lines = "\n".join(names)
    return not _SPACED.search(lines) and (
        lines.isascii() or (not _INVISIBLE.search(lines) and unicodedata.is_normalized("NFC", lines))
    )


_SPACED = re.compile("^ | $|  ", re.MULTILINE)  # no other white space is printable
_REMEMBERED = 256  # characters; thousands of longer names would fill the memory
_remembered = lru_cache(maxsize=4096)(_canonical)
