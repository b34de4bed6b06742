"""Croissant metadata of a file of listings: what it holds, for tools that load data sets by it.

Akhtar et al. (2024), "Croissant: A Metadata Format for ML-Ready Datasets", arXiv:2403.19546. The version
is 1.0, which all readers know. The same file gives the same bytes.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from titles.data.documents import DocumentError, read_json
from titles.listings import json_reader, sources, streams
from titles.listings.chunks import COLUMNS
from titles.listings.files import JSON_LINES, KEY_LINES, format_by_name
from titles.listings.names import canonical
from titles.listings.rows import Broken, Lines

ENDING = ".croissant.json"
_CSV, _TSV = "text/csv", "text/tab-separated-values"
_GZIP, _ZIP = "application/gzip", "application/zip"
_PACKED = ".gz", ".zip"
_FORMATS = ".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".parquet", ".pq"
_MARKS = (
    codecs.BOM_UTF16_LE,
    codecs.BOM_UTF16_BE,
    codecs.BOM_UTF32_BE,
)  # that of UTF-32 LE opens with one
_ID = "listings"
_TEXTS = {
    "title": "The title of the listing, as its seller wrote it.",
    "category": "The category of the listing.",
    "language": "The language of the title.",
    "label_quality": "Whether the category is reliable.",
}
# The terms of the format, as its specification gives them.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


class _Content(NamedTuple):
    """What a file holds.

    kind: its media type. columns: name in the file of each column that is used, by canonical name.
    packing: media type of what it is packed in, or "". member: the name of the file in a zip.
    """

    kind: str
    columns: dict[str, str]
    packing: str = ""
    member: str = ""


class Counts(NamedTuple):
    """Rows of a file, and those that `prepare` sets aside as they are."""

    rows: int
    rejected: int


class Texts(NamedTuple):
    """Texts of a data set for people, "" where there is none."""

    name: str = ""
    description: str = ""


def texts(file: Path) -> Texts:
    """The texts that the metadata beside a file has; none where no metadata of it can be read."""
    try:
        found = read_json(beside(file))
        described = Texts(found["name"], found["description"])
        if found["distribution"][0]["contentUrl"] == file.name and all(
            isinstance(text, str) for text in described
        ):
            return described
    except (DocumentError, LookupError, OSError, TypeError):
        pass
    return Texts()


def beside(file: Path) -> Path:
    """The path of a file's metadata: its name without the endings of its format and packing."""
    name = file.name
    for endings in (_PACKED, _FORMATS):
        stem, dot, last = name.rpartition(".")
        if stem and dot + last.lower() in endings:
            name = stem
    return file.with_name(name + ENDING)


def metadata(file: Path, name: str = "", description: str = "") -> dict[str, Any]:
    """The metadata of a file that `prepare` reads, or of JSON lines with the same keys.

    Args:
        name: of the data set; by default that of the file without endings.

    Raises:
        ValueError: the file is missing, no file, damaged at its start, without titles or categories, or
            Croissant has no words for how it is packed or written.
    """
    content = _content(file)
    url = file.name
    if not _is_utf8(url):
        url = quote(os.fsencode(url))
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    whole: dict[str, Any] = {
        "@type": "cr:FileObject",
        "@id": _ID,
        "name": url,
        "contentUrl": url,
        "contentSize": f"{file.stat().st_size} B",
        "encodingFormat": [content.kind, content.packing] if content.packing else content.kind,
        "sha256": digest,
    }
    distribution = [whole]
    if content.packing == _ZIP:
        whole |= {"@id": "archive", "encodingFormat": _ZIP}
        distribution.append(
            {
                "@type": "cr:FileObject",
                "@id": _ID,
                "name": content.member,
                "contentUrl": content.member,
                "containedIn": {"@id": "archive"},
                "encodingFormat": content.kind,
            }
        )
    name = name or beside(Path(url)).name.removesuffix(ENDING)
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "description": description or "Titles of marketplace listings with their categories.",
        "distribution": distribution,
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "records",
                "name": "records",
                "field": [_field(*column) for column in content.columns.items()],
            }
        ],
    }


def _field(name: str, column: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"records/{name}",
        "name": name,
        "description": _TEXTS[name],
        "dataType": "sc:Text",
        "source": {"fileObject": {"@id": _ID}, "extract": {"column": column}},
    }


