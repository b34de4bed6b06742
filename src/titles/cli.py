"""The command `titles`."""

from __future__ import annotations

import argparse
import signal
import gc
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from titles.predict import Classifier


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns 0, 1 for bad input, 2 for bad usage, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has read enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    from titles.download import DATASETS
    from titles.predictions import MODELS

    parser = argparse.ArgumentParser(
        prog="titles",
        description="Marketplace listing titles into categories. The pipeline runs with `dvc exp run`.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    sample = commands.add_parser(
        "sample",
        help="write a synthetic bilingual catalogue",
        description="Write a synthetic catalogue of Spanish and Portuguese listings in the challenge's "
        "schema (title,label_quality,language,category). The same rows and seed give the same bytes; "
        "memory stays the same for any number of rows.",
    )
    sample.add_argument("out", type=Path, help="file to write, gzip if it ends in .gz")
    sample.add_argument("--rows", type=int, default=60_000, help="rows to write (default: %(default)s)")
    sample.add_argument("--seed", type=int, default=2019, help="integer >= 0 (default: %(default)s)")
    sample.add_argument("--truth", type=Path, help="also write the right category of each row here")
    sample.set_defaults(run=_sample)
    download = commands.add_parser(
        "download",
        help="fetch public data",
        description="Fetch the challenge's listings (challenge), the course's splits of them (course) "
        "or Spanish word vectors of 300 dimensions (sbw), and say how to use them. A download that was "
        "cut resumes with the same command; one that is whole is only checked.",
    )
    download.add_argument("name", choices=sorted(DATASETS), help="what to fetch")
    download.add_argument(
        "--into",
        type=Path,
        metavar="FOLDER",
        help="write here (default: data/raw; sbw: data/pretrained)",
    )
    download.add_argument("--url", metavar="BASE", help="fetch the files below this address, a mirror's")
    download.set_defaults(run=_download)
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
        choices=MODELS,
        default="average",
        help="whose categories and titles are shown (default: %(default)s)",
    )
    report.set_defaults(run=_report)
    pruebas = commands.add_parser(
        "pruebas",
        help="run named experiments from a file",
        description="Queue the experiments of a file with DVC, run them, and show what came of them "
        "beside published figures. Those that are done on this commit are kept. Ctrl-C ends the queue's "
        "workers; the same command then goes on with what is missing. `dvc queue logs NAME` shows what "
        "one prints.",
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
    seeds = commands.add_parser(
        "seeds",
        help="summarise experiments that differ in the seed alone",
        description="Mean, standard deviation and 95 % interval (Student's t) of the experiments on "
        "this commit that differ in the seed alone, one row for each network and each set of other "
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
        help="run this stage alone, on the inputs that the experiment had; can be repeated",
    )
    verify.add_argument("--keep", action="store_true", help="leave the temporary folder there")
    verify.set_defaults(run=_verify)
    _add_mlflow(commands)
    return parser


def _add_mlflow(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
        description="Add to the runs in MLflow what only DVC knows: results on the test split, and the "
        "experiments, commits and commands that they belong to. Experiments without a run, because they "
        "were pulled or came from the run cache, get one with the tag source: backfill. A second call "
        "changes nothing.",
    )
    sync.set_defaults(run=_mlflow_sync)
    find = actions.add_parser(
        "find",
        help="the runs of an experiment",
        description="Print the runs in MLflow of a DVC experiment, their addresses and the versions "
        "that were registered from them.",
    )
    find.add_argument("name", metavar="EXPERIMENT", help="or a commit, branch, tag, or 'workspace'")
    find.set_defaults(run=_mlflow_find)
    register = actions.add_parser(
        "register",
        help="make the best network a version in the model registry",
        description="Register the better network of an experiment, by balanced accuracy on validation, "
        "as a version of models:/titles, and put the alias `best` on the best version of all that were "
        "judged on the same validation split.",
    )
    register.add_argument(
        "name",
        nargs="?",
        metavar="EXPERIMENT",
        help="or a commit, branch, tag, or 'workspace' (default: the best of all)",
    )
    register.set_defaults(run=_mlflow_register)
    predict = commands.add_parser(
        "predict",
        help="classify titles",
        description="Classify titles: those given, those of a file, or those of the standard input, one "
        "a line. What comes out has the row's number, the columns that came in, category_1, "
        "probability_1 and so on, the likeliest category first, and problem: why a row has no category.",
        epilog="Example: titles predict --file catalogue.csv --column name --top 1 --out found.parquet",
    )
    predict.add_argument("titles", nargs="*", metavar="TITLE", help="titles to classify")
    predict.add_argument("--file", type=Path, help="read titles from here; - is the standard input")
    predict.add_argument(
        "--format",
        choices=["lines", "csv", "jsonl", "parquet"],
        help="of what is read (default: by the ending .txt, .csv, .jsonl or .parquet, the first three "
        "also with .gz; lines for the standard input)",
    )
    predict.add_argument(
        "--column", default="title", help="column or key that holds the titles (default: %(default)s)"
    )
    predict.add_argument(
        "--keep",
        metavar="NAMES",
        help="other columns to keep, with commas between them (default: all)",
    )
    predict.add_argument(
        "--top", type=_positive, default=5, help="categories a title (default: %(default)s)"
    )
    predict.add_argument(
        "--out",
        type=Path,
        help="write here (default: -, the standard output); the file appears when it is whole",
    )
    predict.add_argument(
        "--out-format",
        choices=["table", "csv", "jsonl", "parquet"],
        help="of what is written (default: by the ending; table for a terminal, otherwise csv)",
    )
    _add_models(predict)
    predict.set_defaults(run=_predict, usage=predict.error)
    submit = commands.add_parser(
        "submit",
        help="classify the challenge's test titles",
        description="Turn the challenge's test file (id,title,language) into a submission (id,category) "
        "that has every id once, in the file's order.",
    )
    submit.add_argument("test", type=Path, help="the test file, also gzip")
    submit.add_argument(
        "--out", type=Path, default="submission.csv", help="write here (default: %(default)s)"
    )
    _add_models(submit)
    submit.set_defaults(run=_submit)
    explain = commands.add_parser(
        "explain",
        help="show which words decide",
        description="Show what each word of a title does for the likeliest categories: by how much the "
        "log of a category's probability falls when the word is left out; for the CNN also which "
        "windows of words its filters responded to.",
    )
    explain.add_argument("title", help="the title to explain")
    explain.add_argument("--top", type=_positive, default=3, help="categories (default: %(default)s)")
    explain.add_argument("--html", type=Path, metavar="FILE", help="write a page")
    _add_models(explain)
    explain.set_defaults(run=_explain)
    return parser


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _add_models(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model",
        choices=["average", "cnn", "mlp"],
        default="average",
        help="network, or the average of both (default: %(default)s)",
    )
    command.add_argument(
        "--models",
        type=Path,
        default="models",
        metavar="FOLDER",
        help="where the trained networks are (default: %(default)s)",
    )


def _sample(options: argparse.Namespace) -> None:
    from titles.sample import write_csv

    write_csv(options.rows, options.seed, options.out, options.truth)


def _download(options: argparse.Namespace) -> None:
    from titles.download import download

    print(download(options.name, options.into, options.url))


def _report(options: argparse.Namespace) -> None:
    from titles.report.page import write_report

    markdown = options.markdown or options.out.with_suffix(".md")
    write_report(options.experiments, options.model, options.out, markdown)
    print(f"written: {options.out}, {markdown}")


def _pruebas(options: argparse.Namespace) -> None:
    from titles import pruebas
    from titles.revisions import head

    _end_on_termination()
    plan, revisions = pruebas.run(options.file, options.jobs)
    scores = pruebas.measured(revisions)
    print(pruebas.results(plan, scores))
    if told := pruebas.caveat(plan):
        print(told)
    if options.md:
        pruebas.write_markdown(plan, scores, head(), options.md)


def _seeds(options: argparse.Namespace) -> None:
    from titles import seeds
    from titles.revisions import resolve

    print(seeds.report(resolve(options.rev), options.metric, options.form))


def _verify(options: argparse.Namespace) -> None:
    from titles import verify

    _end_on_termination()
    found = verify.verify(options.experiment, options.stage, options.keep)
    print(verify.shown(found))
    if found.different:
        raise ValueError(verify.verdict(found))
    print(f"all {len(found.outputs)} outputs of {found.revision[:7]} are the same")


def _end_on_termination() -> None:
    # SIGTERM ends a command like Ctrl-C does, so that both clean up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def _mlflow_sync(options: argparse.Namespace) -> None:
    from titles.mlflow_store import sync

    print(sync())


def _mlflow_find(options: argparse.Namespace) -> None:
    from titles.mlflow_store import find

    print(find(options.name))


def _mlflow_register(options: argparse.Namespace) -> None:
    from titles.mlflow_store import register

    print(register(options.name))


def _predict(options: argparse.Namespace) -> None:
    from titles import bulk, listing, listing_files

    file = options.file if options.file != Path("-") else None
    out = options.out if options.out != Path("-") else None
    if options.titles and options.file:
        options.usage("titles are given and a file too: give one of them")
    if not options.titles and not options.file and sys.stdin.isatty():
        options.usage("no titles: give some, a --file, or pipe them in, one a line")
    kind = options.format or (listing_files.format_of(file, "--format") if file else listing_files.LINES)
    keep = options.keep if options.keep is None else [k for k in options.keep.split(",") if k]

    out_kind = bulk.output_format(out, options.out_format)
    given: AbstractContextManager[listing.Listing] = (
        nullcontext(listing.of_titles(options.titles))
        if options.titles
        else listing_files.opened(file, kind, options.column, keep)
    )
    with given as rows:
        told = bulk.classify(_classifier(options), rows, options.top, out, out_kind)
    if not options.titles:
        print(told, file=sys.stderr)


def _submit(options: argparse.Namespace) -> None:
    from titles.submission import submit

    print(submit(_classifier(options), options.test, options.out), file=sys.stderr)


def _explain(options: argparse.Namespace) -> None:
    from titles import explain_page

    classifier = _classifier(options)
    from titles.explain import explain

    found = explain(classifier, options.title, options.top)
    if options.html:
        explain_page.write_html(found, options.html)
        print(f"{options.html} shows it", file=sys.stderr)
    else:
        explain_page.show(found)


def _classifier(options: argparse.Namespace) -> Classifier:
    # Before torch: it tells torch's threads how to wait.
    import titles.stages  # noqa: F401

    # isort: split
    import torch

    from titles.predict import Classifier

    classifier = Classifier.read(options.models, options.model, torch.device("cpu"))
    # Rows are many small objects; without it, each look for garbage passes over all of torch too.
    gc.freeze()
    return classifier


if __name__ == "__main__":
    sys.exit(main())
