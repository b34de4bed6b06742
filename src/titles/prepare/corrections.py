"""Labels that a person has corrected: a table as `titles audit` writes it, with a mark in the rows that
are accepted."""

from __future__ import annotations

import difflib
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from titles.data import formulas
from titles.data.contract import NO_CORRECTIONS, SPLITS
from titles.data.messages import printable
from titles.listings.chunks import Rejected
from titles.listings.files import CSV, opened
from titles.listings.names import canonical
from titles.prepare import split
from titles.prepare.identity import title_keys
from titles.prepare.reading import RejectedFile, Rows

COLUMNS = ("title", "category", "suggested", "accept")
_YES = {"1", "x", "y", "yes", "true", "ok", "accept", "accepted", "✓", "✔"}
_YES |= {"s", "si", "sim", "v", "verdadero", "verdadeiro"}  # also the words of spreadsheets
_NO = {"0", "-", "n", "no", "nao", "false", "falso", "reject", "rejected"}
_HINT = f"a table of corrections has the columns {', '.join(COLUMNS)}, as `titles audit` writes them"
_NAMED = 5  # rows of the table in a warning


class Correction(NamedTuple):
    """An accepted row of the table: a title, its category in the source, and the right one."""

    line: int
    title: str
    category: str
    suggested: str


class Table(NamedTuple):
    """The accepted rows, in order, and the number of rows in the file."""

    path: Path
    rows: int
    accepted: list[Correction]


def read(path: str) -> Table | None:
    """Read the table that `prepare.corrections` names; None if it is NO_CORRECTIONS.

    Values are separated by commas, semicolons or tabs, and further columns are not read. A row is
    accepted by a word for yes, or "x" or "1", in `accept`; an empty field or a word for no leaves it.

    Raises:
        ValueError: the file is missing or no such table; a row is broken, its mark is not understood, it
            is accepted without a title or a category, or two rows correct the same label differently.
    """
    if path == NO_CORRECTIONS:
        return None
    file = Path(path)
    name = f"prepare.corrections: {printable(path)}"
    if not file.exists():
        raise ValueError(f"{name} does not exist; {NO_CORRECTIONS} stands for no corrections")
    accepted: list[Correction] = []
    suggestions: dict[tuple[int, str], Correction] = {}
    count = 0
    with opened(file, CSV, "title", COLUMNS[1:], _HINT) as listing:
        places = [listing.columns.index(column) for column in COLUMNS]
        for chunk in listing.chunks:
            columns = [chunk.columns[place] for place in places]
            for position, (line, *values) in enumerate(zip(chunk.lines, *columns, strict=True)):
                count += 1
                where = f"{name}, line {line}"
                problem = chunk.problems.get(position, "")
                if problem and problem != "empty title":
                    hint = ": save it as CSV in UTF-8" * (problem == "not UTF-8")
                    raise ValueError(f"{where}: {problem}{hint}")
                if (correction := _accepted(where, line, values)) is None:
                    continue
                key = int(title_keys([correction.title])[0]), correction.category
                first = suggestions.setdefault(key, correction)
                if first.suggested != correction.suggested:
                    raise ValueError(
                        f"{where}: the same title and category as in line {first.line}, with another "
                        f"suggestion: {_quoted(correction.suggested)} and {_quoted(first.suggested)}"
                    )
                accepted.append(correction)
    return Table(file, count, accepted)


def _accepted(where: str, line: int, values: Sequence[Any]) -> Correction | None:
    """The row, if it is accepted; raises ValueError if it cannot be understood."""
    title, category, suggested, mark = values
    word = canonical(mark).casefold().replace("ã", "a").replace("í", "i")
    if word in _NO or not word:
        return None
    if word not in _YES:
        raise ValueError(
            f"{where}: accept is {_quoted(mark)}: write yes to accept the row, no or nothing to leave it"
        )
    if not title.strip():
        raise ValueError(f"{where}: it is accepted, but has no title")
    names = [formulas.unescaped(canonical(name)) for name in (category, suggested)]
    for column, each in zip(("category", "suggested"), names, strict=True):
        if not each:
            raise ValueError(f"{where}: it is accepted, but {column} is empty")
    return Correction(line, formulas.unescaped(title), *names)


