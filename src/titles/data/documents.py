"""Reads YAML and JSON of users and of earlier runs: of bounded size, without keys that stand twice.

A few lines of YAML can stand for billions of values: each level of aliases multiplies the one before.
PyYAML shares the values, but they multiply as soon as they are copied, checked or named in a message.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 256 * 1024 * 1024  # of a document that a stage wrote
MOST_WRITTEN = 1024 * 1024  # of one that a person writes
MOST_VALUES = 100_000  # of a YAML document, counted again wherever an alias repeats them
DEEPEST = 50  # sections and lists within each other
_LONGEST_NUMBER = 400  # digits; to read more takes time by the square of their number
_NUMBER = re.compile(r"[-+]?[.0-9][-+0-9a-fA-FxobXOB_.:]*")
_SHOWN = 80  # characters of a key in a message

# Both loaders make no objects of Python; that in C is five times as fast.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_resolve: Any = yaml.SafeLoader("").resolve


class DocumentError(ValueError):
    """A document that cannot be read, or will not be, since it is too large."""


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """The content of a file, of at most MOST_BYTES unless `most` is given.

    Raises:
        DocumentError: it has more bytes. OSError: it cannot be read.
    """
    most = MOST_BYTES if most is None else most
    with path.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise DocumentError(f"{path} has more than {most:,} bytes")
    return content


def read_yaml(path: Path) -> Any:
    """The values of a YAML file that a person writes.

    Raises:
        DocumentError: the file is too large, not UTF-8, or wrong as for `parse_yaml`. OSError: it cannot
            be read.
    """
    return parse_yaml(_written(path))


def read_yaml_text(path: Path) -> str:
    """The text of a YAML file that `read_yaml` reads, for readers that give values in another form.

    Raises:
        DocumentError, OSError: as `read_yaml`.
    """
    text = _written(path)
    parse_yaml(text)
    return text


def _written(path: Path) -> str:
    try:
        return read_bytes(path, MOST_WRITTEN).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError(str(error)) from None


def parse_yaml(content: bytes | str) -> Any:
    """The values of a YAML document.

    Raises:
        DocumentError: it is no YAML, a key stands twice in a section, or the document is too deep or too
            large: MOST_VALUES, DEEPEST.
    """
    try:
        _check(yaml.parse(content, _Loader))
        return yaml.load(content, _Loader)  # noqa: S506
    except DocumentError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a date of month 13
        raise DocumentError(str(error)) from None
    except (AttributeError, LookupError, TypeError):  # PyYAML's readers of tags, as of !!int ""
        raise DocumentError("a value is not of the kind that its tag names") from None


def parse_json(content: bytes | str) -> Any:
    """The values of a JSON document in UTF-8.

    Raises:
        DocumentError: it is no JSON, is nested too deeply, or a key stands twice in an object.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise DocumentError("nested too deeply") from None
    except DocumentError:
        raise
    except ValueError as error:
        # Python would name its own setting.
        told = "a number has too many digits" if "set_int_max_str_digits" in str(error) else str(error)
        raise DocumentError(told) from None


def read_json(path: Path) -> Any:
    """The values of a JSON file.

    Raises:
        DocumentError: see `parse_json` and `read_bytes`. OSError: the file cannot be read.
    """
    return parse_json(read_bytes(path))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        again = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise DocumentError(f"the key {again[:_SHOWN]!r} stands twice in an object")
    return found


def _check(events: Iterable[Any]) -> None:
    """Raise DocumentError if a document is too large or too deep, or has a key twice."""
    sizes: dict[str, int] = {}  # values that an anchor stands for
    texts: dict[str, Any] = {}  # anchors of single values
    open_: list[_Collection] = []
    total = 0
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)
            if name not in sizes:
                raise DocumentError(f"line {line}: the alias {name[:_SHOWN]} is not defined before")
            size = sizes[name]
            event = texts.get(name, event)
        elif isinstance(event, yaml.NodeEvent):
            size = 1
        else:
            if isinstance(event, yaml.CollectionEndEvent):
                closed = open_.pop()
                if closed.anchor:
                    sizes[closed.anchor] = total - closed.before
            continue
        total += size
        if total > MOST_VALUES:
            raise DocumentError(f"line {line}: more than {MOST_VALUES:,} values, with those of aliases")
        if open_:
            open_[-1].add(event, line)
        if isinstance(event, yaml.CollectionStartEvent):
            if len(open_) == DEEPEST:
                raise DocumentError(f"line {line}: more than {DEEPEST} levels deep")
            open_.append(_Collection(event, total - 1))
        elif isinstance(event, yaml.ScalarEvent):
            if event.anchor:
                sizes[event.anchor], texts[event.anchor] = 1, event
            if len(event.value) > _LONGEST_NUMBER and _NUMBER.fullmatch(event.value):
                told = f"{event.value[:20]}... has {len(event.value):,} digits"
                raise DocumentError(f"line {line}: the number {told}")


class _Collection:
    """A section or list whose end is not reached. before: number of the values before it."""

    def __init__(self, event: Any, before: int) -> None:
        self.anchor, self.before = event.anchor, before
        self._lines: dict[Any, int] | None = {} if isinstance(event, yaml.MappingStartEvent) else None
        self._is_key = True

    def add(self, event: Any, line: int) -> None:
        if self._lines is None:
            return
        if self._is_key and isinstance(event, yaml.ScalarEvent):
            key = _key(event.value) if event.implicit[0] else event.value
            if key in self._lines:
                raise DocumentError(
                    f"line {line}: the key {event.value[:_SHOWN]!r} stands twice, "
                    f"first in line {self._lines[key]}"
                )
            self._lines[key] = line
        self._is_key = not self._is_key


@functools.lru_cache(1024)
def _key(text: str) -> Any:
    """A key without quotes, as it is read: `yes` and `true` are the same."""
    if _resolve(yaml.ScalarNode, text, (True, False)) == "tag:yaml.org,2002:str":
        return text
    try:
        return yaml.load(text, _Loader)  # noqa: S506
    except (yaml.YAMLError, ValueError):
        return text
