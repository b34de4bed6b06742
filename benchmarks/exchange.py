"""The bytes that processes of one training exchange per step, and the time of a step by their number.

    python benchmarks/exchange.py

Titles are generated, with a vocabulary and categories as those of 20 million listings. The networks are
those of params.yaml, with all vectors trained. Steps are measured here with one and with two processes,
with one thread each. For more workers, the work of one of them is measured here, and the time of the
wires is calculated from the bytes. The report is printed, and is a section of docs/scale.md.
"""

from __future__ import annotations

# Before torch, since it sets environment variables that torch's threads read.
import titles.stages  # noqa: F401

# isort: split
import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from generated import _spell, encoded
from numpy.typing import NDArray

from titles.data import processor
from titles.data.contract import SPECIAL_WORDS
from titles.data.subwords import Subwords, VocabularySubwords
from titles.models.parts import distributed
from titles.models.parts.embedding import WordEmbedding
from titles.models.parts.inference import set_up
from titles.models.registry import NETWORKS, load_params
from titles.params import LARGEST_BATCH
from titles.training.trainer import Trainer

ROOT = Path(__file__).parent.parent
WORDS, CATEGORIES, TITLES = 100_000, 1588, 100_000
DIMENSIONS = (100, 300)
WORKERS = (1, 2, 4, 8, 16)
GIGABITS = (1, 10)
MOST_SECONDS, FEWEST_STEPS, WARM_UP = 3.0, 6, 2

Found = dict[str, dict[str, Any]]


@lru_cache(maxsize=1)
def trainer_of(name: str, dimension: int) -> Trainer:
    params = load_params(ROOT / "params.yaml")
    changed = {"freeze_embeddings": False, "batch_size": LARGEST_BATCH, "min_steps": None}
    settings = params.network(name).model_copy(update=changed)
    device = set_up(params.compute.model_copy(update={"threads": 1, "device": "cpu"}), 0)
    draw = np.random.default_rng(0)
    ends_N = np.cumsum(3 + draw.binomial(11, 4.5 / 11, TITLES))
    first = len(SPECIAL_WORDS)
    share_V = 1 / np.arange(1, WORDS - first + 1)
    ids_W = draw.choice(WORDS - first, size=ends_N[-1], p=share_V / share_V.sum()) + first
    titles = encoded(ids_W, ends_N, draw.integers(CATEGORIES, size=TITLES).astype(np.int32))
    subwords = None
    if settings.subword_buckets:
        kinds = Subwords(settings.subword_min, settings.subword_max, settings.subword_buckets)
        words = [*SPECIAL_WORDS, *(_spell(number) for number in range(WORDS - first))]
        subwords = VocabularySubwords(kinds, words)
    vectors_VD = torch.randn(WORDS, dimension, generator=torch.Generator().manual_seed(0))
    embedding = WordEmbedding(vectors_VD, torch.ones(WORDS, dtype=torch.bool), False, subwords)
    network = NETWORKS[name](embedding, CATEGORIES, **settings.architecture(TITLES))
    return Trainer(network, titles, titles, CATEGORIES, settings, 0, device)


def batches() -> Iterator[NDArray[np.int64]]:
    draw = np.random.default_rng(1)
    while True:
        yield draw.choice(TITLES, LARGEST_BATCH, replace=False)


def now() -> NDArray[np.float64]:
    """Seconds of the clock, and of this process on the CPU."""
    return np.array([time.perf_counter(), time.process_time()])


def timed(step: Callable[[NDArray[np.int64]], NDArray[np.float64]]) -> dict[str, float]:
    """The fewest seconds that a step says it took, after some to warm up: those of an idle machine."""
    taken: list[NDArray[np.float64]] = []
    for rows in batches():
        taken.append(step(rows))
        # Decided by rank 0, so that all make equally many.
        over = [sum(taken)[0] > MOST_SECONDS and len(taken) >= FEWEST_STEPS + WARM_UP]
        if distributed.broadcast(over) == [True]:
            seconds, on_cpu = np.min(taken[WARM_UP:], axis=0)
            return {"seconds": seconds, "on_cpu": on_cpu}
    raise AssertionError


def tables_and_layers(trainer: Trainer) -> tuple[int, int]:
    """Bytes of the gradients of whole tables, and of the layers."""
    sizes = {name: p.numel() * p.element_size() for name, p in trainer._network.named_parameters()}
    tables = sum(size for name, size in sizes.items() if name.startswith("embedding."))
    return tables, sum(sizes.values()) - tables


