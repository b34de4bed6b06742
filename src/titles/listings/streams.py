"""Files of users as streams of UTF-8: unpacked, decoded, or refused with the name of their kind.

The first bytes of a file tell its kind, not its name. A byte order mark says that it is UTF-16 or
UTF-32. Without a mark these are refused: read as UTF-8, they would be lines of nonsense.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from titles.data.messages import printable
from titles.listings.names import listed

# Raised while a damaged file is read; bz2 and gzip raise an OSError.
DAMAGE = EOFError, OSError, UnicodeDecodeError, lzma.LZMAError, zipfile.BadZipFile, zlib.error

# Bytes read at a time; the first of them tell the kind of a file. What a larger block has before the
# damage of a compressed file would be lost, and with it the line of the damage.
_BLOCK = 8 * 1024
# Bytes of a line of any file of users. The rest of a longer one is skipped, however long it is, and it
# counts as one row that cannot be read.
LONGEST_LINE = 1024 * 1024
TOLD_LONGEST = "1 MiB"
_START = 800  # bytes kept of a longer one
_MEMORY = 256 * 1024 * 1024  # bytes that a file of xz may ask for; xz -9 asks for 65 million
_LEAST = 512  # bytes from which a share of control characters means something
_NAMED = 5  # files of an archive in a message
_EXCERPT = 200  # characters of their names

_ZIP = b"PK\x03\x04"
_GZIP = b"\x1f\x8b"
_XZ = b"\xfd7zXZ\x00"
_BZ2 = re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)")
_MARKS = {  # the longer first: that of UTF-16 opens that of UTF-32
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_TWICE = "packed more than once: unpack it once"  # found in what was unpacked
_UNREADABLE = {
    b"PAR1": "a Parquet file, whose name must end in .parquet, without packing",
    _ZIP: _TWICE,
    _GZIP: _TWICE,
    _XZ: _TWICE,
    b"PK\x05\x06": "a zip of 0 files",
    b"]\x00\x00": "compressed by lzma, which is not read: unpack it, as by xz -d",
    b"(\xb5/\xfd": "compressed by Zstandard, which is not read: unpack it, as by zstd -d",
    b"\x04\x22M\x18": "compressed by LZ4, which is not read: unpack it",
    b"\x1f\x9d": "compressed by compress, which is not read: unpack it",
    b"7z\xbc\xaf'\x1c": "a 7z archive, which is not read: unpack it",
    b"Rar!\x1a\x07": "a RAR archive, which is not read: unpack it",
    b"ARROW1": "an Arrow file, which is not read: save it as Parquet or CSV",
    b"Obj\x01": "an Avro file, which is not read: save it as Parquet or CSV",
    b"SQLite format 3\x00": "a database of SQLite, which is not read: save the table as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file, which is not read: save it as CSV",
    b"%PDF-": "a PDF, which is not read: save its listings as CSV",
}
_CONTROL = bytes({*range(32)} - {*b"\t\n\v\f\r\x1b"})


@contextmanager
def opened(file: Path | None, *, binary: bool = False) -> Iterator[io.BufferedReader]:
    """Open a file or, if None, the standard input, as UTF-8 without a byte order mark.

    gzip, bzip2, xz and a zip of one file are unpacked, UTF-16 and UTF-32 are decoded. Bytes that are not
    UTF-8 come as they are. binary: the content need not be text.

    Raises:
        ValueError: the file is of another kind, or its start is damaged. Reading on can raise DAMAGE.
    """
    name = str(file or "the standard input")
    with ExitStack() as stack:
        try:
            stream: Any = stack.enter_context(file.open("rb")) if file else sys.stdin.buffer
            head, blocks = _beginning(iter(lambda: stream.read1(_BLOCK), b""))
            if head.startswith(_ZIP):
                member = stack.enter_context(_member(file, name))
                head, blocks = _beginning(iter(lambda: member.read1(_BLOCK), b""))
            if head.startswith(_GZIP):
                packed = io.BufferedReader(_Joined(blocks), _BLOCK)
                unpacked = stack.enter_context(gzip.open(packed))
                head, blocks = _beginning(iter(lambda: unpacked.read1(_BLOCK), b""))
            elif _BZ2.match(head):
                head, blocks = _beginning(_unpacked(blocks, bz2.BZ2Decompressor))
            elif head.startswith(_XZ):
                head, blocks = _beginning(_unpacked(blocks, _unxz))
        except DAMAGE as error:
            raise damaged(name, 1, error) from None
        if mark := next((mark for mark in _MARKS if head.startswith(mark)), b""):
            blocks = _utf8(blocks, _MARKS[mark])
        elif kind := _kind(head, binary):
            raise ValueError(f"{name} is {kind}")
        elif head.startswith(codecs.BOM_UTF8):
            blocks = chain([next(blocks)[len(codecs.BOM_UTF8) :]], blocks)
        yield stack.enter_context(io.BufferedReader(_Joined(blocks), _BLOCK))


class TooLong(bytes):
    """The start of a line longer than LONGEST_LINE."""


def lines(stream: io.BufferedReader) -> Iterator[bytes]:
    """Lines with their ends: LF, CRLF or, as in text of old spreadsheets, a lone CR. One longer than
    LONGEST_LINE comes as `TooLong`."""
    parts: list[bytes] = []  # of a line that has not ended
    held, long = 0, False  # their bytes; whether some of the line is skipped
    while block := stream.read1():
        # A CR at the end may be the first half of a CRLF.
        if (parts and parts[-1].endswith(b"\r")) or b"\n" in block or b"\r" in block:
            found = b"".join([*parts, block]).splitlines(keepends=True)
            parts = [] if found[-1].endswith(b"\n") else [found.pop()]
            if found:
                found[0], long = _bounded(found[0], long), False
            yield from found
            held = sum(map(len, parts))
        else:
            parts.append(block)
            held += len(block)
            if held > LONGEST_LINE:
                parts, held, long = [b"".join(parts)[:_START]], _START, True
    if parts:
        yield _bounded(b"".join(parts), long)


def _bounded(line: bytes, long: bool) -> bytes:
    # Blocks are far shorter than the limit: of the lines that end in one, only the first can be longer.
    return TooLong(line[:_START]) if long or len(line) > LONGEST_LINE else line


def damaged(name: str, line: int, error: Exception) -> Exception:
    """The error to raise in place of one of DAMAGE."""
    if isinstance(error, OSError) and error.errno:
        error.filename = error.filename or name
        return error  # of the system: the file cannot be opened, the disk fails
    return ValueError(
        f"{name} is damaged near line {line}: {error}. The rows before that are not the whole file: get "
        "the file again"
    )


def _beginning(blocks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first _BLOCK bytes, or all if there are fewer, and the blocks from the first on."""
    head = b""
    try:
        # A pipe can give single bytes.
        while len(head) < _BLOCK and (block := next(blocks, None)) is not None:
            head += block
    except DAMAGE as error:
        blocks = _failing(error)  # once the rows before it are read
    return head[:_BLOCK], chain([head], blocks)


