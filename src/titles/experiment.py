"""One training from the prepared data to a saved model: the work that both training stages share."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from titles import distributed
from titles.contract import (
    EMBEDDED,
    LABELS,
    METRICS,
    MODELS,
    PLOTS,
    PREPARED,
    TEXT,
    VOCABULARY,
    replaced_folder,
    write_json,
)
from titles.data import EncodedTitles, WordVectors
from titles.models import saved
from titles.models.embedding import WordEmbedding
from titles.params import Params, Text, Training
from titles.subwords import Subwords, VocabularySubwords
from titles.tracking import Tracker, tracked
from titles.training import EpochRecord, fit, set_up
from titles.vocabulary import Vocabulary, read_labels


def run(
    name: str,
    build: saved.Architecture,
    architecture: dict[str, Any],
    settings: Training,
    params: Params,
) -> None:
    """Train, record and save the model `name`.

    The best epoch by validation balanced accuracy is what is saved. A training that ends early, by
    divergence or interrupt, leaves its best epoch so far in models/<name>.last_good, where no stage
    takes it for the result.

    Args:
        build: constructor of the network, called with an embedding, the number of categories and
            `architecture`.

    Raises:
        ValueError: see `training.fit`; inputs are missing or damaged.
    """
    device = set_up(params.compute, params.seed)
    words = Vocabulary.read(VOCABULARY)
    labels = read_labels(LABELS)
    embedding = new_embedding(settings, words)
    network = build(embedding, len(labels), **architecture).to(device)
    model = saved.SavedModel(name, architecture, network, words, labels, Text.read(TEXT))
    if distributed.rank() > 0:  # helps to train; all else is done once
        _train(model, settings, params.seed, device, Tracker(), None)
        return
    # The place is taken before the training: one that cannot be written to is told at once.
    with replaced_folder(MODELS / name) as folder, tracked(name, params, PLOTS / name) as tracker:
        best = _train(model, settings, params.seed, device, tracker, MODELS / f"{name}.last_good")
        summary = {
            "best_epoch": best.epoch,
            "train_loss": round(best.train_loss, 6),
            "validation_loss": round(best.validation_loss, 6),
            "validation_accuracy": round(best.validation_accuracy, 6),
            "validation_balanced_accuracy": round(best.validation_balanced_accuracy, 6),
        }
        saved.write(model, folder)
        tracker.finish(summary)
    write_json(METRICS / f"{name}.json", {name: summary})


def new_embedding(settings: Training, words: Vocabulary) -> WordEmbedding:
    """The first layer of a network that has learnt nothing yet, with the vectors of `embed`.

    Raises:
        ValueError: the vectors are missing, damaged, or for other words.
    """
    vectors = WordVectors.read(EMBEDDED, len(words))
    subwords = None
    if settings.subword_buckets:
        kinds = Subwords(settings.subword_min, settings.subword_max, settings.subword_buckets)
        subwords = VocabularySubwords(kinds, words.words)
    return WordEmbedding(
        torch.from_numpy(vectors.matrix_VD),
        torch.from_numpy(vectors.has_vector_V),
        settings.freeze_embeddings,
        subwords,
    )


def _train(
    model: saved.SavedModel,
    settings: Training,
    seed: int,
    device: torch.device,
    tracker: Tracker,
    last_good: Path | None,
) -> EpochRecord:
    """Train until the epochs or the patience end; the network is left with its best weights.

    Args:
        last_good: where the best epoch goes if the training breaks; None keeps it nowhere.
    """
    train = EncodedTitles.open(PREPARED / "train")
    validation = EncodedTitles.open(PREPARED / "validation")
    learning = sum(p.numel() for p in model.network.parameters())
    print(f"{model.name}: {len(train)} titles, {learning:,} learning parameters, on {device}")
    best: EpochRecord | None = None
    weights: dict[str, torch.Tensor] = {}
    if last_good:
        shutil.rmtree(last_good, ignore_errors=True)
    try:
        for record in fit(model.network, train, validation, len(model.labels), settings, seed, device):
            tracker.log(
                {
                    "train/loss": record.train_loss,
                    "validation/loss": record.validation_loss,
                    "validation/accuracy": record.validation_accuracy,
                    "validation/balanced_accuracy": record.validation_balanced_accuracy,
                },
                record.epoch,
            )
            better = best is None or _rank(record) > _rank(best)
            print(_line(model.name, settings.epochs, record, better), flush=True)
            if better:
                best = record
                weights = {k: v.clone() for k, v in model.network.state_dict().items()}
            elif best and settings.patience and record.epoch - best.epoch >= settings.patience:
                print(f"{model.name}: stopped, epoch {best.epoch} stays the best")
                break
    except BaseException:
        distributed.end_undisturbed()
        if best and last_good:
            model.network.load_state_dict(weights)
            with replaced_folder(last_good) as folder:
                saved.write(model, folder)
            print(f"{model.name}: epoch {best.epoch}, the best so far, is kept in {last_good}")
        raise
    assert best is not None  # there is at least one epoch
    model.network.load_state_dict(weights)
    return best


def _rank(record: EpochRecord) -> tuple[float, float]:
    # On a small validation split many epochs are equally accurate: the loss then tells them apart.
    return record.validation_balanced_accuracy, -record.validation_loss


def _line(name: str, epochs: int, record: EpochRecord, better: bool) -> str:
    return (
        f"{name} epoch {record.epoch}/{epochs}: train loss {record.train_loss:.4f}, "
        f"validation loss {record.validation_loss:.4f}, "
        f"balanced accuracy {record.validation_balanced_accuracy:.4f}"
        f"{' *' if better else '  '} ({record.titles_a_second:,.0f} titles/s)"
    )
