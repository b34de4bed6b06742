import json
import math
import signal
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from networks import (
    ABSENT,
    CATEGORIES,
    FREEZES,
    LETTERS,
    NAMES,
    NETWORKS,
    SIZES,
    SUBWORDS,
    TEXT_RULES,
    C,
    answers,
    embedding,
    encoded,
    fit,
    params,
    word_vectors,
    write_prepared,
)
from titles.data import processor
from titles.data.contract import METRICS, MODELS, PLOTS, PREPARED
from titles.data.encoded import EncodedTitles
from titles.models.parts import saved
from titles.models.parts.calibration import divide_logits, fit_temperature
from titles.models.parts.inference import DivergedError, set_up
from titles.models.registry import parse_params
from titles.stages import evaluate as evaluate_stage
from titles.stages import train_cnn, train_mlp
from titles.tracking import recording
from titles.tracking.tracker import Tracker
from titles.training import run as training_run
from titles.training.optimisers import one_cycle

LAST_GOOD = MODELS / "mlp.last_good"
TRAIN_STAGES = {"cnn": train_cnn.main, "mlp": train_mlp.main}


class Recorder(Tracker):
    """Stands where MLflow's tracker does."""

    def __init__(self):
        self.epochs, self.paces, self.summary, self.failed = [], [], None, None

    def log(self, metrics, step):
        assert step == len(self.epochs) + 1
        self.epochs.append(dict(metrics))

    def log_pace(self, metrics, step):
        assert step == len(self.epochs) == len(self.paces) + 1
        self.paces.append(dict(metrics))

    def finish(self, summary):
        self.summary = dict(summary)

    def close(self, failed):
        self.failed = failed

    @property
    def scores(self):
        return [metrics["validation/balanced_accuracy"] for metrics in self.epochs]


@pytest.fixture
def recorder(tmp_path, monkeypatch):
    """A folder with prepared data, where runs are recorded by what the fixture gives."""
    monkeypatch.chdir(tmp_path)
    write_prepared()
    recorder = Recorder()
    monkeypatch.setattr(recording, "MlflowTracker", lambda *_: recorder)
    return recorder


@pytest.fixture
def kept_signals():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def run(given, name="mlp", hook=None):
    """Train `name`; `hook` may change what the network answers."""

    def build(*args, **sizes):
        net = NETWORKS[name](*args, **sizes)
        if hook:
            net.register_forward_hook(hook)
        return net

    build.planned = NETWORKS[name].planned
    training_run.train(name, build, given)


def replayed(given, name, epochs):
    """The network after so many epochs of the same training, without training_run.train."""
    section = getattr(given, name)
    device = set_up(given.compute, given.seed)
    subwords = SUBWORDS if section.subword_buckets else None
    net = NETWORKS[name](
        embedding(section.freeze_embeddings, subwords), C, **SIZES[name], dropout=section.dropout
    )
    records = fit(net, encoded(), encoded(), C, section, given.seed, device)
    assert len(list(islice(records, epochs))) == epochs
    return net.eval()


def same_answers(folder, net):
    """Whether the folder has the network, calibrated as it says."""
    model = saved.read(folder, NETWORKS)
    divide_logits(net, model.temperature)
    return torch.equal(answers(model.network), answers(net))


def good_only_in(epochs):
    """Lets a network say what it knows in these validations; in others it names the absent category."""
    validations = 0
    ignorance_C = torch.eye(C)[ABSENT]

    def hook(module, args, logits_BC):
        nonlocal validations
        if module.training:
            return logits_BC
        validations += 1
        return logits_BC if validations in epochs else logits_BC * 0 + ignorance_C

    return hook


def best_of(recorder):
    losses = [epoch["validation/loss"] for epoch in recorder.epochs]
    ranks = [(score, -loss) for score, loss in zip(recorder.scores, losses, strict=True)]
    return ranks.index(max(ranks)) + 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("freeze", "letters"), [*((freeze, {}) for freeze in FREEZES), (False, LETTERS), (True, LETTERS)]
)
def test_the_best_epoch_is_what_is_saved_and_reported(recorder, name, freeze, letters):
    given = params(freeze_embeddings=freeze, epochs=5, dropout=0.3, **letters)
    run(given, name, good_only_in({3, 4}))
    best = best_of(recorder)
    assert best in (3, 4)
    assert same_answers(MODELS / name, replayed(given, name, best))
    assert not same_answers(MODELS / name, replayed(given, name, 5))
    model = saved.read(MODELS / name, NETWORKS)
    assert (model.name, model.text) == (name, TEXT_RULES)
    assert json.loads((METRICS / f"{name}.json").read_text()) == {
        name: recorder.summary,
        "used": {"epochs": 5, "batch_size": 3, "heads": 1, "machine": processor.machine(True)},
    }
    assert recorder.summary["best_epoch"] == best
    for key in ("train_loss", "validation_loss", "validation_accuracy", "validation_balanced_accuracy"):
        logged = recorder.epochs[best - 1][key.replace("_", "/", 1)]
        assert recorder.summary[key] == round(logged, 6)
    assert recorder.failed is False
    assert not (MODELS / f"{name}.last_good").exists()


