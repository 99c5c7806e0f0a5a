"""Pictures side by side: what goes in, which codes it becomes, what comes out."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vqlib.playground import drawing


def sample(split, count: int = 8) -> Tensor:
    """Up to ``count`` pictures (n, C, H, W) of a split of a data set, evenly chosen."""
    count = min(count, len(split))
    return split.batch(range(0, len(split), len(split) // count)[:count])


def code_colors(codebook: Tensor) -> np.ndarray:
    """An RGB colour (K, 3) for each code; similar codes get similar colours (3-D PCA)."""
    x = codebook - codebook.mean(dim=0)
    _, _, v = torch.linalg.svd(x, full_matrices=False)
    y = x @ v[:3].T
    rank = y.argsort(dim=0).argsort(dim=0).float() / max(1, len(y) - 1)
    return (0.08 + 0.87 * rank).numpy()


def token_maps(pictures: Tensor, maps: Mapping[str, Tensor], codebooks: Mapping) -> Figure:
    """Pictures, and beneath each its tokens coloured by code.

    ``pictures``: (n, C, H, W). ``maps``: {name: (n, h, w) codes}. ``codebooks``: {name: (K, D)}.
    """
    rows, notes = {"picture": _images(pictures)}, {}
    for name, indices in maps.items():
        colors = code_colors(codebooks[name])
        rows[name] = [colors[i.numpy()] for i in indices]
        notes[name] = [f"{len(i.unique())} codes" for i in indices]
    return _gallery(rows, notes)


def gallery(pictures: Tensor) -> Figure:
    """Pictures (n, C, H, W) in a row."""
    return _gallery({"": _images(pictures)}, {})


def reconstructions(pictures: Tensor, rows: Mapping[str, Tensor]) -> Figure:
    """Pictures (n, C, H, W) above their reconstructions, one row an arm, with the error of each."""
    images = {name: _images(pixels) for name, pixels in {"picture": pictures, **rows}.items()}
    errors = {name: ((p - pictures) ** 2).mean(dim=(1, 2, 3)) for name, p in rows.items()}
    return _gallery(images, {n: [f"MSE {e:.4f}" for e in of] for n, of in errors.items()})


def _images(pictures: Tensor) -> list[np.ndarray]:
    pixels = pictures.detach().clamp(0, 1).movedim(1, -1)
    return list(pixels.expand(*pixels.shape[:-1], 3).numpy())


def _gallery(rows: dict[str, list[np.ndarray]], notes: dict[str, list[str]]) -> Figure:
    columns = len(next(iter(rows.values())))
    figure = plt.figure(figsize=(1.45 * columns + 0.8, 1.62 * len(rows)))
    drawing.gallery(figure, rows, notes)
    return figure
