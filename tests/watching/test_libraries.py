"""The quantizers of the real packages are found by themselves, and their counts are right.

Models are configured small, with random weights; nothing is downloaded.
"""

from types import SimpleNamespace

import pytest
import torch
import vector_quantize_pytorch as vqp
from diffusers import VQModel
from torch import nn
from transformers import (
    DacConfig,
    DacModel,
    EncodecConfig,
    EncodecModel,
    MimiConfig,
    MimiModel,
    Wav2Vec2Config,
    Wav2Vec2ForPreTraining,
    XcodecConfig,
    XcodecModel,
)
from transformers.models.chameleon.configuration_chameleon import ChameleonVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE
from transformers.models.emu3.configuration_emu3 import Emu3VQVAEConfig
from transformers.models.emu3.modeling_emu3 import Emu3VQVAEVectorQuantizer
from transformers.models.glm_image.configuration_glm_image import GlmImageVQVAEConfig
from transformers.models.glm_image.modeling_glm_image import GlmImageVQVAEVectorQuantizer
from transformers.models.janus.configuration_janus import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE
from transformers.models.neucodec.modeling_neucodec import NeuCodecFiniteScalarQuantization
from transformers.models.unispeech.modeling_unispeech import UniSpeechGumbelVectorQuantizer
from transformers.models.unispeech_sat.modeling_unispeech_sat import (
    UniSpeechSatGumbelVectorQuantizer,
)
from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import (
    Wav2Vec2ConformerGumbelVectorQuantizer,
)
from transformers.models.wavlm.modeling_wavlm import WavLMGumbelVectorQuantizer
from transformers.models.xcodec2.modeling_xcodec2 import Xcodec2FiniteScalarQuantization

import vqlib
from tests.watching.watched_models import Autoencoder, Witness, train
from vqlib.quantization import usage

USAGE = list(usage.summarize(torch.ones(2)))


def compare(w, layer: str, witness: Witness, codebook_size: int) -> None:
    """The history of ``layer`` against the indices that ``witness`` collected."""
    history = w.histories[layer]
    for split, training in (("train", True), ("val", False)):
        counts = witness.counts(codebook_size, training)
        assert counts, "the witness saw nothing"
        counts = counts if training else [sum(counts)]
        rows = history.loc[history["split"] == split, USAGE].to_dict("records")
        assert rows == [usage.summarize(c) for c in counts]


def follow(model: nn.Module, run, witnesses: dict, codebook_size: int, loss=None):
    """Train ``model`` three steps and evaluate it twice by ``run``; compare all layers."""
    with vqlib.watch(model) as w:
        model.train()
        for _ in range(3):
            output = run(model)
            if loss is not None:
                model.zero_grad()
                loss(output).backward()
                with torch.no_grad():
                    for p in model.parameters():
                        p -= 1e-2 * (0 if p.grad is None else p.grad)
        model.eval()
        with torch.no_grad():
            run(model)
            run(model)
    assert w.layers == list(witnesses)
    for layer, witness in witnesses.items():
        compare(w, layer, witness, codebook_size)
    return w


# --- vector-quantize-pytorch ---

DEFAULT = {"dim": 16, "codebook_size": 32}
SINGLE = {
    "default": vqp.VectorQuantize(**DEFAULT),
    "cosine": vqp.VectorQuantize(**DEFAULT, use_cosine_sim=True, threshold_ema_dead_code=2),
    "kmeans": vqp.VectorQuantize(**DEFAULT, kmeans_init=True, codebook_dim=4),
    "learned": vqp.VectorQuantize(**DEFAULT, learnable_codebook=True, ema_update=False),
    "heads, one codebook": vqp.VectorQuantize(**DEFAULT, heads=2, codebook_dim=8),
    "SimVQ": vqp.SimVQ(**DEFAULT),
    "FSQ": vqp.FSQ(levels=[4, 4, 2], dim=16, preserve_symmetry=True),
    "LFQ": vqp.LFQ(codebook_size=32, dim=16),
}