def count(file: Path) -> Counts:
    """Read all rows of a file; raises ValueError if it is damaged."""
    rows = rejected = 0
    if _is_json(file):
        with streams.opened(file) as raw:
            lines = Lines(streams.lines(raw), str(file))
            for batch in json_reader.rows(lines, {"title": None, "category": None}):
                rows += len(batch.rows)
                rejected += sum(isinstance(row, Broken) or not all(row) for row in batch.rows)
    else:
        for chunk in sources.blocks(file, "all", streams.LONGEST_LINE):
            rows += chunk.rows_read
            rejected += len(chunk.rejected)
    return Counts(rows, rejected)


# -- how a file is packed and written


def _content(file: Path) -> _Content:
    if not file.exists():
        raise ValueError(f"{file} does not exist")
    if file.is_dir():
        raise ValueError(f"{file} is a folder: describe its files one by one")
    if not file.is_file():
        raise ValueError(f"{file} is no file")
    with file.open("rb") as stream:
        head = stream.read(8)
    if head.startswith((b"BZh", b"\xfd7zXZ")):
        raise ValueError(f"{file}: Croissant's readers unpack neither bzip2 nor xz: pack it by gzip")
    is_json = _is_json(file)
    if not is_json:
        next(iter(sources.blocks(file, "all", streams.LONGEST_LINE)), None)  # raises what is wrong
    if head.startswith(b"PAR1"):
        return _of_parquet(file)
    content = _of_json(file) if is_json else _of_csv(file)
    if head.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(file) as archive:
            # As `streams` chooses it: the only one, apart from copies of a Mac's attributes.
            names = (each.filename for each in archive.infolist() if not each.is_dir())
            member = next(name for name in names if not name.startswith("__MACOSX/"))
            with archive.open(member) as packed:
                head = packed.read(4)
        content = content._replace(packing=_ZIP, member=member)
    elif head.startswith(b"\x1f\x8b"):
        with gzip.open(file) as unpacked:
            head = unpacked.read(4)
        content = content._replace(packing=_GZIP)
    if head.startswith(_MARKS):
        raise ValueError(f"{file}: Croissant has no words for UTF-16 and UTF-32: save it as UTF-8")
    return content


def _is_json(file: Path) -> bool:
    """Whether a file holds JSON lines, by its name or its first character."""
    with file.open("rb") as stream:
        if stream.read(4) == b"PAR1":
            return False
    if format_by_name(file.name) == JSON_LINES:
        return True
    with streams.opened(file) as raw:
        return raw.peek(1).lstrip().startswith(b"{")


def _of_parquet(file: Path) -> _Content:
    from titles.listings import parquet_reader

    with parquet_reader.opened(file) as table:
        return _Content("application/x-parquet", _used(table.schema_arrow.names))


def _of_json(file: Path) -> _Content:
    with streams.opened(file) as raw:
        keys, lines = json_reader.first_keys(Lines(streams.lines(raw), str(file)), KEY_LINES)
    columns = _used(keys)
    for name in ("title", "category"):
        if name not in columns:
            raise ValueError(f"{file} has no key {name!r} in its first {lines} lines")
    if len(columns) < sum(canonical(key) in COLUMNS for key in keys):
        raise ValueError(f"{file}: Croissant has no words for two spellings of a key")
    return _Content("application/jsonlines", columns)


def _of_csv(file: Path) -> _Content:
    with streams.opened(file) as raw:
        line = next((line for line in streams.lines(raw) if line.strip()), b"")
    text = line.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    for kind, delimiter in ((_CSV, ","), (_TSV, "\t")):
        columns = _used(next(csv.reader([text], delimiter=delimiter)))
        if {"title", "category"} <= columns.keys():
            return _Content(kind, columns)
    raise ValueError(
        f"{file}: Croissant has no words for values that are separated by semicolons or bars, or for a "
        "header of several lines: save it with commas"
    )


def _used(names: Iterable[str]) -> dict[str, str]:
    """The names of the columns that are used, by their canonical spelling, in the file's order."""
    return {canonical(name): name for name in names if canonical(name) in COLUMNS}


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeError:
        return False
    return True
