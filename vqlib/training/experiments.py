"""Named arms over many seeds: trained once, cached on disk, read as one tidy table."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace

import joblib
import numpy as np
import pandas as pd
import PIL
import torch
from filelock import FileLock
from scipy import stats
from tqdm.auto import tqdm

from vqlib.training import data
from vqlib.training.config import TrainConfig
from vqlib.training.places import PACKAGE, cache_dir
from vqlib.training.runs import Run
from vqlib.training.trainer import train

PRESET = TrainConfig(steps=220, dead_code_threshold=0.0, device="cpu", threads=1, trace_every=1)
"""The guide's setting (K 512, N/K 12.25, decay 0.9, beta 0.25, k-means start, no reset), for a
little more than an epoch.

Calibrated, so that the collapse follows the guide's curve: the model's depth and width, dim,
learning rate, warm-up and momentum. Everything else is the guide's."""

SMALL = replace(PRESET, codebook_size=128, batch_size=8, steps=120, warmup_steps=100, val_every=40)
"""A quarter of the codes and of the batch, so the same N/K of 12.25, in a fifth of the time.

Calibrated on warm-up and length alone, so that the same collapse fits in: k-means starts at
100 %, and about a sixth of the codes is left in validation. Decay and beta are the guide's."""

ARMS: dict[str, dict] = {
    "baseline": {},
    "reset": {"dead_code_threshold": 1.0},
    "threshold 0.5": {"dead_code_threshold": 0.5},
    "threshold 5": {"dead_code_threshold": 5.0},
    "threshold 10": {"dead_code_threshold": 10.0},
    "every 10 steps": {"dead_code_threshold": 1.0, "reset_interval": 10},
    "reset, decay 0.75": {"dead_code_threshold": 1.0, "decay": 0.75},
    "reset, decay 0.7": {"dead_code_threshold": 1.0, "decay": 0.7},
    "reset, beta 0.1": {"dead_code_threshold": 1.0, "beta": 0.1},
    "frozen encoder": {"freeze_encoder_at": 0},
    "decay 0": {"decay": 0.0},
    "decay 0.99": {"decay": 0.99},
    "random start": {"kmeans_init": False},
    "slow encoder": {"learning_rate": 1e-4},
}
"""What each named arm changes against `PRESET`."""


def _code_checksum() -> str:
    """Of every file that may change a run's bits."""
    rooms = (PACKAGE / room for room in ("quantization", "watching", "training"))
    files = sorted(file for room in rooms for file in room.rglob("*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


# read now, as it was imported: a file edited under a running kernel must not lend its key to
# older code
CODE_CHECKSUM = _code_checksum()


def arm(name: str, seed: int = 0, **changes) -> TrainConfig:
    """The config of a named arm, with further ``changes``.

    Raises ValueError for an unknown name.
    """
    if name not in ARMS:
        raise ValueError(f"unknown arm {name!r}; the arms are {', '.join(ARMS)}")
    return replace(PRESET, **(ARMS[name] | changes), seed=seed)


def cached_run(config: TrainConfig, *, progress: bool = False) -> Run:
    """The run of ``config``: read from the cache, or trained now and kept.

    Its key holds the configuration, the checksum of the data, the source code that trains,
    the version of torch, the processor's kind and the threads: a stale run is never used.
    Two processes that want one run at once train it once.
    """
    folder = cache_dir() / run_key(config)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        try:
            return Run.load(folder)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            shutil.rmtree(folder, ignore_errors=True)  # not there, or not whole
        train(config, progress=progress).save(folder)
        return Run.load(folder)  # on the CPU, as every later call gives it


def run_key(config: TrainConfig) -> str:
    """Hex digest of everything that decides the run's bits."""
    parts = {
        "config": config.to_dict(),
        "data": data.of(
            config.dataset, config.dataset_dir, config.image_size, config.val_fraction
        ).checksum,
        "code": CODE_CHECKSUM,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,  # decoders differ in their last bits
        "device": str(config.resolved_device()),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": config.threads or torch.get_num_threads(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def compare(
    arms: Mapping[str, TrainConfig] | Iterable[str],
    seeds: Iterable[int] = range(5),
    *,
    progress: bool = True,
) -> dict[tuple[str, int], Run]:
    """The run of each arm and seed, ``{(arm, seed): run}``; missing ones are trained in parallel.

    Args:
        arms: names from `ARMS`, or {name: config}, whose seed is replaced.
        seeds: paired over arms: one seed is one model and one order of pictures.
        progress: show a progress bar.

    As many run at once as $VQLIB_JOBS says, else as there are cores.
    """
    configs = arms if isinstance(arms, Mapping) else {name: arm(name) for name in arms}
    threads = torch.get_num_threads()  # a worker process has fewer, and that is another run
    wanted = {
        (a, s): replace(c, seed=s, threads=c.threads or threads)
        for s in seeds
        for a, c in configs.items()
    }
    jobs = int(os.environ.get("VQLIB_JOBS") or joblib.cpu_count())
    missing = [config for config in wanted.values() if not _is_cached(config)]
    runner = joblib.Parallel(n_jobs=min(jobs, len(missing)) or 1, return_as="generator_unordered")
    tasks = (joblib.delayed(_train_into_cache)(config) for config in missing)
    shown = {} if progress else {"disable": True}  # unset, it leaves $TQDM_DISABLE its say
    with warnings.catch_warnings():
        # joblib renews a worker that has grown; nothing is lost by it
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        for _ in tqdm(runner(tasks), total=len(missing), unit="run", leave=False, **shown):
            pass
    return {key: cached_run(config) for key, config in wanted.items()}


def history_table(runs: Mapping[tuple[str, int], Run]) -> pd.DataFrame:
    """All histories under one another, with columns ``arm`` and ``seed``."""
    return pd.concat(
        [run.history.assign(arm=name, seed=seed) for (name, seed), run in runs.items()],
        ignore_index=True,
    )


def summary_table(runs: Mapping[tuple[str, int], Run]) -> pd.DataFrame:
    """One row per arm and seed: the runs' summaries."""
    return pd.DataFrame([{"arm": a, "seed": s} | run.summary for (a, s), run in runs.items()])


def interval(values, confidence: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) over seeds, by Student's t: honest even if seeds are few.

    ``values``: (n,), one a seed. With one value there is no interval: low and high are NaN.
    """
    x = np.asarray(values, dtype=float)
    if len(x) < 2:
        return float(x.mean()), math.nan, math.nan
    half = stats.t.ppf((1 + confidence) / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x))
    return float(x.mean()), float(x.mean() - half), float(x.mean() + half)


def _is_cached(config: TrainConfig) -> bool:
    return (cache_dir() / run_key(config) / "summary.json").is_file()


def _train_into_cache(config: TrainConfig) -> None:
    cached_run(config)
