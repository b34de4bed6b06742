"""The command that searches hyper-parameters."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from titles.commands import Commands, command, end_on_termination, positive

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NAME = r"[A-Za-z0-9][A-Za-z0-9._]*(-[A-Za-z0-9._]+)*"


def add(commands: Commands) -> None:
    search = command(commands, "search", _search, "search hyper-parameters with Optuna", _EPILOG)
    search.argument(
        "space", "file of the space, such as experiments/search.yaml", type=Path, metavar="SPACE"
    )
    search.argument(
        "--trials", "trials in all, the default among them", type=positive, default=30, metavar="N"
    )
    text = "trials at once (default and most: cores over compute.threads)"
    search.argument("--jobs", text, type=positive, metavar="N")
    text = "no trial begins after this time, such as 90m or 2h; those that run are finished"
    search.argument("--timeout", text, type=_duration, metavar="TIME")
    text = "best trials to run again beside params.yaml; 0 for none"
    search.argument("--confirm", text, type=_count, default=3, metavar="N")
    text = "fresh seeds for each of them, 3 or more"
    search.argument("--seeds", text, type=_seeds, default=5, metavar="N")
    text = "name of the search and of its experiments, NAME-1 and so on (default: that of the file)"
    search.argument("--name", text, type=_name, metavar="NAME")
    text = "page to write (default: search/NAME.html)"
    search.argument("--out", text, type=Path, metavar="FILE")


_EPILOG = "docs/search.md describes the file. The study is search/NAME.db; optuna-dashboard opens it."


def _search(options: argparse.Namespace) -> None:
    """Try parameters that Optuna proposes, each trial as a DVC experiment of the commit that is checked
    out, and stop unpromising ones early. The score is balanced accuracy on the validation split. Then
    run the best few again with fresh seeds beside params.yaml, and say whether they are better. Ctrl-C
    ends what runs; the same command goes on. The working tree is not touched."""
    from titles.experiments.search.page import winner
    from titles.experiments.search.runner import Wanted, search

    end_on_termination()
    try:
        name = options.name or _name(options.space.stem)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"{error}: give the search a --name") from None
    out = options.out or Path("search") / f"{name}.html"
    wanted = Wanted(options.trials, options.jobs, options.timeout, options.confirm, options.seeds)
    found = search(options.space, name, wanted, out)
    if best := winner(found):
        print(f"better than params.yaml: `dvc exp apply {name}-{best.trial}` applies it")
    elif found:
        print("no trial was shown to be better than params.yaml: keep it")
    print(f"written: {out}")


_LONGEST_TIME = 10  # characters


def _duration(text: str) -> float:
    """Seconds of a time such as 90m."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if len(text) > _LONGEST_TIME or not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 30s, 90m, 2h or 1d")
    return float(found[1]) * _UNITS[found[2]]


def _count(text: str) -> int:
    return 0 if text == "0" else positive(text, "0 or a positive integer", most=1000)


def _seeds(text: str) -> int:
    if (count := positive(text)) < 3:
        raise argparse.ArgumentTypeError(f"{text} seeds are too few for an interval: 3 or more")
    return count


def _name(text: str) -> str:
    if not re.fullmatch(_NAME, text) or text.endswith((".lock", ".")) or ".." in text:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be part of the name of an experiment")
    return text
