"""What trained networks say: of titles, of the challenge's test file, and why; of train's own labels."""

from __future__ import annotations

import argparse
import gc
import math
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from titles.commands import add_model, add_models, add_network, end_on_termination, positive

if TYPE_CHECKING:
    from titles.commands import Commands
    from titles.predict.classifier import Classifier


def add(commands: Commands) -> None:
    predict = commands.add_parser(
        "predict",
        help="classify titles",
        description="Classify titles from the arguments, a file or the standard input, one per "
        "line. The output has the number of the row, the columns of the input, category_1, "
        "probability_1 and so on, best first, and problem: why a row has no category.",
        epilog="Example: titles predict --file catalogue.csv --column name --top 1 --out found.parquet",
    )
    predict.add_argument("titles", nargs="*", metavar="TITLE", help="titles to classify")
    predict.add_argument("--file", type=Path, help="file with titles; - is the standard input")
    predict.add_argument(
        "--format",
        choices=["lines", "csv", "jsonl", "parquet"],
        help="input format (default: by the ending .txt, .csv, .jsonl or .parquet, the first three also "
        "with .gz; lines for the standard input)",
    )
    predict.add_argument(
        "--column", default="title", help="column or key of the titles (default: %(default)s)"
    )
    predict.add_argument(
        "--keep",
        metavar="NAMES",
        help="other columns to keep, separated by commas (default: all)",
    )
    predict.add_argument(
        "--top", type=positive, default=5, help="categories per title (default: %(default)s)"
    )
    predict.add_argument(
        "--at-least",
        type=_probability,
        default=0.0,
        metavar="P",
        help="minimum probability of the best category, from 0 to 1 (default: 0). Below it, a title "
        "gets no category, and problem names the best one. metrics/details.json has a threshold for "
        "each --model, from which the precision is evaluate.target_precision",
    )
    predict.add_argument(
        "--out",
        type=Path,
        help="output file (default: -, the standard output); it appears when it is complete",
    )
    predict.add_argument(
        "--out-format",
        choices=["table", "csv", "jsonl", "parquet"],
        help="output format (default: by the ending; table for a terminal, otherwise csv)",
    )
    add_model(predict)
    add_models(predict)
    predict.set_defaults(run=_predict, usage=predict.error)
    submit = commands.add_parser(
        "submit",
        help="classify the challenge's test titles",
        description="Turn the challenge's test file (id,title,language) into a submission (id,category) "
        "with every id once, in the order of the file.",
    )
    submit.add_argument("test", type=Path, help="the test file, also gzip")
    submit.add_argument(
        "--out", type=Path, default="submission.csv", help="output file (default: %(default)s)"
    )
    add_model(submit)
    add_models(submit)
    submit.set_defaults(run=_submit)
    explain = commands.add_parser(
        "explain",
        help="show which words decide",
        description="Show the effect of each word of a title on the most likely categories: the "
        "decrease of the log probability when the word is removed, and for the CNN the windows of words "
        "that its filters responded to.",
    )
    explain.add_argument("title", help="the title to explain")
    explain.add_argument("--top", type=positive, default=3, help="categories (default: %(default)s)")
    explain.add_argument("--html", type=Path, metavar="FILE", help="write a page")
    add_model(explain)
    add_models(explain)
    explain.set_defaults(run=_explain)
    audit = commands.add_parser(
        "audit",
        help="list titles that are likely in the wrong category",
        description="List the rows of the train split whose category is most likely wrong, by "
        "confident learning (Northcutt et al., 2021): a network that was trained on other rows, with "
        "the settings of params.yaml, judges each row. Takes as long as --folds trainings. The output "
        "is a CSV of rank, line in the source, title, given category, suggested category with its "
        "probability, score (0: certainly wrong) and label_quality of the source.",
    )
    audit.add_argument(
        "--top", type=int, default=1000, metavar="N", help="rows to list (default: %(default)s)"
    )
    audit.add_argument(
        "--folds",
        type=int,
        default=3,
        metavar="N",
        help="networks to train, each on all folds of train but one (default: %(default)s)",
    )
    add_network(audit, "mlp")
    audit.add_argument(
        "--out",
        type=Path,
        default=Path("audit.csv"),
        metavar="FILE",
        help="output file (default: %(default)s)",
    )
    audit.set_defaults(run=_audit)


def _probability(text: str) -> float:
    """A number from 0 to 1, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _predict(options: argparse.Namespace) -> None:
    from titles.listings import files, listing
    from titles.predict import bulk

    file = options.file if options.file != Path("-") else None
    out = options.out if options.out != Path("-") else None
    if options.titles and options.file:
        options.usage("titles are given and a file too: give one of them")
    if not options.titles and not options.file and sys.stdin.isatty():
        options.usage("no titles: give some, a --file, or pipe them in, one a line")
    kind = options.format or (files.format_of(file, "--format") if file else files.LINES)
    keep = options.keep if options.keep is None else [k for k in options.keep.split(",") if k]

    out_kind = bulk.output_format(out, options.out_format)
    given: AbstractContextManager[listing.Listing] = (
        nullcontext(listing.of_titles(options.titles))
        if options.titles
        else files.opened(file, kind, options.column, keep)
    )
    with given as rows:
        told = bulk.classify(_classifier(options), rows, options.top, out, out_kind, options.at_least)
    if not options.titles:
        print(told, file=sys.stderr)


def _submit(options: argparse.Namespace) -> None:
    from titles.predict.submission import submit

    print(submit(_classifier(options), options.test, options.out), file=sys.stderr)


def _explain(options: argparse.Namespace) -> None:
    from titles.predict import explain_page

    classifier = _classifier(options)
    from titles.predict.explain import explain

    found = explain(classifier, options.title, options.top)
    if options.html:
        explain_page.write_html(found, options.html)
        print(f"{options.html} shows it", file=sys.stderr)
    else:
        explain_page.show(found)


def _audit(options: argparse.Namespace) -> None:
    end_on_termination()
    import titles.stages  # noqa: F401  settings that torch reads when it is imported
    from titles.models.registry import load_params
    from titles.predict.audit import audit

    print(audit(load_params(), options.folds, options.top, options.out, options.model))


def _classifier(options: argparse.Namespace) -> Classifier:
    # Settings that torch reads when it is imported.
    import titles.stages  # noqa: F401

    # isort: split
    import torch

    from titles.predict.classifier import Classifier

    classifier = Classifier.read(options.models, options.model, torch.device("cpu"))
    # Rows are many small objects: without this, each garbage collection would scan torch too.
    gc.freeze()
    return classifier
