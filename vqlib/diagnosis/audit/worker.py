"""One of an audit's two processes: ``python -m vqlib.diagnosis.audit.worker DIR TIMEOUT RANK``."""

from __future__ import annotations

import pickle
import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import nn

from vqlib.diagnosis.audit.bench import WORLD, Bench, own_randomness


def work(rank: int, folder: str, timeout: float) -> None:
    """One process; leaves codes and counts in ``folder``."""
    place = Path(folder)
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=timeout),
    )
    parcel = pickle.loads((place / "parcel").read_bytes())
    (place / f"{rank}.begun").touch()
    torch.save(_trained(rank, *parcel), place / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def _trained(rank, make, module, adapter, dim, tokens, seed, steps) -> dict:
    """Two broad steps, then data in one place, with half of the tokens on each process."""
    with own_randomness(seed + rank, torch.device("cpu")):
        module = _alike((make() if make else module).cpu())
        bench = Bench(module, adapter, dim, True, max(1, tokens // WORLD), seed + rank)
        centre, put = bench.direction(), 0
        for step in range(2 + steps):
            z = bench.broad() if step < 2 else bench.ball(centre, bench.tokens)
            seen = bench.step(module, z)
            hits = seen.hits
            torch.distributed.all_reduce(hits)  # a code that only the other one hit moves too
            put += int((seen.reset & (hits == 0)).sum())
            if step == 1:
                early = bench.book(module)
        return {
            "early": early,
            "late": bench.book(module),
            "put": put,
            "counts": bench.counts(module),
        }


def _alike(module: nn.Module) -> nn.Module:
    """The module with the first process's state, as data-parallel training begins."""
    for tensor in (*module.parameters(), *module.buffers()):
        torch.distributed.broadcast(tensor.detach(), src=0)
    return module


if __name__ == "__main__":
    work(int(sys.argv[3]), sys.argv[1], float(sys.argv[2]))
