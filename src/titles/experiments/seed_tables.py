"""Tables of measures over seeds, for the terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate


def shown(value: object) -> str:
    """The value of a parameter."""
    return "not set" if value is None else str(value)


def table(rows: Sequence[dict[str, Any]], form: str) -> str:
    """A table of rows with equal names. Settings stand before the name "network" and keep their digits;
    measures after it have four, and all in CSV.

    Args:
        form: "csv", or a format of tabulate.
    """
    if form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().rstrip("\n")
    return str(tabulate(map(_readable, rows), headers="keys", tablefmt=form, disable_numparse=True))


def _readable(row: dict[str, Any]) -> dict[str, str]:
    cells: dict[str, str] = {}
    for name, value in row.items():
        if name.endswith("_deviation"):
            cells[name.replace("_", " ")] = "not measured" if value is None else f"{value:.4f}"
        elif name == "low":
            interval = "-" if value is None else f"{value:.4f} .. {row['high']:.4f}"
            cells["95 % interval"] = interval
        elif name == "deviation" and value is None:
            cells[name] = "-"
        elif name != "high":
            # Settings come before the network and keep their digits.
            measured = isinstance(value, float) and name in _after(row)
            cells[name] = f"{value:.4f}" if measured else shown(value)
    return cells


def _after(row: Mapping[str, Any]) -> list[str]:
    names = list(row)
    return names[names.index("network") :]
