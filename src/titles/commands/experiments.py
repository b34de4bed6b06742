"""Commands on DVC's experiments and their runs in MLflow."""

from __future__ import annotations

import argparse
from pathlib import Path

from titles.commands import Commands, command, end_on_termination
from titles.models.registry import AVERAGE, CLASSIFIERS

_METRICS = ("balanced_accuracy", "accuracy", "macro_f1", "top_3", "top_5", "loss", "calibration_error")


def add(commands: Commands) -> None:
    pruebas = command(commands, "pruebas", _pruebas, "run named experiments from a file")
    text, default = "experiments to run", "experiments/course.yaml"
    pruebas.argument("file", text, nargs="?", type=Path, default=default)
    text = "runs at once (default: cores over compute.threads)"
    pruebas.argument("--jobs", text, type=int, metavar="N")
    pruebas.argument("--md", "also write the table to PATH as Markdown", type=Path, metavar="PATH")

    report = command(commands, "report", _report, "compare experiments on one page")
    text = "name of an experiment, a git revision, or workspace for the files as they are"
    report.argument("experiments", text, nargs="+", metavar="EXPERIMENT")
    report.argument("--out", "page to write", type=Path, default="report.html", metavar="FILE")
    text = "Markdown to write (default: beside the page, with .md for its ending)"
    report.argument("--markdown", text, type=Path, metavar="FILE")
    text = "whose categories and titles are shown"
    report.argument("--model", text, choices=CLASSIFIERS, default=AVERAGE)

    text = "summarise experiments that differ only in the seed"
    seeds = command(commands, "seeds", _seeds, text)
    text = "what to summarise, measured on the test split"
    seeds.argument("--metric", text, choices=_METRICS, default=_METRICS[0])
    seeds.argument("--rev", "commit the experiments started from", default="HEAD")
    form = seeds.add_mutually_exclusive_group()
    form.add_argument("--md", dest="form", action="store_const", const="github", help="print Markdown")
    text = "print CSV, with all digits"
    form.add_argument("--csv", dest="form", action="store_const", const="csv", help=text)
    seeds.set_defaults(form="simple")

    verify = command(commands, "verify", _verify, "run an experiment again and compare all its outputs")
    verify.argument("experiment", "name or git revision", nargs="?", default="HEAD")
    text = "run only this stage, on the inputs that the experiment had; can be repeated"
    verify.argument("--stage", text, action="append", default=[], metavar="NAME")
    verify.argument("--keep", "keep the temporary folder", action="store_true")

    mlflow = commands.add_parser(
        "mlflow",
        help="fill MLflow from DVC, find runs, register the best network",
        description="The runs of DVC's experiments in MLflow: in mlflow.db of this folder, or at "
        "MLFLOW_TRACKING_URI.",
    )
    actions = mlflow.add_subparsers(title="commands", required=True, metavar="COMMAND")
    command(actions, "sync", _mlflow_sync, "bring MLflow up to date with DVC")
    find = command(actions, "find", _mlflow_find, "print the runs of an experiment")
    text = "or a commit, branch, tag, or 'workspace'"
    find.argument("name", text, metavar="EXPERIMENT")
    brief = "make the best network a version in the model registry"
    register = command(actions, "register", _mlflow_register, brief)
    register.argument("name", f"{text} (default: the best of all)", nargs="?", metavar="EXPERIMENT")


def _pruebas(options: argparse.Namespace) -> None:
    """Queue the experiments of a file with DVC, run them, and show their results beside published
    figures. Experiments that are finished on this commit are kept. Ctrl-C ends the queue's workers; the
    same command continues with what is missing. `dvc queue logs NAME` shows the output of an
    experiment."""
    from titles.experiments.store import head
    from titles.experiments.suite import runner, table

    end_on_termination()
    plan, experiments = runner.run(options.file, options.jobs)
    scores = {name: experiment.scores for name, experiment in experiments.items()}
    print(table.shown(plan, scores))
    if caveat := table.caveat(plan):
        print(caveat)
    if options.md:
        table.write_markdown(plan, scores, head(), options.md)


def _report(options: argparse.Namespace) -> None:
    """Compare experiments, or git revisions, with the first of them: scores, paired tests, parameters,
    curves, categories and titles. Makes a page that needs no network, and the same as Markdown. Nothing
    is checked out; what DVC's cache lacks is read from the remote."""
    from titles.experiments.report.page import write_report

    markdown = options.markdown or options.out.with_suffix(".md")
    write_report(options.experiments, options.model, options.out, markdown)
    print(f"written: {options.out}, {markdown}")


def _seeds(options: argparse.Namespace) -> None:
    """Mean, standard deviation and 95 % interval (Student's t) of the experiments on this commit that
    differ only in the seed, one row for each network and each set of other parameters. To get some: dvc
    exp run --queue -S 'seed=1,2,3' && dvc queue start"""
    from titles.experiments import seeds
    from titles.experiments.store import find, head

    print(seeds.report(find(options.rev).commit or head(), options.metric, options.form))


def _verify(options: argparse.Namespace) -> None:
    """Run an experiment again in a temporary folder, with its own code and without DVC's run cache, and
    compare the hash of each output with its dvc.lock. Exit code 0: all are the same; 1: some differ."""
    from titles.experiments import verify

    end_on_termination()
    found = verify.verify(options.experiment, options.stage, options.keep)
    print(verify.shown(found))
    if found.different:
        raise ValueError(verify.verdict(found))
    print(f"all {len(found.outputs)} outputs of {found.revision.commit[:7]} are the same")


def _mlflow_sync(options: argparse.Namespace) -> None:
    """Add to the runs in MLflow what only DVC knows: results on the test split, and links to experiments
    and commits. Experiments that were pulled or came from the run cache have no run: they get one with
    the tag source: backfill. A second call changes nothing."""
    from titles.experiments.mlflow_sync import sync

    print(sync())


def _mlflow_find(options: argparse.Namespace) -> None:
    """Print the runs in MLflow of a DVC experiment, their addresses and the versions that were
    registered from them."""
    from titles.serve.registry import described

    print(described(options.name))


def _mlflow_register(options: argparse.Namespace) -> None:
    """Register the best network of an experiment, by balanced accuracy on validation, as a version of
    models:/titles, and put the alias `best` on the best of all versions that were evaluated on the same
    validation split."""
    from titles.serve.registry import register

    print(register(options.name))
