"""Commands for data to learn from: generate a sample, download public data, show what `prepare` made."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from titles.commands import Commands, command, end_on_termination, positive


def add(commands: Commands) -> None:
    from titles.datasets.public import DATASETS

    sample = command(commands, "sample", _sample, "write a synthetic bilingual catalogue")
    text = "file to write: CSV, packed by gzip if it ends in .gz; or Parquet if it ends in .parquet"
    sample.argument("out", text, type=Path)
    sample.argument("--rows", "rows to write", type=int, default=60_000)
    sample.argument("--seed", "integer >= 0", type=int, default=2019)
    text = "categories: 246 by hand, or the 1588 of the challenge in sizes of its shape"
    sample.argument("--categories", text, type=int, choices=[246, 1588], default=246)
    text = "processes that make rows (default: one per core); the bytes are the same for any number"
    sample.argument("--workers", text, type=positive)
    sample.argument("--truth", "also write the right category of each row here", type=Path)
    download = command(commands, "download", _download, "fetch public data")
    download.argument("name", "dataset to fetch", choices=sorted(DATASETS))
    text = "write here (default: data/raw; sbw: data/pretrained)"
    download.argument("--into", text, type=Path, metavar="FOLDER")
    download.argument("--url", "fetch the files below this address, a mirror's", metavar="BASE")
    shown = command(commands, "data", _data, "show the prepared data in figures")
    shown.argument("--top", "categories to list, the largest first", type=positive, default=10)
    shown.argument("--html", "write a page with charts", type=Path, metavar="FILE")


def _sample(options: argparse.Namespace) -> None:
    """Write a synthetic catalogue of Spanish and Portuguese listings in the challenge's schema
    (title,label_quality,language,category). The same rows, seed and categories give the same bytes;
    memory stays the same for any number of rows."""
    end_on_termination()
    from joblib import cpu_count

    from titles.datasets.sample import write_csv

    workers = options.workers or cpu_count()
    write_csv(
        options.rows,
        options.seed,
        options.out,
        options.truth,
        categories=options.categories,
        workers=workers,
    )


def _download(options: argparse.Namespace) -> None:
    """Fetch the challenge's listings (challenge), the course's splits of them (course) or Spanish word
    vectors of 300 dimensions (sbw), and say how to use them. A download that was cut resumes with the
    same command; one that is whole is only checked."""
    end_on_termination()
    from titles.datasets.download import download

    print(download(options.name, options.into, options.url))


def _data(options: argparse.Namespace) -> None:
    """Show what `prepare` made of the source: rows by use and by reason, categories, languages, label
    qualities, words per title, corrected labels, and drift from a reference if there is one. The page of
    --html is in the language of TITLES_LANG (en, es, pt) or of the locale."""
    from titles.experiments.report import data, data_page
    from titles.models.registry import load_params
    from titles.texts import chosen, texts

    found = data.load(load_params().prepare)
    if options.html:
        data_page.write_page(found, options.html, texts(chosen()))
        print(f"{options.html} shows it", file=sys.stderr)
    else:
        print(data_page.text(found, options.top))