def _quoted(text: str) -> str:
    return f'"{printable(text[:80])}"'


class Corrected(NamedTuple):
    """What corrections did.

    categories_N: of each row, positions in Rows.categories. changed_N: rows whose category is another
    one. applied: accepted rows of the table that hold for a row of the source; set_aside: the others, by
    reason.
    """

    categories_N: NDArray[np.int32]
    changed_N: split.Flags
    table: Table
    applied: int
    set_aside: Counter[str]

    def metrics(self, splits_N: split.Splits) -> dict[str, Any]:
        """Counts for metrics/prepare.json: rows of the table, and rows of the source by split."""
        rows = {
            name: int(np.sum(self.changed_N & (splits_N == code))) for code, name in enumerate(SPLITS)
        }
        rows["not_used"] = int(np.sum(self.changed_N & (splits_N == split.DROPPED)))
        return {
            "listed": self.table.rows,
            "accepted": len(self.table.accepted),
            "applied": self.applied,
            "set_aside": dict(sorted(self.set_aside.items())),
            "rows": rows,
        }


def apply(table: Table, rows: Rows, rejected: RejectedFile) -> Corrected:
    """The categories of rows after the accepted corrections, which hold one after the other.

    A correction holds for all rows that have its title, as duplicates are found, and its category.
    Corrections that hold for none are warned of and written to `rejected`, and not counted there, since
    they are no rows of the source.
    """
    categories_N = rows.categories_N.copy()
    keys_M = title_keys([correction.title for correction in table.accepted])
    wanted_K = np.unique(keys_M)
    # np.isin would sort all rows.
    place_N = np.minimum(np.searchsorted(wanted_K, rows.keys_N), max(len(wanted_K) - 1, 0))
    found = np.flatnonzero(wanted_K[place_N] == rows.keys_N) if len(wanted_K) else np.empty(0, int)
    positions: dict[int, list[int]] = {}
    for row in found.tolist():
        positions.setdefault(int(rows.keys_N[row]), []).append(row)
    codes = {name: code for code, name in enumerate(rows.categories)}
    applied, set_aside = 0, Counter[str]()
    told: list[str] = []
    for key, correction in zip(keys_M.tolist(), table.accepted, strict=True):
        here = positions.get(key, [])
        old, new = codes.get(correction.category), codes.get(correction.suggested)
        those = [row for row in here if categories_N[row] == old]
        already = new is not None and any(categories_N[row] == new for row in here)
        if correction.category == correction.suggested:
            reason = "same_category"
        elif new is None:
            reason = "unknown_category"
        elif those:
            categories_N[those] = new
            applied += 1
            continue
        elif not here:
            reason = "title_not_in_source"
        else:
            reason = "already_so" if already else "title_has_another_category"
        set_aside[reason] += 1
        excerpt = f"{correction.title}: {correction.category} -> {correction.suggested}"
        if reason == "unknown_category":
            near = difflib.get_close_matches(correction.suggested, codes, n=1)
            excerpt += f"; did you mean {near[0]}?" if near else ""
        rejected.note(Rejected(table.path.name, correction.line, f"correction_{reason}", excerpt[:200]))
        told.append(f"line {correction.line} ({reason})")
    if told:
        more = f" and {len(told) - _NAMED:,} more" * (len(told) > _NAMED)
        print(
            f"warning: {len(told):,} of {len(table.accepted):,} accepted corrections in "
            f"{printable(str(table.path))} are not applied, see data/prepared/rejected.csv: "
            f"{', '.join(told[:_NAMED])}{more}",
            file=sys.stderr,
        )
    return Corrected(categories_N, categories_N != rows.categories_N, table, applied, set_aside)
