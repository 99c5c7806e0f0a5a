"""What several processes must agree on. Without torch.distributed, each is the identity."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


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
