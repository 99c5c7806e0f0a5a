"""The small convolutional VQ-VAE that the notebooks train: encoder, quantizer, decoder."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqlib.quantization import variants
from vqlib.quantization.quantizer import NormEMAQuantizer
from vqlib.training.config import TrainConfig

STRIDE = 4  # pixels a token is wide and high


class Output(NamedTuple):
    """What the model returns for pictures of shape (B, C, H, W)."""

    reconstruction: Tensor  #: (B, C, H, W)
    indices: Tensor  #: (B, H/4, W/4) int64
    encoded: Tensor  #: (B, H/4, W/4, dim), encoder outputs before normalisation
    quantized: Tensor  #: (B, H/4, W/4, dim)
    recon_loss: Tensor  #: scalar, mean squared error
    commit_loss: Tensor  #: scalar, the quantizer's loss (beta is in it)


class VQVAE(nn.Module):
    """A VQ-VAE of stride 4 (van den Oord et al. 2017, arXiv:1711.00937).

    No normalisation layers: in evaluation and training the encoder is one function.

    Args:
        quantizer: a module with an attribute ``dim`` that maps (..., dim) to (quantized,
            indices, loss).
        channels: of the pictures. width: channels of the inner layers.

    Raises:
        ValueError: from ``forward``, pictures of another shape than (B, channels, H, W)
            with H and W multiples of 4.
    """

    def __init__(self, quantizer: NormEMAQuantizer, channels: int = 3, width: int = 32):
        super().__init__()
        half = width // 2
        self.channels = channels
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, half, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(half, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, quantizer.dim, 1),
        )
        self.quantizer = quantizer
        self.decoder = nn.Sequential(
            nn.Conv2d(quantizer.dim, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, half, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(half, channels, 4, stride=2, padding=1),
        )

    def encode(self, pictures: Tensor) -> Tensor:
        """Encoder outputs (B, H/4, W/4, dim) of ``pictures`` (B, C, H, W) in [0, 1]."""
        b_c_h_w = tuple(pictures.shape)
        if len(b_c_h_w) != 4 or b_c_h_w[1] != self.channels or any(s % STRIDE for s in b_c_h_w[2:]):
            raise ValueError(
                f"pictures must have shape (B, {self.channels}, H, W) with H and W multiples "
                f"of {STRIDE}, got {b_c_h_w}"
            )
        return self.encoder(2 * pictures - 1).movedim(1, -1)

    def decode(self, quantized: Tensor) -> Tensor:
        """Pictures (B, C, H, W) of code vectors (B, H/4, W/4, dim)."""
        return self.decoder(quantized.movedim(-1, 1)) / 2 + 0.5

    def forward(self, pictures: Tensor) -> Output:
        encoded = self.encode(pictures)
        quantized, indices, commit_loss = self.quantizer(encoded)
        reconstruction = self.decode(quantized)
        recon_loss = F.mse_loss(reconstruction, pictures)
        return Output(reconstruction, indices, encoded, quantized, recon_loss, commit_loss)


@torch.no_grad()
def tokenize(model: VQVAE, pictures: Tensor) -> Tensor:
    """Codes (B, H/4, W/4), on the CPU, of ``pictures``; every module's mode is left as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        _, indices, _ = model.quantizer(model.encode(pictures.to(next(model.parameters()).device)))
        return indices.cpu()
    finally:
        for module, training in modes.items():
            module.training = training


def build_model(config: TrainConfig, channels: int = 3) -> VQVAE:
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
        model = VQVAE(quantizer, channels, config.width)
    # as in training, so that a loaded model computes the very same bits
    return model.to(memory_format=torch.channels_last)
