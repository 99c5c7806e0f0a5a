"""The layers of the field: each as its package builds it, and where its source was read.

Everything is the package's default, except what a layer's name says and the sizes: 64 codes of 32
dimensions (8, behind the projection of DAC and SNAC), so that an audit takes seconds. No weights
are loaded. A package is imported when one of its layers is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module

from torch import Tensor, nn

from vqlib.watching.adapters import Adapter

CODES, DIM, NARROW = 64, 32, 8


@dataclass(frozen=True)
class Layer:
    """A row of the table.

    Attributes:
        package: its name in the registry.
        name: the class, and what is set beside its defaults.
        make: builds it.
        source: {column: where in the package's source the answer was confirmed, and how}. An
            answer that finds something is shown only if its column is here.
        adapter: how to read it; None: as `vqlib.audit` recognises it.
        dim: of a token.
    """

    package: str
    name: str
    make: Callable[[], nn.Module]
    source: Mapping[str, str]
    adapter: Adapter | None = field(default=None, compare=False)
    dim: int = DIM


def _named(module: str, name: str):
    """Of a package that may not be installed; vqlib depends on none of them."""
    return getattr(import_module(module), name)


# --- vector-quantize-pytorch ---


def _vqp(name: str, *given, **settings) -> Callable[[], nn.Module]:
    return lambda: _named("vector_quantize_pytorch", name)(*given, **settings)


def _first_level(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: next(m for m in make().modules() if type(m).__name__ == "VectorQuantize")


def _latent_call(q: nn.Module, z: Tensor) -> tuple:
    quantized, indices, loss = q(z.T[None])
    return quantized[0].T, indices, loss


VQ = "vector_quantize_pytorch.py: "
EXPIRY = (
    VQ + "Codebook.replace, called after update_ema: embed, cluster_size and embed_avg are set "
    "together; reset_cluster_size is by default the threshold itself, so one step without a hit "
    "brings the count below it"
)
NO_EXPIRY = VQ + "VectorQuantize.__init__: threshold_ema_dead_code = 0"
ONES = (
    VQ
    + "Codebook.__init__: cluster_size starts at 1, below the threshold of 2; expire_codes_ runs "
    "in the first step"
)
SYNC = (
    VQ + "VectorQuantize.__init__: sync_codebook = is_distributed(), asked once and cached: build "
    "the layer after init_process_group"
)
KMEANS = VQ + "Codebook.forward: init_embed_ is called in evaluation mode too"
GRADIENT = VQ + "Codebook.update_codebook returns at once without ema_update and expiry"
TWICE = {"threshold_ema_dead_code": 2}

_LATENT = Adapter(
    indices=lambda q, output: output[1],
    codebook=lambda q: None,
    settings=lambda q: {"codebook_size": q.codebook_size, "dim": q.dim},
    call=_latent_call,
    name="LatentQuantize",
)


def _vector_quantize(name: str, source: dict, **settings) -> Layer:
    make = _vqp("VectorQuantize", dim=DIM, codebook_size=CODES, **settings)
    return Layer("vector-quantize-pytorch", name, make, source)


VECTOR_QUANTIZE = (
    _vector_quantize("VectorQuantize", {"reset": NO_EXPIRY, "ranks": SYNC}),
    _vector_quantize(
        "VectorQuantize, expiry 2", {"reset": EXPIRY, "start": ONES, "ranks": SYNC}, **TWICE
    ),
    _vector_quantize(
        "VectorQuantize, k-means, expiry 2",
        {"reset": EXPIRY, "evaluation": KMEANS, "ranks": SYNC},
        kmeans_init=True,
        **TWICE,
    ),
    _vector_quantize(
        "VectorQuantize, cosine", {"reset": NO_EXPIRY, "ranks": SYNC}, use_cosine_sim=True
    ),
    _vector_quantize(
        "VectorQuantize, cosine, expiry 2",
        {"reset": EXPIRY, "start": ONES, "ranks": SYNC},
        use_cosine_sim=True,
        **TWICE,
    ),
    _vector_quantize(
        "VectorQuantize, learnable", {"reset": GRADIENT}, learnable_codebook=True, ema_update=False
    ),
    _vector_quantize(
        "VectorQuantize, learnable, expiry 2",
        {"reset": EXPIRY, "start": ONES, "ranks": SYNC},
        learnable_codebook=True,
        ema_update=False,
        **TWICE,
    ),
    _vector_quantize(
        "VectorQuantize, affine_param",
        {
            "reset": NO_EXPIRY,
            "evaluation": VQ + "Codebook.update_affine: batch_mean and batch_variance are updated "
            "without asking self.training; the distances read them",
            "ranks": VQ + "Codebook.update_affine: sync_affine_param is off by default, so each "
            "process shifts by its own batches before it sums",
        },
        affine_param=True,
    ),
    Layer(
        "vector-quantize-pytorch",
        "ResidualVQ, level 1",
        _first_level(_vqp("ResidualVQ", dim=DIM, codebook_size=CODES, num_quantizers=2)),
        {"reset": NO_EXPIRY, "ranks": SYNC},
    ),
    Layer(
        "vector-quantize-pytorch",
        "GroupedResidualVQ, level 1",
        _first_level(
            _vqp("GroupedResidualVQ", dim=2 * DIM, codebook_size=CODES, num_quantizers=2, groups=2)
        ),
        {"reset": NO_EXPIRY, "ranks": SYNC},
    ),
    Layer("vector-quantize-pytorch", "SimVQ", _vqp("SimVQ", DIM, CODES), {}),
    Layer("vector-quantize-pytorch", "FSQ", _vqp("FSQ", [8, 5, 5], dim=DIM), {}),
    Layer("vector-quantize-pytorch", "LFQ", _vqp("LFQ", dim=DIM, codebook_size=CODES), {}),
    Layer(
        "vector-quantize-pytorch",
        "LatentQuantize",
        _vqp("LatentQuantize", levels=[5, 5, 8], dim=DIM),
        {},
        _LATENT,
    ),
)

# --- audio codecs ---

OVERWRITTEN = (
    "quantization/core_vq.py: EuclideanCodebook.forward: expire_codes_ writes embed alone, and "
    "embed is then computed anew from embed_avg and cluster_size, which the reset did not touch"
)
SHRINK = (
    "quantization/core_vq.py: EuclideanCodebook.init_embed_: embed_avg starts at the k-means code, "
    "cluster_size at its hits n; embed = embed_avg / cluster_size is then about 1/n as long"
)
CODEC_KMEANS = "quantization/core_vq.py: EuclideanCodebook.forward: init_embed_ in every mode"


def _encodec() -> nn.Module:
    return (
        _named("encodec.quantization", "ResidualVectorQuantizer")(DIM, 1, CODES)
        .vq.layers[0]
        ._codebook
    )


def _speechtokenizer() -> nn.Module:
    return (
        _named("speechtokenizer.quantization", "ResidualVectorQuantizer")(DIM, 1, CODES)
        .vq.layers[0]
        ._codebook
    )


def _dac() -> nn.Module:
    return _named("dac.nn.quantize", "VectorQuantize")(DIM, CODES, NARROW)


def _snac() -> nn.Module:
    return _named("snac.vq", "VectorQuantize")(DIM, CODES, NARROW)


def _moshi() -> nn.Module:
    split = _named("moshi.quantization", "SplitResidualVectorQuantizer")
    whole = split(dimension=DIM, n_q=2, bins=CODES, input_dimension=DIM)
    return whole.rvq_first.vq


def _moshi_codes(q: nn.Module) -> Tensor:
    book = q.layers[0]._codebook  # its property would keep the quotient inside the layer
    return book.embedding_sum / book.cluster_usage.clamp(min=book.epsilon)[:, None]


def _moshi_settings(q: nn.Module) -> dict:
    book = q.layers[0]._codebook
    return {
        "codebook_size": book.codebook_size,
        "dim": book.dim,
        "decay": book.decay,
        "kmeans_init": True,
        "dead_code_threshold": book.threshold_usage_ratio,
        "reset_relative": True,
        "reset_interval": book.check_unused_every,
        "reset_refill": book.replaced_usage_ratio,
    }


def _moshi_call(q: nn.Module, z: Tensor) -> tuple:
    output = q(z.T[None])
    return output.quantized[0].T, output.codes, output.loss


_MOSHI = Adapter(
    indices=lambda q, output: output[1][0],
    codebook=_moshi_codes,
    counts=lambda q: q.layers[0]._codebook.cluster_usage,
    settings=_moshi_settings,
    call=_moshi_call,
    name="moshi ResidualVectorQuantization",
)

CODECS = (
    Layer(
        "encodec",
        "ResidualVectorQuantizer, level 1",
        _encodec,
        {
            "reset": OVERWRITTEN,
            "evaluation": CODEC_KMEANS,
            "start": SHRINK,
            "ranks": "quantization/core_vq.py: EuclideanCodebook.forward sums nothing over the "
            "processes; expire_codes_ broadcasts, but only if this process saw a dead code. (In "
            "DistributedDataParallel, broadcast_buffers then copies rank 0's codebook to all.)",
        },
    ),
    Layer(
        "speechtokenizer",
        "ResidualVectorQuantizer, level 1",
        _speechtokenizer,
        {
            "reset": OVERWRITTEN,
            "evaluation": CODEC_KMEANS,
            "start": SHRINK,
            "ranks": "quantization/core_vq.py: EuclideanCodebook: both calls of broadcast_tensors "
            "are commented out, and nothing is summed. (In DistributedDataParallel, "
            "broadcast_buffers then copies rank 0's codebook to all.)",
        },
    ),
    Layer("descript-audio-codec", "VectorQuantize", _dac, {}, dim=DIM),
    Layer("snac", "VectorQuantize", _snac, {}, dim=DIM),
    Layer(
        "moshi",
        "SplitResidualVectorQuantizer, level 1",
        _moshi,
        {
            "reset": "quantization/core_vq.py: EuclideanCodebook._replace_expired_codes sets sum "
            "and count together, to the uniform share",
            "evaluation": "quantization/core_vq.py: EuclideanCodebook.embedding keeps the quotient "
            "of sum and count as a buffer until the next training step",
            "ranks": "quantization/core_vq.py: ResidualVectorQuantization.forward averages sums "
            "and counts; _replace_expired_codes is followed by a broadcast",
        },
        _MOSHI,
    ),
)

# --- diveq ---


def _diveq(name: str) -> Callable[[], nn.Module]:
    return lambda: _named("diveq", name)(CODES, DIM, verbose=False)


def _diveq_adapter(call: Callable) -> Adapter:
    return Adapter(
        indices=lambda q, output: output[1],
        codebook=lambda q: q.codebook,
        settings=lambda q: {
            "codebook_size": q.num_embeddings,
            "dim": q.embedding_dim,
            "reset_interval": q.replacement_iters,
        },
        call=call,
        loss=lambda output: None,
        name="diveq DIVEQ",
    )


REPLACED = (
    "diveq.py: DIVEQ._replace_unused_entries, each replacement_iters = 100 passes: codes used in "
    "fewer than 1 % of them become copies of used ones, plus noise of perturb_eps = 1e-9"
)
APART = "diveq.py: DIVEQ._replace_unused_entries draws in each process for itself"
DIVEQ = (
    Layer(
        "diveq",
        "DIVEQ, inference() in evaluation",
        _diveq("DIVEQ"),
        {"reset": REPLACED, "ranks": APART},
        _diveq_adapter(lambda q, z: q(z) if q.training else q.inference(z)),
    ),
    Layer(
        "diveq",
        "DIVEQ, forward() in evaluation",
        _diveq("DIVEQ"),
        {
            "reset": REPLACED,
            "evaluation": "diveq.py: DIVEQ.forward counts and replaces without asking "
            "self.training; the README evaluates with inference()",
            "ranks": APART,
        },
        _diveq_adapter(lambda q, z: q(z)),
    ),
)

# --- transformers and diffusers ---


def _transformers(model: str, layer: str, config: str, **settings) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        place = f"transformers.models.{model}"
        chosen = _named(f"{place}.configuration_{model}", config)(**settings)
        return _named(f"{place}.modeling_{model}", layer)(chosen)

    return make


def _gumbel() -> nn.Module:
    sizes = {"codevector_dim": DIM, "num_codevectors_per_group": CODES}
    place = {"conv_dim": (DIM,), "conv_kernel": (3,), "conv_stride": (2,)}
    name = "Wav2Vec2GumbelVectorQuantizer"
    module = _transformers("wav2vec2", name, "Wav2Vec2Config", **sizes, **place)()
    nn.init.normal_(module.weight_proj.weight)  # as the whole model's _init_weights does
    nn.init.zeros_(module.weight_proj.bias)
    nn.init.uniform_(module.codevectors)
    return module


def _diffusers() -> nn.Module:
    return _named("diffusers.models.autoencoders.vae", "VectorQuantizer")(CODES, DIM, beta=0.25)


def _there_and_back(q: nn.Module, z: Tensor) -> tuple:
    """Of a codec that only encodes and decodes."""
    indices = q.encode(z.T[None])
    return q.decode(indices)[0].T, indices, None


def _emu3_call(q: nn.Module, z: Tensor) -> tuple:
    indices = q(z.T[None, None, :, :, None]).flatten()
    return q.embedding(indices), indices, None


def _ported(codebook: Callable[[nn.Module], Tensor]) -> Adapter:
    return Adapter(
        indices=lambda q, output: output[1].flatten(),
        codebook=lambda q: codebook(q.codebook),
        call=_there_and_back,
        name="transformers codec",
    )


def _mimi_codes(book: nn.Module) -> Tensor:
    return book.embed_sum / book.cluster_usage.clamp(min=book.epsilon)[:, None]


_EMU3 = Adapter(
    indices=lambda q, output: output[1],
    codebook=lambda q: q.embedding.weight,
    call=_emu3_call,
    name="Emu3VQVAEVectorQuantizer",
)
_CHAMELEON = {"num_embeddings": CODES, "embed_dim": DIM}
_CODEC = {"codebook_size": CODES, "codebook_dim": DIM}

MODELS = (
    Layer(
        "transformers",
        "EncodecVectorQuantization",
        _transformers("encodec", "EncodecVectorQuantization", "EncodecConfig", **_CODEC),
        {},
        _ported(lambda book: book.embed),
    ),
    Layer(
        "transformers",
        "MimiVectorQuantization",
        _transformers("mimi", "MimiVectorQuantization", "MimiConfig", **_CODEC),
        {
            "evaluation": "models/mimi/modeling_mimi.py: MimiEuclideanCodebook.embed keeps the "
            "quotient of sum and count once it was asked for; nothing updates either"
        },
        _ported(_mimi_codes),
    ),
    Layer(
        "transformers",
        "DacVectorQuantize",
        _transformers(
            "dac",
            "DacVectorQuantize",
            "DacConfig",
            encoder_hidden_size=DIM // 16,
            codebook_size=CODES,
            codebook_dim=NARROW,
        ),
        {},
    ),
    *(
        Layer(
            "transformers",
            f"{kind}VectorQuantizer",
            _transformers(model, f"{kind}VectorQuantizer", f"{kind}Config", **_CHAMELEON),
            {},
        )
        for model, kind in (
            ("chameleon", "ChameleonVQVAE"),
            ("janus", "JanusVQVAE"),
            ("glm_image", "GlmImageVQVAE"),
        )
    ),
    Layer(
        "transformers",
        "Emu3VQVAEVectorQuantizer",
        _transformers(
            "emu3",
            "Emu3VQVAEVectorQuantizer",
            "Emu3VQVAEConfig",
            codebook_size=CODES,
            embed_dim=DIM,
        ),
        {},
        _EMU3,
    ),
    Layer("transformers", "Wav2Vec2GumbelVectorQuantizer", _gumbel, {}),
    Layer("diffusers", "VectorQuantizer of VQModel", _diffusers, {}),
)

LAYERS = (*VECTOR_QUANTIZE, *CODECS, *DIVEQ, *MODELS)
READ = {
    "vector-quantize-pytorch": "1.32.0",
    "encodec": "0.1.1",
    "speechtokenizer": "1.0.1",
    "descript-audio-codec": "1.0.0",
    "snac": "1.2.1",
    "moshi": "0.2.13",
    "diveq": "0.1.3",
    "transformers": "5.24.0",
    "diffusers": "0.42.1",
}
"""{package: the version whose source was read}"""
