"""One training, from the prepared data to a saved model: the work of every training stage."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from titles.data import inputs, memory, processor
from titles.data.announcement import note_without_effect
from titles.data.auto import LARGEST_BATCH, SMALLEST_BATCH
from titles.data.contract import EMBEDDED, LABELS, METRICS, MODELS, PLOTS, PREPARED, TEXT, VOCABULARY
from titles.data.encoded import EncodedTitles, WordVectors
from titles.data.files import atomic_folder, write_json
from titles.data.subwords import Subwords, VocabularySubwords
from titles.data.vocabulary import Vocabulary, read_labels
from titles.models.parts import distributed, saved
from titles.models.parts.calibration import calibrated
from titles.models.parts.embedding import WordEmbedding
from titles.models.parts.inference import machine, set_up
from titles.models.parts.network import Network, output_of
from titles.params import Params, Text, Training
from titles.tracking.recording import tracked
from titles.tracking.tracker import Tracker
from titles.training import checkpoints
from titles.training.trainer import EpochRecord, Trainer

_COPIES = 4  # of weights in a training: themselves, their gradients, two moments of Adam


def train(name: str, network: type[Network], params: Params) -> None:
    """Train, record and save the model `name` by its section of params.yaml.

    The best epoch by validation balanced accuracy is saved, with its probabilities calibrated on the
    validation split. A training that ends early, by divergence or interrupt, leaves its best epoch so
    far in models/<name>.last_good, which no stage reads. One that was killed resumes after the last
    step of its checkpoint when it is run again, and gives the same bytes.

    Raises:
        ValueError: see `trainer.Trainer` and `checkpoints.opened`; inputs are missing or damaged.
    """
    settings = params.network(name)
    device = set_up(params.compute, params.seed)
    words = Vocabulary.read(VOCABULARY)
    labels = read_labels(LABELS)
    train_split = EncodedTitles.open(PREPARED / "train")
    if distributed.rank() == 0:
        splits = train_split, EncodedTitles.open(PREPARED / "validation")
        longest = max(int(titles.lengths.max(initial=0)) for titles in splits)
        found = without_effect(settings, train_split, len(labels)) | settings.beyond_titles(longest)
        note_without_effect(name, found)
        _note_machine(name, settings, params, device)
    rows = len(train_split)
    architecture = settings.architecture(rows)
    embedding = new_embedding(settings, words)
    _check_memory(name, network.planned(embedding, len(labels), architecture))
    made = network(embedding, len(labels), **architecture).to(device)
    used = {
        "epochs": settings.passes(rows),
        "batch_size": settings.titles_per_step(rows),
        "heads": settings.heads_of(output_of(made).in_features, train_split.unreliable),
        "machine": machine(params.compute),
    }
    model = saved.SavedModel(
        name,
        architecture,
        made,
        words,
        labels,
        Text.read(TEXT),
        training=used,
        saved_weights=settings.saved_weights,
    )
    if distributed.rank() > 0:  # rank 0 has the checkpoint and its locks
        _record(model, settings, params, device, checkpoints.Checkpoint(None))
        return
    key = _key(model, settings, params, device)
    # The key is of the files: they are the code in memory only if none has changed since it was loaded.
    inputs.check()
    with checkpoints.opened(name, key) as checkpoint:
        _record(model, settings, params, device, checkpoint)


def _check_memory(name: str, planned: Network) -> None:
    """Raise ValueError if a training with the weights of a network cannot fit into the memory."""
    layers = [each for each in planned.parameters() if each.is_meta]
    weights = sum(each.numel() * each.element_size() for each in layers)
    memory.check(_COPIES * weights, f"the layers of {name} with their gradients and moments")


def without_effect(settings: Training, titles: EncodedTitles, categories: int) -> dict[str, str]:
    """Parameters without effect on a training with these titles, each with the reason."""
    found = settings.without_effect()
    rows_C = np.bincount(titles.labels, minlength=categories)
    if len(set(rows_C.tolist())) == 1:
        names = ("logit_adjustment", "class_weighting")
        found |= dict.fromkeys(names, "all categories have equally many titles in train")
    rows, size = len(titles), settings.batch_size
    epochs = settings.passes(rows)
    if settings.patience >= max(1, epochs - 1):
        found["patience"] = f"epochs is {epochs}"
    if settings.set_aside_below and epochs == 1:
        found["set_aside_below"] = "epochs is 1: titles are judged between epochs"
    if isinstance(size, int) and size > rows:
        found["batch_size"] = f"train has {rows} titles: one step per epoch"
    if settings.min_steps and not (
        SMALLEST_BATCH * settings.min_steps <= rows < (LARGEST_BATCH + 1) * settings.min_steps
    ):
        found["min_steps"] = f"train has {rows} titles: batches of {settings.titles_per_step(rows)}"
    return found


def _note_machine(name: str, settings: Training, params: Params, device: torch.device) -> None:
    """Say on stderr if the machine is slow at the precision, or gives bytes of its own."""
    where = processor.emulates_bfloat16(params.compute.portable) if device.type == "cpu" else ""
    if where and settings.precision == "bfloat16":
        print(
            f"note: products in bfloat16 are emulated {where}: the {name} takes about ten times as long "
            "as in float32",
            file=sys.stderr,
        )
    if params.compute.portable and (here := machine(params.compute)) != processor.PORTABLE_CLASS:
        print(
            f"note: compute.portable is for {processor.PORTABLE_CLASS}; bytes of this run are those of "
            f"{here} only",
            file=sys.stderr,
        )


def _key(model: saved.SavedModel, settings: Training, params: Params, device: torch.device) -> str:
    """Hash of everything that the result depends on."""
    given = {
        "seed": params.seed,
        "compute": params.compute.model_dump(mode="json"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "architecture": [model.name, model.settings],
        "training": settings.model_dump(mode="json"),
    }
    splits = [PREPARED / "train", PREPARED / "validation"]
    return checkpoints.key(given, [*splits, VOCABULARY, LABELS, TEXT, EMBEDDED])


def _record(
    model: saved.SavedModel,
    settings: Training,
    params: Params,
    device: torch.device,
    checkpoint: checkpoints.Checkpoint,
) -> None:
    name, seed = model.name, params.seed
    if distributed.rank() > 0:  # only rank 0 records and saves
        _train(model, settings, seed, device, Tracker(), checkpoint, None)
        return
    # Opened before the training, so that a folder that is not writable fails at once.
    with (
        atomic_folder(MODELS / name) as folder,
        tracked(
            name,
            params,
            PLOTS / f"{name}.json",
            checkpoint.run,
            checkpoint.abandoned,
            model.training,
        ) as tracker,
    ):
        last_good = MODELS / f"{name}.last_good"
        best = _train(model, settings, seed, device, tracker, checkpoint, last_good)
        summary = {
            "best_epoch": best.epoch,
            "train_loss": round(best.train_loss, 6),
            "validation_loss": round(best.validation_loss, 6),
            "validation_accuracy": round(best.validation_accuracy, 6),
            "validation_balanced_accuracy": round(best.validation_balanced_accuracy, 6),
        }
        # The saved model is rounded and calibrated; curves and the summary are of the network as
        # trained.
        model = calibrated(model, EncodedTitles.open(PREPARED / "validation"), device)
        print(f"{name}: temperature {model.temperature:g}")
        saved.write(model, folder)
        inputs.check()
        tracker.finish(summary)
    write_json(METRICS / f"{name}.json", {name: summary, "used": model.training})


def new_embedding(settings: Training, words: Vocabulary) -> WordEmbedding:
    """The first layer of an untrained network, with the vectors of `embed`.

    Raises:
        ValueError: the vectors are missing, damaged, or for another vocabulary.
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
    checkpoint: checkpoints.Checkpoint,
    last_good: Path | None,
) -> EpochRecord:
    """Train until the epochs or the patience end; load the best weights into the network.

    Args:
        last_good: where the best epoch is saved if the training breaks; None saves it nowhere.
    """
    train_split = EncodedTitles.open(PREPARED / "train")
    validation = EncodedTitles.open(PREPARED / "validation")
    trainable = sum(p.numel() for p in model.network.parameters())
    print(
        f"{model.name}: {len(train_split)} titles in batches of {model.training['batch_size']}, "
        f"{model.settings['dropout']:.2g} of units dropped, heads: {model.training['heads']}, "
        f"{trainable:,} trainable parameters, on {device}"
    )
    records: list[EpochRecord] = []
    resumed = 0
    best: EpochRecord | None = None
    weights: dict[str, torch.Tensor] = {}

    def keep(*, within_epoch: bool = False) -> None:
        """Write a checkpoint if one is due."""
        if checkpoint.due(within_epoch=within_epoch):
            # None is of other data than its key says, so that it stays valid if the training fails for a
            # change of code that is undone.
            inputs.watch()
            tensors, numbers = trainer.state()
            tensors |= {f"best.{k}": v for k, v in weights.items()}
            numbers |= {"best": best and best.epoch, "records": [asdict(record) for record in records]}
            checkpoint.write(tensors, numbers)

    if last_good:
        shutil.rmtree(last_good, ignore_errors=True)
    try:
        trainer = Trainer(
            model.network, train_split, validation, len(model.labels), settings, seed, device
        )
        planned = trainer.epochs_planned
        if found := checkpoint.read():
            tensors, numbers = found
            trainer.restore(tensors, numbers)
            records = [EpochRecord(**record) for record in numbers["records"]]
            if records:
                best = records[numbers["best"] - 1]
                weights = {k: tensors[f"best.{k}"].to(device) for k in model.network.state_dict()}
            for record in records:
                tracker.log(_logged(record), record.epoch)
            resumed = len(records)
            within = f", step {trainer.step} of {trainer.steps_per_epoch} of the next" * (
                trainer.step > 0
            )
            print(f"{model.name}: resumed after epoch {resumed} of {planned}{within}", flush=True)
        for record in trainer.epochs(lambda: keep(within_epoch=True)):
            inputs.watch()
            tracker.log(_logged(record), record.epoch)
            records.append(record)
            seconds_left = _mean_seconds(records[resumed:]) * (planned - record.epoch)
            pace = {"titles_per_second": record.titles_per_second, "seconds_left": seconds_left}
            tracker.log_pace(pace, record.epoch)
            better = best is None or _rank(record) > _rank(best)
            print(_line(model.name, planned, record, better, seconds_left), flush=True)
            if better:
                best = record
                weights = {k: v.clone() for k, v in model.network.state_dict().items()}
            elif best and settings.patience and record.epoch - best.epoch >= settings.patience:
                cut = settings.schedule == "one_cycle" and record.epoch < planned
                where = f", after {trainer.progress:.0%} of its one_cycle schedule" if cut else ""
                print(f"{model.name}: stopped early{where}; epoch {best.epoch} is the best")
                break
            keep()
    except BaseException:
        distributed.end_undisturbed()
        if best and last_good:
            model.network.load_state_dict(weights)
            with atomic_folder(last_good) as folder:
                saved.write(model, folder)
            print(f"{model.name}: epoch {best.epoch}, the best so far, is saved in {last_good}")
        raise
    assert best is not None  # there is at least one epoch
    model.network.load_state_dict(weights)
    return best


