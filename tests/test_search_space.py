"""The space of a search, and what is wrong with one."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from searches import BASE, GOOD, ROOT, space
from titles.experiments.search.space import nested, same
from titles.experiments.search.space_file import read_space
from titles.experiments.suite.plan import overrides
from titles.models.registry import parse_params


def test_what_is_proposed_is_within_the_space_and_what_the_schema_takes(tmp_path: Path) -> None:
    found = space(GOOD, tmp_path)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    seen = []
    for _ in range(60):
        settings = found.suggest(study.ask())
        params = found.params(settings).mlp
        assert 1e-3 <= params.learning_rate <= 1e-2
        assert params.dropout in (0, 0.25, 0.5, 0.75)
        assert isinstance(params.leading_words, int)
        assert params.hidden_layers in ((512,), (256, 128))
        assert (params.subword_min, params.subword_max) in ((2, 4), (3, 5))
        # A parameter that does not count keeps its default.
        assert ("mlp.weight_decay" in settings) == (params.schedule == "one_cycle")
        seen.append(params)
    assert {p.freeze_embeddings for p in seen} == {True, False, "partial"}
    assert {p.schedule for p in seen} == {"constant", "one_cycle"}
    assert {p.leading_words for p in seen} == {0, 1, 2, 3, 4}


def test_dvc_is_given_the_values_that_were_proposed(tmp_path: Path) -> None:
    found = space(GOOD, tmp_path)
    settings = found.suggest(optuna.create_study().ask())
    given = dict(one.split("=") for one in overrides(nested(settings), found.params(settings)))
    assert {name: json.loads(value) for name, value in given.items()} == settings


def test_the_default_is_part_of_the_space_as_far_as_the_space_has_it(tmp_path: Path) -> None:
    assert space(GOOD, tmp_path).default() == {
        "mlp.learning_rate": 4e-3,
        "mlp.leading_words": 2,
        "mlp.hidden_layers": "[512]",
        "mlp.freeze_embeddings": False,
        "shape": '{"mlp.subword_min": 3, "mlp.subword_max": 5}',
        "mlp.schedule": "one_cycle",
        "mlp.weight_decay": 1e-5,
    }
    other = "network: mlp\nspace: {mlp.dropout: {low: 0.1, high: 0.2}, mlp.epochs: {choices: [auto, 9]}}"
    assert space(other, tmp_path).default() == {"mlp.epochs": "auto"}


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = """
network: mlp
space:
  mlp.learning_rat: {low: 1e-3, high: 1e-2}
  dropout: {low: 0, high: 0.5}
  mlp.dropout: {low: 0, high: 1.5}
  mlp.epochs: {choices: [3, 0]}
  cnn.dropout: {low: 0, high: 0.5}
  seed: {low: 0, high: 9}
  prepare.validation_fraction: {low: 0.1, high: 0.2}
  mlp.label_smoothing: {low: 0.2, high: 0.1}
  mlp.gce_q: {low: 0, high: 1, log: true}
  mlp.weight_decay: {lo: 0, high: 1}
  mlp.patience: {low: 0, high: 5, when: {mlp.scheduel: constant}}
