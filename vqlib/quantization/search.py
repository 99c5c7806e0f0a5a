"""Exact search for the most similar code, in tiles whose memory is bounded."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from vqlib.quantization import groups
from vqlib.quantization.distributed import many, of_each_rank, picked, shard

# A tile holds TILE similarities, but at least ROWS tokens by WIDTH codes: with fewer tokens the
# product packs the codebook too often, and many small tiles suffer most when cores are busy.
# That is at most 16 MiB. On a card, rows are as many as CARD_TILE similarities allow: 256 MiB.
TILE = 2**20
ROWS = 512
WIDTH = 8192
CARD_TILE = 2**26
FEW = 128  # codes up to which a plain maximum is as fast


@torch.no_grad()
def nearest(x: Tensor, codebook: Tensor, bias: Tensor | None = None) -> Tensor:
    """Index of the most similar code, int64 (N,), for unit ``x`` (N, D) and ``codebook`` (K, D).

    On unit vectors the largest inner product is also the smallest L2 distance. The first of
    equal similarities wins, as with argmax. The N x K similarities never exist at once.
    ``bias`` (K,) is added to the codes' similarities.
    """
    if bias is not None:  # an inner product with one more feature
        x, codebook = F.pad(x, (0, 1), value=1.0), torch.cat([codebook, bias[:, None]], dim=-1)
    if x.device.type != "cpu" or len(codebook) <= FEW:
        rows = max(1, (TILE if x.device.type == "cpu" else CARD_TILE) // len(codebook))
        # max, not argmax: the same first index, in a third of argmax's time on a CPU
        return torch.cat([(part @ codebook.T).max(dim=-1).indices for part in x.split(rows)])
    if len(codebook) >= groups.LEAST and not torch.compiler.is_compiling():
        found = groups.search(x, codebook)
        if found is not None:
            return found
    width = min(len(codebook), WIDTH)
    rows = max(ROWS, TILE // width)
    block = 64 if width < 4096 else 128
    columns = -(-width // block) * block
    tile = x.new_empty(min(rows, len(x)), columns)
    return torch.cat([_winners(part, codebook, tile[: len(part)], block) for part in x.split(rows)])


def _winners(x: Tensor, codebook: Tensor, tile: Tensor, block: int) -> Tensor:
    """`nearest` for as many tokens as ``tile`` (n, columns) has rows, which is written over.

    The maximum of each block of codes is found first, without its place: that takes a quarter
    of the time. Only in the block that wins is the place searched for.
    """
    blocks = tile.view(len(x), tile.shape[1] // block, block)
    firsts = torch.arange(len(x)) * blocks.shape[1]
    best: Tensor | None = None
    index = firsts
    for start in range(0, len(codebook), WIDTH):
        codes = codebook[start : start + WIDTH]
        tile[:, len(codes) :] = -math.inf
        torch.mm(x, codes.T, out=tile[:, : len(codes)])
        peak, winner = blocks.amax(dim=-1).max(dim=-1)
        place = tile.view(-1, block).index_select(0, firsts + winner).max(dim=-1).indices
        found = start + winner * block + place
        if best is None:
            best, index = peak, found
        else:  # of equals the first, so only what is larger
            index = torch.where(peak > best, found, index)
            best = torch.maximum(peak, best)
    return index


def nearest_inputs(codes: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """For each of ``codes`` (n, D) the nearest input of the batch of all ranks.

    ``x`` (N, D) is this rank's part. Returns the inputs' places in the whole batch (n,), and
    the inputs (n, D).
    """
    found = nearest(codes, x)
    if not many():
        return found, x[found]
    part = shard(len(x), x.device)
    rank = of_each_rank((codes * x[found]).sum(dim=-1)).max(dim=0).indices
    everyone = of_each_rank(found + part.first)
    places = everyone.gather(0, rank[None])[0]
    return places, picked(x, places, part)
