"""Layers that return no indices, or indices in a half type."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import vqlib
from vqlib.watching.matching import row_indices

SIZE, DIM = 64, 8


class BareQuantizer(nn.Module):
    """It returns vectors and a loss; ``said`` keeps the truth for the test alone."""

    def __init__(self, size=SIZE, cosine=False, between=False, dtype=None):
        super().__init__()
        self.embedding = nn.Embedding(size, DIM)
        self.cosine, self.between, self.dtype = cosine, between, dtype

    def forward(self, z):
        flat, table = z.reshape(-1, DIM), self.embedding.weight
        if self.cosine:
            flat, table = F.normalize(flat, dim=-1), F.normalize(table, dim=-1)
        self.said = torch.cdist(flat, table).argmin(-1)
        quantized = table[self.said].view(z.shape) * (0.5 if self.between else 1)
        straight = z + (quantized - z).detach()
        loss = F.mse_loss(quantized, z.detach())
        return (
            (straight, loss) if self.dtype is None else (straight, self.said.to(self.dtype), loss)
        )


def adapter(**more):
    return vqlib.Adapter(
        indices=lambda m, output: output[1], codebook=lambda m: m.embedding.weight, **more
    )


@pytest.mark.parametrize("cosine", [False, True])
def test_codes_are_read_off_an_output_made_of_rows(cosine):
    layer = BareQuantizer(cosine=cosine)
    with vqlib.watch(layer) as w:
        z = torch.randn(4, 10, DIM)
        layer(z)
        used = len(layer.said.unique())
    assert w.history["used_codes"].iloc[-1] == used
    assert "healthy" in vqlib.audit(layer, ranks=False).ids()


def test_an_output_that_is_not_made_of_rows_is_refused_with_the_adapter_to_write():
    layer = BareQuantizer(between=True)
    said = pytest.warns(UserWarning, match=r"no integers as indices.*m.embedding.weight")
    with said, vqlib.watch(layer):
        layer(torch.randn(4, 10, DIM))
    with pytest.raises(ValueError, match=r"indices=lambda m, output: m.codes"):
        vqlib.audit(layer, ranks=False)


def test_rows_are_surely_told_or_not_at_all():
    torch.manual_seed(0)
    book = torch.randn(50, DIM)
    book[20] = book[3]
    assert row_indices(book, book).tolist() == [*range(20), 3, *range(21, 50)]
    assert row_indices(book + 0.1, book) is None
    book[30] = book[31] + 1e-6  # either might be meant
    assert row_indices(book[30:31] + 1e-6, book) is None


def test_indices_in_a_half_type_are_refused_by_its_name():
    for dtype, most in ((torch.bfloat16, 256), (torch.float16, 2048)):
        layer = BareQuantizer(most + 2, dtype=dtype)
        refused = pytest.raises(ValueError, match=f"{str(dtype)[6:]}.*above {most:,}")
        with refused, vqlib.watch(layer, adapters={BareQuantizer: adapter()}):
            layer(torch.randn(4, 10, DIM))


@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, "256"), (torch.float16, "2,048")])
def test_a_layer_whose_output_tells_nothing_either_is_told_the_half_type(dtype, most):
    layer = BareQuantizer(between=True, dtype=dtype)
    what = rf"come in {dtype}, in which whole numbers above {most} are not exact"
    with pytest.warns(UserWarning, match=what), vqlib.watch(layer):
        layer(torch.randn(4, 10, DIM))
    with pytest.raises(ValueError, match=what):
        vqlib.audit(layer, ranks=False)
    halves = BareQuantizer(between=True).to(dtype)  # in which its vectors are, but no indices
    with pytest.warns(UserWarning, match="no integers as indices, and"), vqlib.watch(halves):
        halves(torch.randn(4, 10, DIM, dtype=dtype))


class RoundedQuantizer(BareQuantizer):
    def forward(self, z):
        quantized, loss = super().forward(z)
        return quantized, self.said.to(torch.bfloat16).long(), loss


def test_integers_that_were_rounded_are_found_by_the_rows_of_the_output():
    flat = lambda m, z: m(z)  # noqa: E731
    with pytest.raises(ValueError, match="bfloat16"):
        vqlib.audit(RoundedQuantizer(1001), adapter=adapter(call=flat), ranks=False)
    rounded_in_vain = RoundedQuantizer(256)  # exact so far
    assert vqlib.audit(rounded_in_vain, adapter=adapter(call=flat), ranks=False)
