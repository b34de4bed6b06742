"""Inputs of a network in ONNX from titles; does not need torch.

Legend: B titles, L tokens of the longest, U distinct unknown words, G n-grams of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from titles.data.contract import LABELS_FILE, PAD, UNK, VOCABULARY_FILE
from titles.data.documents import DocumentError, read_json
from titles.data.subwords import Subwords
from titles.data.vocabulary import Vocabulary, read_labels
from titles.models.parts import golden
from titles.params import Text
from titles.prepare.text import words_of

FORMAT = 2
_UNCHECKED_FORMAT = 1  # without golden examples
_AGAIN = "export again with `titles export onnx`"
MODEL_FILE = "model.onnx"
ENCODING_FILE = "encoding.json"
WORDS = "words"
UNKNOWN_GRAMS = "unknown_grams"
_REASON = 300  # characters of a message, which can quote all of a damaged file


@dataclass(frozen=True)
class Encoder:
    """Makes the inputs of `InferenceSession.run` from titles.

    labels: categories in the order of the logits. subwords: None for a network without subwords.
    """

    vocabulary: Vocabulary
    labels: list[str]
    text: Text
    subwords: Subwords | None

    @cached_property
    def _ids(self) -> dict[str, int]:
        return self.vocabulary.ids()

    @staticmethod
    def read(folder: Path | str) -> Encoder:
        """Read the files beside the network in an exported folder.

        Raises:
            ValueError: a file is missing or damaged, the format is not supported, the files do not fit,
                or titles are read otherwise than when the network was exported.
        """
        path = Path(folder) / ENCODING_FILE
        try:
            found = read_json(path)
            version = found["format"]
            if version not in (_UNCHECKED_FORMAT, FORMAT):
                raise ValueError(
                    f"{folder} has ONNX export format {version}, this version reads "
                    f"{_UNCHECKED_FORMAT} and {FORMAT}: {_AGAIN}"
                )
            text = Text.model_validate(found["text"])
            sizes = {VOCABULARY_FILE: found["words"], LABELS_FILE: found["categories"]}
            letters = found["subwords"]
            letters = letters and [letters[name] for name in ("shortest", "longest", "buckets")]
        except FileNotFoundError:
            raise ValueError(f"{path} is missing: export with `titles export onnx`") from None
        except (DocumentError, KeyError, TypeError, ValidationError) as error:
            raise ValueError(f"{path} is damaged: {repr(error)[:_REASON]}") from None
        try:
            subwords = Subwords(*letters) if letters else None
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error!r}") from None
        vocabulary = Vocabulary.read(path.with_name(VOCABULARY_FILE))
        labels = read_labels(path.with_name(LABELS_FILE))
        for file, found in ((VOCABULARY_FILE, len(vocabulary)), (LABELS_FILE, len(labels))):
            if found != sizes[file]:
                raise ValueError(
                    f"{folder} is damaged: {file} has {found} lines, {ENCODING_FILE} says {sizes[file]}"
                )
        if version == _UNCHECKED_FORMAT:
            golden.warn_unchecked(path.parent)
        else:
            golden.check(path.parent, text, vocabulary, subwords, _AGAIN)
        return Encoder(vocabulary, labels, text, subwords)

    def words(self, titles: Sequence[str]) -> list[list[str]]:
        """The tokens of each title."""
        return words_of(titles, self.text)

    def __call__(self, titles: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """The inputs by name.

        words (B, L): vocabulary ids, 0 after the last token. Unknown words are 1 for a network without
            subwords; otherwise the size of the vocabulary plus their row in unknown_grams.
        unknown_grams (U, G): 1 + bucket of each n-gram of each unknown word, padded with 0. Only for a
            network with subwords; U is 0 if all words are known.

        A title without a word is a row of zeros; its logits are those of no words at all.
        """
        rows = self.words(titles)
        words_BL = np.full((len(rows), max(map(len, rows), default=0) or 1), PAD, np.int64)
        ids = self._ids
        unknown = dict.fromkeys(word for word in chain.from_iterable(rows) if word not in ids)
        numbers = dict.fromkeys(unknown, UNK)
        if self.subwords:
            numbers = {word: len(ids) + place for place, word in enumerate(unknown)}
        for row, found in zip(words_BL, rows, strict=True):
            row[: len(found)] = [ids.get(word) or numbers[word] for word in found]
        inputs = {WORDS: words_BL}
        if self.subwords:
            grams = self.subwords.of(list(unknown))
            counts_U = np.diff(grams.ends, prepend=0)
            inside_UG = np.arange(max(counts_U.max(initial=0), 1)) < counts_U[:, None]
            inputs[UNKNOWN_GRAMS] = np.zeros(inside_UG.shape, np.int64)
            inputs[UNKNOWN_GRAMS][inside_UG] = grams.buckets.astype(np.int64) + 1
        return inputs
