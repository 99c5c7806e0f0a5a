"""Layers of other packages that the audit is tried on, each with an adapter made by hand."""

from diffusers.models.autoencoders.vae import VectorQuantizer
from transformers.models.chameleon.configuration_chameleon import ChameleonVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAEVectorQuantizer
from vector_quantize_pytorch import FSQ, ResidualVQ, SimVQ, VectorQuantize

from vqlib.watching.adapters import Adapter

SIZE, DIM = 64, 16


def _vq_settings(vq):
    book = vq._codebook
    return {
        "codebook_size": vq.codebook_size,
        "dim": vq.dim,
        "decay": book.decay,
        "dead_code_threshold": float(book.threshold_ema_dead_code),
    }


def _flat(output):
    return output[0].reshape(-1, output[0].shape[-1]), *output[1:]


def _picture(module, z):
    """Channels first, one row of pixels; back to (N, D)."""
    output = module(z.T[None, :, None])
    return output[0][0, :, 0].T, *output[1:]


VQ = Adapter(
    indices=lambda vq, output: output[1],
    codebook=lambda vq: vq._codebook.embed[0],
    counts=lambda vq: vq._codebook.cluster_size[0],
    settings=_vq_settings,
    call=lambda vq, z: _flat(vq(z[None])),
    name="VectorQuantize",
)
RESIDUAL = Adapter(
    indices=lambda rvq, output: list(output[1].unbind(-1)),
    codebook=lambda rvq: [layer._codebook.embed[0] for layer in rvq.layers],
    counts=lambda rvq: [layer._codebook.cluster_size[0] for layer in rvq.layers],
    settings=lambda rvq: _vq_settings(rvq.layers[0]),
    call=lambda rvq, z: _flat(rvq(z[None])),
    name="ResidualVQ",
)
SIM = Adapter(
    indices=lambda vq, output: output[1],
    codebook=lambda vq: vq.codebook.detach(),
    call=lambda vq, z: _flat(vq(z[None])),
    name="SimVQ",
)
FINITE = Adapter(
    indices=lambda q, output: output[1],
    codebook=lambda q: None,
    call=lambda q, z: _flat(q(z[None])),
    loss=lambda output: None,
    name="FSQ",
)
DIFFUSERS = Adapter(
    indices=lambda vq, output: output[2][2],
    codebook=lambda vq: vq.embedding.weight,
    call=_picture,
    loss=lambda output: output[1],
    name="diffusers VectorQuantizer",
)
TRANSFORMERS = Adapter(
    indices=lambda vq, output: output[2],
    codebook=lambda vq: vq.embedding.weight,
    call=_picture,
    loss=lambda output: output[1],
    name="transformers ChameleonVQVAEVectorQuantizer",
)


def _chameleon():
    return ChameleonVQVAEVectorQuantizer(ChameleonVQVAEConfig(num_embeddings=SIZE, embed_dim=DIM))


PEERS = {
    "VectorQuantize": (lambda: VectorQuantize(DIM, SIZE), VQ),
    "VectorQuantize, expiry 2": (lambda: VectorQuantize(DIM, SIZE, threshold_ema_dead_code=2), VQ),
    "VectorQuantize, k-means, expiry 2": (
        lambda: VectorQuantize(DIM, SIZE, kmeans_init=True, threshold_ema_dead_code=2),
        VQ,
    ),
    "VectorQuantize, cosine, expiry 2": (
        lambda: VectorQuantize(DIM, SIZE, use_cosine_sim=True, threshold_ema_dead_code=2),
        VQ,
    ),
    "ResidualVQ, expiry 2": (
        lambda: ResidualVQ(
            dim=DIM, codebook_size=SIZE, num_quantizers=3, threshold_ema_dead_code=2
        ),
        RESIDUAL,
    ),
    "SimVQ": (lambda: SimVQ(DIM, SIZE), SIM),
    "FSQ": (lambda: FSQ(levels=[4, 4, 4], dim=DIM), FINITE),
    "diffusers": (lambda: VectorQuantizer(SIZE, DIM, beta=0.25, legacy=False), DIFFUSERS),
    "transformers": (_chameleon, TRANSFORMERS),
}
"""{name: (factory, adapter)}"""
