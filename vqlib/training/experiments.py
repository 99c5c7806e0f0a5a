"""Named arms over many seeds: trained once, cached on disk, read as one tidy table."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL
import torch
from numpy.typing import ArrayLike

from vqlib.quantization.ranges import SettingsError, whole
from vqlib.training import data, sweeps
from vqlib.training.config import TrainConfig, steps_of
from vqlib.training.files import write_text
from vqlib.training.places import PACKAGE, cache_dir
from vqlib.training.process import cpu_threads
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


def arm(name: str, seed: int = 0, **changes: Any) -> TrainConfig:
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
    Two processes that want one run at once train it once, and over all processes no more train
    at once than there are cores.
    """

    def make(folder: Path) -> None:
        train(config, progress=progress).save(folder)

    return sweeps.once(
        cache_dir() / run_key(config), make, Run.load
    )  # on the CPU, as it is read back


def run_key(config: TrainConfig, checksum: str | None = None) -> str:
    """Hex digest of everything that decides the run's bits.

    ``checksum``: of the data, if it is known; None: they are read.
    """
    own = {
        "config": config.to_dict(),
        "data": checksum or data.of(*config.source).checksum,
        "device": str(config.resolved_device()),
        "threads": config.threads or torch.get_num_threads(),
    }
    return _digest(own)


