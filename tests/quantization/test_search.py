"""`nearest` is argmax of the similarities, whatever the tiles, and holds few of them at once."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from vqlib.quantization import search
from vqlib.quantization.search import nearest


def vectors(n: int, dim: int = 8, seed: int = 0) -> torch.Tensor:
    made = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))
    return F.normalize(made, dim=-1)


@pytest.fixture(params=[(2**20, 512, 8192), (2**10, 3, 64), (1, 1, 256), (2**12, 100, 192)])
def tiles(request, monkeypatch):
    tile, rows, width = request.param
    monkeypatch.setattr(search, "TILE", tile)
    monkeypatch.setattr(search, "ROWS", rows)
    monkeypatch.setattr(search, "WIDTH", width)


@pytest.mark.parametrize("codes", [1, 2, 17, 128, 129, 192, 500, 512, 1000])
def test_it_is_the_argmax_of_the_similarities(tiles, codes):
    x, book = vectors(101), vectors(codes, seed=1)
    assert torch.equal(nearest(x, book), (x.double() @ book.double().T).argmax(dim=-1))


def test_the_first_of_equal_codes_wins_within_a_block_across_blocks_and_across_tiles(tiles):
    book = vectors(500)
    for first, later in ((3, 5), (7, 130), (9, 499), (200, 350)):
        book[later] = book[first]
    book[400:] = book[11]
    indices = nearest(book, book)
    assert torch.equal(indices[:400].unique(), torch.tensor(sorted({*range(400)} - {5, 130, 350})))
    assert (indices[400:] == 11).all()


def test_all_codes_alike_give_the_first(tiles):
    book = vectors(1).expand(300, -1).contiguous()
    assert not nearest(vectors(40, seed=1), book).any()


def test_codes_that_all_point_away_are_still_compared(tiles):
    x = vectors(20)
    book = -x.mean(dim=0) + 0.1 * vectors(400, seed=1)  # -inf beside the last block never wins
    assert torch.equal(nearest(x, book), (x @ book.T).argmax(dim=-1))


def test_no_tokens_give_no_indices():
    for codes in (16, 300):
        assert nearest(vectors(0), vectors(codes)).shape == (0,)


def test_inputs_that_require_a_gradient_and_other_layouts_are_taken():
    x, book = vectors(300), vectors(400, seed=1)
    expected = (x @ book.T).argmax(dim=-1)
    assert torch.equal(nearest(x.clone().requires_grad_(), book.clone().requires_grad_()), expected)
    assert torch.equal(nearest(x.T.contiguous().T, book.T.contiguous().T), expected)


GROWTH = r"""
import re, torch
from vqlib.quantization.usage import UsageCounter
from vqlib.quantization.quantizer import spherical_kmeans
from vqlib.quantization import groups
from vqlib.quantization.search import nearest
peak = lambda: int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1]) // 1024
torch.manual_seed(0)
generator = torch.Generator()
nearest(torch.randn(64, 8), torch.randn(64, 8))  # what the first product takes is not counted
PROGRAM
print(peak() - before - result.nbytes // 2**20)
"""
PROGRAMS = {
    "many tokens": """
x, book = torch.randn(1_000_000, 64), torch.randn(256, 64)
before = peak()
result = nearest(x, book)""",
    "many codes": """
x, book = torch.randn(4_096, 64), torch.randn(65_536, 64)
before = peak()
result = nearest(x, book)""",
    "codes in groups": """
lift = torch.randn(3, 64)
x = torch.nn.functional.normalize(torch.randn(300_000, 3) @ lift, dim=-1)
book = torch.nn.functional.normalize(torch.randn(8_192, 3) @ lift, dim=-1)
assert groups.search(x[:8_192], book) is not None
before = peak()
result = nearest(x, book)""",
    "k-means": """
x = torch.nn.functional.normalize(torch.randn(500_000, 32), dim=-1)
before = peak()
result, _ = spherical_kmeans(x, 256, generator, iterations=1)""",
    "usage, streamed": """
counter, indices = UsageCounter(512), torch.randint(512, (5_000_000,), generator=generator)
before = peak()
for _ in range(40):
    counter.update(indices)
assert counter.tokens == 200_000_000 and counter.compute()["used_codes"] == 512
result = counter.counts""",
}


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads Linux's peak of memory")
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_process_grows_by_less_than_256_mb_over_the_result(program):
    code = GROWTH.replace("PROGRAM", PROGRAMS[program])
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 256
