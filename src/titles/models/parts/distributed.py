"""Training in several processes that torchrun starts, on CPUs or with one GPU each. In a single process,
the usual case, these functions return their arguments.

Each process takes every n-th title of a batch, and gradients are averaged, so that batches and their
gradients do not depend on the number of processes.

Legend: R rows of a table that a gradient names, D dimensions.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import io
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


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

    _end_with_torchrun()
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
        if _first_to_fail(store) or os.environ.get("TITLES_DEBUG"):
            raise
        raise SystemExit(1) from None
    gc.collect()  # networks that reference the group
    dist.destroy_process_group()


def _end_with_torchrun() -> None:
    """Have the system send SIGTERM when torchrun dies. It starts each process in a session of its own: a
    kill of its process group would leave them at work, with the locks that the next start needs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _first_to_fail(store: Any) -> bool:
    try:
        return bool(store.add("titles/errors", 1) == 1)
    except RuntimeError:  # torchrun, which has the store, is gone: its death is no error of ours
        return False


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


def same(tensors: Iterable[Tensor]) -> None:
    """Give the tensors of each process the values of those of rank 0."""
    if _in_a_group():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their means over the processes.

    Dense ones travel together in one all-reduce. Of sparse ones, which must have each row once, only
    their rows travel: a batch names a small part of a table. Sums are always made in the same order, so
    that a resumed training gives the same bytes. DistributedDataParallel cannot promise that for more
    than two processes: it arranges its buffers anew after the first step, and it has no sparse gradients
    with NCCL.
    """
    if not _in_a_group():
        return
    parameters = list(parameters)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if dense := [gradient for gradient in gradients if not gradient.is_sparse]:
        vector_to_parameters(mean(parameters_to_vector(dense)), dense)
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = _mean_of_rows(parameter.grad)


def _mean_of_rows(gradient: Tensor) -> Tensor:
    """The mean of a sparse gradient over the processes, with each row once."""
    parts = gradient._indices()[0], gradient._values()
    counts = torch.cat(gathered(torch.tensor([len(parts[0])]))).tolist()
    if not max(counts):
        return gradient
    # All have to send equally many.
    padded = (F.pad(part, (0, 0) * (part.dim() - 1) + (0, max(counts) - len(part))) for part in parts)
    rows, values_RD = (
        torch.cat([part[:count] for part, count in zip(gathered(part), counts, strict=True)])
        for part in padded
    )
    means_RD = values_RD / world_size()
    return torch.sparse_coo_tensor(
        rows[None], means_RD, gradient.shape, check_invariants=False
    ).coalesce()


def gathered(value: Tensor) -> list[Tensor]:
    """The tensors of all processes, by rank; their shapes are the same."""
    if not _in_a_group():
        return [value]
    found = [torch.empty_like(value) for _ in range(world_size())]
    dist.all_gather(found, value.contiguous())
    return found


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


State = tuple[dict[str, Tensor], dict[str, Any]]


def broadcast_state(state: State | None) -> State | None:
    """Tensors on the CPU, and values that JSON holds, of rank 0; the others give None."""
    if not _in_a_group():
        return state
    tensors, numbers = state or ({}, None)
    kinds = {name: [str(t.dtype).removeprefix("torch."), list(t.shape)] for name, t in tensors.items()}
    # Not broadcast_object_list, which sends pickles.
    text = bytearray(json.dumps([numbers, kinds]), "utf-8")
    (size,) = broadcast([len(text)])
    given = torch.frombuffer(text.ljust(int(size))[: int(size)], dtype=torch.uint8)
    dist.broadcast(given, src=0)
    numbers, kinds = json.loads(given.numpy().tobytes())
    if numbers is None:
        return None
    found = {
        name: tensors.get(name, torch.empty(shape, dtype=getattr(torch, kind)))
        for name, (kind, shape) in kinds.items()
    }
    for tensor in found.values():
        dist.broadcast(tensor, src=0)
    return found, numbers
