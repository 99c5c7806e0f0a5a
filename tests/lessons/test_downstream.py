"""The task on the codes."""

import numpy as np
import torch

from vqlib.lessons.downstream import bag_of_codes_accuracy, bags_of_codes
from vqlib.training.arrays import ArrayPictures
from vqlib.training.config import TrainConfig
from vqlib.training.data import Pictures
from vqlib.training.model import build_model


def two_kinds(n):
    """Dark and bright noise in turn, (n, 1, 8, 8) uint8."""
    noise = np.random.default_rng(0).integers(0, 60, (n, 1, 8, 8))
    return (noise + 190 * (np.arange(n) % 2)[:, None, None, None]).astype(np.uint8)


def model_and_pictures():
    config = TrainConfig(codebook_size=16, dim=4, width=8, dead_code_threshold=0.0)
    pictures = Pictures(
        "two", ArrayPictures(two_kinds(80)), ArrayPictures(two_kinds(40)), 1, (8, 8), ""
    )
    model = build_model(config, channels=1).train()
    with torch.no_grad():
        model(pictures.train.batch(range(80)))  # k-means
    return model, pictures


def test_a_bag_holds_the_shares_of_a_pictures_codes():
    model, pictures = model_and_pictures()
    bags = bags_of_codes(model, pictures.val, every=2)
    assert bags.shape == (20, 16)
    np.testing.assert_allclose(bags.sum(axis=1), 1, rtol=1e-6)
    codes = model.eval().quantizer(model.encode(pictures.val.batch([2]))).indices.flatten()
    np.testing.assert_allclose(bags[1], np.bincount(codes, minlength=16) / 4)


def test_codes_that_tell_kinds_apart_score_and_shuffled_labels_do_not():
    model, pictures = model_and_pictures()
    kinds = {"train": list("ab") * 40, "val": list("ab") * 20}
    assert bag_of_codes_accuracy(model, pictures, kinds, every=1) > 0.9
    mixed = {"train": ["a", "a", "b", "b"] * 20, "val": ["a", "a", "b", "b"] * 10}
    assert bag_of_codes_accuracy(model, pictures, mixed, every=1) < 0.8
