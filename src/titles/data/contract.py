"""The data contract: where files lie, what is in them, and the checks at that border.

Legend for tensor and array names: N titles, B titles of a batch, L words of a title, V words of the
vocabulary, D dimensions of a word vector, C categories, W words of all titles together, U distinct words
of a batch, G n-grams of those, M distinct n-grams.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

if TYPE_CHECKING:  # prepare and its worker processes start without torch
    from torch import Tensor

PAD = 0
UNK = 1
SPECIAL_WORDS = ("<pad>", "<unk>")

# Position is the code in languages.npy and qualities.npy.
LANGUAGES = ("unspecified", "spanish", "portuguese")
QUALITIES = ("unspecified", "reliable", "unreliable")
SPLITS = ("train", "validation", "test")

# The same names in data/prepared and in a model's folder.
VOCABULARY_FILE = "vocabulary.tsv"
LABELS_FILE = "labels.txt"
TEXT_FILE = "text.json"
PROFILE_FILE = "profile.json"

PREPARED = Path("data/prepared")
VOCABULARY = PREPARED / VOCABULARY_FILE
LABELS = PREPARED / LABELS_FILE
TEXT = PREPARED / TEXT_FILE
NO_PRETRAINED = "data/pretrained/none"
NO_REFERENCE = NO_PRETRAINED
EMBEDDED = Path("data/embedded")
MODELS = Path("models")
METRICS = Path("metrics")
PLOTS = Path("plots")
PREDICTIONS = Path("predictions/test.parquet")

MODEL_FORMAT = 5
# Letters of a character n-gram, and numbers that n-grams are hashed to.
MOST_LETTERS = 32
MOST_BUCKETS = 2**30


class Batch(NamedTuple):
    """Titles of one step; all int64. Each distinct word is there once: it is looked up, composed and
    projected once, however often it stands in the batch.

    index_BL: the word's position in tokens_U, 0 after the last word; every title has a word.
    tokens_U: ids of the distinct words, after PAD at 0; several can be UNK, each with its
        own letters.
    ngrams_M: buckets of the distinct n-grams of those words; none for a network without subwords.
    ngram_index_G: positions in ngrams_M, of all words one after another.
    ngram_ends_U: where each word's n-grams end in ngram_index_G.
    labels_B: category ids.
    """

    index_BL: Tensor
    tokens_U: Tensor
    ngrams_M: Tensor
    ngram_index_G: Tensor
    ngram_ends_U: Tensor
    labels_B: Tensor


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `folder` when the block ends without an error.

    Under its name stands the old content or the new, never a mixture, after a power cut too; cut off
    between two renames, a process can leave nothing there. On an error, an interrupt included, the old
    content stays.

    Raises:
        ValueError: the place cannot be written to.
    """
    partial = folder.with_name(folder.name + ".partial")
    old = folder.with_name(folder.name + ".old.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as error:
        raise ValueError(f"cannot write {folder}: {error.strerror or error}") from None
    try:
        yield partial
        for path in partial.rglob("*"):
            to_disk(path)
        if folder.exists():
            folder.replace(old)
        named(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; it becomes `path` when the block ends without an error.

    Under its name stands the old content or the new, after a power cut too.

    Raises:
        ValueError: the place cannot be written to.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror or error}") from None
    try:
        yield partial
        named(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def named(partial: Path, path: Path) -> None:
    """Give what is finished its own name, once it is on the disk.

    A name can be on the disk before the content that it was given to, and after a power cut is then that
    of an empty file.
    """
    to_disk(partial)
    partial.replace(path)
    to_disk(path.parent)


def to_disk(path: Path) -> None:
    """Wait until a file, or the list of names that a folder is, is on the disk."""
    opened_path = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened_path)
    finally:
        os.close(opened_path)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write readable JSON with a fixed layout, so that equal values are equal bytes.

    Raises:
        ValueError: a value is NaN or infinite, or the place cannot be written to.
    """
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 file that a stage wrote.

    Raises:
        ValueError: the file is missing or damaged.
    """
    try:
        # Not splitlines(): that also cuts at U+2028 and its like.
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run `dvc repro`, or `dvc pull`, first") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if lines.pop() != "":
        raise ValueError(f"{path} is damaged: its last line is not complete")
    return lines


@contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, through gzip if its first bytes say so."""
    with file.open("rb") as raw:
        magic = raw.read(2)
        raw.seek(0)
        if magic == b"\x1f\x8b":
            with gzip.open(raw, "rb") as unzipped, io.BufferedReader(unzipped) as buffered:
                yield buffered
        else:
            yield raw
