"""Word vectors from a folder with a table and the list of its words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from networks import TEXT_RULES
from titles.data.vocabulary import Vocabulary
from titles.embed.vectors import read_pretrained
from titles.prepare.text import normalise

RULES = TEXT_RULES.model_copy(update={"digits": "keep", "strip_accents": True})
WORDS = Vocabulary(["<pad>", "<unk>", "mesa", "telefono", "128gb", "raro"], [0, 4, 9, 7, 3, 2])
LISTED = ["[PAD]", "Teléfono", "mesa", "##sa", "telefono", "128gb", "silla"]
TABLE = np.arange(21, dtype=np.float32).reshape(7, 3)
EXPECTED = {2: [6, 7, 8], 3: [12, 13, 14], 4: [15, 16, 17]}

Write = Callable[[Path], Any]


def as_npy(folder: Path, table: Any = TABLE) -> None:
    np.save(folder / "vectors.npy", table)


def as_safetensors(folder: Path, kind: torch.dtype = torch.float32, **more: torch.Tensor) -> None:
    save_file({"embeddings": torch.from_numpy(TABLE).to(kind), **more}, folder / "model.safetensors")


def as_lines(folder: Path, name: str = "words.txt") -> None:
    (folder / name).write_text("".join(f"{word}\n" for word in LISTED), encoding="utf-8")


def as_tokenizer(folder: Path, vocabulary: Any = None) -> None:
    vocabulary = {w: row for row, w in enumerate(LISTED)} if vocabulary is None else vocabulary
    content = {"model": {"type": "WordPiece", "vocab": vocabulary}}
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")


def as_unigram(folder: Path) -> None:
    marked = ["\u2581" + word if not word.startswith("##") else word[2:] for word in LISTED]
    as_tokenizer(folder, [[token, -1.5] for token in marked])


def read(folder: Path, dimension: int = 3) -> Any:
    return read_pretrained(folder, WORDS, dimension, 1, lambda text: normalise(text, RULES))


TABLES: dict[str, Write] = {
    "numpy": as_npy,
    "numpy, 16 bits": lambda folder: as_npy(folder, TABLE.astype(np.float16)),
    "numpy, by columns": lambda folder: as_npy(folder, np.asfortranarray(TABLE, np.float64)),
    "safetensors": as_safetensors,
    "safetensors, 16 bits": lambda folder: as_safetensors(folder, torch.float16),
    "safetensors, bfloat16": lambda folder: as_safetensors(folder, torch.bfloat16),
    "safetensors, with weights": lambda folder: as_safetensors(
        folder, weights=torch.ones(7), mapping=torch.ones(7, 3)
    ),
    "safetensors, another name": lambda folder: save_file(
        {"table": torch.from_numpy(TABLE), "bias": torch.ones(3)}, folder / "a.safetensors"
    ),
}
LISTS: dict[str, Write] = {
    "words.txt": as_lines,
    "vocab.txt": lambda folder: as_lines(folder, "vocab.txt"),
    "WordPiece": as_tokenizer,
    "Unigram": as_unigram,
}


@pytest.mark.parametrize("listed", LISTS)
@pytest.mark.parametrize("table", TABLES)
def test_every_form_gives_the_same_vectors(tmp_path: Path, table: str, listed: str) -> None:
    TABLES[table](tmp_path)
    LISTS[listed](tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("About it")
    found = read(tmp_path)
    assert {row: found.matrix_VD[row].tolist() for row in EXPECTED} == EXPECTED
    assert found.has_vector_V.tolist() == [row in EXPECTED for row in range(len(WORDS))]


def test_a_row_that_nobody_needs_does_no_harm(tmp_path: Path) -> None:
    table = TABLE.copy()
    table[6] = np.nan
    as_npy(tmp_path, table)
    as_lines(tmp_path)
    assert read(tmp_path).matrix_VD[2].tolist() == EXPECTED[2]


def damaged(folder: Path) -> None:
    as_safetensors(folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def cut(folder: Path) -> None:
    as_npy(folder)
    path = folder / "vectors.npy"
    path.write_bytes(path.read_bytes()[:-9])


def objects(folder: Path) -> None:
    np.save(folder / "a.npy", np.array([{}] * 7), allow_pickle=True)


def two(folder: Path) -> None:
    save_file({"a": torch.ones(7, 3), "b": torch.ones(7, 3)}, folder / "a.safetensors")


REFUSED: dict[str, tuple[list[Write], str]] = {
    "empty": ([], "needs one table, .npy or .safetensors, and has: none"),
    "two tables": ([as_npy, as_safetensors], "and has: model.safetensors, vectors.npy"),
    "no list": ([as_npy], "has no list of words: one of words.txt, vocab.txt, tokenizer.json"),
    "cut safetensors": ([damaged, as_lines], "damaged, or no file of safetensors"),
    "no safetensors": ([lambda f: (f / "a.safetensors").write_bytes(b"x" * 40)], "damaged, or no file"),
    "cut numpy": ([cut], "damaged, or no array of numpy"),
    "no numpy": ([lambda f: (f / "a.npy").write_bytes(b"")], "damaged, or no array of numpy"),
    "objects": ([objects, as_lines], "damaged, or no array of numpy"),
    "whole numbers": ([lambda f: as_npy(f, TABLE.astype(int)), as_lines], "not floating point"),
    "whole numbers in safetensors": (
        [lambda f: as_safetensors(f, torch.int8), as_lines],
        "values of type I8 in embeddings",
    ),
    "one row": ([lambda f: as_npy(f, TABLE[0]), as_lines], "is no table"),
    "two matrices": ([two], "needs one matrix, or one called embeddings, and has: a, b"),
    "fewer rows": ([lambda f: as_npy(f, TABLE[:6]), as_lines], "has 7 words, but the table has 6 rows"),
    "tokens beyond": ([lambda f: as_npy(f, TABLE[:6]), as_tokenizer], "tokens beyond the 6 rows"),
    "Latin-1": ([as_npy, lambda f: (f / "words.txt").write_bytes(b"caf\xe9\n" * 7)], "is not UTF-8"),
    "no JSON": ([as_npy, lambda f: (f / "tokenizer.json").write_text("{")], "tokenizer.json is damaged"),
    "no vocabulary": ([as_npy, lambda f: (f / "tokenizer.json").write_text("[]")], "has no vocabulary"),
    "text for rows": ([as_npy, lambda f: as_tokenizer(f, {"mesa": "2"})], "has no vocabulary"),
    "not finite": (
        [lambda f: as_npy(f, np.where(TABLE == 7, np.inf, TABLE)), as_lines],
        "row 3 has a number that is not finite",
    ),
    "other words": (
        [as_npy, lambda f: (f / "words.txt").write_text("a\n" * 7)],
        "has none of the 6 words",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_is_damaged_or_of_no_use_is_refused(tmp_path: Path, case: str) -> None:
    parts, message = REFUSED[case]
    for part in parts:
        part(tmp_path)
    with pytest.raises(ValueError, match=re.escape(message)) as told:
        read(tmp_path)
    assert "\n" not in str(told.value)


def test_another_dimension_is_refused_with_the_parameter_to_set(tmp_path: Path) -> None:
    as_safetensors(tmp_path)
    as_lines(tmp_path)
    with pytest.raises(ValueError, match=r"set embed\.dimension=3"):
        read(tmp_path, 4)
