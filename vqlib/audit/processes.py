"""Two processes with different data: do their codebooks agree?"""

from __future__ import annotations

import pickle
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path

import cloudpickle  # also takes what is defined in a notebook, and functions without a name
import torch
from torch import nn

from vqlib.audit.bench import Bench, own_randomness
from vqlib.findings import Evidence, Finding

NAME = "ranks-disagree"
WORLD = 2


def ranks_disagree(bench: Bench, make, steps: int, timeout: float) -> Finding:
    """Each of two gloo processes trains on data of its own; then codes and counts are compared.

    They begin with the same state, as in data-parallel training.

    Args:
        make: the factory, called in each process after torch.distributed began (some layers
            look for it when they are built); None: a copy of the module is sent.
        steps: of data in one place, after two steps on broad data, so that resets happen.
        timeout: seconds for all of it.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        return Finding(NAME, "not applicable", cause="This torch has no gloo.")
    try:
        parcel = cloudpickle.dumps((make, None if make else bench.pristine, bench.adapter,
                                    bench.dim, bench.tokens, bench.seed, steps))  # fmt: skip
    except Exception as error:
        cause = f"It cannot be sent to another process: {error}".splitlines()[0]
        return Finding(NAME, "not applicable", cause=cause)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "parcel").write_bytes(parcel)
        problem = _run(folder, timeout)
        if problem is not None:
            return problem
        ended = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(WORLD)]
    return _compared(ended, bench, steps, built_there=make is not None)


def _run(folder: str, timeout: float) -> Finding | None:
    """Start the processes and wait for them; a finding where they do not come to an end."""
    context = torch.multiprocessing.spawn(work, (folder, timeout), nprocs=WORLD, join=False)
    end = time.monotonic() + timeout
    try:
        while not context.join(timeout=max(0.1, end - time.monotonic())):
            if time.monotonic() >= end:
                return _late(folder, timeout)
    except Exception as error:  # of a process, with its traceback as text
        lines = str(error).strip().splitlines() or [repr(error)]
        remedy = (
            "a layer that runs in two processes; in a script, the call belongs under "
            'if __name__ == "__main__"'
        )
        return Finding(NAME, "unknown", cause=f"A process failed: {lines[-1]}.", remedy=remedy)
    finally:
        for process in context.processes:
            if process.is_alive():
                process.kill()
            process.join()
    return None


def _late(folder: str, timeout: float) -> Finding:
    begun = all((Path(folder) / f"{rank}.begun").exists() for rank in range(WORLD))
    evidence = (Evidence("time", timeout, "s"),)
    if begun:
        return Finding(NAME, "warning", evidence,
                       "Two processes did not finish: one may wait for the other for ever.",
                       "Call every collective on every rank, whatever its data.")  # fmt: skip
    return Finding(NAME, "unknown", evidence, "The processes did not start in time.",
                   "a longer timeout")  # fmt: skip


def work(rank: int, folder: str, timeout: float) -> None:
    """One process; leaves codes and counts in ``folder``."""
    place = Path(folder)
    torch.set_num_threads(1)
    with open(place / f"{rank}.log", "w") as log, redirect_stdout(log), redirect_stderr(log):
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD,
            timeout=timedelta(seconds=timeout),
        )  # fmt: skip
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
        return {"early": early, "late": bench.book(module), "put": put,
                "counts": bench.counts(module)}  # fmt: skip


def _alike(module: nn.Module) -> nn.Module:
    """The module with the first process's state, as data-parallel training begins."""
    for tensor in (*module.parameters(), *module.buffers()):
        torch.distributed.broadcast(tensor.detach(), src=0)
    return module


def _compared(ended: list[dict], bench: Bench, steps: int, *, built_there: bool) -> Finding:
    first, second = ended
    early = _apart(first["early"], second["early"])
    late = _apart(first["late"], second["late"])
    evidence = [
        Evidence("codes that differ between two processes", early, f"of {bench.codes}",
                 "after 2 steps on different data"),
        Evidence("codes that differ between two processes", late, f"of {bench.codes}",
                 f"after {steps} more steps"),
        Evidence("codes without a hit that were reset", first["put"], "codes", "until then"),
    ]  # fmt: skip
    counts = 0
    if first["counts"] is not None:
        counts = int((first["counts"] != second["counts"]).sum())
        evidence.append(Evidence("counts that differ", counts, f"of {bench.codes}", "at the end"))
    if not (early or late or counts):
        return Finding(NAME, "clear", tuple(evidence))
    if early and not built_there:
        cause = (
            "Each process learned from its own data only; but the module was made before "
            "torch.distributed began, and some layers look for it when they are made."
        )
        remedy = "a function that makes the layer, which each process can call"
        return Finding(NAME, "unknown", tuple(evidence), cause, remedy)
    if early:
        cause = "Each process learns from its own data only: nothing is summed over processes."
        remedy = (
            "Sum hits and sums over the processes (some layers do so only where built after "
            "init_process_group, or with a flag)."
        )
    else:
        cause = "The averages are shared, and the resets are not: each process draws its own."
        remedy = "Let one process draw, and send its rows to the others."
    return Finding(NAME, "critical", tuple(evidence), cause, remedy)


def _apart(left: torch.Tensor, right: torch.Tensor) -> int:
    """Codes that differ by more than rounding."""
    scale = left.norm(dim=-1).clamp(min=1e-12)
    return int(((left - right).norm(dim=-1) > 1e-4 * scale).sum())
