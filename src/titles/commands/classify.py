"""Commands that classify titles, explain predictions and audit the labels of train."""

from __future__ import annotations

import argparse
import gc
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from titles.commands import Commands, command, coverage, end_on_termination, positive, probability

if TYPE_CHECKING:
    from titles.predict.classifier import Classifier


_TOP = 5
_FORMULAS = "put an apostrophe before text in CSV that a spreadsheet would take for a formula"


def add(commands: Commands) -> None:
    epilog = "Example: titles predict --file catalogue.csv --column name --top 1 --out found.parquet"
    predict = command(commands, "predict", _predict, "classify titles", epilog)
    predict.argument("titles", "titles to classify", nargs="*", metavar="TITLE")
    predict.argument("--file", "file with titles; - is the standard input", type=Path)
    predict.argument(
        "--format",
        "input format (default: by the ending .txt, .csv, .tsv, .jsonl or .parquet, all but the last "
        "also with .gz, .bz2, .xz or .zip; lines for the standard input)",
        choices=["lines", "csv", "jsonl", "parquet"],
    )
    predict.argument("--column", "column or key of the titles", default="title")
    text = "other columns to keep, separated by commas (default: all)"
    predict.argument("--keep", text, metavar="NAMES")
    predict.argument("--top", f"categories per title (default: {_TOP})", type=positive, metavar="K")
    predict.argument(
        "--cover",
        "give each title the smallest set of categories that holds the right one with probability P, "
        "from 0.5 to 0.99, on average over titles like those that were measured; rare categories are "
        "covered too. The output has categories and size in place of category_1 and so on",
        type=coverage,
        metavar="P",
    )
    predict.argument(
        "--at-least",
        "minimum probability of the best category, from 0 to 1 (default: 0). Below it, a title "
        "gets no category, and problem names the best one. metrics/details.json has a threshold for "
        "each --model, from which the precision is evaluate.target_precision",
        type=probability,
        default=0.0,
        metavar="P",
    )
    text = "output file (default: -, the standard output); it appears when it is complete"
    predict.argument("--out", text, type=Path)
    text = "output format (default: by the ending; table for a terminal, otherwise csv)"
    predict.argument("--out-format", text, choices=["table", "csv", "jsonl", "parquet"])
    predict.add_argument("--escape-formulas", action="store_true", help=_FORMULAS)
    predict.models()
    predict.set_defaults(usage=predict.error)

    submit = command(commands, "submit", _submit, "classify the challenge's test titles")
    submit.argument("test", "the test file, also packed", type=Path)
    submit.argument("--out", "output file", type=Path, default="submission.csv")
    submit.models()

    explain = command(commands, "explain", _explain, "show which words decide")
    explain.argument("title", "the title to explain")
    explain.argument("--top", "categories", type=positive, default=3)
    text = (
        "probability from which the first category is marked as sure (default: the threshold of --model "
        "in metrics/details.json, beside the folder of the models)"
    )
    explain.argument("--at-least", text, type=probability, metavar="P")
    explain.argument("--html", "write a page", type=Path, metavar="FILE")
    explain.models()

    audit = command(commands, "audit", _audit, "list titles that are likely in the wrong category")
    audit.argument("--top", "rows to list", type=int, default=1000, metavar="N")
    text = "networks to train, each on all folds of train but one"
    audit.argument("--folds", text, type=int, default=3, metavar="N")
    audit.network("mlp")
    audit.argument("--out", "output file", type=Path, default="audit.csv", metavar="FILE")
    audit.add_argument("--escape-formulas", action="store_true", help=_FORMULAS)


def _predict(options: argparse.Namespace) -> None:
    """Classify titles from the arguments, a file or the standard input, one per line. The output has the
    number of the row, the columns of the input, category_1, probability_1 and so on, best first, and
    problem: why a row has no category. With --cover, the output has categories, most likely first and in
    CSV separated by |, and size, their number."""
    from titles.evaluation import sets
    from titles.listings import files, listing
    from titles.predict import bulk

    file = options.file if options.file != Path("-") else None
    out = options.out if options.out != Path("-") else None
    if options.titles and options.file:
        options.usage("titles are given and a file too: give one of them")
    if not options.titles and not options.file and sys.stdin.isatty():
        options.usage("no titles: give some, a --file, or pipe them in, one a line")
    if options.cover is not None and options.top is not None:
        options.usage("--cover and --top exclude each other: a set that is cut covers less")
    if options.cover is not None and options.at_least:
        options.usage("--cover and --at-least exclude each other: every title gets a set")
    kind = options.format or (files.format_of(file, "--format") if file else files.LINES)
    keep = options.keep if options.keep is None else [k for k in options.keep.split(",") if k]
    out_kind = bulk.output_format(out, options.out_format)
    with (
        nullcontext(listing.of_titles(options.titles))
        if options.titles
        else files.opened(file, kind, options.column, keep)
    ) as rows:
        # Thresholds first: a file that is missing is told at once.
        wanted = options.top or _TOP
        if options.cover is not None:
            wanted = sets.covering(options.models, options.model, options.cover)
        told = bulk.classify(
            _classifier(options),
            rows,
            wanted,
            out,
            out_kind,
            options.at_least,
            options.escape_formulas,
        )
    if not options.titles:
        print(told, file=sys.stderr)


def _submit(options: argparse.Namespace) -> None:
    """Turn the challenge's test file (id,title,language) into a submission (id,category) with every id
    once, in the order of the file."""
    from titles.predict.submission import submit

    print(submit(_classifier(options), options.test, options.out), file=sys.stderr)


def _explain(options: argparse.Namespace) -> None:
    """Show the effect of each word of a title on the most likely categories as a bar, the decrease of
    the log probability when the word is removed, and for the CNN the windows of words that its filters
    responded to. The texts are in the language of TITLES_LANG (en, es, pt) or of the locale."""
    from titles.predict import explain_page
    from titles.predict.confidence import Threshold, thresholds
    from titles.texts import chosen, texts

    say = texts(chosen())
    if options.at_least is None:
        threshold = thresholds(options.models).get(options.model)
    else:
        threshold = Threshold(options.at_least)
    classifier = _classifier(options)
    from titles.predict.explain import explain

    found = explain(classifier, options.title, options.top)
    if options.html:
        explain_page.write_html(found, threshold, say, options.html)
        print(f"{options.html} shows it", file=sys.stderr)
    else:
        explain_page.show(found, threshold, say)


def _audit(options: argparse.Namespace) -> None:
    """List the rows of the train split whose category is most likely wrong, by confident learning
    (Northcutt et al., 2021): a network that was trained on other rows, with the settings of params.yaml,
    judges each row. Takes as long as --folds trainings. The output is a CSV of rank, line in the source,
    title, given category, suggested category with its probability, score (0: certainly wrong),
    label_quality of the source, and accept, an empty column: rows that a person accepts there are
    corrected by prepare.corrections."""
    end_on_termination()
    import titles.stages  # noqa: F401  settings that torch reads when it is imported
    from titles.models.registry import load_params
    from titles.predict.audit import audit

    found = audit(
        load_params(),
        options.folds,
        options.top,
        options.out,
        options.model,
        options.escape_formulas,
    )
    print(found)


def _classifier(options: argparse.Namespace) -> Classifier:
    end_on_termination()
    import titles.stages  # noqa: F401  settings that torch reads when it is imported

    # isort: split
    import torch

    from titles.predict.classifier import Classifier

    classifier = Classifier.read(options.models, options.model, torch.device("cpu"))
    # Rows are many small objects: without this, each garbage collection would scan torch too.
    gc.freeze()
    return classifier
