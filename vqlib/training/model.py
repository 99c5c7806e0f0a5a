"""The small convolutional VQ-VAE that the notebooks train: encoder, quantizer, decoder.

Of pictures (B, C, H, W) the layers are two-dimensional, of signals (B, C, T) one-dimensional; the
design is the same. ``*grid`` stands for H/4, W/4 or for T/4.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqlib.quantization import variants
from vqlib.quantization.quantizer import NormEMAQuantizer
from vqlib.training.config import STRIDE, TrainConfig


class Output(NamedTuple):
    """What the model returns for pictures of shape (B, C, H, W) or signals of shape (B, C, T)."""

    reconstruction: Tensor  #: (B, C, H, W) or (B, C, T)
    indices: Tensor  #: (B, *grid) int64
    encoded: Tensor  #: (B, *grid, dim), encoder outputs before normalisation
    quantized: Tensor  #: (B, *grid, dim)
    recon_loss: Tensor  #: scalar, mean squared error
    commit_loss: Tensor  #: scalar, the quantizer's loss (beta is in it)


_LAYERS = {1: (nn.Conv1d, nn.ConvTranspose1d), 2: (nn.Conv2d, nn.ConvTranspose2d)}
_NAMES = {1: ("signals", "T", "T a multiple"), 2: ("pictures", "H, W", "H and W multiples")}


class VQVAE(nn.Module):
    """A VQ-VAE of stride 4 (van den Oord et al. 2017, arXiv:1711.00937).

    No normalisation layers: in evaluation and training the encoder is one function.

    Args:
        quantizer: a module with an attribute ``dim`` that maps (..., dim) to (quantized,
            indices, loss).
        channels: of the pictures or signals. width: channels of the inner layers.
        dims: 2 for pictures, whose pixels lie in [0, 1]; 1 for signals, which are standardised.

    Raises:
        ValueError: from ``forward``, pictures of another shape than (B, channels, H, W)
            with H and W multiples of 4, or signals of another than (B, channels, T).
    """

    def __init__(
        self, quantizer: NormEMAQuantizer, channels: int = 3, width: int = 32, dims: int = 2
    ):
        super().__init__()
        half = width // 2
        self.channels, self.dims = channels, dims
        conv, transposed = _LAYERS[dims]
        self.encoder = nn.Sequential(
            conv(channels, half, 4, stride=2, padding=1),
            nn.ReLU(),
            conv(half, width, 4, stride=2, padding=1),
            nn.ReLU(),
            conv(width, width, 3, padding=1),
            nn.ReLU(),
            conv(width, quantizer.dim, 1),
        )
        self.quantizer = quantizer
        self.decoder = nn.Sequential(
            conv(quantizer.dim, width, 3, padding=1),
            nn.ReLU(),
            conv(width, width, 3, padding=1),
            nn.ReLU(),
            transposed(width, half, 4, stride=2, padding=1),
            nn.ReLU(),
            transposed(half, channels, 4, stride=2, padding=1),
        )
        if dims == 1:  # of the training signals, in their own unit
            self.register_buffer("mean", torch.zeros(channels, 1, dtype=torch.float64))
            self.register_buffer("scale", torch.ones(channels, 1, dtype=torch.float64))

    def standardise(self, signals: Tensor) -> Tensor:
        """Signals (B, C, T) in their own unit, as the model takes them: float32, standardised."""
        return ((signals.double() - self.mean) / self.scale).float()

    def encode(self, pictures: Tensor) -> Tensor:
        """Encoder outputs (B, *grid, dim) of ``pictures`` in [0, 1], or of standardised signals."""
        shape = tuple(pictures.shape)
        wrong_axes = len(shape) != 2 + self.dims or shape[1] != self.channels
        if wrong_axes or any(side % STRIDE for side in shape[2:]):
            noun, axes, sides = _NAMES[self.dims]
            raise ValueError(
                f"{noun} must have shape (B, {self.channels}, {axes}) with {sides} of {STRIDE}, "
                f"got {shape}"
            )
        centred = 2 * pictures - 1 if self.dims == 2 else pictures
        return self.encoder(centred).movedim(1, -1)

    def decode(self, quantized: Tensor) -> Tensor:
        """Pictures (B, C, H, W), or signals (B, C, T), of code vectors (B, *grid, dim)."""
        decoded = self.decoder(quantized.movedim(-1, 1))
        return decoded / 2 + 0.5 if self.dims == 2 else decoded

    def forward(self, pictures: Tensor) -> Output:
        encoded = self.encode(pictures)
        quantized, indices, commit_loss = self.quantizer(encoded)
        reconstruction = self.decode(quantized)
        recon_loss = F.mse_loss(reconstruction, pictures)
        return Output(reconstruction, indices, encoded, quantized, recon_loss, commit_loss)


@torch.no_grad()
def tokenize(model: VQVAE, pictures: Tensor) -> Tensor:
    """Codes (B, *grid), on the CPU, of ``pictures``; every module's mode is left as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        _, indices, _ = model.quantizer(model.encode(pictures.to(next(model.parameters()).device)))
        return indices.cpu()
    finally:
        for module, training in modes.items():
            module.training = training


def build_model(config: TrainConfig, channels: int = 3, dims: int = 2) -> VQVAE:
    """The model of a run, on the CPU; its weights depend on ``config.seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        quantizer = variants.named(config.variant)(
            config.codebook_size,
            config.dim,
            config.decay,
            config.beta,
            config.kmeans_init,
            config.reset(),
            seed=config.seed,
        )
        model = VQVAE(quantizer, channels, config.width, dims)
    # as in training, so that a loaded model computes the very same bits
    return model.to(memory_format=torch.channels_last)
