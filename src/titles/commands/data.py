"""Commands for data to learn from: generate a sample, download public data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from titles.commands import Commands


def add(commands: Commands) -> None:
    from titles.datasets.public import DATASETS

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
    download.add_argument("name", choices=sorted(DATASETS), help="dataset to fetch")
    download.add_argument(
        "--into",
        type=Path,
        metavar="FOLDER",
        help="write here (default: data/raw; sbw: data/pretrained)",
    )
    download.add_argument("--url", metavar="BASE", help="fetch the files below this address, a mirror's")
    download.set_defaults(run=_download)


def _sample(options: argparse.Namespace) -> None:
    from titles.datasets.sample import write_csv

    write_csv(options.rows, options.seed, options.out, options.truth)


def _download(options: argparse.Namespace) -> None:
    from titles.datasets.download import download

    print(download(options.name, options.into, options.url))
