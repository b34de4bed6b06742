"""Find the best setting of a peer, by balanced accuracy on validation, and evaluate it on test.

python benchmarks/search.py fasttext RESULT   # in a folder where `prepare` has run
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers import PEERS, Peer, Setting, UnusableError
from rows import read_splits

from titles.data.files import atomic_file
from titles.data.outcomes import balanced_accuracy
from titles.models.registry import load_params
from titles.params import Params


def search(peer: Peer, params: Params, grid: Sequence[Setting], budget: float) -> dict[str, Any]:
    """Fit the first point of the grid, and all others that start within `budget` seconds.

    Returns:
        The results of the best point, with its predictions on the test split under "predicted"; "trials"
        holds all points with their score on validation, or with a note on why there is none.

    Raises:
        SystemExit: no point gives a model.
    """
    splits = read_splits(params)
    train, validation, test = splits.values()
    begun = time.perf_counter()
    peer.learn_from(train.titles, train.labels)
    shared_seconds = time.perf_counter() - begun
    trials: list[dict[str, Any]] = []
    best: dict[str, Any] = {}
    for setting in grid:
        trial: dict[str, Any] = {"setting": setting}
        started = time.perf_counter()
        is_first = not trials
        trials.append(trial)
        if started - begun > budget and not is_first:
            trial["note"] = "skipped, out of time"
            continue
        try:
            peer.fit(setting)
        except UnusableError as failed:
            trial["note"] = str(failed)
            continue
        trial["seconds"] = time.perf_counter() - started
        right = peer.predict(validation.titles) == validation.labels
        trial["validation"] = balanced_accuracy(validation.labels, right)
        print(trial, flush=True)
        if not best or trial["validation"] > best["validation"]:
            started = time.perf_counter()
            predicted = peer.predict(test.titles)
            best = {
                **trial,
                "train_seconds": shared_seconds + trial["seconds"],
                "predict_seconds": time.perf_counter() - started,
                "size_bytes": peer.size(),
                "predicted": predicted.tolist(),
            }
    if not best:
        raise SystemExit(f"no point of the grid gives a model: {trials}")
    return best | {"trials": trials}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("result", type=Path, help="JSON file to write")
    parser.add_argument(
        "--budget", type=float, default=300, help="seconds within which a point may start"
    )
    parser.add_argument(
        "--setting", type=json.loads, help="the only point to fit, as JSON, tuned earlier"
    )
    options = parser.parse_args()
    params = load_params()
    peer = PEERS[options.name](params)
    grid = [options.setting] if options.setting else peer.grid
    found = search(peer, params, grid, options.budget)
    with atomic_file(options.result) as partial:
        partial.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
