"""One training by the several processes that torchrun starts, on CPUs or with one GPU each. Where a
process runs alone, as it mostly does, every function here gives back what it was given.

Each process takes every n-th title of a batch, and their gradients are averaged: what a batch is and
what it teaches does not depend on how many share it.
"""

from __future__ import annotations

import gc
import importlib
import io
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def rank() -> int:
    """This process's number, from 0; only 0 records, prints and saves."""
    return dist.get_rank() if _in_a_group() else 0


def world_size() -> int:
    return dist.get_world_size() if _in_a_group() else 1


def _in_a_group() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def together() -> Iterator[None]:
    """Decorates what the processes do together, from its first line to its last.

    An error in one of them ends all. The first to fail tells why, the others exit with code 1 and
    without a word, unless TITLES_DEBUG is set. Nested, it does nothing.
    """
    torchrun = "LOCAL_RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"
    if not torchrun or _in_a_group():
        yield
        return
    from torch.distributed.rendezvous import rendezvous  # not there in a torch built without it

    # The optimiser imports it anyway. Imported after the group is made, it holds on to the group for
    # good, whose threads then, now and then, abort a process that ends.
    importlib.import_module("torch._dynamo")  # noqa: TID251, nothing of ours
    store, own_rank, size = next(rendezvous("env://"))
    # Without a backend named, tensors of the CPU travel by gloo and those of a GPU by NCCL.
    dist.init_process_group(store=store, rank=own_rank, world_size=size)
    try:
        with redirect_stdout(io.StringIO()) if own_rank else nullcontext():
            yield
        total(torch.zeros(1))  # wait until rank 0 has saved: if that fails, all fail
    except BaseException:
        end_undisturbed()
        # Where one fails, the connections of the others break: these are no errors to tell.
        if store.add("titles/errors", 1) == 1 or os.environ.get("TITLES_DEBUG"):
            raise
        raise SystemExit(1) from None
    gc.collect()  # networks that hold on to the group
    dist.destroy_process_group()


def end_undisturbed() -> None:
    """Save and tidy up after an error although torchrun, which has seen the end of another process, says
    to stop. It kills after 30 seconds."""
    if _in_a_group():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)


def own_gpu() -> torch.device:
    """The GPU of this process.

    Raises:
        ValueError: there are fewer GPUs here than processes.
    """
    if not _in_a_group():
        return torch.device("cuda")
    here, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if here > gpus:
        raise ValueError(
            f"{here} processes but {gpus} GPUs: give torchrun --nproc-per-node={gpus}, "
            "or set compute.device to cpu"
        )
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return torch.device("cuda", torch.cuda.current_device())


def wrap(network: nn.Module) -> nn.Module:
    """The network, for steps that average the gradients of all processes. Weights start as rank 0's."""
    if not _in_a_group():
        return network
    return DistributedDataParallel(network, forward_sync_buffers=False)  # they never change


def total(value: Tensor) -> Tensor:
    """The sum over all processes."""
    if not _in_a_group():
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value


def mean(value: Tensor) -> Tensor:
    """The mean over all processes."""
    return total(value) / world_size() if _in_a_group() else value


def broadcast(values: list[float]) -> list[float]:
    """The values of rank 0, so that all decide alike."""
    if not _in_a_group():
        return values
    given = torch.tensor(values, dtype=torch.float64)
    dist.broadcast(given, src=0)
    return given.tolist()
