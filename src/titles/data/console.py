"""Standard input, output and error of a program: filtered for people, usable in any locale, and safe
where they are closed.

What is printed as text goes through one filter, since names of categories, files, columns and servers,
and messages of other programs, come from outside. Data that programs read are written as bytes, to
`sys.stdout.buffer`.
"""

from __future__ import annotations

import io
import os
import re
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, TextIO, cast

from titles.data.messages import printable

# What tqdm writes around the text of a bar: back to the start of the line, and lines up; and the end
# of all colours, which colorama writes at exit.
_RETURNED = re.compile(r"(\r?)(.*?)(\r?)", re.S)
_MOVES = re.compile(r"\n*(\x1b\[A)*|\x1b\[0m")
_LEAST_COLUMNS, _COLUMNS = 8, 80
# A closed stream is opened so that using it fails, rather than being given to the next file opened.
_CLOSED = (("stdin", os.O_WRONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_RDWR, "w"))


class Printed:
    """A stream of text in which only ends of lines, tabs and progress bars can command a terminal.

    rich_proxied_file: the stream itself, by the name under which `rich` looks for it: it writes colours,
        and is given printable text.

    Args:
        raw: the stream to write to.
        is_vital: whether a failure to write is an error. If not, what follows is dropped.
    """

    def __init__(self, raw: TextIO, is_vital: bool) -> None:
        self.rich_proxied_file = raw
        self._wrapped = raw  # by which tqdm recognises equal streams
        self._is_vital = is_vital

    def write(self, text: str) -> int:
        if not _MOVES.fullmatch(text):
            before, middle, after = cast(re.Match[str], _RETURNED.fullmatch(text)).groups()
            text = before + printable(middle, kept="\n\t") + after
        with self._lossy():
            self._wrapped.write(text)
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._lossy():
            self._wrapped.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    @contextmanager
    def _lossy(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            if self._is_vital:
                raise
            discard(self._wrapped)


@contextmanager
def streams(output_is_vital: bool = True) -> Iterator[None]:
    """Filter what the block prints, and let no locale refuse a character.

    Args:
        output_is_vital: whether a failure to write to the standard output is an error. That to write to
            the standard error never is: there is no place left to tell it.
    """
    for name, flags, mode in _CLOSED:
        if getattr(sys, name) is None:
            number = os.open(os.devnull, flags)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    before = sys.stdout, sys.stderr
    for stream in before:
        with suppress(AttributeError, ValueError, OSError):  # a stream of a test or a notebook
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.stdout = cast(TextIO, Printed(before[0], output_is_vital))
    sys.stderr = cast(TextIO, Printed(before[1], is_vital=False))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in before:
            try:
                stream.flush()
            except OSError:  # told already, or of no matter: Python would end with exit code 120
                discard(stream)


def reader_is_gone() -> bool:
    """Whether the standard output is a pipe whose reader has closed it, as `head` does."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (OSError, ValueError, AttributeError):
        return False


def raw(stream: TextIO) -> TextIO:
    """The stream behind the filter, for text of our own that has colours."""
    found: TextIO = getattr(stream, "rich_proxied_file", stream)
    return found


def output() -> BinaryIO:
    """The standard output for data that programs read. A terminal gets them filtered, as people read
    them there."""
    sys.stdout.flush()
    return cast(BinaryIO, _Filtered()) if sys.stdout.isatty() else sys.stdout.buffer


class _Filtered(io.RawIOBase):
    """Bytes of whole characters, printed as text."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        sys.stdout.write(bytes(data).decode("utf-8", "backslashreplace"))
        return len(data)


def console() -> Any:
    """A console of `rich` on the standard output, to print what is printable in colour."""
    from rich.console import Console

    class Ours(Console):
        def on_broken_pipe(self) -> None:
            """Rich would end the program with exit code 1."""
            raise BrokenPipeError

    made = Ours(highlight=False)
    if made.width < _LEAST_COLUMNS:  # of COLUMNS=0, with which nothing would be shown
        made.width = _COLUMNS
    return made


def discard(stream: TextIO) -> None:
    """Let all that follows in a stream, and what is still in its buffer, go nowhere."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
