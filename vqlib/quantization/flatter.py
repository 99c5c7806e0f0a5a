"""Ideas for flatter use of a codebook than a reset alone gives; all of them split used codes.

What a reset does not touch is a code that takes too much. Each class changes one thing, so that
they can be combined and compared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqlib.quantization.quantizer import Quantized, on_sphere
from vqlib.quantization.rivals import SplitsMostUsed
from vqlib.quantization.search import nearest


class Conscience(SplitsMostUsed):
    """A code that takes too much is handicapped, in evaluation too: cosine + bias decides.

    After DeSieno 1988, "Adding a conscience to competitive learning", ICNN. The cells are those
    of a power diagram.

    Attributes:
        bias: buffer (K,), added to a code's cosines.
    """

    RATE, MOST = 5e-5, 3.0  # of a step; the largest excess over the share that counts
    bias: Tensor

    def __init__(self, *args, **keywords):
        super().__init__(*args, **keywords)
        self.register_buffer("bias", torch.zeros(self.codebook_size))

    def _nearest(self, x: Tensor) -> Tensor:
        return nearest(x, self.codebook, self.bias)

    def _update(self, x: Tensor, bins: Tensor, sums: Tensor) -> None:
        super()._update(x, bins, sums)
        excess = self.cluster_size / self.cluster_size.mean() - 1
        self.bias -= self.RATE * excess.clamp(max=self.MOST)


class Whitened(SplitsMostUsed):
    """Each feature is brought to mean 0 and variance 1 before the sphere, as batch norm does."""

    one_process = True

    def __init__(self, *args, **keywords):
        super().__init__(*args, **keywords)
        self.norm = nn.BatchNorm1d(self.dim, affine=False)

    def forward(self, z: Tensor) -> Quantized:
        self._check(z)
        flat = self.norm(z.float().reshape(-1, self.dim))
        return super().forward(flat.view_as(z).to(z.dtype))


class SeesPosition(SplitsMostUsed):
    """A token's place is added to it before the sphere, so that equal patches are told apart.

    For inputs (..., height, width, dim). Sines and cosines of row and column, as in Vaswani et
    al. 2017 (arXiv:1706.03762, section 3.5), at `WEIGHT` times the token's length.
    """

    WEIGHT = 0.5

    def forward(self, z: Tensor) -> Quantized:
        self._check(z)
        placed = on_sphere(z) + self.WEIGHT * places(*z.shape[-3:], z.device)
        return super().forward(placed.to(z.dtype))


class PositionConscience(SeesPosition, Conscience):
    """Both."""


class EqualPlace(PositionConscience):
    """Both, and the place weighs as much as the content."""

    WEIGHT = 1.0


def places(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """Unit vectors (height, width, dim) of a grid's places, with periods of 4 to 64 tokens."""
    pitch = torch.pi / torch.linspace(2, 32, (dim + 3) // 4, device=device)  # radians a token
    rows, columns = (
        torch.cat([turned.sin(), turned.cos()], dim=-1)
        for turned in (torch.arange(n, device=device)[:, None] * pitch for n in (height, width))
    )
    both = [rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)]
    return F.normalize(torch.cat(both, dim=-1)[..., :dim], dim=-1)


FLATTER: dict[str, type[SplitsMostUsed]] = {
    "conscience": Conscience,
    "whitened": Whitened,
    "sees-position": SeesPosition,
    "position-conscience": PositionConscience,
    "equal-place": EqualPlace,
}