"""
    with pytest.raises(ValueError, match=r"space\.yaml has \d+ mistakes") as caught:
        space(text, tmp_path)
    told = str(caught.value)
    for words in (
        "mlp.learning_rat: unknown parameter; did you mean mlp.learning_rate?",
        "space.dropout: unknown parameter; did you mean mlp.dropout?",
        "space.mlp.dropout: must be auto or a number from 0 on, less than 1",
        "space.mlp.epochs: must be auto or a whole number from 1",
        "space.cnn.dropout: does not change the mlp",
        "space.seed: is luck",
        "space.prepare.validation_fraction: changes the validation split",
        "mlp.label_smoothing: low must be below high",
        "mlp.gce_q: low must be above 0 with log",
        "space.mlp.weight_decay.lo: unknown key; did you mean low?",
        "space.mlp.patience.when.mlp.scheduel: no parameter of this space",
    ):
        assert words in told, told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "network: mlp\nspace: {mlp.dropout: {low: 0, high: 1.5}}",
            "space.mlp.dropout: must be auto or a number",
        ),
        (
            "network: mlp\nspace: {mlp.epochs: {choices: [3, 0]}}",
            "space.mlp.epochs: must be auto or a whole number",
        ),
        ("network: mlp\nspace: {mlp.patience: {low: 1.5, high: 3}}", "must be whole numbers"),
        ("network: mlp\nspace: {mlp.epochs: {low: 1, high: 4, step: 2}}", "whole number of steps"),
        ("network: mlp\nspace: {mlp.epochs: {choices: [2, 2]}}", "holds one twice"),
        ("network: mlp\nspace: {a: {choices: [{mlp.epochs: 1}, 2]}}", "either all are mappings"),
        (
            "network: mlp\nspace: {a: {choices: [{mlp.epochs: 1}, {mlp.patience: 2}]}}",
            "all must set the same",
        ),
        ("network: mlp\nspace: {a: {choices: [1, 2]}}", "space.a: unknown parameter"),
        (
            "network: mlp\nspace: {mlp.patience: {low: 1, high: 2, when: constant}}",
            "patience.when: Input should be a valid dictionary, not 'constant'",
        ),
        (
            "network: mlp\nspace: {mlp.patience: {low: 1, high: 2, when: null}}",
            "patience.when: Input should be a valid dictionary, not None",
        ),
        (
            "network: mlp\nspace: {mlp.patience: {choices: [1], when: [a]}}",
            "patience.when: Input should",
        ),
        (
            "network: mlp\nspace: {mlp.dropout: {low: 0, high: .inf, step: 0.1}}",
            "dropout.high: Input sh",
        ),
        ("network: mlp\nspace: {mlp.dropout: {low: .nan, high: 0.5}}", "dropout.low: Input should"),
        ("network: mlp\nspace: {mlp.epochs: {low: 1, high: 1e300}}", "epochs.high: Input should"),
        ("network: mlp\nspace: {mlp.dropout: {low: 0, high: 0.5, step: 1e-320}}", "step must be larger"),
        ("network: mlp\nspace: {mlp.dropout: {low: 0, high: 0.5, step: .inf}}", "dropout.step: Input"),
        ("network: mlp\nspace: {mlp.dropout: {low: false, high: 0.5}}", "dropout.low: Input should be"),
        ("network: mlp\nspace: {mlp.epochs: {low: 1, high: true}}", "epochs.high: Input should be"),
        ("network: mlp\nspace: {mlp.dropout: {low: 0, high: 0.5, step: true}}", "dropout.step: Input"),
        (
            "network: mlp\nspace: {mlp.dropout: {low: 0.1, high: 0.5, log: 1}}",
            "dropout.log: Input should",
        ),
        (
            "network: mlp\nspace: {mlp.patience: {low: 1, high: 2, when: {mlp.epochs: []}},"
            " mlp.epochs: {choices: [2]}}",
            "patience.when.mlp.epochs: List should have at least 1 item",
        ),
        ("network: mlp\nspace: {mlp.epochs: {choices: [!!binary aGk=]}}", "not a valid JSON value"),
        ("network: mlp\nspace: {a: {choices: [{1: 2}]}}", "choices.list.0.dict.1"),
        ("network: mlp\nspace: {a: {choices: [{}]}}", "a.choices: one sets no parameter"),
        ("network: mlp\nspace: {a: {choices: [{mlp: {}}, {mlp.epochs: 1}]}}", "one sets no parameter"),
        (
            "network: mlp\nspace: {mlp.dropout: {choices: [{mlp.epochs: 1}, {mlp.epochs: 2}]}}",
            "space.mlp.dropout: is a parameter, and its choices set others",
        ),
        ("network: mlp\nspace: {embed.workers: {low: 1, high: 2}}", "changes speed only, not results"),
        ("network: mlp\nspace: {compute.threads: {low: 1, high: 2}}", "changes speed only, not results"),
        ("network: mlp\nspace: {prepare.drift_length: {low: 1, high: 2}}", "changes messages only"),
        ("network: mlp\nspace: {evaluate.calibration_bins: {low: 9, high: 12}}", "figures of the test"),
        (
            "network: average\nspace: {mlp.saved_weights: {choices: [int8, float32]}}",
            "space.mlp.saved_weights: changes files of a model, not its training",
        ),
        (
            "network: mlp\nspace: {mlp.patience: {low: 1, high: 2, when: {mlp.schedule: constant}},"
            " mlp.schedule: {choices: [constant], when: {mlp.epoch: 3}}}",
            "space.mlp.schedule.when.mlp.epoch: no parameter of this space",
        ),
        (
            "network: mlp\nspace: {mlp.batch_size: {low: 64, high: 512, log: true}}",
            "space.mlp.min_steps: must be null where batch_size is a number, not 100",
        ),
        ("network: mlp\nspace: {mlp.epochs: {choices: []}}", "mlp.epochs.choices: List should have"),
        (
            "network: mlp\nspace: {mlp.epochs: {choices: [2]}, a: {choices: [{mlp.epochs: 1}]}}",
            "set twice, by mlp.epochs and a",
        ),
        (
            "network: mlp\nspace: {mlp.patience: {low: 1, high: 2, when: {mlp.epochs: 3}},"
            " mlp.epochs: {choices: [1, 2]}}",
            "when.mlp.epochs: mlp.epochs never has the value 3",
        ),
        (
            "network: mlp\nspace: {mlp.patience: {low: 1, high: 2, when: {mlp.epochs: 3}},"
            " mlp.epochs: {low: 1, high: 4, when: {mlp.patience: 1}}}",
            "go round in a circle",
        ),
        (
            "network: mlp\nspace: {mlp.subword_min: {low: 2, high: 5},"
            " mlp.subword_max: {low: 3, high: 6}}",
            "mlp.subword_max: must be at least subword_min = 5",
        ),
        ("network: rnn\nspace: {mlp.epochs: {low: 1, high: 4}}", "network: must be one of cnn, mlp"),
        ("network: mlp\nsampel: tpe\nspace: {mlp.epochs: {low: 1, high: 4}}", "did you mean sampler?"),
        ("network: mlp\nobjectives: training_seconds\nspace: {mlp.epochs: {low: 1, high: 4}}", "alone"),
        (
            "network: mlp\nobjectives: [validation_balanced_accuracy, training_seconds]\n"
            "early_stopping: median\nspace: {mlp.epochs: {low: 1, high: 4}}",
            "must be none with several objectives",
        ),
        (
            "network: mlp\nobjectives: test_accuracy\nspace: {mlp.epochs: {low: 1, high: 4}}",
            "objectives.0",
        ),
        ("network: mlp", "space: missing"),
        ("network: mlp\nspace: {}", "space: Dictionary should have at least 1 item"),
        ("network: mlp\nspace: {mlp.epochs: 3}", "space.mlp.epochs: Input should be"),
        ("- a", "file: Input should be"),
        ("a: [", "while parsing"),
        ("", "network: missing"),
        ("3", "Invalid loaded object type"),
    ],
)
def test_a_space_that_is_wrong_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=r"space\.yaml has") as caught:
        space(text, tmp_path)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "entries",
    [
        "mlp.batch_size: {low: 64, high: 512, log: true}, mlp.min_steps: {choices: [null]}",
        "steps: {choices: [{mlp.batch_size: auto, mlp.min_steps: 100},"
        " {mlp.batch_size: 512, mlp.min_steps: null}]}",
        "mlp.subword_min: {low: 6, high: 7}, mlp.subword_max: {low: 8, high: 9}",
        "mlp.subword_max: {low: 1, high: 2}, mlp.subword_min: {choices: [1]}",
        "mlp.epochs: {choices: [{mlp.epochs: 3, mlp.patience: 1}, {mlp.epochs: 4, mlp.patience: 2}]}",
    ],
)
def test_values_that_fit_those_of_other_entries_are_taken(tmp_path: Path, entries: str) -> None:
    found = space(f"network: mlp\nspace: {{{entries}}}", tmp_path)
    asked = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(20):
        found.params(found.suggest(asked.ask()))


def test_mistakes_elsewhere_do_not_make_a_value_one(tmp_path: Path) -> None:
    text = "network: mlp\nspace: {mlp.batch_size: {choices: [64]}, mlp.min_steps: {choices: [null]},"
    with pytest.raises(ValueError, match=r"has 1 mistake:\n  space\.mlp\.dropout: must be auto or"):
        space(f"{text} mlp.dropout: {{choices: [1.5]}}}}", tmp_path)


def test_a_space_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nope\.yaml is missing"):
        read_space(tmp_path / "nope.yaml", BASE, parse_params(BASE))


def test_the_committed_space_is_right() -> None:
    found = read_space(ROOT / "experiments/search.yaml", BASE, parse_params(BASE))
    assert len(found.default()) == len(found.parameters)  # the default is within it


def test_equal_is_what_the_schema_takes_for_equal() -> None:
    assert same("1e-3", 0.001)
    assert same(2, 2.0)
    assert same([2, 3], [2, 3])
    assert not same(True, 1)
    assert not same(None, 0)
