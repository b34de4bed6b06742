"""Commands on MLflow's runs of DVC's experiments."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from titles.commands import Commands


def add(commands: Commands) -> None:
    mlflow = commands.add_parser(
        "mlflow",
        help="fill MLflow from DVC, find runs, register the best network",
        description="The runs of DVC's experiments in MLflow: in mlflow.db of this folder, or at "
        "MLFLOW_TRACKING_URI.",
    )
    actions = mlflow.add_subparsers(title="commands", required=True, metavar="COMMAND")
    sync = actions.add_parser(
        "sync",
        help="bring MLflow up to date with DVC",
        description="Add to the runs in MLflow what only DVC knows: results on the test split, and "
        "links to experiments and commits. Experiments that were pulled or came from the run cache have "
        "no run: they get one with the tag source: backfill. A second call changes nothing.",
    )
    sync.set_defaults(run=_mlflow_sync)
    find = actions.add_parser(
        "find",
        help="print the runs of an experiment",
        description="Print the runs in MLflow of a DVC experiment, their addresses and the versions "
        "that were registered from them.",
    )
    find.add_argument("name", metavar="EXPERIMENT", help="or a commit, branch, tag, or 'workspace'")
    find.set_defaults(run=_mlflow_find)
    register = actions.add_parser(
        "register",
        help="make the best network a version in the model registry",
        description="Register the best network of an experiment, by balanced accuracy on validation, "
        "as a version of models:/titles, and put the alias `best` on the best of all versions that were "
        "evaluated on the same validation split.",
    )
    register.add_argument(
        "name",
        nargs="?",
        metavar="EXPERIMENT",
        help="or a commit, branch, tag, or 'workspace' (default: the best of all)",
    )
    register.set_defaults(run=_mlflow_register)


def _mlflow_sync(options: argparse.Namespace) -> None:
    from titles.experiments.mlflow_sync import sync

    print(sync())


def _mlflow_find(options: argparse.Namespace) -> None:
    from titles.serve.registry import described

    print(described(options.name))


def _mlflow_register(options: argparse.Namespace) -> None:
    from titles.serve.registry import register

    print(register(options.name))