def measured(name: str, dimension: int) -> dict[str, Any]:
    """Times of a step, and bytes that a process gives to all-reduce and all-gather in it."""
    trainer = trainer_of(name, dimension)
    rank, size = distributed.rank(), distributed.world_size()
    given = {"reduced": 0, "gathered": 0}
    reduce, gather = dist.all_reduce, dist.all_gather

    def all_reduce(tensor: torch.Tensor) -> None:
        given["reduced"] += tensor.nbytes
        reduce(tensor)

    def all_gather(found: list[torch.Tensor], tensor: torch.Tensor) -> None:
        given["gathered"] += tensor.nbytes
        gather(found, tensor)

    steps = 0

    def step(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        nonlocal steps
        steps += 1
        started = now()
        trainer._step(rows[rank::size], True)
        return now() - started

    if size > 1:
        dist.all_reduce, dist.all_gather = all_reduce, all_gather
    times = timed(step)
    dist.all_reduce, dist.all_gather = reduce, gather
    tables, layers = tables_and_layers(trainer)
    exchanged = {kind: count / steps for kind, count in given.items()}
    return {"tables": tables, "layers": layers} | times | exchanged


def one_of_many(name: str, dimension: int, workers: int) -> dict[str, float]:
    """What one of so many workers does in a step, without the network: its share of the batch, the sum
    of the rows of all, and the update of the weights.

    Returns the times, and the bytes of rows that each worker sends to all others.
    """
    trainer = trainer_of(name, dimension)
    sent: list[int] = []
    parts: list[list[torch.Tensor]] = []
    average = distributed.average_gradients

    def averaged(parameters: Any) -> None:
        tables = [p for p in parameters if p.grad is not None and p.grad.is_sparse]
        parts.append([p.grad for p in tables])
        if len(parts) < workers:  # of another worker: it moves nothing here
            for parameter in trainer._network.parameters():
                parameter.grad = None
            return
        for table, gradients in zip(tables, zip(*parts, strict=True), strict=True):
            rows = torch.cat([each._indices()[0] for each in gradients])
            values = torch.cat([each._values() for each in gradients]) / workers
            table.grad = torch.sparse_coo_tensor(
                rows[None], values, table.shape, check_invariants=False
            ).coalesce()

    def step(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        parts.clear()
        for rank in reversed(range(workers)):
            started = now()
            trainer._step(rows[rank::workers], True)
        taken: NDArray[np.float64] = now() - started
        # Each table is padded to the rows of the worker that has most.
        longest = (
            max(each._values().shape[0] for each in gradients) for gradients in zip(*parts, strict=True)
        )
        sent.append(sum(longest) * (4 * dimension + 8))
        return taken

    if workers > 1:
        distributed.average_gradients = averaged
    try:
        return timed(step) | {"sent": median(sent) if workers > 1 else 0}
    finally:
        distributed.average_gradients = average


def cases() -> Iterator[tuple[str, int]]:
    for name in NETWORKS:
        for dimension in DIMENSIONS:
            yield name, dimension


def started(processes: int) -> Found:
    """What so many processes measure, each with one thread."""
    run = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [sys.executable, *(run if processes > 1 else []), __file__, "--measure"],
        env={k: v for k, v in os.environ.items() if not k.startswith("TITLES")}
        | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def report() -> Iterator[str]:
    one, two = started(1), started(2)
    yield (
        f"Made by `python benchmarks/exchange.py` on {processor.model_name()} with {os.cpu_count()} "
        f"cores: {WORDS:,} words, {CATEGORIES:,} categories, batches of {LARGEST_BATCH}, all vectors "
        "trained, the networks of params.yaml, one thread per process. Bytes are those that a process "
        "gives to the others in a step; whole tables are those of all rows. Times are of the fastest "
        "step: by the clock, on a machine with other work, and of a process on its CPU."
    )
    yield ""
    yield (
        "| network, dimensions | layers, MB | rows of tables, MB | whole tables, MB | 1 process, ms "
        "| 2 processes, ms | ratio | 1, CPU ms | 2, CPU ms | ratio |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for key, of_one in one.items():
        of_two = two[key]
        yield (
            f"| {key} | {of_two['reduced'] / 1e6:.2f} | {of_two['gathered'] / 1e6:.2f} "
            f"| {of_one['tables'] / 1e6:.0f} "
            + "".join(
                f"| {1e3 * of_one[kind]:.0f} | {1e3 * of_two[kind]:.0f} "
                f"| {of_two[kind] / of_one[kind]:.2f} "
                for kind in ("seconds", "on_cpu")
            )
            + "|"
        )
    yield ""
    yield (
        "**Calculated, not measured:** milliseconds of a step by the number of workers, each a machine "
        "of this kind with one thread. The work of one of them (its share of the batch, the sum of all "
        "rows, the update) was measured, on its CPU. The time of the wires was calculated: layers by a "
        "ring, 2 (n - 1) / n of their bytes; rows from each of the n - 1 others; no latency, and no "
        "overlap with the work. In brackets, the same with whole tables by a ring."
    )
    yield ""
    yield f"| network, dimensions | Gbit/s | {' | '.join(map(str, WORKERS))} |"
    yield f"|---|--:|{'--:|' * len(WORKERS)}"
    for name, dimension in cases():
        tables, layers = (one[f"{name}, {dimension}"][key] for key in ("tables", "layers"))
        work = {workers: one_of_many(name, dimension, workers) for workers in WORKERS}
        for gigabits in GIGABITS:
            cells = []
            for workers, found in work.items():
                ring = 2 * (workers - 1) / workers
                wire = ring * layers + (workers - 1) * found["sent"]
                of_tables = ring * (layers + tables)
                times = (
                    1e3 * (found["on_cpu"] + size * 8 / (gigabits * 1e9)) for size in (wire, of_tables)
                )
                ours, whole = times
                cells.append(f"{ours:.0f}" + f" ({whole:.0f})" * (workers > 1))
            yield f"| {name}, {dimension} | {gigabits} | {' | '.join(cells)} |"


@distributed.together()
def measure() -> None:
    print(json.dumps({f"{name}, {dimension}": measured(name, dimension) for name, dimension in cases()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    if parser.parse_args().measure:
        measure()
        return
    for line in report():
        print(line, flush=True)


if __name__ == "__main__":
    main()
