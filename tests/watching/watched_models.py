"""What the tests of watching share: a small autoencoder and a loop that trains it."""

import torch
from torch import nn

torch.set_num_threads(1)


class Autoencoder(nn.Module):
    """(B, N, 8) -> encoder -> any quantizer -> decoder."""

    def __init__(self, quantizer: nn.Module, dim: int = 16):
        super().__init__()
        self.encoder = nn.Linear(8, dim)
        self.quantizer = quantizer
        self.decoder = nn.Linear(dim, 8)

    def forward(self, x, **more):
        output = self.quantizer(self.encoder(x), **more)
        return self.decoder(output[0]), output


def batch(step: int, size: int = 4, tokens: int = 10) -> torch.Tensor:
    return torch.randn(size, tokens, 8, generator=torch.Generator().manual_seed(step))


def train(model, steps: int = 5, val_every: int = 0, **more) -> list[float]:
    """Losses of ``steps`` steps; every ``val_every`` steps two batches in evaluation mode."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for step in range(1, steps + 1):
        model.train()
        x = batch(step)
        decoded, output = model(x, **more)
        loss = (decoded - x).square().mean()
        for part in output[1:]:
            if isinstance(part, torch.Tensor) and part.is_floating_point():
                loss = loss + part.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if val_every and step % val_every == 0:
            model.eval()
            with torch.no_grad():
                model(batch(1000), **more)
                model(batch(1001), **more)
    return losses


class Witness:
    """Collects by itself the indices that a module returns: [(training, (N,) int64), ...]."""

    def __init__(self, module: nn.Module, indices):
        self.calls = []

        def see(module, args, output):
            self.calls.append((module.training, indices(output).detach().reshape(-1).long()))

        module.register_forward_hook(see)

    def counts(self, codebook_size: int, training: bool) -> list[torch.Tensor]:
        """(K,) hits of each call of that mode; masked tokens, -1, left out."""
        return [
            torch.bincount(i[i >= 0], minlength=codebook_size)
            for mode, i in self.calls
            if mode == training
        ]
