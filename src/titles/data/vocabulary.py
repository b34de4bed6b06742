"""The vocabulary and the labels: words and categories by id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from titles.data.contract import SPECIAL_WORDS
from titles.data.files import read_lines
from titles.data.messages import has_commands, printable

_DIGITS = 18  # of a count of 64 bits


@dataclass(frozen=True)
class Vocabulary:
    """Known words, most frequent first; the id of a word is its position.

    words: SPECIAL_WORDS, then the words.
    counts: occurrences in train; that of <unk> is the sum over all words outside the vocabulary.
    """

    words: list[str]
    counts: list[int]

    def __len__(self) -> int:
        return len(self.words)

    def ids(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def write(self, path: Path) -> None:
        lines = [f"{w}\t{c}\n" for w, c in zip(self.words, self.counts, strict=True)]
        path.write_text("".join(lines), encoding="utf-8", newline="\n")

    @staticmethod
    def read(path: Path) -> Vocabulary:
        """Read a vocabulary; raises ValueError if the file is missing or damaged."""
        words, counts = [], []
        for number, line in enumerate(read_lines(path), start=1):
            word, tab, count = line.rpartition("\t")
            is_count = count.isascii() and count.isdecimal() and len(count) <= _DIGITS
            if not (tab and word and is_count):
                raise ValueError(f"{path} is damaged: line {number} is not a word, a tab, a count")
            words.append(word)
            counts.append(int(count))
        if tuple(words[:2]) != SPECIAL_WORDS or len(set(words)) != len(words):
            raise ValueError(f"{path} is damaged: special words are missing or a word stands twice")
        return Vocabulary(words, counts)


def build(
    words: list[str], counts_V: NDArray[np.int64], min_count: int, max_vocabulary: int
) -> tuple[Vocabulary, NDArray[np.int32]]:
    """Keep the frequent words.

    Args:
        words: all words of the source, in any order.
        counts_V: their occurrences in train.

    Returns:
        The vocabulary, and the id of each of `words` in it, UNK for words outside it.
    """
    seen = np.flatnonzero(counts_V >= min_count)
    # By count, then alphabetically: independent of the order of the input.
    ranked = sorted(seen.tolist(), key=lambda i: (-counts_V[i], words[i]))[:max_vocabulary]
    new_ids = np.ones(len(words), np.int32)  # UNK
    new_ids[ranked] = np.arange(len(ranked), dtype=np.int32) + len(SPECIAL_WORDS)
    left_out = int(counts_V.sum() - counts_V[ranked].sum())
    vocabulary = Vocabulary(
        [*SPECIAL_WORDS, *(words[i] for i in ranked)],
        [0, left_out, *(int(counts_V[i]) for i in ranked)],
    )
    return vocabulary, new_ids


def write_labels(labels: list[str], path: Path) -> None:
    path.write_text("".join(f"{name}\n" for name in labels), encoding="utf-8", newline="\n")


def read_labels(path: Path) -> list[str]:
    """Category names in the order of their ids (sorted by name).

    Raises:
        ValueError: the file is missing or damaged.
    """
    labels = read_lines(path)
    if labels != sorted(set(labels)) or len(labels) < 2:
        raise ValueError(f"{path} is damaged: expected at least two names, sorted, each once")
    if wrong := [name for name in labels if has_commands(name)]:
        raise ValueError(f"{path} is damaged: {printable(wrong[0][:99])} holds control characters")
    return labels
