"""Evaluate the pipeline's networks on the test split, from raw titles to categories.

python benchmarks/ours.py RESULT   # in a folder where all stages have run
"""

from __future__ import annotations

import titles.stages  # noqa: F401  before numpy, whose threads read its settings

# isort: split
import argparse
import json
import time
from pathlib import Path
from typing import Any

from rows import read_splits
from workspace import STAGES

from titles.data.contract import METRICS, MODELS, PREPARED
from titles.data.encoded import EncodedTitles
from titles.data.files import atomic_file
from titles.data.outcomes import balanced_accuracy
from titles.models.parts import saved
from titles.models.parts.inference import evaluate, set_up
from titles.models.registry import NETWORKS, load_params
from titles.predict.classifier import Classifier


def judge() -> dict[str, dict[str, Any]]:
    """Results of each network and their average on the test split.

    Raises:
        SystemExit: the results differ from those of the stage `evaluate`.
    """
    params = load_params()
    device = set_up(params.compute, params.seed)
    titles = read_splits(params)["test"].titles
    models = {n: saved.read(MODELS / n, NETWORKS) for n in NETWORKS}
    official = json.loads((METRICS / "evaluate.json").read_text(encoding="utf-8"))
    validation, test = (EncodedTitles.open(PREPARED / split) for split in ("validation", "test"))
    found = {}
    for name in STAGES:
        used = [models[n] for n in NETWORKS if name in (n, "average")]
        networks = [model.network.to(device) for model in used]
        weight_M = saved.weights(used)
        on_validation = evaluate(networks, validation, device, weight_M=weight_M)[-1]
        outcomes = evaluate(networks, test, device, weight_M=weight_M)[-1]
        classifier = Classifier(used, device)
        started = time.perf_counter()
        predicted_N = classifier.top(titles, 1).categories_NK[:, 0]
        seconds = time.perf_counter() - started
        differ = float((predicted_N != outcomes.predicted_N).mean())
        if differ > 1e-3:
            raise SystemExit(f"{name}: {differ:.1%} of titles get a different category from raw text")
        score = balanced_accuracy(outcomes.labels_N, outcomes.right_N)
        by_stage = official[f"{name}.balanced_accuracy"]
        if abs(score - by_stage) > 1e-5:
            raise SystemExit(f"{name}: {score} here, {by_stage} by the stage evaluate")
        found[name] = {
            "validation": balanced_accuracy(on_validation.labels_N, on_validation.right_N),
            "predict_seconds": seconds,
            "size_bytes": sum(
                file.stat().st_size for model in used for file in (MODELS / model.name).iterdir()
            ),
            "predicted": outcomes.predicted_N.tolist(),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("result", type=Path, help="JSON file to write")
    with atomic_file(parser.parse_args().result) as partial:
        partial.write_text(json.dumps(judge()), encoding="utf-8")


if __name__ == "__main__":
    main()