@pytest.mark.parametrize("kind", SINGLE)
def test_vector_quantize_pytorch(kind):
    torch.manual_seed(0)
    model = Autoencoder(SINGLE[kind])
    witness = Witness(model.quantizer, lambda output: output[1])
    with vqlib.watch(model) as w:
        train(model, 4, val_every=4)
    assert w.layers == ["quantizer"]
    compare(w, "quantizer", witness, 32)
    assert w.history["encoder_similarity"].notna().all()
    assert w.settings["quantizer"]["codebook_size"] == 32


def test_a_codebook_for_each_head():
    quantizer = vqp.VectorQuantize(**DEFAULT, heads=2, separate_codebook_per_head=True)
    model = Autoencoder(quantizer)
    heads = [Witness(quantizer, lambda output, h=h: output[1][..., h]) for h in (0, 1)]
    with vqlib.watch(model) as w:
        train(model, 4, val_every=4)
    assert w.layers == ["quantizer[0]", "quantizer[1]"]
    for name, witness in zip(w.layers, heads, strict=True):
        compare(w, name, witness, 32)


def test_codebooks_of_a_lattice():
    model = Autoencoder(vqp.FSQ(levels=[4, 8], dim=16, num_codebooks=2))
    books = [Witness(model.quantizer, lambda output, i=i: output[1][..., i]) for i in (0, 1)]
    with vqlib.watch(model) as w:
        train(model, 3, val_every=3)
    assert w.layers == ["quantizer[0]", "quantizer[1]"]
    for name, witness in zip(w.layers, books, strict=True):
        compare(w, name, witness, 32)
    with pytest.raises(ValueError, match="return_indices"):
        vqlib.watch(vqp.FSQ(levels=[4, 8], return_indices=False))


RESIDUAL = {"num_quantizers": 3, **DEFAULT}
LEVELS = {
    "residual": (vqp.ResidualVQ(**RESIDUAL, threshold_ema_dead_code=2), "quantizer.layers."),
    "shared codebook": (vqp.ResidualVQ(**RESIDUAL, shared_codebook=True), "quantizer.layers."),
    "beam search": (vqp.ResidualVQ(**RESIDUAL, beam_size=2), "quantizer["),
    "SimVQ": (vqp.ResidualSimVQ(**RESIDUAL), "quantizer.layers."),
    "FSQ": (vqp.ResidualFSQ(dim=16, levels=[4, 8], num_quantizers=3), "quantizer.layers."),
}


@pytest.mark.parametrize("kind", LEVELS)
def test_each_residual_level_is_counted_once(kind):
    torch.manual_seed(0)
    quantizer, prefix = LEVELS[kind]
    model = Autoencoder(quantizer)
    levels = [Witness(quantizer, lambda output, i=i: output[1][..., i]) for i in range(3)]
    with vqlib.watch(model) as w:
        train(model, 4, val_every=4)
    assert w.layers == [prefix + (f"{i}]" if prefix[-1] == "[" else str(i)) for i in range(3)]
    for name, witness in zip(w.layers, levels, strict=True):
        compare(w, name, witness, 32)


def test_groups_of_residual_levels():
    quantizer = vqp.GroupedResidualVQ(groups=2, **(RESIDUAL | {"num_quantizers": 2}))
    model = Autoencoder(quantizer)
    with vqlib.watch(model) as w:
        witnesses = [
            Witness(quantizer, lambda output, g=g, i=i: output[1][g][..., i])
            for g in (0, 1)
            for i in (0, 1)
        ]
        train(model, 3, val_every=3)
    assert w.layers == [f"quantizer.rvqs.{g}.layers.{i}" for g in (0, 1) for i in (0, 1)]
    for name, witness in zip(w.layers, witnesses, strict=True):
        compare(w, name, witness, 32)


def test_levels_that_drop_out():
    torch.manual_seed(0)
    model = Autoencoder(vqp.ResidualVQ(**RESIDUAL, quantize_dropout=True))
    last = Witness(model.quantizer.layers[2], lambda output: output[1])
    with vqlib.watch(model) as w:
        train(model, 12)
    steps = [len(w.histories[name]) for name in w.layers]
    assert steps[0] == 12 > steps[2] == len(last.calls) > 0


