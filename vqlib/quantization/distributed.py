"""What several processes must agree on. Without torch.distributed, each is the identity.

The *batch of all ranks* is their batches one after the other, in the order of the ranks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor


class Shard(NamedTuple):
    """Where this rank's part of a list lies that is spread over all ranks, in their order."""

    first: int  #: place of this rank's first item
    size: int  #: items of all ranks


def many() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def process() -> tuple[int, int]:
    """(this one's number from 0, how many there are)."""
    return (dist.get_rank(), dist.get_world_size()) if many() else (0, 1)


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum in place over all ranks; returns the same tensor."""
    if many():
        dist.all_reduce(tensor)
    return tensor


def from_first_rank(tensor: Tensor) -> Tensor:
    """Overwrite in place with rank 0's values; returns the same tensor."""
    if many():
        dist.broadcast(tensor, src=0)
    return tensor


def of_each_rank(tensor: Tensor) -> Tensor:
    """(ranks, ...): the ``tensor`` (...) of every rank, whose shapes are alike."""
    if not many():
        return tensor[None]
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.stack(parts)


def shard(own: int, device: torch.device) -> Shard:
    """Of a list to which each rank contributes its ``own`` number of items."""
    if not many():
        return Shard(0, own)
    sizes = of_each_rank(torch.tensor(own, device=device)).tolist()
    return Shard(sum(sizes[: dist.get_rank()]), sum(sizes))


def picked(values: Tensor, places: Tensor, part: Shard) -> Tensor:
    """Rows (n, ...) at ``places`` (n,) of a list over all ranks; ``values`` are this rank's.

    Float32 or int64. The message is as long as the result.
    """
    if not many():
        return values[places]
    mine = places - part.first
    owned = (mine >= 0) & (mine < len(values))
    rows = values.new_zeros(len(places), *values.shape[1:])
    rows[owned] = values[mine[owned]]
    # one rank fills a row and the others add 0 to its bits, so it arrives as it was
    dist.all_reduce(rows.view(torch.int32))
    return rows


def same_draws(generator: torch.Generator, device: torch.device) -> None:
    """From here on, a CPU ``generator`` draws on every rank what it draws on rank 0."""
    if many():
        state = from_first_rank(generator.get_state().to(device))
        generator.set_state(state.cpu())
