"""The lower bound on the time of a training step that matrix products set, and a profile of one.

Dimensions: B titles of a batch, L tokens, U distinct words of a batch, C categories.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import vl_convert
from torch import nn
from torch.profiler import ProfilerActivity, profile

from titles.data.batching import Batcher, ordered
from titles.data.encoded import EncodedTitles
from titles.data.files import atomic_file
from titles.models.cnn import CNNSection
from titles.models.mlp import MLPSection
from titles.models.parts.embedding import embedding_of
from titles.params import Training
from titles.training.objective import Objective
from titles.training.trainer import optimisers

_CPU = torch.device("cpu")
_LARGE = 2048


@dataclass(frozen=True)
class Product:
    """A layer as the matrix product (rows, inner) by (inner, columns).

    to_words: the inputs are word vectors, for which no gradient is needed if they are frozen.
    """

    name: str
    rows: int
    inner: int
    columns: int
    to_words: bool = False

    @property
    def forward(self) -> int:
        """Floating point operations, two per multiply-add."""
        return 2 * self.rows * self.inner * self.columns

    def backward(self, freeze: bool) -> int:
        """One product of the same size for the gradient of the weights, one for that of the input."""
        return self.forward * (1 if freeze and self.to_words else 2)


def distinct_words(titles: EncodedTitles, batch_size: int) -> int:
    """The mean number of distinct words per batch."""
    parts = np.split(titles.word_ids, titles.ends[batch_size - 1 :: batch_size])
    return round(float(np.mean([len(np.unique(part)) for part in parts[:-1]])))


def cnn_products(
    settings: CNNSection, batch: int, dimension: int, distinct: int, classes: int
) -> list[Product]:
    """Distinct words are projected once per position in a window; summing windows is not counted."""
    filters = settings.filter_count
    pooled = filters * len(settings.filter_lengths)
    return [
        Product("filters", distinct, dimension, filters * sum(settings.filter_lengths), True),
        Product("hidden", batch, pooled, settings.fc_size),
        Product("output", batch, settings.fc_size, classes),
    ]


def mlp_products(settings: MLPSection, batch: int, dimension: int, classes: int) -> list[Product]:
    """The products of the MLP; means over words are not counted."""
    sizes = [dimension * (2 if settings.leading_words else 1), *settings.hidden_layers, classes]
    return [
        Product(f"layer {number}", batch, size, following, number == 1)
        for number, (size, following) in enumerate(pairwise(sizes), start=1)
    ]


def matrix_rate(rows: int, inner: int, columns: int, seconds: float) -> float:
    """The peak rate of a float32 product of this shape, in floating point operations per second."""
    left, right = torch.randn(rows, inner), torch.randn(inner, columns)
    out = torch.empty(rows, columns)
    torch.matmul(left, right, out=out)
    # Repeats long enough for the clock; the best of several, since this is an upper limit.
    lump = max(1, round(2e9 / (rows * inner * columns)))
    best, ends = np.inf, time.perf_counter() + seconds
    while best == np.inf or time.perf_counter() < ends:
        started = time.perf_counter()
        for _ in range(lump):
            torch.matmul(left, right, out=out)
        best = min(best, (time.perf_counter() - started) / lump)
    return 2 * rows * inner * columns / best


def limit_section(
    networks: dict[str, list[Product]], step_seconds: dict[str, dict[str, float]], seconds: float
) -> Iterator[str]:
    """Yield markdown.

    Args:
        networks: the products of one step, by network.
        step_seconds: the measured time of a step, by network and by "frozen" and "unfrozen".
        seconds: time to measure each shape.
    """
    large = matrix_rate(_LARGE, _LARGE, _LARGE, seconds)
    yield (
        f"Square matrices of size {_LARGE:,} are multiplied at {large / 1e9:,.0f} GFLOP/s. The matrix "
        "products of one step:"
    )
    yield ""
    yield "| network | product | shape | MFLOP forward | backward, frozen | unfrozen | GFLOP/s |"
    yield "|---|---|---|--:|--:|--:|--:|"
    own = {}
    for network, products in networks.items():
        for product in products:
            shape = product.rows, product.inner, product.columns
            own[product] = matrix_rate(*shape, seconds)
            yield (
                f"| {network} | {product.name} | {shape[0]} x {shape[1]} x {shape[2]} "
                f"| {product.forward / 1e6:,.1f} | {product.backward(True) / 1e6:,.1f} "
                f"| {product.backward(False) / 1e6:,.1f} | {own[product] / 1e9:,.0f} |"
            )
    yield ""
    yield "The minimum time of a step, at the rate of square matrices and at those of its own shapes:"
    yield ""
    yield "| network, word vectors | MFLOP | ms, square | ms, own shapes | measured | share of limit |"
    yield "|---|--:|--:|--:|--:|--:|"
    for network, products in networks.items():
        for words, measured in step_seconds[network].items():
            costs = [p.forward + p.backward(words == "frozen") for p in products]
            least = sum(costs) / large
            likely = sum(cost / own[product] for cost, product in zip(costs, products, strict=True))
            yield (
                f"| {network}, {words} | {sum(costs) / 1e6:,.0f} | {least * 1e3:.2f} "
                f"| {likely * 1e3:.2f} | {measured * 1e3:.2f} | {least / measured:.0%} |"
            )


def _epoch(
    network: nn.Module, titles: EncodedTitles, settings: Training, classes: int
) -> Iterator[tuple[str, float]]:
    """The steps of `Trainer`, written out; yields the seconds of each part."""
    objective = Objective.of(titles, classes, settings, _CPU)
    steppers = optimisers(network, settings)
    batcher = Batcher(titles, embedding_of(network).subwords, _CPU)
    network.train()
    clock = time.perf_counter
    then = clock()
    for rows in ordered(titles, settings.titles_per_step(len(titles)), np.random.default_rng(0)):
        batch = batcher.batch(rows)
        yield "batching", clock() - then
        then = clock()
        losses_B, log_right_B = objective.losses(network(batch), batch.labels_B)
        weight_B = objective.weights(batch.labels_B, log_right_B, progress=1)
        loss = (losses_B * weight_B).sum() / weight_B.sum()
        yield "forward", clock() - then
        then = clock()
        loss.backward()  # type: ignore[no-untyped-call]
        yield "backward", clock() - then
        then = clock()
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        yield "optimiser", clock() - then
        then = clock()


def profile_section(
    network: nn.Module,
    titles: EncodedTitles,
    few: EncodedTitles,
    settings: Training,
    classes: int,
    picture: Path,
) -> Iterator[str]:
    """Yield markdown and draw the chart.

    Args:
        titles: for the epoch whose parts are timed.
        few: for the epoch whose operators are profiled; the profiler keeps every call in memory.
    """
    for _ in _epoch(network, few, settings, classes):  # warms up
        pass
    parts: dict[str, float] = {}
    for part, seconds in _epoch(network, titles, settings, classes):
        parts[part] = parts.get(part, 0.0) + seconds
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        for _ in _epoch(network, few, settings, classes):
            pass
    # Exclude ranges such as "Optimizer.step", which are not operators.
    called = [
        event for event in watched.key_averages() if not event.key.startswith(("Optimizer", "autograd"))
    ]
    called.sort(key=lambda event: -event.self_cpu_time_total)
    every = sum(event.self_cpu_time_total for event in called) / 1e6
    number, few_number = (-(-len(rows) // settings.titles_per_step(len(rows))) for rows in (titles, few))
    yield "| part | ms per step | share |"
    yield "|---|--:|--:|"
    for part, seconds in parts.items():
        yield f"| {part} | {seconds / number * 1e3:.2f} | {seconds / sum(parts.values()):.0%} |"
    yield ""
    yield "The slowest operators, by the profiler, which itself slows them slightly:"
    yield ""
    yield "| operator | calls per step | ms per step | share of all operators |"
    yield "|---|--:|--:|--:|"
    operators = {}
    for event in called[:10]:
        seconds = event.self_cpu_time_total / 1e6
        name, calls = event.key.removeprefix("aten::"), event.count / few_number
        operators[name] = seconds / few_number * 1e3
        yield f"| {name} | {calls:.1f} | {operators[name]:.2f} | {seconds / every:.0%} |"
    yield ""
    yield f"![Time of a step]({picture.name})"
    draw({part: seconds / number * 1e3 for part, seconds in parts.items()}, operators, picture)


def draw(parts: dict[str, float], operators: dict[str, float], picture: Path) -> None:
    """Draw bars of the milliseconds per step of each part and of each operator, as PNG."""

    def bars(title: str, values: dict[str, float], colour: str) -> dict[str, object]:
        place = {
            "x": {"field": "ms", "type": "quantitative", "title": "milliseconds per step"},
            "y": {"field": "name", "type": "nominal", "sort": None, "title": None},
        }
        label = {**place, "text": {"field": "ms", "type": "quantitative", "format": ".2f"}}
        return {
            "title": {"text": title, "anchor": "start"},
            "width": 480,
            "data": {"values": [{"name": name, "ms": value} for name, value in values.items()]},
            "layer": [
                {"mark": {"type": "bar", "color": colour}, "encoding": place},
                {"mark": {"type": "text", "align": "left", "dx": 4}, "encoding": label},
            ],
        }

    chart = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "background": "white",
        "vconcat": [
            bars("One step of the CNN, by part", parts, "#4c78a8"),
            bars("and by operator, the ten slowest", operators, "#72b7b2"),
        ],
        "resolve": {"scale": {"x": "shared"}},
    }
    with atomic_file(picture) as partial:
        partial.write_bytes(vl_convert.vegalite_to_png(json.dumps(chart), scale=1.5))