def test_pictures_with_their_channels_first():
    quantizer = vqp.VectorQuantize(**DEFAULT, accept_image_fmap=True)
    witness = Witness(quantizer, lambda output: output[1])
    # 16 channels of 16 x 16: only the layer's own word tells them apart. A large offset for
    # each channel makes the tokens, and only them, look alike
    pictures = 10 * torch.randn(16, 1, 1) + 0.1 * torch.randn(2, 16, 16, 16)
    w = follow(quantizer, lambda m: m(pictures), {"VectorQuantize": witness}, 32)
    assert w.history["encoder_similarity"].min() > 0.99


# --- diffusers ---


def test_diffusers():
    model = VQModel(
        block_out_channels=(8,),
        norm_num_groups=4,
        latent_channels=4,
        num_vq_embeddings=16,
        vq_embed_dim=4,
        sample_size=8,
    )
    witness = Witness(model.quantize, lambda output: output[2][2])
    run = lambda m: m(torch.randn(2, 3, 8, 8))  # noqa: E731
    loss = lambda out: out.sample.square().mean() + out.commit_loss.mean()  # noqa: E731
    w = follow(model, run, {"quantize": witness}, 16, loss)
    assert w.history[["encoder_similarity", "cosine_error", "commit_loss"]].notna().all(axis=None)


# --- transformers: pictures ---

SMALL = {
    "embed_dim": 8,
    "num_embeddings": 16,
    "latent_channels": 8,
    "base_channels": 32,
    "channel_multiplier": [1, 1],
    "num_res_blocks": 1,
}
PICTURES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "build",
    [
        lambda: ChameleonVQVAE(ChameleonVQVAEConfig(**SMALL, resolution=16)),
        lambda: JanusVQVAE(JanusVQVAEConfig(**SMALL, num_patches=8)),
    ],
    ids=["chameleon", "janus"],
)
def test_transformers_vqvae(build):
    model = build()
    witness = Witness(model.quantize, lambda output: output[2])
    run = lambda m: m.quantize(m.quant_conv(m.encoder(PICTURES)))  # noqa: E731
    w = follow(model, run, {"quantize": witness}, 16, loss=lambda output: output[1])
    assert w.history[["encoder_similarity", "cosine_error", "commit_loss"]].notna().all(axis=None)


@pytest.mark.parametrize(
    "layer, shape, indices, loss",
    [
        (
            GlmImageVQVAEVectorQuantizer(GlmImageVQVAEConfig(embed_dim=8, num_embeddings=16)),
            (2, 8, 4, 4),
            lambda output: output[2],
            lambda output: output[1],
        ),
        (
            Emu3VQVAEVectorQuantizer(Emu3VQVAEConfig(codebook_size=16, embed_dim=4)),
            (2, 2, 4, 3, 3),
            lambda output: output,
            None,
        ),
    ],
    ids=["glm_image", "emu3"],
)
def test_transformers_quantizer_layers(layer, shape, indices, loss):
    witness = Witness(layer, indices)
    name = type(layer).__name__
    w = follow(layer, lambda m: m(torch.randn(shape)), {name: witness}, 16, loss)
    assert w.history["encoder_similarity"].notna().all()


# --- transformers: audio ---

AUDIO = torch.randn(2, 1, 64, generator=torch.Generator().manual_seed(0))
DAC = {
    "encoder_hidden_size": 8,
    "downsampling_ratios": [2, 2],
    "decoder_hidden_size": 16,
    "upsampling_ratios": [2, 2],
    "n_codebooks": 2,
    "codebook_size": 16,
    "codebook_dim": 4,
    "hidden_size": 8,
}
MIMI = MimiConfig(
    hidden_size=16,
    num_filters=4,
    codebook_size=16,
    codebook_dim=8,
    vector_quantization_hidden_dimension=8,
    upsampling_ratios=[2, 2],
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=8,
    intermediate_size=16,
    num_quantizers=3,
    num_semantic_quantizers=1,
    upsample_groups=16,
    frame_rate=3000.0,
)
SPEECH = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": (8, 8),
    "conv_stride": (2, 2),
    "conv_kernel": (3, 3),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "layerdrop": 0.0,
}


