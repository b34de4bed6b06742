"""Hostile cases against the real commands: python tests/adversary.py [KIND ...] [--rows N] [--list].

Prints a table of kind, case, outcome and reason. The exit code is 1 if a case fails.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from hostile import (  # noqa: F401, they register their cases
    archives,
    bounds,
    failures,
    interrupts,
    numba_caches,
    permissions,
    rows,
    servers,
    special,
    store,
    terminal,
    writers,
)
from hostile.harness import CASES, attempt, chosen

KINDS = tuple(dict.fromkeys(kind for kind, _ in CASES))


def attempted(key: tuple[str, str], shared: Path) -> tuple[str, str, float]:
    """The outcome of a case, the reason, and seconds."""
    started = time.monotonic()
    return *attempt(CASES[key], shared), time.monotonic() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)} (default: all)")
    parser.add_argument("--list", action="store_true", help="only name the cases")
    parser.add_argument("--only", default="", metavar="REGEX", help="cases whose name matches")
    text = "of each table of cases only the first N rows (default: all)"
    parser.add_argument("--rows", type=int, metavar="N", help=text)
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="at once (default: 2)")
    options = parser.parse_args()
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"no kind is {', '.join(sorted(unknown))}: expected of {', '.join(KINDS)}")
    keys = [
        key
        for key in chosen(options.rows)
        if (not options.kinds or key[0] in options.kinds) and re.search(options.only, key[1])
    ]
    if options.list:
        print(*(f"{kind:12} {name}" for kind, name in keys), sep="\n")
        return 0
    started = time.monotonic()
    counts: Counter[str] = Counter()
    failed = []
    with (
        tempfile.TemporaryDirectory(prefix="titles-adversary-", ignore_cleanup_errors=True) as made,
        ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool,
    ):
        asked = [(key, pool.submit(attempted, key, Path(made))) for key in keys]
        for (kind, name), future in asked:
            outcome, reason, seconds = future.result()
            counts[outcome] += 1
            print(f"{kind:12} {outcome} {seconds:5.1f} s  {name}", flush=True)
            if reason:
                print(f"{'':12}      -> {reason}", flush=True)
            if outcome == "FAIL":
                failed.append(f"{kind}: {name}")
    print(f"{dict(counts)} in {time.monotonic() - started:.0f} s")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
