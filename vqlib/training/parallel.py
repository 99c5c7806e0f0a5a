"""Several processes that train one model together: how they meet, agree, and notice a loss.

Each computes its part of every batch. Alone, every function here does the plain thing.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vqlib.quantization.distributed import many, process

LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets


class RankLost(RuntimeError):
    """Another process cannot be reached: it died, or it hangs."""


def first() -> bool:
    """Whether this is rank 0, which writes and shows; alone: True."""
    return process()[0] == 0


@contextmanager
def group(device: torch.device, timeout: float):
    """The processes that torchrun started, for the time of the block; alone: nothing.

    Gloo carries what is on CPUs and nccl what is on cards, one card a process.

    Args:
        timeout: seconds that a process waits for the others before it gives up.

    Raises RankLost if they do not meet.
    """
    here = {name: os.environ.get(name) for name in LAUNCHED}
    if None in here.values() or int(here["WORLD_SIZE"]) == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    try:
        dist.init_process_group(backend(device), timeout=timedelta(seconds=timeout))
    except dist.DistError as error:
        raise RankLost(
            f"rank {here['RANK']} of {here['WORLD_SIZE']} did not meet the others at "
            f"{here['MASTER_ADDR']} within {timeout:g} s"
        ) from error
    try:
        yield
    finally:
        dist.destroy_process_group()


def backend(device: torch.device) -> str:
    """What carries the messages of processes that train on ``device``, in torch's notation."""
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


def wrapped(model: nn.Module) -> nn.Module:
    """The model, whose backward pass averages the gradients over the ranks.

    Its buffers are left alone: the quantizer keeps its own the same everywhere.
    """
    if not many():
        return model
    kind = nn.parallel.DistributedDataParallel
    names = "forward_sync_buffers", "broadcast_buffers"  # today's, and before torch 2.13
    known = inspect.signature(kind).parameters
    return kind(model, **{next(name for name in names if name in known): False})


def part(rows: Tensor) -> Tensor:
    """This rank's consecutive part of ``rows`` (n, ...), longer by one on the first n % ranks."""
    rank, ranks = process()
    return rows.tensor_split(ranks)[rank]


def backward(loss: Tensor, share: float) -> None:
    """The backward pass from a mean ``loss`` over this rank's ``share`` of the batch.

    The averaged gradients are those of the mean over the whole batch. A loss that is not finite
    makes them NaN, so that all ranks see it.
    """
    loss.backward(share * process()[1] + 0 * loss.detach() if many() else None)


def on_first(function: Callable[[], Any]) -> Any:
    """What ``function`` returns or raises on rank 0 is returned or raised on all ranks."""
    if not many():
        return function()
    told: list = [None]
    if first():
        told = [_outcome(function)]
    dist.broadcast_object_list(told, src=0)
    return _settled(told)[0]


def on_all(function: Callable[[], Any]) -> Any:
    """What ``function`` returns; if it raises on any rank, all raise the first one's error."""
    if not many():
        return function()
    result, error = _outcome(function)
    told: list = [None] * dist.get_world_size()
    dist.all_gather_object(told, (None, error))
    _settled(told)
    return result


def _outcome(function: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return function(), None
    except Exception as error:
        return None, error


def _settled(told: Sequence[tuple[Any, Exception | None]]) -> list:
    for _, error in told:
        if error is not None:
            raise error
    return [result for result, _ in told]


def check_same(what: str, value: object) -> None:
    """Raises ValueError, on all ranks, if they do not all have the same ``value``."""
    if not many():
        return
    told: list = [None] * dist.get_world_size()
    dist.all_gather_object(told, value)
    other = next((rank for rank, theirs in enumerate(told) if theirs != told[0]), None)
    if other is not None:
        raise ValueError(f"{what} must be the same on all ranks; rank {other} differs from rank 0")


def wait() -> None:
    """Until all ranks are here: whoever leaves with an error takes the others with it."""
    if many():
        dist.barrier()


@contextmanager
def lost_told():
    """Turns the transport's errors into `RankLost`, which says what to do."""
    try:
        yield
    except RuntimeError as error:
        # gloo raises plain RuntimeErrors, which name its source files
        if not many() or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        rank, ranks = process()
        reason = str(error).splitlines()[0].rpartition("] ")[2]
        raise RankLost(
            f"rank {rank} of {ranks} lost contact with another one, which died, failed or hangs "
            f"({reason}); what is lost are the steps since the last checkpoint in out_dir: "
            "start all ranks again with --resume"
        ) from error