def filled(model: nn.Module) -> nn.Module:
    """Codebooks of codecs are buffers of zeros, filled only from a checkpoint."""
    for buffer in model.buffers():
        if buffer.dim() == 2 and buffer.is_floating_point():
            generator = torch.Generator().manual_seed(buffer.numel())
            buffer.normal_(std=0.1, generator=generator)
    return model


def test_transformers_dac():
    model = DacModel(DacConfig(**DAC))
    witnesses = {
        f"quantizer.quantizers.{i}": Witness(
            model.quantizer.quantizers[i], lambda output: output[3]
        )
        for i in (0, 1)
    }
    follow(model, lambda m: m(AUDIO), witnesses, 16, loss=lambda output: output.loss.sum())


@pytest.mark.parametrize(
    "build, levels, axis",
    [
        (
            lambda: EncodecModel(
                EncodecConfig(
                    num_filters=4,
                    hidden_size=8,
                    codebook_size=16,
                    codebook_dim=8,
                    upsampling_ratios=[2, 2],
                    num_lstm_layers=1,
                    target_bandwidths=[50.0],
                )
            ),
            2,
            2,
        ),
        (lambda: MimiModel(MIMI), 3, 1),
        (
            lambda: XcodecModel(
                XcodecConfig(
                    codebook_size=16,
                    codebook_dim=16,
                    target_bandwidths=[40],
                    acoustic_model_config=DAC,
                    semantic_model_config={"model_type": "hubert", **SPEECH},
                )
            ),
            2,
            1,
        ),
    ],
    ids=["encodec", "mimi", "xcodec"],
)
def test_transformers_codecs_as_whole_models(build, levels, axis):
    model = filled(build())
    name = type(model).__name__
    witnesses = {
        f"{name}[{i}]": Witness(model, lambda output, i=i: output.audio_codes.select(axis, i))
        for i in range(levels)
    }
    before = {k: v.clone() for k, v in model.state_dict().items()}
    w = follow(model, lambda m: m(AUDIO.repeat(1, 1, 4)), witnesses, 16)
    assert w.history["used_codes"].max() > 1
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_a_codec_at_less_than_its_full_bandwidth():
    model = filled(MimiModel(MIMI))
    with pytest.warns(UserWarning, match=r"layers MimiModel\[2\], while"), vqlib.watch(model) as w:
        model.train()(AUDIO, num_quantizers=2)
    assert [len(table) for table in w.histories.values()] == [1, 1, 0]


GUMBEL = [
    Wav2Vec2ConformerGumbelVectorQuantizer,
    WavLMGumbelVectorQuantizer,
    UniSpeechGumbelVectorQuantizer,
    UniSpeechSatGumbelVectorQuantizer,
]


class DrawsNoted:
    """The one-hot draws of gumbel_softmax, and the argmax of evaluation, as indices."""

    def __init__(self, quantizer, monkeypatch):
        self.calls, original = [], nn.functional.gumbel_softmax
        groups = quantizer.num_groups

        def softmax(*args, **more):
            drawn = original(*args, **more)
            self.calls.append((True, drawn.argmax(-1).view(-1, groups)))
            return drawn

        monkeypatch.setattr(nn.functional, "gumbel_softmax", softmax)

        def see(module, args, logits):
            if not quantizer.training:
                chosen = logits.view(-1, groups, quantizer.num_vars).argmax(-1)
                self.calls.append((False, chosen))

        quantizer.weight_proj.register_forward_hook(see)

    def group(self, g: int) -> Witness:
        witness = object.__new__(Witness)
        witness.calls = [(mode, drawn[:, g]) for mode, drawn in self.calls]
        return witness


def check_gumbel(model, quantizer, run, name, monkeypatch):
    noted = DrawsNoted(quantizer, monkeypatch)
    with vqlib.watch(model) as w:
        model.train()
        run(), run()
        model.eval()
        with torch.no_grad():
            run()
    assert w.layers == [f"{name}[0]", f"{name}[1]"]
    for g in (0, 1):
        compare(w, f"{name}[{g}]", noted.group(g), 12)


CODEVECTORS = {
    "num_codevectors_per_group": 12,
    "num_codevector_groups": 2,
    "codevector_dim": 8,
    "proj_codevector_dim": 8,
}


