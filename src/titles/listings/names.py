"""Names as users write them: categories, and columns of files."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# Copied from pages and spreadsheets, and not seen: soft hyphens, zero-width spaces, byte order marks,
# marks of direction, selectors of a glyph. As in titles, but joiners stay, which some scripts need.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    "\ufff9-\ufffb]+"
)


def canonical(name: str) -> str:
    """The one spelling of names that look the same: composed accents (NFC), single spaces in place of
    any white space, none at the ends, no invisible characters. Case counts."""
    return _remembered(name) if len(name) <= _REMEMBERED else _canonical(name)


def _canonical(name: str) -> str:
    if not name.isascii():
        name = unicodedata.normalize("NFC", _INVISIBLE.sub("", name))
    return " ".join(name.split())


_REMEMBERED = 256  # characters; thousands of longer names would fill the memory
_remembered = lru_cache(maxsize=4096)(_canonical)
