"""What a report needs of an experiment, read from git and DVC at its revision, without a checkout."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titles.data.contract import METRICS, PLOTS, PREDICTIONS
from titles.evaluation import predictions

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem

WORKSPACE = "workspace"
NETWORKS = ("cnn", "mlp")
CURVES = ("train/loss", "validation/loss", "validation/balanced_accuracy")

Curve = list[tuple[int, float]]


@dataclass(frozen=True)
class Experiment:
    """A run of the pipeline.

    name: as it was asked for. commit: hash of its git commit, or WORKSPACE.
    params: values of params.yaml under dotted names.
    scores: metrics/evaluate.json, by model. best: metrics/<network>.json, by network.
    curves: (epoch, value) by network and name in CURVES.
    """

    name: str
    commit: str
    params: dict[str, Any]
    scores: dict[str, dict[str, float]]
    best: dict[str, dict[str, float]]
    curves: dict[str, dict[str, Curve]]
    predictions: predictions.Predictions


def load(name: str) -> Experiment:
    """Read an experiment, a git revision or WORKSPACE, the files as they are, of the project around the
    current folder. What the cache lacks is read from the remote.

    Raises:
        ValueError: there is no such experiment, it lacks a file or a file is damaged.
    """
    # DVC is slow to import.
    from dvc.api import DVCFileSystem, params_show
    from dvc.exceptions import DvcException
    from dvc.scm import RevError

    rev = None if name == WORKSPACE else name
    try:
        files = DVCFileSystem(rev=rev)
        commit = files.repo.get_rev() if rev else WORKSPACE
        params = params_show(rev=rev)
    except RevError:
        raise ValueError(
            f"{name} is neither an experiment nor a git revision: `dvc exp list --all` lists the "
            f"experiments that are here, `dvc exp pull origin {name}` fetches one"
        ) from None
    except DvcException as error:
        raise ValueError(f"{name} cannot be read: {error}") from None
    content = _read(files, PREDICTIONS, name)
    try:
        predicted = predictions.read(io.BytesIO(content))
    except ValueError as error:
        raise ValueError(f"{PREDICTIONS} of {name}: {error}") from None
    return Experiment(
        name,
        commit,
        dict(_flat(params)),
        _json(files, METRICS / "evaluate.json", name),
        {network: _json(files, METRICS / f"{network}.json", name)[network] for network in NETWORKS},
        {
            network: {curve: _curve(files, network, curve, name) for curve in CURVES}
            for network in NETWORKS
        },
        predicted,
    )


def _read(files: DVCFileSystem, path: Path, name: str) -> bytes:
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexError

    place = f"/{path.as_posix()}"
    try:
        content: bytes = files.read_bytes(place)
        return content
    except FileNotFoundError:
        if not _was_made(files, place):
            raise ValueError(
                f"{name} has no {path}: it was not run to its end, or by an older version; "
                "`dvc exp run` makes it"
            ) from None
    except DataIndexError:  # a folder whose list of files is not there
        pass
    except DvcException as error:
        raise ValueError(f"{path} of {name} cannot be read: {error}") from None
    raise ValueError(
        f"{path} of {name} is neither in DVC's cache nor in the remote: fetch an experiment's with "
        f"`dvc exp pull origin {name}`, the current commit's with `dvc pull`, others' with "
        "`dvc fetch --all-commits`"
    )


def _was_made(files: DVCFileSystem, place: str) -> bool:
    """Does dvc.lock hold the hash of a file? One that dvc.yaml only declares has none."""
    try:
        return "md5" in files.info(place)
    except FileNotFoundError:
        return False


def _json(files: DVCFileSystem, path: Path, name: str) -> dict[str, dict[str, float]]:
    try:
        values: dict[str, dict[str, float]] = json.loads(_read(files, path, name))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} of {name} is damaged: {error}") from None
    return values


def _curve(files: DVCFileSystem, network: str, curve: str, name: str) -> Curve:
    """A table of DVCLive; an epoch whose value is no number is left out."""
    path = PLOTS / network / "plots/metrics" / f"{curve}.tsv"
    rows = csv.DictReader(io.StringIO(_read(files, path, name).decode()), delimiter="\t")
    try:
        values = [(int(row["step"]), float(row[Path(curve).name])) for row in rows]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} of {name} is damaged: not a table of step and value") from None
    return [(epoch, value) for epoch, value in values if math.isfinite(value)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
