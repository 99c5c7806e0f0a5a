"""Do collapse, cause and cure carry over to a signal? Ten seconds of EEG, a one-dimensional model.

The model, the batch (as N/K) and the optimiser are those of the photographs; K is 64, because the
recording is short. Only the warm-up and the step that is read were chosen, on seeds 0 to 4, so that
the baseline collapses; seeds 5 to 9 confirm. The slow warm-up shows what hangs on that choice, and
the runs go on to five times that step, to see whether the baseline recovers by itself.
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from vqlib.training import experiments
from vqlib.training.runs import Run

SEEDS = range(10)
CHOSEN_ON = range(5)  # the others confirm
READ_AT, STEPS = 120, 600
BASE = replace(
    experiments.PRESET,
    dataset="eeg",
    codebook_size=64,
    batch_size=49,  # of 16 tokens: N/K = 12.25, the guide's
    steps=STEPS,
    warmup_steps=60,
    val_every=40,
    trace_every=0,
)
ARMS = {
    name: replace(BASE, **experiments.ARMS[name])
    for name in ("baseline", "reset", "frozen encoder")
} | {"slow warm-up": replace(BASE, warmup_steps=400)}
COLUMNS = ("utilization", "perplexity", "top_code_ratio", "recon_loss")


def run() -> pd.DataFrame:
    """A row for each of `ARMS` and each seed.

    Columns: ``start`` (utilization of the first training step), those of `COLUMNS` in validation
    at step `READ_AT`, and the same with ``_late`` at step `STEPS`.
    """
    runs = experiments.compare(ARMS, SEEDS)
    return pd.DataFrame([{"arm": arm, "seed": seed} | _row(r) for (arm, seed), r in runs.items()])


def _row(run: Run) -> dict[str, float]:
    val = run.split("val").set_index("step")
    read = {name: float(val.at[READ_AT, name]) for name in COLUMNS}
    late = {f"{name}_late": float(val.at[STEPS, name]) for name in COLUMNS}
    return {"start": float(run.split("train")["utilization"].iloc[0])} | read | late