@pytest.mark.parametrize("name", NAMES)
def test_rates_are_in_the_curves_and_the_pace_is_not(recorder, name, capsys):
    run(params(epochs=3, schedule="one_cycle", learning_rate=0.01), name)
    rates = [epoch["learning_rate"] for epoch in recorder.epochs]
    # Steps set their rate before they are done: the last of an epoch has one step less.
    steps = 3 * math.ceil(len(EncodedTitles.open(PREPARED / "train")) / 3)
    done = [(steps // 3 * epoch - 1) / steps for epoch in (1, 2, 3)]
    assert rates == pytest.approx([0.01 * one_cycle(share) for share in done])
    records = json.loads((PLOTS / f"{name}.json").read_text())
    assert [record["learning_rate"] for record in records] == rates
    assert not [key for record in records for key in record if "second" in key]
    assert [*recorder.paces[0]] == ["titles_per_second", "seconds_left"]
    assert [pace["seconds_left"] > 0 for pace in recorder.paces] == [True, True, False]
    told = [line for line in capsys.readouterr().out.splitlines() if " epoch " in line]
    assert ["left" in line for line in told] == [True, True, False]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_has_the_temperature_of_its_best_epoch_on_validation(recorder, name):
    given = params(epochs=4, label_smoothing=0.4)
    run(given, name)
    net = replayed(given, name, best_of(recorder))
    labels_N = torch.tensor(CATEGORIES)
    model = saved.read(MODELS / name, NETWORKS)
    assert (model.temperature, model.calibrated_loss) == fit_temperature(answers(net).detach(), labels_N)
    assert model.temperature < 1  # smoothing makes a network shy
    losses = [F.cross_entropy(answers(each), labels_N) for each in (model.network, net)]
    assert losses[0] < losses[1]


@pytest.mark.parametrize(
    ("letters", "expected"), [({}, None), (LETTERS, SUBWORDS)], ids=["words", "letters"]
)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("recorder")
def test_a_network_reads_the_letters_that_its_section_says_or_none(name, letters, expected):
    run(params(epochs=1, **letters), name)
    subwords = saved.read(MODELS / name, NETWORKS).network.embedding.subwords
    assert (subwords and subwords.subwords) == expected


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 4), (4, 6), (0, 9), (9, 9)])
def test_patience_counts_epochs_without_a_better_one(recorder, patience, epochs):
    run(params(epochs=9, patience=patience), hook=good_only_in({2}))
    assert len(recorder.epochs) == epochs
    assert recorder.summary["best_epoch"] == 2


def test_of_equally_accurate_epochs_the_one_of_least_loss_is_kept(recorder):
    given = params(epochs=3)
    run(given, hook=good_only_in(set()))
    assert len(set(recorder.scores)) == 1
    assert same_answers(MODELS / "mlp", replayed(given, "mlp", best_of(recorder)))


def broken_from(step, event):
    """Breaks at a step of training, counted over all epochs."""
    steps = 0

    def hook(module, args, logits_BC):
        nonlocal steps
        steps += module.training
        if not module.training or steps < step:
            return logits_BC
        if event is DivergedError:
            return logits_BC * torch.nan
        raise event

    return hook


@pytest.mark.parametrize("event", [DivergedError, KeyboardInterrupt, SystemExit])
def test_a_training_that_breaks_leaves_its_best_epoch_and_no_result(recorder, event):
    given = params(epochs=6, batch_size=3, dropout=0.3)
    with pytest.raises(event):
        run(given, hook=broken_from(3 * 3 + 2, event))  # in the midst of the fourth epoch
    assert len(recorder.scores) == 3
    best = best_of(recorder)
    assert same_answers(LAST_GOOD, replayed(given, "mlp", best))
    assert saved.read(LAST_GOOD, NETWORKS).temperature == 1
    assert [path.name for path in MODELS.iterdir()] == [LAST_GOOD.name]
    assert not METRICS.exists()
    assert recorder.failed is True
    assert recorder.summary is None


@pytest.mark.parametrize("event", [DivergedError, KeyboardInterrupt])
def test_a_training_that_breaks_at_once_leaves_no_model_and_no_older_one(recorder, event):
    LAST_GOOD.mkdir(parents=True)
    (LAST_GOOD / "model.json").write_text("of another training")
    with pytest.raises(event):
        run(params(), hook=broken_from(2, event))
    assert list(MODELS.iterdir()) == []


