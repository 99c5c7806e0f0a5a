"""A task on the codes alone: does a codebook still tell pictures apart?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vqlib.training.data import Pictures
from vqlib.training.model import VQVAE, tokenize


def bags_of_codes(model: VQVAE, pictures, every: int = 1) -> np.ndarray:
    """(n, K): share of each code among a picture's tokens, for every ``every``-th picture."""
    bags = []
    for rows in torch.arange(0, len(pictures), every).split(64):
        codes = tokenize(model, pictures.batch(rows)).flatten(1)
        counts = torch.zeros(len(rows), model.quantizer.codebook_size)
        counts.scatter_add_(1, codes, torch.ones_like(codes, dtype=torch.float32))
        bags.append(counts / codes.shape[1])
    return torch.cat(bags).numpy()


def bag_of_codes_accuracy(
    model: VQVAE, pictures: Pictures, labels: Mapping[str, Sequence[str]], *, every: int = 10
) -> float:
    """Accuracy on validation of a linear classifier that sees only how often codes occur.

    ``labels``: {"train": ..., "val": ...}, a name per picture. Trains on every ``every``-th
    training picture, because neighbours overlap.
    """
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, C=0.1))
    classifier.fit(bags_of_codes(model, pictures.train, every), labels["train"][::every])
    return float(classifier.score(bags_of_codes(model, pictures.val), labels["val"]))
