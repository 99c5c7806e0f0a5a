"""How to read a quantizer layer that is not ours: where its indices, codes and counts are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vqlib.quantizer import NormEMAQuantizer

Several = Tensor | list[Tensor]  # one tensor, or one a codebook


def _nothing(module: nn.Module) -> None:
    return None


@dataclass(frozen=True)
class Adapter:
    """Three functions tell `watch` and `audit` how to read one kind of layer.

    Attributes:
        indices: (module, output) -> int64 of any shape; -1 where a token was masked out.
        codebook: module -> (K, D), or None where the layer holds none.
        counts: module -> (K,) moving average of hits a step, or None where it keeps none.
        settings: module -> what it says of itself, under the names of `TrainConfig`:
            codebook_size, dim, decay, dead_code_threshold, reset_interval, kmeans_init.
        call: (module, z) -> output for tokens z (N, D); used by `audit`.
        quantized, loss: output -> (N, D) in the order of z, and a scalar; used by `audit`.
        resets: module -> (n,) codes that the layer says its last step reset; None where it
            says nothing.
        name: of the kind, in reports.

    A layer with several codebooks gives a list from `indices`, `codebook` and `counts`,
    one entry a codebook.
    """

    indices: Callable[[nn.Module, Any], Several]
    codebook: Callable[[nn.Module], Several | None]
    counts: Callable[[nn.Module], Several | None] = _nothing
    settings: Callable[[nn.Module], dict] = lambda module: {}
    call: Callable[[nn.Module, Tensor], Any] = lambda module, z: module(z)
    quantized: Callable[[Any], Tensor] = lambda output: output[0]
    loss: Callable[[Any], Tensor | None] = lambda output: output[2]
    resets: Callable[[nn.Module], Several | None] = lambda module: None
    name: str = ""


def _norm_ema_settings(q: NormEMAQuantizer) -> dict:
    threshold = q.reset.threshold if q.reset else 0.0
    return {
        "codebook_size": q.codebook_size, "dim": q.dim, "decay": q.decay,
        "kmeans_init": q.kmeans_init, "dead_code_threshold": threshold,
        "reset_relative": bool(q.reset and q.reset.relative),
        "reset_interval": q.reset.every if q.reset else 1,
    }  # fmt: skip


NORM_EMA = Adapter(
    indices=lambda module, output: output.indices,
    codebook=lambda module: module.codebook,
    counts=lambda module: module.cluster_size,
    settings=_norm_ema_settings,
    resets=lambda module: None if module.last_reset is None else module.last_reset.codes,
    name="vqlib NormEMAQuantizer",
)


def adapter_for(module: nn.Module) -> Adapter | None:
    """The adapter of a layer that is recognised, else None."""
    return NORM_EMA if isinstance(module, NormEMAQuantizer) else None
