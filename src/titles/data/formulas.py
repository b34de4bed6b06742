"""Text that a spreadsheet would run as a formula when it opens a CSV file."""

from __future__ import annotations

from typing import Any

# The last four are wide forms of the first, which some spreadsheets take for them.
_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff20", "\uff0b", "\uff0d")


def escaped(value: Any) -> Any:
    """The value, with an apostrophe before text that a spreadsheet would take for a formula;
    numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_STARTS) else value


def unescaped(text: str) -> str:
    """The text before `escaped`."""
    return text[1:] if text.startswith("'") and text[1:].startswith(_STARTS) else text
