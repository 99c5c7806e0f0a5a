"""Pictures side by side: what goes in, which codes it becomes, what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor


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
    rows = {"picture": [_image(p) for p in pictures]}
    for name, indices in maps.items():
        colors = code_colors(codebooks[name])
        rows[name] = [colors[i.numpy()] for i in indices]
    figure, axes = _gallery(rows)
    for r, indices in enumerate(maps.values()):
        for ax, picture in zip(axes[r + 1], indices, strict=True):
            ax.set_xlabel(f"{len(picture.unique())} codes", fontsize=9)
    return figure


def gallery(pictures: Tensor) -> Figure:
    """Pictures (n, C, H, W) in a row."""
    return _gallery({"": [_image(p) for p in pictures]})[0]


def reconstructions(pictures: Tensor, rows: Mapping[str, Tensor]) -> Figure:
    """Pictures (n, C, H, W) above their reconstructions, one row an arm, with the error of each."""
    figure, axes = _gallery(
        {"picture": [_image(p) for p in pictures]}
        | {name: [_image(p) for p in value] for name, value in rows.items()}
    )
    for r, value in enumerate(rows.values()):
        for c, error in enumerate(((value - pictures) ** 2).mean(dim=(1, 2, 3)).tolist()):
            axes[r + 1, c].set_xlabel(f"MSE {error:.4f}", fontsize=9)
    return figure


def _image(picture: Tensor) -> np.ndarray:
    image = picture.detach().clamp(0, 1).movedim(0, -1).numpy()
    return image.repeat(3, axis=-1) if image.shape[-1] == 1 else image


def _gallery(rows: Mapping[str, Sequence[np.ndarray]]) -> tuple[Figure, np.ndarray]:
    columns = len(next(iter(rows.values())))
    figure, axes = plt.subplots(
        len(rows), columns, squeeze=False, figsize=(1.45 * columns + 0.8, 1.62 * len(rows))
    )
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for ax, image in zip(line, images, strict=True):
            ax.imshow(image, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        line[0].set_ylabel(name, fontweight="bold")
    return figure, axes
