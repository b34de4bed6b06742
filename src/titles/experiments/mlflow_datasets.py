"""The splits of an experiment as MLflow's datasets: inputs of its runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePosixPath

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Run

from titles.data.contract import PREPARED, SPLITS
from titles.experiments.results import Result, prepared_at
from titles.models.registry import AVERAGE

_CONTEXT = "mlflow.data.context"
_SCHEMA = json.dumps(
    {
        "mlflow_colspec": [
            {"type": "string", "name": name, "required": True} for name in ("title", "category")
        ]
    }
)
_TRAINING = ("train", "validation")
_EVALUATION = ("validation", "calibration", "test")


def splits_of(result: Result) -> Sequence[str]:
    """The splits that the stage of a result reads titles from."""
    return _EVALUATION if result.model == AVERAGE else _TRAINING


def datasets(result: Result, splits: Sequence[str] = SPLITS) -> dict[str, Dataset]:
    """The splits that a result depends on, by name; without those whose hash is unknown.

    The digest is DVC's hash of the split. The source is that of all splits: the listings as they were
    given. The profile has the numbers of rows and categories, if the experiment has them.
    """
    source = result.params.get("prepare.source", "")
    kind, place = ("http", "url") if source.startswith(("http://", "https://")) else ("local", "uri")
    found = {}
    for split in splits:
        if digest := result.hashes.get((PREPARED / split).as_posix()):
            counts = prepared_at(result.revision)
            rows, categories = counts.get("rows"), counts.get("categories")
            profile = {
                "num_rows": rows.get(split) if isinstance(rows, dict) else None,
                "num_categories": categories,
            }
            found[split] = Dataset(
                name=f"{PurePosixPath(source).name or 'listings'} {split}",
                digest=digest,
                source_type=kind,
                source=json.dumps({place: source}),
                schema=_SCHEMA,
                profile=json.dumps({k: v for k, v in profile.items() if isinstance(v, int)}),
            )
    return found


def log(client: MlflowClient, run: Run, result: Result, splits: Sequence[str]) -> bool:
    """Make splits inputs of a run; return whether any was not yet."""
    known = {(one.dataset.digest, tag.value) for one in _inputs(run) for tag in one.tags}
    hashes = {split: result.hashes.get((PREPARED / split).as_posix()) for split in splits}
    missing = [split for split, digest in hashes.items() if digest and (digest, split) not in known]
    if missing:
        inputs = [
            DatasetInput(dataset, [InputTag(_CONTEXT, split)])
            for split, dataset in datasets(result, missing).items()
        ]
        client.log_inputs(run.info.run_id, inputs)
    return bool(missing)


def _inputs(run: Run) -> Sequence[DatasetInput]:
    return run.inputs.dataset_inputs if run.inputs else ()
