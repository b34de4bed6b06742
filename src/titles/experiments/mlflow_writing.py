"""Tags and metrics of runs in MLflow, of which only what is missing is written."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from titles.experiments.results import Result
from titles.models.registry import AVERAGE

SCORE = "validation_balanced_accuracy"
_METRICS_PER_BATCH = 1000  # MLflow refuses more
_LONGEST_TAG = 8000  # characters; MLflow refuses more


def set_tags(client: MlflowClient, run: Run, wanted: Mapping[str, str]) -> bool:
    """Set tags, and delete those wanted empty; return whether any changed."""
    changed = {k: v for k, v in wanted.items() if run.data.tags.get(k, "") != v}
    for key, value in changed.items():
        if value:
            client.set_tag(run.info.run_id, key, value)
        else:
            client.delete_tag(run.info.run_id, key)
    return bool(changed)


def cut(text: str) -> str:
    """A text that MLflow takes as a tag."""
    return text if len(text) <= _LONGEST_TAG else f"{text[: _LONGEST_TAG - 4]} ..."


def log_metrics(client: MlflowClient, run: str, metrics: Sequence[Metric]) -> None:
    """Log any number of metrics."""
    for start in range(0, len(metrics), _METRICS_PER_BATCH):
        client.log_batch(run, metrics=metrics[start : start + _METRICS_PER_BATCH])


def log_scores(client: MlflowClient, run: Run, wanted: Mapping[str, float]) -> bool:
    """Log metrics that belong to no epoch; return whether any changed."""
    if run.data.metrics.items() >= wanted.items():
        return False
    now = int(time.time() * 1000)
    log_metrics(client, run.info.run_id, [Metric(key, value, now, 0) for key, value in wanted.items()])
    return True


def is_active(run: Run) -> bool:
    """Whether a run was not deleted."""
    return bool(run.info.lifecycle_stage == "active")


def score(result: Result, evaluation: Result | None) -> float | None:
    """Balanced accuracy on validation of a model as it was saved, by which models are compared; where an
    older version did not measure it, that of the training. None if there is neither."""
    measures = evaluation.scores["models"].get(result.model, {}) if evaluation else {}
    found = measures.get(SCORE, result.scores.get(SCORE))
    return float(found) if isinstance(found, int | float) else None


def scores(result: Result, evaluation: Result | None) -> dict[str, float]:
    """Metrics of a model as it was saved, on validation and on the test split."""
    value = score(result, evaluation)
    found = {} if value is None else {SCORE: value}
    if evaluation is None:
        return found
    measures = evaluation.scores["models"].get(result.model, {})
    found |= {f"test/{name}": value for name, value in measures.items() if name != SCORE}
    if result.model == AVERAGE:
        for pair, test in evaluation.scores["pairs"].items():
            found |= {f"test/{pair}/{name}": value for name, value in test.items()}
    return found
