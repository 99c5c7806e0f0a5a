"""What a split of a data set offers, wherever its items come from."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from torch import Tensor

Indices: TypeAlias = Tensor | Sequence[int]


class Items(Protocol):
    """Item i is a float32 tensor. `batch`, (n, *item), is the fast way to several at once."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...

    def batch(self, indices: Indices, /) -> Tensor: ...