def test_curves_are_one_record_per_epoch(recorder):
    run(params(epochs=4))
    assert [path.name for path in PLOTS.iterdir()] == ["mlp.json"]
    records = json.loads((PLOTS / "mlp.json").read_text())
    assert records == [
        {"epoch": epoch} | {metric.replace("/", "_"): value for metric, value in metrics.items()}
        for epoch, metrics in enumerate(recorder.epochs, start=1)
    ]


@pytest.mark.parametrize(
    "missing", ["train/ends.npy", "validation/labels.npy", "train/unknown_words.txt", "text.json"]
)
def test_missing_inputs_are_named_before_any_training(recorder, tmp_path, missing):
    (tmp_path / "data/prepared" / missing).unlink()
    with pytest.raises(ValueError, match=f"{missing} is missing"):
        run(params())
    assert recorder.epochs == []


def test_vectors_of_another_vocabulary_are_refused(recorder, tmp_path):
    np.save(tmp_path / "data/embedded/matrix.npy", word_vectors().matrix_VD[1:])
    with pytest.raises(ValueError, match="not for this vocabulary of 12 words"):
        run(params())


# Every knob of `networks.settings` that is neutral there, turned.
TURNED = LETTERS | {
    "word_dropout": 0.1,
    "heads": 3,
    "batch_size": "auto",
    "min_steps": 3,
    "schedule": "one_cycle",
    "logit_adjustment": 1.0,
    "label_smoothing": 0.1,
    "gce_q": 0.3,
    "set_aside_below": 0.5,
}


@pytest.mark.usefixtures("recorder", "kept_signals")
def test_the_stages_train_and_evaluate_and_do_it_again_to_the_byte(tmp_path, monkeypatch, capsys):
    def everything():
        for stage in (*TRAIN_STAGES.values(), evaluate_stage.main):
            stage()
        return {
            path.as_posix(): path.read_bytes()
            for folder in (MODELS, METRICS, PLOTS)
            for path in folder.rglob("*")
            if path.is_file()
        }

    given = params(epochs=20, learning_rate=0.02, dropout=0.1, class_weighting="sqrt", **TURNED)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(given.model_dump(mode="json")))
    monkeypatch.setattr(recording, "MlflowTracker", lambda *_: Tracker())
    first = everything()
    assert everything() == first
    details = json.loads(first["metrics/details.json"])
    headline = json.loads(first["metrics/evaluate.json"])
    scores = details["models"]
    assert headline["average.validation_balanced_accuracy"] == 1
    printed = capsys.readouterr().out
    for name in ("cnn", "mlp", "average"):
        assert scores[name]["balanced_accuracy"] == 1
        assert f"{name}: balanced accuracy 1.0000 [1.0000, 1.0000]" in printed
        before = "calibration_error_before" in scores[name]
        assert before == (name != "average")
        # Eight titles, all right, prove no precision of 0.98.
        assert {key: scores[name].get(key) for key in ("threshold", "coverage", "precision_kept")} == {
            "threshold": 1,
            "coverage": 0,
            "precision_kept": None,
        }
    assert printed.count("no threshold for a precision of 0.98 was found") == 6
    card = first["models/card.md"].decode()
    assert f"{scores['cnn']['loss']:.4f}" in card
    assert parse_params(yaml.safe_load(card.split("```yaml")[1].split("```")[0])) == given
    groups = details["groups"]
    assert sum(group["rows"] for group in groups["language"].values()) == len(CATEGORIES)
    assert "plots/evaluate/categories.csv" in first


@pytest.mark.usefixtures("recorder", "kept_signals")
def test_a_stage_ends_with_one_line_for_what_a_user_can_mend(tmp_path):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params().model_dump(mode="json")))
    with pytest.raises(SystemExit, match=r"^error: .*model\.json is missing: run `dvc repro`"):
        evaluate_stage.main()


@pytest.mark.usefixtures("recorder", "kept_signals")
def test_a_model_of_other_data_is_not_evaluated(tmp_path, monkeypatch):
    given = params(epochs=2)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(given.model_dump(mode="json")))
    monkeypatch.setattr(recording, "MlflowTracker", lambda *_: Tracker())
    for stage in TRAIN_STAGES.values():
        stage()
    labels = MODELS / "mlp" / "labels.txt"
    labels.write_text(labels.read_text().replace("\n", "Z\n"))
    with pytest.raises(SystemExit, match="models/mlp was not trained on data/prepared"):
        evaluate_stage.main()
    assert not METRICS.joinpath("evaluate.json").exists()


def test_a_place_that_cannot_be_written_to_is_told_before_the_training(recorder):
    MODELS.write_text("a file where a folder should be")
    with pytest.raises(ValueError, match="cannot write models/mlp"):
        run(params(epochs=2))
    assert recorder.epochs == []
