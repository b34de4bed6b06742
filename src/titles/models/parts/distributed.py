"""Training in several processes that torchrun starts, on CPUs or with one GPU each. In a single process,
the usual case, these functions return their arguments.

Each process takes every n-th title of a batch, and gradients are averaged, so that batches and their
gradients do not depend on the number of processes.
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
    """Number of this process, from 0; only rank 0 records, prints and saves."""
    return dist.get_rank() if _in_a_group() else 0


def world_size() -> int:
    return dist.get_world_size() if _in_a_group() else 1


def _in_a_group() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def together() -> Iterator[None]:
    """Decorates the part of the program that the processes run together.

    An error in one process ends all. The first to fail reports it; the others exit silently with code 1,
    unless TITLES_DEBUG is set. Nested calls do nothing.
    """
    torchrun = "LOCAL_RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"
    if not torchrun or _in_a_group():
        yield
        return
    from torch.distributed.rendezvous import rendezvous  # missing in some builds of torch

    # The optimiser imports it anyway. Imported after the group was made, it keeps the group alive, whose
    # threads then sometimes abort the process at its end.
    importlib.import_module("torch._dynamo")  # noqa: TID251, nothing of ours
    store, own_rank, size = next(rendezvous("env://"))
    # Without a named backend, gloo serves CPU tensors and NCCL GPU tensors.
    dist.init_process_group(store=store, rank=own_rank, world_size=size)
    try:
        with redirect_stdout(io.StringIO()) if own_rank else nullcontext():
            yield
        total(torch.zeros(1))  # wait until rank 0 has saved: if that fails, all fail
    except BaseException:
        end_undisturbed()
        # When one process fails, the connections of the others break: these errors are not reported.
        if store.add("titles/errors", 1) == 1 or os.environ.get("TITLES_DEBUG"):
            raise
        raise SystemExit(1) from None
    gc.collect()  # networks that reference the group
    dist.destroy_process_group()


def end_undisturbed() -> None:
    """Ignore torchrun's termination while saving and cleaning up after an error. It kills after 30
    seconds."""
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
    """Wrap the network in DistributedDataParallel, which starts from rank 0's weights and averages
    gradients."""
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
    """The values of rank 0, so that all processes take the same decisions."""
    if not _in_a_group():
        return values
    given = torch.tensor(values, dtype=torch.float64)
    dist.broadcast(given, src=0)
    return given.tolist()
