"""Quantizers of vector-quantize-pytorch on equal terms with ours: same inputs, same K, one shape.

Each is given the unit vectors that ours quantizes, so that errors can be compared. Where a layer
is made for features of variance one, they are scaled to that on the way in, and back after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vqlib import extras
from vqlib.quantization.quantizer import Quantized, on_sphere
from vqlib.training.config import TrainConfig

with extras.named("peers"):
    from vector_quantize_pytorch import FSQ, ResidualVQ, SimVQ, VectorQuantize

FSQ_LEVELS = {128: [8, 4, 4], 512: [8, 8, 8]}  # K: levels a dimension, whose product it is
RESIDUAL_SIZES = {128: (16, 8), 512: (32, 16)}  # K: sizes of two codebooks, whose product it is


class Packaged(nn.Module):
    """A published layer behind the interface of `NormEMAQuantizer`.

    Args:
        layer: called with (1, N, dim); gives quantized vectors, indices (1, N) or
            (1, N, codebooks), and perhaps losses.
        sizes: of its codebooks; K is their product, and a token's index counts through them.
        scale: length of the vectors that it is given.
    """

    def __init__(self, layer: nn.Module, sizes: Sequence[int], dim: int, scale: float = 1.0):
        super().__init__()
        self.layer, self.sizes, self.dim, self.scale = layer, tuple(sizes), dim, scale
        self.codebook_size = math.prod(self.sizes)

    def forward(self, z: Tensor) -> Quantized:
        """Quantize ``z`` (..., dim), scaled to unit length first."""
        unit = on_sphere(z)
        quantized, indices, *losses = self.layer(self.scale * unit.reshape(1, -1, self.dim))
        loss = sum((part.sum() for part in losses), 0 * unit.sum())
        places = indices.reshape(-1, len(self.sizes)).long()
        joint = torch.zeros_like(places[:, 0])
        for place, size in zip(places.T, self.sizes, strict=True):
            joint = joint * size + place
        quantized = quantized.reshape(unit.shape) / self.scale
        return Quantized(quantized, joint.view(z.shape[:-1]), loss)


def _vector_quantize(config: TrainConfig, **settings) -> Packaged:
    layer = VectorQuantize(
        config.dim,
        config.codebook_size,
        decay=config.decay,
        commitment_weight=config.beta,
        kmeans_init=config.kmeans_init,
        **{"rotation_trick": False} | settings,
    )
    return Packaged(layer, [config.codebook_size], config.dim)


def _sim_vq(config: TrainConfig) -> Packaged:
    layer = SimVQ(
        config.dim,
        config.codebook_size,
        rotation_trick=False,
        input_to_quantize_commit_loss_weight=config.beta,
    )
    return Packaged(layer, [config.codebook_size], config.dim, math.sqrt(config.dim))


def _fsq(config: TrainConfig) -> Packaged:
    layer = FSQ(FSQ_LEVELS[config.codebook_size], dim=config.dim)
    return Packaged(layer, [config.codebook_size], config.dim, math.sqrt(config.dim))


def _residual(config: TrainConfig) -> Packaged:
    sizes = RESIDUAL_SIZES[config.codebook_size]
    layer = ResidualVQ(
        dim=config.dim,
        num_quantizers=len(sizes),
        codebook_size=sizes,
        decay=config.decay,
        commitment_weight=config.beta,
        kmeans_init=config.kmeans_init,
        rotation_trick=False,
    )
    return Packaged(layer, sizes, config.dim)


def _diveq(config: TrainConfig) -> Packaged:
    # the package asks for some expiry of dead codes with it: the guide's threshold
    return _vector_quantize(config, directional_reparam=True, threshold_ema_dead_code=1)


LAYERS: dict[str, Callable[[TrainConfig], Packaged]] = {
    "plain": _vector_quantize,
    "rotation": lambda config: _vector_quantize(config, rotation_trick=True),
    "affine": lambda config: _vector_quantize(config, affine_param=True),
    "diveq": _diveq,
    "simvq": _sim_vq,
    "fsq": _fsq,
    "residual": _residual,
}


def packaged(name: str, config: TrainConfig) -> Packaged:
    """The layer of that name in `LAYERS`; its weights depend on ``config.seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return LAYERS[name](config)
