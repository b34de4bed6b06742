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
    describe = command(commands, "describe", _describe, "write Croissant metadata of a file of listings")
    text = "CSV, JSON lines or Parquet with titles and categories, also packed by gzip or as a zip"
    describe.argument("file", text, type=Path)
    text = "name of the data set (default: as before, or that of the file without endings)"
    describe.argument("--name", text)
    text = "one or more sentences (default: as before, or a general one)"
    describe.argument("--description", text, metavar="TEXT")
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
    (title,label_quality,language,category), and beside it what `titles describe` writes. The same rows,
    seed and categories give the same bytes; memory stays the same for any number of rows."""
    end_on_termination()
    from joblib import cpu_count

    from titles.data.files import WriteError, is_one_file, write_json
    from titles.datasets import croissant
    from titles.datasets.sample import is_stream, write_csv

    described = croissant.beside(options.out)
    if options.truth and is_one_file(options.truth, described):
        raise ValueError(f"{options.truth} is the path of the metadata of {options.out}")

    workers = options.workers or cpu_count()
    write_csv(
        options.rows,
        options.seed,
        options.out,
        options.truth,
        categories=options.categories,
        workers=workers,
    )
    if is_stream(options.out):
        return
    text = (
        "Synthetic listings of a marketplace in Spanish and Portuguese, in the schema of the MeLi Data "
        f"Challenge 2019: {options.rows:,} rows, {options.categories} categories, seed {options.seed}. "
        "No row is a real listing."
    )
    try:
        write_json(described, croissant.metadata(options.out, description=text))
    except WriteError as error:  # as where a name is too long: the sample is whole
        print(f"warning: {error}", file=sys.stderr)


def _describe(options: argparse.Namespace) -> None:
    """Write metadata as Croissant (mlcommons.org/croissant) of a file that `prepare` reads, or
    of JSON lines with the same keys. They stand beside it: data.croissant.json for data.csv.gz. They
    name the file, its sha256, and its columns title, category, language and label_quality, as far as it
    has them. A name and a description that stand there stay, unless others are given. The same file
    gives the same bytes. All rows are read first, and those that `prepare` rejects are counted."""
    end_on_termination()
    from titles.data.files import write_json
    from titles.datasets import croissant

    before = croissant.texts(options.file)
    name, description = options.name or before.name, options.description or before.description
    described = croissant.metadata(options.file, name, description)
    found = croissant.count(options.file)
    write_json(path := croissant.beside(options.file), described)
    rejected = f", {found.rejected:,} of which `prepare` rejects" if found.rejected else ""
    print(f"{path} describes {found.rows:,} rows{rejected}", file=sys.stderr)


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