def _failing(error: Exception) -> Iterator[bytes]:
    raise error
    yield b""


class _Joined(io.RawIOBase):
    """Blocks of bytes as a stream."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


@contextmanager
def _member(file: Path | None, name: str) -> Iterator[Any]:
    """Open the only file of a zip; raises ValueError if there are several, or it cannot be read."""
    if not (file and file.is_file()):
        raise ValueError(f"{name} is a zip, which cannot be read from a pipe: name the file")
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(file))
            found = [each for each in archive.infolist() if not each.is_dir()]
            # Copies of a Mac's attributes.
            found = [each for each in found if not each.filename.startswith("__MACOSX/")]
            names = [printable(each.filename) for each in found]
            member = stack.enter_context(archive.open(found[0])) if len(found) == 1 else None
        # NotImplementedError: the method of compression; RuntimeError: a password; the others: damage.
        except (*DAMAGE, NotImplementedError, RuntimeError, ValueError, struct.error) as error:
            told = printable(str(error))
            raise ValueError(f"{name} is a zip that is damaged, or cannot be read: {told}") from None
        if "xl/workbook.xml" in names:
            raise ValueError(f"{name} is an Excel workbook, which is not read: save the sheet as CSV")
        if not member:
            told = listed(names, _NAMED)[:_EXCERPT]
            raise ValueError(
                f"{name} is a zip of {len(names)} files ({told}), which must have one: unpack it"
            )
        yield member


def _unxz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, _MEMORY)


def _unpacked(blocks: Iterable[bytes], new: Callable[[], Any]) -> Iterator[bytes]:
    """The content of one or more compressed streams.

    bz2.open and lzma.open end without an error where a further stream is damaged.
    """
    unpacker, started = new(), False
    for block in blocks:
        data = block
        while data or not (unpacker.eof or unpacker.needs_input):
            if unpacker.eof:
                unpacker, started = new(), False
            if not started and new is _unxz:
                data = data.lstrip(b"\x00")  # padding between streams
                if not data:
                    break
            started = True
            yield unpacker.decompress(data, _BLOCK)
            data = unpacker.unused_data
    if started and not unpacker.eof:
        raise EOFError("the compressed data ends too early")


def _utf8(blocks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    # Half a surrogate pair concerns its row only: it becomes bytes that are not UTF-8.
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    for block in blocks:
        yield decoder.decode(block).encode("utf-8", "surrogatepass")
    yield decoder.decode(b"", True).encode("utf-8", "surrogatepass")


def _kind(head: bytes, binary: bool) -> str:
    """The kind of a file that cannot be read; "" if it can."""
    if kind := next((kind for start, kind in _UNREADABLE.items() if head.startswith(start)), ""):
        return kind
    if _BZ2.match(head):
        return _TWICE
    if head[257:262] == b"ustar":
        return "a tar archive, which is not read: unpack it"
    if binary:
        return ""
    for size, order in ((4, "LE"), (4, "BE"), (2, "LE"), (2, "BE")):
        if _is_wide(head, size, order):
            encoding = f"UTF-{8 * size}{order}"
            return (
                f"{encoding} without a byte order mark, which is not read: convert it, as by "
                f"iconv -f {encoding} -t UTF-8"
            )
    if len(head) >= _LEAST and len(head.translate(None, _CONTROL)) < 0.95 * len(head):
        return "no text: it has many control characters"
    return ""


def _is_wide(head: bytes, size: int, order: str) -> bool:
    """Whether characters of an alphabet seem to have `size` bytes each.

    The upper bytes of characters up to Arabic are 0 to 8, which text in UTF-8 has next to never, and
    lower bytes seldom are.
    """
    columns = [head[place::size][: len(head) // size] for place in range(size)]
    if not columns[0]:
        return False
    low = columns.pop(0 if order == "LE" else -1)
    if sum(byte < 9 for byte in low) > 0.1 * len(low):
        return False
    return all(sum(byte < 9 for byte in column) >= 0.6 * len(column) for column in columns)
