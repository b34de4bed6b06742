"""Numbers that follow from the rows of train where params.yaml says `auto`."""

from pathlib import Path

import pytest
import yaml

from titles.models.registry import parse_params
from titles.params import Training

COMMITTED = Path(__file__).parent.parent / "params.yaml"


def section(network: str, **changes: object) -> Training:
    values = yaml.safe_load(COMMITTED.read_text(encoding="utf-8"))
    values[network] |= changes
    return parse_params(values).network(network)


@pytest.mark.parametrize(
    ("changes", "rows", "size"),
    [
        ({}, 46_556, 465),
        ({}, 10_000_000, 1024),
        ({}, 1_000, 96),
        ({}, 95, 95),
        ({}, 0, 1),
        ({"batch_size": 512, "min_steps": None}, 46_556, 512),
        ({"batch_size": 4096, "min_steps": None}, 46_556, 4096),
        ({"batch_size": 4096, "min_steps": None}, 4_000, 4_000),
    ],
)
def test_a_batch_has_as_many_titles_as_are_given_or_left_by_the_steps(changes, rows, size):
    assert section("cnn", **changes).titles_per_step(rows) == size


@pytest.mark.parametrize(
    ("rows", "epochs"),
    [
        (0, 48),  # the trainer says that there are none
        (1, 48),
        (3_000, 48),
        (3_001, 48),
        (6_000, 24),
        (12_000, 12),
        (46_556, 12),
        (1_000_000, 12),
        (1_090_910, 11),
        (11_999_999, 2),
        (12_000_000, 1),
        (20_000_000, 1),
    ],
)
def test_auto_makes_more_passes_over_few_titles_and_fewer_over_many(rows, epochs):
    assert section("cnn", epochs="auto").passes(rows) == epochs
    assert section("cnn", epochs=5).passes(rows) == 5


@pytest.mark.parametrize(
    ("rows", "cnn", "mlp"),
    [
        (0, 0.3, 0.5),
        (1, 0.3, 0.5),
        (15_000, 0.3, 0.5),
        (15_200, 0.298, 0.497),
        (46_556, 0.191, 0.318),
        (150_000, 0.119, 0.199),
        (15_000_000, 0.019, 0.032),
        (1_000_000_000, 0.004, 0.006),
    ],
)
def test_auto_drops_fewer_units_the_more_titles_there_are(rows, cnn, mlp):
    for name, given, dropped in [
        ("cnn", "auto", cnn),
        ("mlp", "auto", mlp),
        ("cnn", "3e-1", 0.3),
        ("mlp", 0, 0),
    ]:
        assert section(name, dropout=given).architecture(rows)["dropout"] == dropped


@pytest.mark.parametrize(
    ("given", "unreliable", "heads"),
    [("auto", 0.0, 1), ("auto", 0.1, 1), ("auto", 0.11, 4), ("auto", 1.0, 4), (1, 1.0, 1), (7, 0.0, 7)],
)
def test_auto_makes_heads_where_labels_are_unreliable(given, unreliable, heads):
    assert section("cnn", heads=given).heads_of(512, unreliable) == heads


@pytest.mark.parametrize(("units", "heads"), [(1, 1), (3, 3), (4, 4), (5, 4)])
def test_auto_makes_as_many_heads_as_there_are_units(units, heads):
    assert section("cnn", heads="auto", fc_size=units).heads_of(units, 1.0) == heads
    assert section("mlp", heads="auto", hidden_layers=[9, units]).heads_of(units, 1.0) == heads
