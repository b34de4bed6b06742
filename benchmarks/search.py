"""Find the best setting of a peer, by balanced accuracy on validation, and evaluate it on test.

python benchmarks/search.py fasttext RESULT   # in a folder where `prepare` has run
"""

from __future__ import annotations

import titles  # noqa: F401  before numpy, whose threads read its settings

# isort: split
import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from classifiers import PEERS
from peers import Peer, Setting, UnusableError, log_shares, make
from rows import read_splits

from titles.data.contract import LABELS
from titles.data.files import atomic_file, read_lines
from titles.data.outcomes import balanced_accuracy
from titles.models.registry import load_params
from titles.params import Params

# Whether the categories' shares in train are divided out of the probabilities.
CORRECTED = "prior_corrected"


def search(peer: Peer, params: Params, grid: Sequence[Setting], budget: float) -> dict[str, Any]:
    """Fit the first point of the grid, and all others that start within `budget` seconds.

    Each point of a probabilistic classifier is tried with and without correction for the categories'
    shares, unless it says which.

    Returns:
        The results of the best point, with its predictions on the test split under "predicted"; "trials"
        holds all points with their score on validation, or with a note on why there is none.

    Raises:
        SystemExit: no point gives a model.
    """
    splits = read_splits(params)
    train, validation, test = (splits[name] for name in ("train", "validation", "test"))
    categories = len(read_lines(LABELS))
    log_shares_C = log_shares(train.labels, categories)

    def clock() -> float:
        return time.perf_counter() + peer.saved_seconds

    begun = clock()
    peer.learn_from(train.titles, train.labels, categories)
    shared_seconds = clock() - begun
    trials: list[dict[str, Any]] = []
    best: dict[str, Any] = {}
    for point in grid:
        started = clock()
        if started - begun > budget and trials:
            trials.append({"setting": dict(point), "note": "skipped, out of time"})
            continue
        own = {name: value for name, value in point.items() if name != CORRECTED}
        try:
            peer.fit(own)
        except UnusableError as failed:
            trials.append({"setting": dict(point), "note": str(failed)})
            continue
        seconds = clock() - started
        scores_NC = peer.scores(validation.titles)
        corrections = [False, True] if peer.is_probabilistic(own) else [False]
        if CORRECTED in point:
            corrections = [point[CORRECTED]]
        is_best = False
        for corrected in corrections:
            chosen_N = (scores_NC - log_shares_C if corrected else scores_NC).argmax(axis=1)
            setting = {**own, CORRECTED: corrected} if peer.is_probabilistic(own) else own
            score = balanced_accuracy(validation.labels, chosen_N == validation.labels)
            trials.append({"setting": setting, "seconds": seconds, "validation": score})
            print(trials[-1], flush=True)
            if not best or score > best["validation"]:
                best, is_best = dict(trials[-1]), True
        del scores_NC
        if is_best:
            started = clock()
            corrected = best["setting"].get(CORRECTED, False)
            predicted = peer.predict(test.titles, log_shares_C if corrected else None)
            best |= {
                "train_seconds": shared_seconds + seconds,
                "predict_seconds": clock() - started,
                "size_bytes": peer.size(),
                "predicted": predicted.tolist(),
            }
    if not best:
        raise SystemExit(f"no point of the grid gives a model: {trials}")
    return best | {"trials": trials}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=PEERS)
    parser.add_argument(
        "result", type=Path, help='JSON file to write; {"error": ...} if its package is missing'
    )
    parser.add_argument(
        "--budget", type=float, default=300, help="seconds within which a point may start"
    )
    parser.add_argument(
        "--setting", type=json.loads, help="the only point to fit, as JSON, tuned earlier"
    )
    options = parser.parse_args()
    params = load_params()
    found: dict[str, Any]
    try:
        peer = make(options.name, params)
    except ImportError as error:
        found = {"error": str(error)}
    else:
        grid = [options.setting] if options.setting else peer.grid
        found = search(peer, params, grid, options.budget)
    with atomic_file(options.result) as partial:
        partial.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
