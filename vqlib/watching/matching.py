"""Which codes a layer chose, read off what it returned: vectors that are rows of its codebook."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

NEAR = 1e-3  # distance from a row, over the row's norm, that rounding may account for
CLEAR = 10.0  # x as far the next other row must be
HELD = 2**24  # distances held at once


@torch.no_grad()
def row_indices(vectors: Tensor, codebook: Tensor) -> Tensor | None:
    """(...,) int64 rows of ``codebook`` (K, D) that ``vectors`` (..., D) are.

    The rows may have been normalised. Of equal rows it is the first. None unless every vector
    surely is one row.
    """
    flat, book = vectors.detach().reshape(-1, vectors.shape[-1]).float(), codebook.detach().float()
    if not len(flat) or not bool(flat.isfinite().all()):
        return None
    for rows in (book, F.normalize(book, dim=-1)):
        found = _rows(flat, rows)
        if found is not None:
            return found.view(vectors.shape[:-1])
    return None


def _rows(flat: Tensor, rows: Tensor) -> Tensor | None:
    distinct, which = rows.unique(dim=0, return_inverse=True)
    places = torch.arange(len(rows), device=rows.device)
    first = torch.full_like(places[: len(distinct)], len(rows))
    first = first.scatter_reduce(0, which, places, "amin")
    found = []
    for part in flat.split(max(1, HELD // len(distinct))):
        near = torch.cdist(part, distinct).topk(min(2, len(distinct)), largest=False).indices
        # by products, so small distances have only half of the digits
        gaps = (part[:, None] - distinct[near]).norm(dim=-1)
        gaps, order = gaps.sort(dim=-1)
        best = near.gather(1, order)[:, 0]
        sure = gaps[:, 0] <= NEAR * distinct[best].norm(dim=-1)
        if gaps.shape[1] > 1:
            sure &= gaps[:, 1] >= CLEAR * gaps[:, 0]
        if not bool(sure.all()):
            return None
        found.append(first[best])
    return torch.cat(found)
