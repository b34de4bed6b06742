"""The command `titles`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns 0, 1 for bad input, 2 for bad usage, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
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
    return parser


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


if __name__ == "__main__":
    sys.exit(main())
