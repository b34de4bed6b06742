"""A test split beside models, as `prepare` leaves it, and its source."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from documents import read
from saved_models import RULES
from titles.data.contract import LABELS, LANGUAGES, PREPARED, VOCABULARY
from titles.data.encoded import EncodedTitles
from titles.data.vocabulary import Vocabulary, read_labels
from titles.prepare.identity import title_keys
from titles.prepare.text import words_of

SOURCE = "data/raw/listings.csv"


def write_examples(project: Path, titles: Sequence[str], languages: Sequence[str]) -> None:
    """Beside the folder `models` of a project. Each title is in another category, as far as there are so
    many."""
    (project / PREPARED).mkdir(parents=True)
    shutil.copy(project / "models/mlp/labels.txt", project / LABELS)
    shutil.copy(project / "models/mlp/vocabulary.tsv", project / VOCABULARY)
    ids, labels = Vocabulary.read(project / VOCABULARY).ids(), read_labels(project / LABELS)
    rows = words_of(titles, RULES)
    unknown = sorted({word for row in rows for word in row} - ids.keys())
    word_ids = [
        ids.get(word, -1 - unknown.index(word) if word in unknown else 0) for r in rows for word in r
    ]
    codes = np.arange(len(titles), dtype=np.int32) % len(labels)
    split = EncodedTitles(
        word_ids=np.array(word_ids, np.int32),
        ends=np.cumsum([len(row) for row in rows]).astype(np.int64),
        labels=codes,
        languages=np.array([LANGUAGES.index(name) for name in languages], np.uint8),
        qualities=np.zeros(len(titles), np.uint8),
        keys=title_keys(titles),
        files=np.zeros(len(titles), np.uint32),
        lines=np.arange(2, 2 + len(titles), dtype=np.int64),
        unknown_words=unknown,
        file_names=[Path(SOURCE).name],
    )
    split.write(project / PREPARED / "test")
    (project / SOURCE).parent.mkdir(parents=True)
    with (project / SOURCE).open("w", encoding="utf-8", newline="") as stream:
        lines = csv.writer(stream)
        lines.writerow(["title", "category", "language"])
        for title, code, language in zip(titles, codes, languages, strict=True):
            lines.writerow([title, labels[code], language])
    params = re.sub(r"^  source: \S+", f"  source: {SOURCE}", read("params.yaml"), flags=re.M)
    (project / "params.yaml").write_text(params, encoding="utf-8")
