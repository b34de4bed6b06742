"""Rows of a file with one JSON object per line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


def rows(lines: Lines[bytes], defaults: Mapping[str, Any]) -> Iterator[Batch]:
    """Yield the values of the keys of `defaults`, which has the value where a row lacks one.

    Blank lines are skipped. Raises ValueError if the compressed stream is damaged.
    """
    keys, values = list(defaults), list(defaults.values())
    first = lines.number
    while taken := lines.take():
        records = list(map(_record, taken))
        numbers = [number for number, record in enumerate(records, first) if record is not None]
        found: list[Row] = [
            record if isinstance(record, Broken) else list(map(record.get, keys, values))
            for record in records
            if record is not None
        ]
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
