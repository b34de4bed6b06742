"""Public data that `titles download` knows."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Dataset(NamedTuple):
    base: str  # address of the folder with the files
    files: tuple[str, ...]
    folder: Path  # where they are written
    path: str  # read by the pipeline, below `folder`
    settings: tuple[str, ...]  # parameters for that; {} stands for the path


_COURSE = "https://cs.famaf.unc.edu.ar/~ccardellino/resources/diplodatos"
DATASETS = {
    "course": Dataset(
        _COURSE,
        ("meli-challenge-2019.tar.bz2",),
        Path("data/raw"),
        "meli-challenge-2019",
        ("prepare.source={}", "prepare.language=spanish"),
    ),
    "challenge": Dataset(
        "https://meli-data-challenge.s3.amazonaws.com",
        ("train.csv.gz", "test.csv"),
        Path("data/raw"),
        "train.csv.gz",
        ("prepare.source={}",),
    ),
    "sbw": Dataset(
        _COURSE,
        ("SBW-vectors-300-min5.txt.gz",),
        Path("data/pretrained"),
        "SBW-vectors-300-min5.txt.gz",
        ("embed.method=pretrained", "embed.pretrained={}", "embed.dimension=300"),
    ),
}
