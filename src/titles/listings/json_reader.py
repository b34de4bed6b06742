"""Rows of a file with one JSON object per line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from titles.listings.rows import Batch, Broken, Lines, Row, is_utf8

_EXCERPT = 800  # bytes


def first_keys(lines: Lines[bytes], count: int) -> tuple[list[str], int]:
    """The keys of the first `count` lines, in order of appearance, and the number of those lines."""
    head: list[bytes] = []
    while len(head) < count and (more := lines.take()):
        head += more
    lines.give_back(head)
    records = [record for record in map(_record, head) if record is not None][:count]
    keys = dict.fromkeys(key for record in records if isinstance(record, dict) for key in record)
    return list(keys), len(records)


def rows(lines: Lines[bytes], keys: Sequence[str], defaults: Sequence[Any]) -> Iterator[Batch]:
    """Yield the values of `keys`, or the default where a row lacks one; blank lines are skipped.

    Raises:
        ValueError: the compressed stream is damaged.
    """
    first = lines.number
    while taken := lines.take():
        found: list[Row] = []
        numbers: list[int] = []
        for number, line in enumerate(taken, first):
            record = _record(line)
            if record is None:
                continue
            found.append(record if isinstance(record, Broken) else list(map(record.get, keys, defaults)))
            numbers.append(number)
        yield Batch(found, numbers, lines.size)
        first = lines.number


def _record(line: bytes) -> dict[str, Any] | Broken | None:
    """The object of a line; None if the line is blank."""
    reason = "broken_json"
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        if not line.strip():
            return None
        if not is_utf8(line.decode("utf-8", "surrogateescape")):
            reason = "invalid_utf8"
    else:
        if isinstance(record, dict):
            return record
    return Broken(reason, line[:_EXCERPT].decode("utf-8", "replace").strip())