def test_transformers_wav2vec2(monkeypatch):
    model = Wav2Vec2ForPreTraining(Wav2Vec2Config(**SPEECH, **CODEVECTORS, vocab_size=4))
    run = lambda: model(torch.randn(2, 200))  # noqa: E731
    check_gumbel(model, model.quantizer, run, "quantizer", monkeypatch)


@pytest.mark.parametrize("kind", GUMBEL)
def test_transformers_gumbel_layers(kind, monkeypatch):
    layer = kind(SimpleNamespace(**CODEVECTORS, conv_dim=(8, 8), hidden_size=8))
    nn.init.uniform_(layer.codevectors)
    run = lambda: layer(torch.randn(2, 30, 8))  # noqa: E731
    check_gumbel(layer, layer, run, kind.__name__, monkeypatch)


@pytest.mark.parametrize(
    "kind", [Xcodec2FiniteScalarQuantization, NeuCodecFiniteScalarQuantization]
)
def test_transformers_finite_scalars(kind):
    layer = kind(SimpleNamespace(quantization_levels=[4, 4, 3]))
    witness = Witness(layer, lambda output: output[1])
    # as many tokens as dimensions; along the right one, they are all alike
    tokens = torch.tensor([[3.0, 0, 0], [3, 0, 0], [3, 0, 0]]) + 0.01 * torch.randn(2, 3, 3)
    w = follow(layer, lambda m: m(tokens), {kind.__name__: witness}, 48)
    assert w.history["encoder_similarity"].min() > 0.99


# --- NormEMA and its like, as they are copied from repository to repository ---


class NormEMALike(nn.Module):
    """Unit rows under ``embedding``, ``cluster_size``, and outputs in the order asked for."""

    def __init__(self, order):
        super().__init__()
        self.embedding = nn.Embedding(32, 16)
        self.embedding.weight.requires_grad_(False)
        self.register_buffer("cluster_size", torch.zeros(32))
        self.decay, self.order = 0.9, order

    def forward(self, z):
        weight = nn.functional.normalize(self.embedding.weight, dim=-1)
        unit = nn.functional.normalize(z, dim=-1)
        indices = (unit @ weight.T).argmax(-1)
        if self.training:
            bins = torch.bincount(indices.reshape(-1), minlength=32).float()
            self.cluster_size.lerp_(bins, 0.1)
        quantized = unit + (weight[indices] - unit).detach()
        loss = (weight[indices] - unit).square().mean()
        found = {
            "z": quantized,
            "loss": loss,
            "i": indices,
            "flat": indices.reshape(-1, 1),
            "extra": (None, nn.functional.one_hot(indices, 32), indices),
        }
        return tuple(found[name] for name in self.order)


class NormEMAVectorQuantizer(NormEMALike):
    pass


@pytest.mark.parametrize(
    "order", [("z", "loss", "i"), ("z", "i", "loss"), ("z", "flat", "loss"), ("z", "loss", "extra")]
)
def test_norm_ema_in_whatever_order(order):
    torch.manual_seed(0)
    model = Autoencoder(NormEMAVectorQuantizer(order))
    place = next(i for i, name in enumerate(order) if name in ("i", "flat", "extra"))
    nested = order[place] == "extra"
    witness = Witness(model.quantizer, lambda o: o[place][2] if nested else o[place])
    with vqlib.watch(model) as w:
        train(model, 4, val_every=4)
    compare(w, "quantizer", witness, 32)
    columns = ["encoder_similarity", "cosine_error", "commit_loss"]
    assert w.history[columns].notna().all(axis=None)
    assert w.history["resets"].iloc[:4].tolist() == [0] * 4
    assert w.settings["quantizer"]["decay"] == 0.9


def test_levels_that_most_steps_drop_can_be_diagnosed():
    torch.manual_seed(0)
    model = vqp.ResidualVQ(**DEFAULT, num_quantizers=6, quantize_dropout=True, beam_size=2)
    with vqlib.watch(model.train()) as w:
        for _ in range(12):
            model(torch.randn(2, 20, 16))
    assert all(s["tokens_per_step"] == 40 for s in w.settings.values())
    assert vqlib.diagnose(w)["codebook-collapse"].severity != "unknown"
