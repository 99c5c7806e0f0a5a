"""Two processes with different data: do their codebooks agree?"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cloudpickle  # also takes what is defined in a notebook, and functions without a name
import torch

from vqlib.diagnosis.audit.bench import WORLD, Bench
from vqlib.diagnosis.findings import Evidence, Finding

NAME = "ranks-disagree"


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
        return Finding(NAME, "not applicable", cause="This build of torch has no gloo backend.")
    try:
        parcel = cloudpickle.dumps(
            (
                make,
                None if make else bench.pristine,
                bench.adapter,
                bench.dim,
                bench.tokens,
                bench.seed,
                steps,
            )
        )
    except Exception as error:
        cause = f"The layer cannot be sent to another process: {error}".splitlines()[0]
        return Finding(NAME, "not applicable", cause=cause)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "parcel").write_bytes(parcel)
        problem = _run(folder, timeout)
        if problem is not None:
            return problem
        ended = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(WORLD)]
    return _compared(ended, bench, steps, built_there=make is not None)


def _run(folder: str, timeout: float) -> Finding | None:
    """Start the processes and wait for them; a finding if they fail or do not finish.

    Interpreters of their own, not multiprocessing: that would run a caller's script again.
    """
    paths = [path or os.getcwd() for path in sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "vqlib.diagnosis.audit.worker", folder, str(timeout)]
    logs = [open(Path(folder) / f"{rank}.log", "w") for rank in range(WORLD)]  # noqa: SIM115
    processes = [
        subprocess.Popen(
            [*command, str(rank)], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        for rank, log in enumerate(logs)
    ]
    try:
        return _waited(processes, folder, timeout)
    finally:
        for process, log in zip(processes, logs, strict=True):
            process.kill()
            process.wait()
            log.close()


def _waited(processes: list[subprocess.Popen], folder: str, timeout: float) -> Finding | None:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        ended = [process.poll() for process in processes]
        if all(status == 0 for status in ended):
            return None
        for rank, status in enumerate(ended):
            if status:
                lines = (Path(folder) / f"{rank}.log").read_text().strip().splitlines()
                cause = f"A process failed: {lines[-1] if lines else f'exit status {status}'}"
                remedy = "a layer that runs in two processes"
                return Finding(NAME, "unknown", cause=cause, remedy=remedy)
        time.sleep(0.05)
    return _late(folder, timeout)


def _late(folder: str, timeout: float) -> Finding:
    begun = all((Path(folder) / f"{rank}.begun").exists() for rank in range(WORLD))
    evidence = (Evidence("time", timeout, "s"),)
    if begun:
        return Finding(
            NAME,
            "warning",
            evidence,
            "Two processes did not finish: one may be waiting for the other.",
            "Call every collective on every rank, no matter what data it has.",
        )
    return Finding(
        NAME, "unknown", evidence, "The processes did not start in time.", "a longer timeout"
    )


def _compared(ended: list[dict], bench: Bench, steps: int, *, built_there: bool) -> Finding:
    first, second = ended
    early = _apart(first["early"], second["early"])
    late = _apart(first["late"], second["late"])
    evidence = [
        Evidence(
            "codes that differ between two processes",
            early,
            f"of {bench.codes}",
            "after 2 steps on different data",
        ),
        Evidence(
            "codes that differ between two processes",
            late,
            f"of {bench.codes}",
            f"after {steps} more steps",
        ),
        Evidence("codes without a hit that were reset", first["put"], "codes", "until then"),
    ]
    counts = 0
    if first["counts"] is not None:
        counts = int((first["counts"] != second["counts"]).sum())
        evidence.append(Evidence("counts that differ", counts, f"of {bench.codes}", "at the end"))
    if not (early or late or counts):
        return Finding(NAME, "clear", tuple(evidence))
    if early and not built_there:
        cause = (
            "Each process learned only from its own data. But the module was built before "
            "torch.distributed was initialised, and some layers check for it when they are built."
        )
        remedy = "a function that makes the layer and that each process can call"
        return Finding(NAME, "unknown", tuple(evidence), cause, remedy)
    if early:
        cause = "Each process learns only from its own data: nothing is summed over processes."
        remedy = (
            "Sum hits and sums over the processes (some layers do so only if built after "
            "init_process_group, or with a flag)."
        )
    else:
        cause = "The averages are shared but the resets are not: each process draws its own."
        remedy = "Let one process draw, and broadcast its rows to the others."
    return Finding(NAME, "critical", tuple(evidence), cause, remedy)


def _apart(left: torch.Tensor, right: torch.Tensor) -> int:
    """Codes that differ by more than rounding."""
    scale = left.norm(dim=-1).clamp(min=1e-12)
    return int(((left - right).norm(dim=-1) > 1e-4 * scale).sum())
