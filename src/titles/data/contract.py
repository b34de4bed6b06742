"""The data contract: paths, constants and the form of a batch.

Legend for tensor and array names: N titles, B titles of a batch, L tokens of a title, V words of the
vocabulary, D dimensions of a word vector, C categories, W tokens of all titles together, U distinct
tokens of a batch, G n-grams of those, M distinct n-grams.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # prepare and its worker processes start without torch
    from torch import Tensor

PAD = 0
UNK = 1
SPECIAL_WORDS = ("<pad>", "<unk>")

# Position is the code in languages.npy and qualities.npy.
LANGUAGES = ("unspecified", "spanish", "portuguese")
QUALITIES = ("unspecified", "reliable", "unreliable")
SPLITS = ("train", "validation", "calibration", "test")
# Those that a source can give; calibration is taken from validation.
GIVEN_SPLITS = ("train", "validation", "test")

# File names in data/prepared and in the folder of a model.
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
# Of its own: DVC takes a stage with the same dependency twice for a mistake.
NO_CORRECTIONS = "data/corrections/none"
EMBEDDED = Path("data/embedded")
MODELS = Path("models")
METRICS = Path("metrics")
PLOTS = Path("plots")
PREDICTIONS = Path("predictions/test.parquet")
SETS_FILE = "sets.json"  # in MODELS, see evaluation/sets.py

MODEL_FORMAT = 6
# Limits of the characters of an n-gram and of the buckets that n-grams are hashed to.
MOST_LETTERS = 32
MOST_BUCKETS = 2**30


class Batch(NamedTuple):
    """Titles of one step; all int64. Each distinct token occurs once, so that it is looked up, composed
    and projected once.

    index_BL: position of each token in tokens_U, 0 after the last token; a title can have none.
    tokens_U: ids of the distinct tokens, PAD first; several can be UNK, each with its own n-grams.
    ngrams_M: buckets of the distinct n-grams of those tokens; empty for a network without subwords.
    ngram_index_G: positions in ngrams_M, token by token.
    ngram_ends_U: where the n-grams of each token end in ngram_index_G.
    labels_B: category ids.
    """

    index_BL: Tensor
    tokens_U: Tensor
    ngrams_M: Tensor
    ngram_index_G: Tensor
    ngram_ends_U: Tensor
    labels_B: Tensor