def _logged(record: EpochRecord) -> dict[str, float]:
    return {
        "train/loss": record.train_loss,
        "validation/loss": record.validation_loss,
        "validation/accuracy": record.validation_accuracy,
        "validation/balanced_accuracy": record.validation_balanced_accuracy,
        "learning_rate": record.learning_rate,
        "train/set_aside": record.set_aside,
    }


def _rank(record: EpochRecord) -> tuple[float, float]:
    # On a small validation split many epochs are equally accurate: the loss breaks ties.
    return record.validation_balanced_accuracy, -record.validation_loss


def _mean_seconds(records: Sequence[EpochRecord]) -> float:
    """The time of an epoch. The first, which also waits for compilers and caches, counts only alone."""
    timed = records[1:] or records
    return sum(record.seconds for record in timed) / len(timed)


def _line(name: str, epochs: int, record: EpochRecord, better: bool, seconds_left: float) -> str:
    left = f", {tqdm.format_interval(seconds_left)} left" if record.epoch < epochs else ""
    aside = f"; {record.set_aside:,} set aside" if record.set_aside else ""
    return (
        f"{name} epoch {record.epoch}/{epochs}: train loss {record.train_loss:.4f}, "
        f"validation loss {record.validation_loss:.4f}, "
        f"balanced accuracy {record.validation_balanced_accuracy:.4f}"
        f"{' *' if better else '  '} ({record.titles_per_second:,.0f} titles/s{left}{aside})"
    )
