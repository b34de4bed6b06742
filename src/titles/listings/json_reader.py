"""Rows of a file with one JSON object per line."""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import chain, islice
from typing import Any

import orjson

from titles.listings.names import canonical
from titles.listings.rows import CHUNK_BYTES, LINE_TOO_LONG, Batch, Broken, Lines, Row, is_utf8
from titles.listings.streams import TooLong

_EXCERPT = 800  # bytes of a line, characters of a key
_MAY_BE_ROUNDED = frozenset({float, dict, list})  # orjson reads numbers as 64 bits
_SAFE_DIGITS = 18  # of an integer of 64 bits
_NEGATIVE_ZERO = re.compile(rb"-0(?![.\d])")  # an integer, whose sign orjson drops
_OPTION = orjson.OPT_PASSTHROUGH_SUBCLASS  # gives a _Repeated to `default`
_LEAST_PLAIN, _LEAST_EXPONENT = 1e-4, 1e16  # floats that Python writes without an exponent


class Number:
    """A number of a JSON document, as it is written there; also NaN, Infinity and -Infinity."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class _Repeated(dict[str, Any]):
    """An object that has `key` several times, of which none can be said to hold."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.keys_twice = {key for key, count in Counter(key for key, _ in pairs).items() if count > 1}


def to_json(value: Any) -> Any:
    """The `default` of orjson.dumps for values of listings. JSON has no NaN: it becomes null."""
    if isinstance(value, Number):
        return orjson.Fragment(value.text if value.text[-1].isdecimal() else "null")
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def first_keys(lines: Lines[bytes], count: int) -> tuple[list[str], int]:
    """The keys of the first `count` lines, in order of appearance, and the number of those lines; of
    very long lines fewer are read."""
    head: list[bytes] = []
    size = 0
    while len(head) < count and size < CHUNK_BYTES and (more := lines.take()):
        head += more
        size += lines.size
    lines.give_back(head)
    keys: dict[str, None] = {}
    read = 0
    records = (record for record in map(_record, head) if record is not None)
    for record in islice(records, count):
        read += 1
        keys |= dict.fromkeys(record if isinstance(record, dict) else ())
    return list(keys), read


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

    Numbers keep all their digits (see `Number`). Values of other keys may be of any kind. Blank lines
    are skipped. Raises ValueError if the compressed stream is damaged.
    """
    keys, values = list(defaults), list(defaults.values())

    def precise(line: bytes) -> Row:
        record = _record(line)
        if not isinstance(record, dict):
            return record
        found = list(map(record.get, keys, values))
        if isinstance(record, _Repeated) and (twice := record.keys_twice.intersection(keys)):
            return _twice(twice)
        try:
            orjson.dumps(found, default=_only_json, option=_OPTION)
        except TypeError as error:
            if isinstance(error.__cause__, _RepeatedKeyError):
                return _twice(*error.__cause__.args)
            return _broken(line, "nested_too_deeply" if "Recursion" in str(error) else "broken_json")
        return found

    quoted = [f'"{key}"'.encode("utf-8", "surrogatepass") for key in keys]

    def may_repeat(line: bytes) -> bool:
        """Whether a key may be there twice, perhaps with a letter as \\u0074."""
        return b"\\u00" in line or any(line.count(key) > 1 for key in quoted)

    first = lines.number
    while taken := lines.take():
        # orjson is several times faster, but it rounds, and refuses what Python's json reads.
        records = list(map(_loaded, taken))
        found = [record and list(map(record.get, keys, values)) for record in records]
        kinds = set(map(type, chain.from_iterable(filter(None, found))))
        # In nearly all files no batch has such a value.
        doubtful = kinds & _MAY_BE_ROUNDED or _NEGATIVE_ZERO.search(b"".join(taken))
        for place, (record, line) in enumerate(zip(records, taken, strict=True)):
            if (
                not record
                or (doubtful and not _is_exact(record, found[place] or (), line))
                or (line.count(b":") > len(record) and may_repeat(line))
            ):
                found[place] = precise(line)
        numbers = [number for number, each in enumerate(found, first) if each is not None]
        yield Batch([each for each in found if each is not None], numbers, lines.size)
        first = lines.number


class _RepeatedKeyError(Exception):
    """These keys are there several times."""


def _only_json(value: Any) -> Any:
    if isinstance(value, _Repeated):
        raise _RepeatedKeyError(value.keys_twice)
    return to_json(value)


def _loaded(line: bytes) -> dict[str, Any] | None:
    """The object of a line as orjson reads it; None if it does not."""
    if isinstance(line, TooLong):
        return None
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _is_exact(record: dict[str, Any], values: Iterable[Any], line: bytes) -> bool:
    """Whether the numbers of a record would be written again as they stand in its line."""
    for value in values:
        if type(value) is float and value and not _LEAST_PLAIN <= abs(value) < _LEAST_EXPONENT:
            return False  # Python writes its exponent in a form of its own
    try:
        written = orjson.dumps(record)
    except TypeError:  # nested too deeply
        return False
    return written.replace(b" ", b"") == line.translate(None, b" \t\r\n")


def _integer(text: str) -> int | Number:
    return int(text) if len(text) <= _SAFE_DIGITS and text != "-0" else Number(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Repeated(pairs)


_decode = json.JSONDecoder(
    parse_float=Number, parse_int=_integer, parse_constant=Number, object_pairs_hook=_object
).decode


def _record(line: bytes) -> dict[str, Any] | Broken | None:
    """The object of a line; None if the line is blank.

    Bytes that are not UTF-8, and halves of surrogate pairs, are lone surrogates in values.
    """
    if isinstance(line, TooLong):
        return Broken(LINE_TOO_LONG, _start(line))
    line = line.removeprefix(codecs.BOM_UTF8)
    try:
        record = _decode(line.decode("utf-8", "surrogateescape"))
    except RecursionError:
        return _broken(line, "nested_too_deeply")
    except ValueError:
        return _broken(line, "broken_json") if line.strip() else None
    return (
        record if isinstance(record, dict) and is_utf8("".join(record)) else _broken(line, "broken_json")
    )


def _twice(keys: Set[str]) -> Broken:
    return Broken("repeated_key", json.dumps(min(keys)[:_EXCERPT]))


def _broken(line: bytes, reason: str) -> Broken:
    if not is_utf8(line.decode("utf-8", "surrogateescape")):
        reason = "invalid_utf8"
    return Broken(reason, _start(line))


def _start(line: bytes) -> str:
    return line[:_EXCERPT].decode("utf-8", "replace").strip()
