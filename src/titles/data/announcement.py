"""For whoever watches `dvc repro`: which stage of how many runs, and what changes nothing in it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from titles.data.documents import parse_yaml, read_bytes
from titles.data.inputs import items


def announce() -> None:
    """Print "stage 3 of 5" for the stage that DVC runs, in an order in which stages can run.

    Nothing is printed where DVC does not run it, in all processes of torchrun but the first, and for a
    stage of another file. A dvc.yaml that cannot be read is for others to report.
    """
    stage = os.environ.get("DVC_STAGE")
    if not stage or os.environ.get("RANK", "0") != "0":
        return
    try:
        order = _order(parse_yaml(read_bytes(Path("dvc.yaml")))["stages"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, CycleError):
        return
    if stage in order:
        print(f"stage {order.index(stage) + 1} of {len(order)}", file=sys.stderr, flush=True)


def note_without_effect(section: str, found: Mapping[str, str]) -> None:
    """Say on stderr which parameters of a section, `found` with the reason of each, change nothing in
    this run; nothing if all do."""
    parts = []
    for reason in dict.fromkeys(found.values()):
        names = [f"{section}.{name}" for name in found if found[name] == reason]
        parts.append(f"{', '.join(names)} ({reason})")
    if parts:
        print(f"note: without effect in this run: {'; '.join(parts)}", file=sys.stderr)


def _order(stages: dict[str, dict[str, Any]]) -> list[str]:
    """The stages, each after those whose outputs it needs."""
    makers = {
        out: name
        for name, stage in stages.items()
        for kind in ("outs", "metrics", "plots")
        for out in items(stage.get(kind))
    }
    needs = {
        name: [makers[path] for path in items(stage.get("deps")) if path in makers]
        for name, stage in stages.items()
    }
    return list(TopologicalSorter(needs).static_order())
