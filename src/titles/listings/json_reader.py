"""Rows of a file with one JSON object per line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from titles.listings.names import canonical
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


def named_rows(lines: Lines[bytes], defaults: Mapping[str, Any], keys: Iterable[str]) -> Iterator[Batch]:
    """As `rows`, for canonical keys; `keys` are their spellings in the lines.

    A row with two spellings of a key is broken.
    """
    spellings: dict[str, list[str]] = {name: [] for name in defaults}
    for key in keys:
        spellings.get(canonical(key), []).append(key)
    groups = [found or [name] for name, found in spellings.items()]
    values = {key: defaults[canonical(key)] for group in groups for key in group}
    if len(values) == len(groups):
        yield from rows(lines, values)
        return

    def joined(row: Row) -> Row:
        if isinstance(row, Broken):
            return row
        given = dict(zip(values, row, strict=True))
        found = []
        for group, default in zip(groups, defaults.values(), strict=True):
            several = [given[key] for key in group if given[key] is not default] or [default]
            if len(several) > 1:
                return Broken("broken_json", f"two spellings of the key {group[0]}")
            found += several
        return found

    for batch in rows(lines, values):
        yield batch._replace(rows=list(map(joined, batch.rows)))


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
