"""Likely label errors of the train split, by confident learning: Northcutt, Jiang and Chuang (2021),
"Confident Learning: Estimating Uncertainty in Dataset Labels".

Each row is judged by a network that was trained without it. Word vectors are those of the pipeline,
which were trained on the titles of all rows, without categories.

Legend: N titles, C categories, K rows whose predicted category is not the given one.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from titles.data import formulas
from titles.data.contract import LABELS, PREPARED, QUALITIES, VOCABULARY
from titles.data.encoded import EncodedTitles
from titles.data.files import atomic_file
from titles.data.outcomes import Flags, Floats, Ints, Outcomes
from titles.data.vocabulary import Vocabulary, read_labels
from titles.models.parts.inference import evaluate, set_up
from titles.models.registry import NETWORKS
from titles.params import Params, Prepare
from titles.predict.source_titles import as_in_source, as_read
from titles.training.run import new_embedding
from titles.training.trainer import Trainer


class Ranking(NamedTuple):
    """The rows whose predicted category is not the given one, most suspicious first.

    rows_K: row numbers.
    scores_K: label quality, the normalised margin (1 + p(given) - p(predicted)) / 2, from 0, certainly
        wrong, to 1/2.
    mislabelled: number of rows, from the first, that look wrong.
    """

    rows_K: Ints
    scores_K: Floats
    mislabelled: int


def audit(
    params: Params,
    folds: int,
    top: int,
    out: Path,
    network: str = "mlp",
    without_formulas: bool = False,
) -> str:
    """Write the `top` most suspicious rows of the train split to `out` as CSV; returns a summary.

    Args:
        folds: networks to train, each on all folds of train but one.
        network: name of the network to train.
        without_formulas: see `formulas.escaped`.

    Raises:
        ValueError: folds or top is too small, `out` is not writable, no category has a row for each
            fold, or as for `held_out`.
    """
    if folds < 2:
        raise ValueError(f"folds is {folds}: at least 2 are needed, or networks judge their own rows")
    if top < 1:
        raise ValueError(f"top is {top}: it must be at least 1")
    if out.is_dir():
        raise ValueError(f"{out} is a folder: name a file to write")
    titles = EncodedTitles.open(PREPARED / "train")
    rows_C = np.bincount(titles.labels)
    if not (rows_C >= folds).any():
        raise ValueError(f"no category of train has {folds} rows, one per fold: nothing can be judged")
    # Opened before the training, so that a path that is not writable fails at once.
    with atomic_file(out) as partial:
        outcomes = held_out(titles, folds_of(titles.labels, folds, params.seed), params, network)
        # If all rows of a category can be in one fold, its network has seen none.
        judged_N = rows_C[titles.labels] >= folds
        ranking = ranked(outcomes, judged_N)
        listed = _write(
            partial, titles, outcomes, ranking, top, params.prepare, without_formulas=without_formulas
        )
    mislabelled_N = np.zeros(len(titles), bool)
    mislabelled_N[ranking.rows_K[: ranking.mislabelled]] = True
    told = [f"{_share(mislabelled_N)} rows look mislabelled"]
    for code in np.unique(titles.qualities):
        told.append(f"  {QUALITIES[code]}: {_share(mislabelled_N[titles.qualities == code])}")
    if rows := int((~judged_N).sum()):
        few = int(((rows_C > 0) & (rows_C < folds)).sum())
        told.append(f"not judged: {rows:,} rows of {few:,} categories with fewer than {folds}")
    count = ranking.mislabelled
    told.append(f"{out}: the {listed:,} most suspicious; up to rank {count:,} they look wrong")
    told.append(
        "to correct labels: write yes in the column accept of rows whose suggestion is right (or put "
        f"the right one there), keep the file as data/corrections/{out.name}, `git add` it, then "
        f"`dvc exp run -S prepare.corrections=data/corrections/{out.name}`"
    )
    return "\n".join(told)


def folds_of(labels_N: NDArray[np.int32], folds: int, seed: int) -> Ints:
    """The fold of each row, (N,). The sizes of folds differ by at most one row, also within
    categories."""
    shuffled_N = np.random.default_rng(seed).permutation(len(labels_N))
    by_category_N = shuffled_N[np.argsort(labels_N[shuffled_N], kind="stable")]
    fold_N = np.empty(len(labels_N), np.int64)
    fold_N[by_category_N] = np.arange(len(labels_N)) % folds
    return fold_N


def held_out(titles: EncodedTitles, fold_N: Ints, params: Params, name: str = "mlp") -> Outcomes:
    """Outcomes for each title of a network that was trained on the other folds.

    It is trained without logit adjustment, class weights and gce_q, so that its probabilities are
    those of the given labels, frequent and wrong ones included. All epochs run; the one with the lowest
    validation loss counts.

    Raises:
        ValueError: as for `Trainer`; an input is missing or damaged.
    """
    plain = {"logit_adjustment": 0.0, "class_weighting": "none", "gce_q": 0.0, "set_aside_below": 0.0}
    settings = params.network(name).model_copy(update=plain)
    validation = EncodedTitles.open(PREPARED / "validation")
    words, labels = Vocabulary.read(VOCABULARY), read_labels(LABELS)
    judged: list[Outcomes] = []
    folds = int(fold_N.max()) + 1
    for fold in range(folds):
        started = time.perf_counter()
        device = set_up(params.compute, params.seed)
        embedding = new_embedding(settings, words)
        held_N = fold_N == fold
        train = titles.select(~held_N)
        architecture = settings.architecture(len(train))
        network = NETWORKS[name](embedding, len(labels), **architecture).to(device)
        least, weights = np.inf, network.state_dict()
        trainer = Trainer(network, train, validation, len(labels), settings, params.seed, device)
        for record in trainer.epochs():
            if record.validation_loss < least:
                least = record.validation_loss
                weights = {k: v.clone() for k, v in network.state_dict().items()}
        network.load_state_dict(weights)
        held = titles.select(held_N)
        judged += evaluate([network], held, device)
        print(
            f"fold {fold + 1} of {folds}: {len(train):,} rows to learn from, {len(held):,} to judge; "
            f"validation loss {least:.4f}; {time.perf_counter() - started:.0f} s",
            flush=True,
        )
    place_N = np.argsort(
        np.argsort(fold_N, kind="stable")
    )  # of each title, after those of earlier folds
    fields = zip(*(vars(outcomes).values() for outcomes in judged), strict=True)
    return Outcomes(*(np.concatenate(parts)[place_N] for parts in fields))


def ranked(outcomes: Outcomes, judged_N: Flags) -> Ranking:
    """Rank rows by the outcomes of networks that have not seen them.

    A row looks mislabelled if its predicted category is not the given one, and its probability is at
    least the average probability of that category for the rows that have it. The number of such rows,
    the sum of the off-diagonal confident joint, is taken from the top. The paper also counts a less
    likely category that reaches its average where the predicted one does not, which would need the
    probabilities of all N rows and C categories.

    Args:
        judged_N: rows that can be suspected; others do not count in the average of their category
            either.
    """
    given_N = np.exp(-outcomes.loss_N)
    size = int(max(outcomes.labels_N.max(), outcomes.predicted_N.max())) + 1
    labels = outcomes.labels_N[judged_N]
    rows_C = np.bincount(labels, minlength=size)
    sum_C = np.bincount(labels, given_N[judged_N], size)
    average_C = np.where(rows_C > 0, sum_C / np.maximum(rows_C, 1), np.inf)
    rows = np.flatnonzero(judged_N & ~outcomes.right_N)
    likeliest = outcomes.confidence_N[rows]
    scores = (1 + given_N[rows] - likeliest) / 2
    order = np.argsort(scores, kind="stable")
    mislabelled = int((likeliest >= average_C[outcomes.predicted_N[rows]]).sum())
    return Ranking(rows[order], scores[order], mislabelled)


def _write(
    path: Path,
    titles: EncodedTitles,
    outcomes: Outcomes,
    ranking: Ranking,
    top: int,
    settings: Prepare,
    *,
    without_formulas: bool,
) -> int:
    """Write the ranking; returns the number of rows written."""
    words, labels = Vocabulary.read(VOCABULARY).words, read_labels(LABELS)
    rows = ranking.rows_K[:top]
    found = as_in_source(titles, rows, settings)
    read = as_read(titles, rows, words)
    texts = [found.get(row, text) for row, text in zip(rows.tolist(), read, strict=True)]
    if lacking := len(rows) - len(found):
        print(
            f"warning: {lacking:,} of {len(rows):,} titles listed are not in {settings.source} as it is "
            "now: the words that were read in them are listed, and corrections may not find them",
            file=sys.stderr,
        )
    columns = {
        "rank": range(1, len(rows) + 1),
        "file": [titles.file_names[i] for i in titles.files[rows].tolist()],
        "line": titles.lines[rows],
        "title": texts,
        "category": [labels[i] for i in outcomes.labels_N[rows]],
        "suggested": [labels[i] for i in outcomes.predicted_N[rows]],
        "probability": [round(value, 6) for value in outcomes.confidence_N[rows].tolist()],
        "score": [round(value, 6) for value in ranking.scores_K[:top].tolist()],
        "label_quality": [QUALITIES[i] for i in titles.qualities[rows]],
        "accept": [""] * len(rows),  # see prepare/corrections.py, which reads this table
    }
    frame = pd.DataFrame(columns)
    if without_formulas:
        frame = frame.map(formulas.escaped)
    frame.to_csv(path, index=False, lineterminator="\n")
    return len(rows)


def _share(flags: Flags) -> str:
    return f"{flags.sum():,} of {len(flags):,} ({flags.mean():.1%})"
