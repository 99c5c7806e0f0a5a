"""What bounds flat use: equal receptive fields, and codes fitted to tokens that hold still."""

import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from vqlib.lessons import flatness
from vqlib.quantization import usage
from vqlib.quantization.search import nearest
from vqlib.training.config import TrainConfig
from vqlib.training.model import build_model

CODES = 32


@pytest.fixture(scope="module")
def tokens():
    """Unit vectors of which half lie in one narrow cone."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 8, generator=generator)
    x[::2] = 0.1 * x[::2] + torch.tensor([5.0] + [0.0] * 7)
    return F.normalize(x, dim=-1)


@pytest.fixture(scope="module")
def codebook(tokens):
    return tokens[1 : 2 * CODES : 2].clone()


def top_code_ratio(x, codebook, bias=None):
    return usage.top_code_ratio(torch.bincount(nearest(x, codebook, bias), minlength=CODES))


def test_the_receptive_field_is_the_encoders():
    encoder = build_model(TrainConfig(dim=8, width=8, codebook_size=8)).encoder
    picture = torch.randn(1, 3, 56, 56, requires_grad=True)
    encoder(picture)[0, :, 5, 6].sum().backward()
    rows, columns = picture.grad.abs().sum(dim=(0, 1)).nonzero().T
    first = torch.tensor([5, 6]) * flatness.STRIDE - flatness.BEFORE
    assert [rows.min(), columns.min()] == first.tolist()
    assert [rows.max(), columns.max()] == (first + flatness.FIELD - 1).tolist()


def test_tokens_that_see_the_same_are_one_group():
    torch.manual_seed(0)
    pictures = torch.rand(2, 3, 40, 40)
    assert flatness.largest_equal_group(pictures) == 1
    assert flatness.largest_equal_group(torch.cat([pictures, pictures[:1]])) == 2
    pictures[0] = 0.5  # 10 x 10 tokens, of which those whose field touches the edge differ
    assert flatness.largest_equal_group(pictures) == 36


def test_a_bias_moves_the_choice(tokens, codebook):
    assert torch.equal(nearest(tokens, codebook), (tokens @ codebook.T).argmax(dim=-1))
    bias = torch.linspace(-0.1, 0.1, CODES)
    expected = (tokens @ codebook.T + bias).argmax(dim=-1)
    assert torch.equal(nearest(tokens, codebook, bias), expected)


def test_splitting_flattens_and_costs_no_error(tokens, codebook):
    split = flatness.split_evenly(tokens, codebook, rounds=30)
    torch.testing.assert_close(split.norm(dim=-1), torch.ones(CODES))
    assert top_code_ratio(tokens, codebook) > 10
    assert top_code_ratio(tokens, split) < 4
    fit = [(tokens @ c.T).amax(dim=-1).mean() for c in (codebook, split)]
    assert fit[1] > fit[0]


def test_biases_flatten_almost_wholly(tokens, codebook):
    split = flatness.split_evenly(tokens, codebook, rounds=10)
    bias = flatness.even_bias(tokens, split)
    assert top_code_ratio(tokens, split, bias) < 1.5


def test_the_level_is_met_seed_by_seed_and_so_is_its_price():
    rows = [
        ("reset", 0, 0.9, 0.9, 300, 9.0, 0.010),
        ("reset", 1, 0.9, 0.9, 300, 9.0, 0.020),
        ("even", 0, 0.8, 0.9, 480, 1.9, 0.011),
        ("even", 1, 0.8, 0.9, 480, 1.9, 0.019),
        ("young", 0, 0.6, 0.9, 480, 1.9, 0.009),
        ("young", 1, 0.8, 0.6, 480, 1.9, 0.009),
    ]
    columns = ["arm", "seed", "train_utilization", "val_utilization", "perplexity"]
    table = pd.DataFrame(rows, columns=[*columns, "top_code_ratio", "recon_loss"])
    table["train_top_code_ratio"] = 1.5
    found = flatness.judged(table, "reset")
    assert found["level met"].to_dict() == {
        "reset": "0 of 2 seeds",
        "even": "2 of 2 seeds",
        "young": "0 of 2 seeds",
    }
    assert found["and no worse"].to_dict() == {
        "reset": "0 of 2",
        "even": "1 of 2",
        "young": "0 of 2",
    }
    assert found.loc["even", "error over that of reset"] == "1.025"  # two seeds: no interval
