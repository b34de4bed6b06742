"""Values of Parquet columns as Python has them, without loss: what no type of Python holds becomes text.

Import it only where a file is Parquet: pyarrow takes long to load.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from titles.listings.json_reader import to_json

_TEMPORAL = pa.types.is_timestamp, pa.types.is_duration, pa.types.is_time, pa.types.is_date
_TEXT = pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view
_SAFE_DEPTH = 100  # far below that of JSON that can be written
_LEAST = -(2**63)  # pandas takes it for no time
# Of what a pyarrow value cannot be, or cannot be as JSON.
_ERRORS = ValueError, TypeError, OverflowError, RecursionError, pa.ArrowException


def objects(column: Any) -> tuple[list[Any], list[int]]:
    """The values of a column, and the rows of those that JSON and CSV cannot hold, which are None."""
    if _is_exact(column):
        with suppress(*_ERRORS):
            return column.to_pylist(), []
    deep = is_deep(column.type)
    found: list[Any] = []
    unreadable = []
    for row, scalar in enumerate(column):
        try:
            value = _value(scalar)
            if deep:
                orjson.dumps(value, default=to_json)
        except _ERRORS:
            value = None
            unreadable.append(row)
        found.append(value)
    return found, unreadable


def to_write(column: Any, values: Sequence[Any]) -> Any:
    """A column to write to Parquet again: as it is or, where its text is not UTF-8, of its values."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        with suppress(*_ERRORS):
            return pa.chunked_array([pa.array(values, column.type)])
    return column


def is_deep(kind: pa.DataType) -> bool:
    """Whether lists and objects are nested so deeply that JSON and the schema of Arrow may fail."""
    depth, level = 0, [kind]
    while level := [child for each in level for child in _children(each)]:
        depth += 1
    return depth > _SAFE_DEPTH


def _is_exact(column: Any) -> bool:
    """Whether all values that Python reads of a column are those that it has."""
    kind = column.type
    if (pa.types.is_timestamp(kind) or pa.types.is_duration(kind)) and kind.unit == "ns":
        return bool(pc.min(column.view(pa.int64())).as_py() != _LEAST)
    if pa.types.is_nested(kind) or pa.types.is_time(kind):
        if is_deep(kind) or any(map(_is_of_nanoseconds, _leaves(kind))):
            return False
        try:
            column.validate(full=True)  # Python takes times modulo a day
        except pa.ArrowInvalid:
            return False
    return True


def _value(scalar: Any) -> Any:
    """The value of a pyarrow scalar: text where it is beyond Python's type; nested ones in lists and
    objects, or pairs for maps and objects with two fields of a name."""
    kind = scalar.type
    if not scalar.is_valid:
        return None
    if isinstance(kind, pa.BaseExtensionType):
        with suppress(*_ERRORS):
            return scalar.as_py()
        return _value(scalar.value)
    if pa.types.is_dictionary(kind):
        return _value(scalar.value)
    if pa.types.is_map(kind):
        return [tuple(map(_value, pair.values())) for pair in scalar.values]
    if pa.types.is_struct(kind):
        pairs = [(name, _value(value)) for name, value in scalar.items()]
        return dict(pairs) if len({name for name, _ in pairs}) == len(pairs) else pairs
    if pa.types.is_nested(kind):
        return list(map(_value, scalar.values))
    if any(test(kind) for test in _TEXT):
        return scalar.as_buffer().to_pybytes().decode("utf-8", "backslashreplace")
    return _time(scalar) if any(test(kind) for test in _TEMPORAL) else scalar.as_py()


def _time(scalar: Any) -> Any:
    """A date, time or duration; as text where Python would raise an error or change it."""
    kind = scalar.type
    with suppress(*_ERRORS):
        value = scalar.as_py()
        if pa.scalar(value, kind) == scalar:
            return value
    if pa.types.is_timestamp(kind) and kind.tz:  # an unknown zone, or the year is beyond Python's
        scalar = scalar.cast(pa.timestamp(kind.unit, "UTC"))  # the same instant
        if kind.tz != "UTC":
            return _time(scalar)
    text = "" if pa.types.is_duration(kind) else str(scalar.cast(pa.string()))
    unit = "day" if pa.types.is_date32(kind) else "ms" if pa.types.is_date64(kind) else kind.unit
    # Arrow has no text for durations, nor for years past 32767.
    return text if text[:1].strip("<") else f"{scalar.value} {unit}"


def _is_of_nanoseconds(kind: pa.DataType) -> bool:
    # Python has no nanoseconds, and with pandas the least number of them is no time.
    return not pa.types.is_date(kind) and getattr(kind, "unit", "") == "ns"


def _children(kind: pa.DataType) -> list[pa.DataType]:
    if isinstance(kind, pa.BaseExtensionType):
        return [kind.storage_type]
    if pa.types.is_dictionary(kind):
        return [kind.value_type]
    return [kind.field(place).type for place in range(kind.num_fields)]


def _leaves(kind: pa.DataType) -> Iterator[pa.DataType]:
    waiting = [kind]
    while waiting:
        children = _children(waiting[-1])
        if not children:
            yield waiting[-1]
        waiting[-1:] = children
