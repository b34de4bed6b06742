"""Titles of prepared rows: as they stand in the source, or the words that were read in them, which are
all that prepared data keep."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from titles.data.encoded import EncodedTitles
from titles.data.outcomes import Ints
from titles.listings import sources
from titles.params import Prepare
from titles.prepare.identity import title_keys


def as_read(titles: EncodedTitles, rows: Ints, vocabulary: Sequence[str]) -> list[str]:
    """The words of each row, with spaces between them."""
    found = []
    for end, length in zip(titles.ends[rows].tolist(), titles.lengths[rows].tolist(), strict=True):
        ids = titles.word_ids[end - length : end].tolist()
        found.append(" ".join(vocabulary[i] if i >= 0 else titles.unknown_words[-1 - i] for i in ids))
    return found


def as_in_source(titles: EncodedTitles, rows: Ints, settings: Prepare) -> dict[int, str]:
    """The titles of rows, by row, as far as the source still has them in their place. It is read up to
    the last of them. A source that cannot be read is told on the standard error."""
    wanted: dict[tuple[str, int], int] = {
        (titles.file_names[file], line): row
        for row, file, line in zip(
            rows.tolist(), titles.files[rows].tolist(), titles.lines[rows].tolist(), strict=True
        )
    }
    found: dict[int, str] = {}
    try:
        for chunk in sources.read(Path(settings.source), settings.language, settings.max_title_chars):
            for line, title in zip(chunk.lines, chunk.titles, strict=True):
                row = wanted.get((chunk.file, line))
                if row is not None and title_keys([title])[0] == titles.keys[row]:
                    # A lone carriage return is not quoted, but readers end a row there.
                    found[row] = title.replace("\r", " ")
            if len(found) == len(wanted):
                break
    except (ValueError, OSError) as error:  # hours of training are not lost for it
        print(f"warning: {error}", file=sys.stderr)
    return found
