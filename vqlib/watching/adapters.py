"""How to read a quantizer layer that is not ours: where its indices, codes and counts are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vqlib.quantization.quantizer import NormEMAQuantizer
from vqlib.watching import libraries

Several = Tensor | list  # one tensor, or one a codebook
Module = Any  # a module of the kind that the adapter is for


def _none(*ignored: object) -> None:
    return None


@dataclass(frozen=True)
class Adapter:
    """Three functions tell `watch` and `audit` how to read one kind of layer.

    Attributes:
        indices: (module, output) -> integers of any shape; -1 if a token was masked out.
            None if this call chose no codes.
        codebook: module -> (K, D), or None if the layer holds none.
        counts: module -> (K,) moving average of hits a step, or None if it keeps none.
        settings: module -> what it says of itself, under the names of `TrainConfig`:
            codebook_size, dim, decay, beta, dead_code_threshold, reset_relative,
            reset_interval, reset_refill, kmeans_init. Where ``codebook`` gives None,
            codebook_size is needed, and ``codebooks``, their number, if there are several.
        call: (module, z) -> output for tokens z (N, D); used by `audit`.
        quantized, loss: output -> (N, D) in the order of z, and a scalar; used by `audit`.
        resets: module -> (n,) codes that the layer says its last step reset; None if it
            says nothing.
        name: of the kind, in reports; else they name the layer's class.

    A layer with several codebooks gives a list from `indices`, `codebook` and `counts`,
    one entry a codebook.
    """

    indices: Callable[[Module, Any], Several | None]
    codebook: Callable[[Module], Several | None]
    counts: Callable[[Module], Several | None] = _none
    settings: Callable[[Module], dict] = lambda module: {}
    call: Callable[[Module, Tensor], Any] = lambda module, z: module(z)
    quantized: Callable[[Any], Tensor | None] = lambda output: output[0]
    loss: Callable[[Any], Tensor | None] = lambda output: output[2]
    resets: Callable[[Module], Several | None] = _none
    name: str = ""


def _norm_ema_settings(q: NormEMAQuantizer) -> dict:
    threshold = q.reset.threshold if q.reset else 0.0
    return {
        "codebook_size": q.codebook_size,
        "dim": q.dim,
        "decay": q.decay,
        "beta": q.beta,
        "kmeans_init": q.kmeans_init,
        "dead_code_threshold": threshold,
        "reset_relative": bool(q.reset and q.reset.relative),
        "reset_interval": q.reset.every if q.reset else 1,
    } | ({"reset_refill": q.reset.limits(1, 1)[1]} if q.reset else {})


NORM_EMA = Adapter(
    indices=lambda module, output: output.indices,
    codebook=lambda module: module.codebook,
    counts=lambda module: module.cluster_size,
    settings=_norm_ema_settings,
    resets=lambda module: None if module.last_reset is None else module.last_reset.codes,
    name="vqlib NormEMAQuantizer",
)
VECTOR_QUANTIZE = Adapter(
    indices=libraries.vqp_indices,
    codebook=libraries.vqp_codebook,
    counts=libraries.vqp_counts,
    settings=libraries.vqp_settings,
    call=libraries.call_in_layout,
    name="vector-quantize-pytorch VectorQuantize",
)
BEAM_RESIDUAL = Adapter(  # its layers see candidates; only the whole knows the choice
    indices=lambda module, output: libraries.split_last(output[1], several=True),
    codebook=lambda module: [libraries.vqp_codebook(layer) for layer in module.layers],
    counts=lambda module: [libraries.vqp_counts(layer) for layer in module.layers],
    settings=lambda module: libraries.vqp_settings(module.layers[0]),
    name="vector-quantize-pytorch ResidualVQ with beam search",
)
SIM_VQ = Adapter(
    indices=lambda module, output: output[1],
    codebook=libraries.sim_vq_codebook,
    settings=lambda module: {
        "codebook_size": module.codebook_size,
        "dim": len(libraries.sim_vq_codebook(module)[0]),
        "projected": 1,
    },
    call=libraries.call_in_layout,
    name="vector-quantize-pytorch SimVQ",
)
LATTICE = Adapter(
    indices=libraries.lattice_indices,
    codebook=_none,  # an implied grid: nothing in it is learned
    settings=libraries.lattice_settings,
    call=libraries.call_in_layout,
    loss=_none,
    name="finite scalar or lookup-free quantizer",
)
CODEC = Adapter(
    indices=libraries.codec_indices,
    codebook=libraries.codec_codebooks,
    quantized=_none,
    loss=_none,
    name="transformers audio codec",
)
GUMBEL = Adapter(
    indices=libraries.gumbel_indices,
    codebook=libraries.gumbel_codebooks,
    settings=lambda module: {"gumbel": 1},
    call=libraries.call_in_layout,
    loss=_none,
    name="transformers GumbelVectorQuantizer",
)
PLAIN = Adapter(
    indices=libraries.plain_indices,
    codebook=libraries.plain_codebook,
    counts=libraries.plain_counts,
    settings=libraries.plain_settings,
    call=libraries.plain_call,
    quantized=libraries.plain_quantized,
    loss=libraries.plain_loss,
)
GRID = Adapter(
    indices=libraries.lattice_indices,
    codebook=_none,
    settings=libraries.grid_settings,
    call=libraries.plain_call,
    quantized=libraries.plain_quantized,
    loss=libraries.plain_loss,
)
GUESSED = (PLAIN, GRID)  # by a class's name and what it holds

VQP = "vector_quantize_pytorch"
SCALARS = ("Xcodec2FiniteScalarQuantization", "NeuCodecFiniteScalarQuantization")
CODECS = ("EncodecModel", "MimiModel", "XcodecModel")


def adapter_for(module: nn.Module) -> Adapter | None:
    """The adapter of a layer that is recognised, else None.

    Recognised are our own; of vector-quantize-pytorch VectorQuantize, SimVQ, FSQ and LFQ, by
    themselves and as the levels of the residual and grouped ones, and ResidualVQ as a whole
    when it searches with beams; of transformers the Gumbel quantizers, the finite scalar
    quantizers and, as whole models, the audio codecs; copies of finite scalar, lookup-free and
    binary spherical quantizers by the names of their classes; and any layer, such as those of
    transformers' and diffusers' VQ models, whose class is named like a quantizer, that holds
    a codebook under a usual name and returns integers.
    """
    if isinstance(module, NormEMAQuantizer):
        return NORM_EMA
    if libraries.is_a(module, VQP, "VectorQuantize"):
        return VECTOR_QUANTIZE
    beams: Any = getattr(module, "beam_size", None) or 1
    if libraries.is_a(module, VQP, "ResidualVQ") and beams > 1:
        return BEAM_RESIDUAL
    if libraries.is_a(module, VQP, "SimVQ"):
        return SIM_VQ
    scalars = libraries.is_a(module, "transformers", *SCALARS)
    if scalars or libraries.is_a(module, VQP, "FSQ", "LFQ"):
        return LATTICE
    if libraries.is_a(module, "transformers", *CODECS):
        return CODEC
    if hasattr(module, "codevectors") and type(module).__name__.endswith("GumbelVectorQuantizer"):
        return GUMBEL
    if libraries.is_grid(module):
        return GRID
    return PLAIN if libraries.is_plain(module) else None