def _digest(own: dict[str, Any]) -> str:
    """Of what is a run's own and of what all have in common here."""
    parts = own | {
        "code": CODE_CHECKSUM,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,  # decoders differ in their last bits
        "cpu": torch.backends.cpu.get_cpu_capability(),
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

    As many run at once as $VQLIB_JOBS says, else as there are cores. If a run fails, the others
    are trained all the same before its error is raised; `sweep` raises none.
    """
    configs = arms if isinstance(arms, Mapping) else {name: arm(name) for name in arms}
    threads = torch.get_num_threads()  # a worker process has fewer, and that is another run
    wanted = {
        (a, s): replace(c, seed=s, threads=c.threads or threads)
        for s in seeds
        for a, c in configs.items()
    }
    sweeps.run(_trainings(wanted).values(), progress=progress)
    return {key: cached_run(config) for key, config in wanted.items()}


def sweep(
    arms: Mapping[str, Any] | Iterable[str],
    seeds: Iterable[int] = range(5),
    measure: Callable[[Any, int], Mapping] | None = None,
    *,
    key: str = "",
    backend: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train every arm with every seed, or measure it; a row for each, arm by arm.

    A row has ``arm`` and ``seed``; the settings in which the arms differ; the run's summary
    without its seconds, so that the same sweep gives the same table; and ``problem``, what went
    wrong, or "". A run that fails stops no other, and has no summary. What is done is kept in the
    cache: called again after it was killed, a sweep does what is missing, and tries again what
    has failed.

    Args:
        arms: names from `ARMS`, or {name: config}; the seed in a config is replaced, and one
            thread is used if ``threads`` is None.
        seeds: paired over arms.
        measure: called as ``measure(config, seed)`` with one thread of torch, gives the summary:
            {name: number, text or bool}. It can be pickled, and so can the configs, which are
            dataclasses or mappings of plain values. None: train, and take the run's summary.
        key: whatever decides the result of ``measure`` besides config, seed, its own source text
            and vqlib's code: a version, a checksum of its data. Required with ``measure``.
        backend: the name of a joblib backend, to run on its engine instead of on this machine;
            see `sweeps.run`. For "dask", make a ``distributed.Client`` first.
        progress: show a progress bar with the time left.

    Raises SettingsError, before anything is trained, for what cannot be; and ValueError or
    FileNotFoundError for data that cannot be used.
    """
    configs = dict(arms) if isinstance(arms, Mapping) else {name: arm(name) for name in arms}
    seeds = dict.fromkeys(whole("seed", seed, least=0) for seed in seeds)
    pairs = [(name, seed) for seed in seeds for name in configs]
    if not pairs:
        raise SettingsError("a sweep needs at least one arm and one seed")
    if measure is None:
        configs = {name: replace(c, threads=c.threads or 1) for name, c in configs.items()}
        check(configs.values())
        tasks = _trainings({(name, s): replace(configs[name], seed=s) for name, s in pairs})
    elif not key:
        raise SettingsError("measure needs a key: a text that changes when its result would", "key")
    else:
        tasks = {(name, s): _measuring(measure, configs[name], s, key) for name, s in pairs}
    problems = sweeps.run(tasks.values(), backend=backend, progress=progress)
    own = differences(configs)
    rows = []
    for name, seed in ((name, seed) for name in configs for seed in seeds):
        folder = tasks[name, seed].folder
        problem = problems.get(folder, "")
        summary = {} if problem else sweeps.read_summary(folder)
        summary.pop("seconds", None)
        named = {"arm": name, "seed": seed}
        rows.append(named | own[name] | summary | named | {"problem": problem})
    table = pd.DataFrame(rows)
    return table[[*table.columns.drop("problem"), "problem"]]


def check(configs: Iterable[TrainConfig]) -> None:
    """Raise ValueError or FileNotFoundError for a config whose device or data cannot be used."""
    configs = list(configs)
    opened = _opened(configs)
    for config in configs:
        config.resolved_device()
        steps_of(config, len(opened[config.source].train))


def _opened(configs: Iterable[TrainConfig]) -> dict[tuple, data.Pictures]:
    """{source: its data}, each opened once."""
    return {source: data.of(*source) for source in {config.source for config in configs}}


def differences(configs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{arm: {setting: value}} of the settings in which the arms are not all the same."""
    settings = {name: _plain(config) for name, config in configs.items()}
    names = dict.fromkeys(n for values in settings.values() for n in values if n != "seed")
    differ = [n for n in names if len({repr(v.get(n)) for v in settings.values()}) > 1]
    return {arm: {n: values.get(n) for n in differ} for arm, values in settings.items()}


def _plain(config: Any) -> dict[str, Any]:
    if is_dataclass(config):
        return asdict(config)
    if isinstance(config, Mapping):
        return dict(config)
    raise SettingsError(f"a config must be a dataclass or a mapping, got {config!r}")


def _trainings(configs: Mapping[Any, TrainConfig]) -> dict[Any, sweeps.Task]:
    """The task of each config; each data set is read once."""
    opened = _opened(configs.values())
    cache = cache_dir().absolute()
    return {
        key: sweeps.Task(cache / run_key(c, opened[c.source].checksum), partial(_train_into, c))
        for key, c in configs.items()
    }


def _train_into(config: TrainConfig, folder: Path) -> None:
    if run_key(config) != folder.name:  # on another machine, or the files have changed since
        raise RuntimeError(
            "this worker would not train the same run: its vqlib, torch, NumPy, Pillow, processor "
            "or data are not those of the process that called it"
        )
    train(config, progress=False).save(folder)


def _measuring(measure: Callable, config: Any, seed: int, key: str) -> sweeps.Task:
    try:
        source = inspect.getsource(measure)
    except (OSError, TypeError):
        source = ""
    name = getattr(measure, "__qualname__", type(measure).__qualname__)
    own = {"measure": name, "source": source, "key": key, "config": _plain(config), "seed": seed}
    try:
        digest = _digest(own)
    except (TypeError, ValueError):
        raise SettingsError(f"a config must hold plain values only, got {config!r}") from None
    folder = (cache_dir() / digest).absolute()
    return sweeps.Task(folder, partial(_measure_into, measure, config, seed))


def _measure_into(measure: Callable, config: Any, seed: int, folder: Path) -> None:
    with cpu_threads(1):  # in a worker as in this process
        summary = dict(measure(config, seed))
    write_text(folder / "summary.json", json.dumps(summary, default=_number) + "\n")


def _number(value: Any) -> int | float | bool:
    """A scalar of NumPy or torch as JSON knows it."""
    try:
        return value.item()
    except (AttributeError, ValueError, RuntimeError):
        raise TypeError(f"a summary holds numbers, texts and bools, got {value!r}") from None


def history_table(runs: Mapping[tuple[str, int], Run]) -> pd.DataFrame:
    """All histories under one another, with columns ``arm`` and ``seed``."""
    return pd.concat(
        [run.history.assign(arm=name, seed=seed) for (name, seed), run in runs.items()],
        ignore_index=True,
    )


def summary_table(runs: Mapping[tuple[str, int], Run]) -> pd.DataFrame:
    """One row per arm and seed: the runs' summaries."""
    return pd.DataFrame([{"arm": a, "seed": s} | run.summary for (a, s), run in runs.items()])


def interval(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) over seeds, by Student's t: honest even if seeds are few.

    ``values``: (n,), one a seed. With one value there is no interval: low and high are NaN.
    """
    x = np.asarray(values, dtype=float)
    if len(x) < 2:
        return float(x.mean()), math.nan, math.nan
    from scipy.special import stdtrit  # here: it takes time to import

    half = stdtrit(len(x) - 1, (1 + confidence) / 2) * x.std(ddof=1) / math.sqrt(len(x))
    return float(x.mean()), float(x.mean() - half), float(x.mean() + half)
