"""Commands on DVC's experiments: run, compare, summarise and verify them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from titles.commands import end_on_termination
from titles.models.registry import AVERAGE, CLASSIFIERS

if TYPE_CHECKING:
    from titles.commands import Commands


def add(commands: Commands) -> None:
    pruebas = commands.add_parser(
        "pruebas",
        help="run named experiments from a file",
        description="Queue the experiments of a file with DVC, run them, and show their results beside "
        "published figures. Experiments that are finished on this commit are kept. Ctrl-C ends the "
        "queue's workers; the same command continues with what is missing. `dvc queue logs NAME` shows "
        "the output of an experiment.",
    )
    pruebas.add_argument(
        "file",
        nargs="?",
        type=Path,
        default=Path("experiments/course.yaml"),
        help="experiments to run (default: %(default)s)",
    )
    pruebas.add_argument(
        "--jobs", type=int, metavar="N", help="runs at once (default: cores over compute.threads)"
    )
    pruebas.add_argument(
        "--md", type=Path, metavar="PATH", help="also write the table to PATH as Markdown"
    )
    pruebas.set_defaults(run=_pruebas)
    report = commands.add_parser(
        "report",
        help="compare experiments on one page",
        description="Compare experiments, or git revisions, with the first of them: scores, paired "
        "tests, parameters, curves, categories and titles. Makes a page that needs no network, and the "
        "same as Markdown. Nothing is checked out; what DVC's cache lacks is read from the remote.",
    )
    report.add_argument(
        "experiments",
        nargs="+",
        metavar="EXPERIMENT",
        help="name of an experiment, a git revision, or workspace for the files as they are",
    )
    report.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="page to write (default: %(default)s)",
    )
    report.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="Markdown to write (default: beside the page, with .md for its ending)",
    )
    report.add_argument(
        "--model",
        choices=CLASSIFIERS,
        default=AVERAGE,
        help="whose categories and titles are shown (default: %(default)s)",
    )
    report.set_defaults(run=_report)
    seeds = commands.add_parser(
        "seeds",
        help="summarise experiments that differ only in the seed",
        description="Mean, standard deviation and 95 % interval (Student's t) of the experiments on "
        "this commit that differ only in the seed, one row for each network and each set of other "
        "parameters. To get some: dvc exp run --queue -S 'seed=1,2,3' && dvc queue start",
    )
    seeds.add_argument(
        "--metric",
        choices=(
            "balanced_accuracy",
            "accuracy",
            "macro_f1",
            "top_3",
            "top_5",
            "loss",
            "calibration_error",
        ),
        default="balanced_accuracy",
        help="what to summarise, measured on the test split (default: %(default)s)",
    )
    seeds.add_argument(
        "--rev", default="HEAD", help="commit the experiments started from (default: HEAD)"
    )
    form = seeds.add_mutually_exclusive_group()
    form.add_argument("--md", dest="form", action="store_const", const="github", help="print Markdown")
    form.add_argument(
        "--csv", dest="form", action="store_const", const="csv", help="print CSV, with all digits"
    )
    seeds.set_defaults(run=_seeds, form="simple")
    verify = commands.add_parser(
        "verify",
        help="run an experiment again and compare all its outputs",
        description="Run an experiment again in a temporary folder, with its own code and without DVC's "
        "run cache, and compare the hash of each output with its dvc.lock. Exit code 0: all are the "
        "same; 1: some differ.",
    )
    verify.add_argument(
        "experiment", nargs="?", default="HEAD", help="name or git revision (default: %(default)s)"
    )
    verify.add_argument(
        "--stage",
        action="append",
        default=[],
        metavar="NAME",
        help="run only this stage, on the inputs that the experiment had; can be repeated",
    )
    verify.add_argument("--keep", action="store_true", help="keep the temporary folder")
    verify.set_defaults(run=_verify)


def _pruebas(options: argparse.Namespace) -> None:
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
    from titles.experiments.report.page import write_report

    markdown = options.markdown or options.out.with_suffix(".md")
    write_report(options.experiments, options.model, options.out, markdown)
    print(f"written: {options.out}, {markdown}")


def _seeds(options: argparse.Namespace) -> None:
    from titles.experiments import seeds
    from titles.experiments.store import find, head

    print(seeds.report(find(options.rev).commit or head(), options.metric, options.form))


def _verify(options: argparse.Namespace) -> None:
    from titles.experiments import verify

    end_on_termination()
    found = verify.verify(options.experiment, options.stage, options.keep)
    print(verify.shown(found))
    if found.different:
        raise ValueError(verify.verdict(found))
    print(f"all {len(found.outputs)} outputs of {found.revision.commit[:7]} are the same")
