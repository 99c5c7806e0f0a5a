"""Signals from array files: (n, channels, time), in any unit, each channel standardised.

As with pictures, a wrong file is an error before training starts, and a signal is converted when it
is asked for.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vqlib.training.arrays import SCAN_ITEMS, Arrays, read_arrays
from vqlib.training.items import Indices

LEAST_SAMPLES = 8  # two tokens
EXPECTED = "signals are floats of shape (n, channels, time)"


class Scaling(NamedTuple):
    """What makes each channel's training part of mean 0 and standard deviation 1.

    A channel that never changes there has scale 1: it is centred and stays as it is.
    """

    mean: np.ndarray  #: (channels,) float64, in the signals' own unit
    scale: np.ndarray  #: (channels,) float64, the standard deviation

    @classmethod
    def of(cls, samples: np.ndarray, rows: np.ndarray, source="array") -> Scaling:
        """Of the signals ``rows`` of ``samples`` (n, channels, time), read through twice.

        Raises:
            ValueError: no channel changes, or the values are too large to be squared.
        """
        count = len(rows) * samples.shape[-1]
        mean, square = np.zeros((2, samples.shape[1]))
        low, high = np.full_like(mean, np.inf), np.full_like(mean, -np.inf)
        with np.errstate(over="ignore", invalid="ignore"):
            for part in _parts(samples, rows):
                mean += part.sum(axis=(0, 2)) / count
                low, high = np.minimum(low, part.min((0, 2))), np.maximum(high, part.max((0, 2)))
            for part in _parts(samples, rows):
                square += np.square(part - mean[:, None]).sum(axis=(0, 2)) / count
        if not np.isfinite(square).all():
            largest = max(-low.min(), high.max())
            raise ValueError(f"{source}: values up to {largest:g} are too large")
        constant = low == high
        if constant.all():
            raise ValueError(f"{source}: no channel of the training signals ever changes")
        return cls(mean, np.where(constant, 1.0, np.sqrt(square)))


class SignalArrays(Dataset):
    """Signals in one array, standardised on access.

    Args:
        samples: (N, channels, time) float, in any unit.
        rows: which of the N signals belong to this data set, in order.
        scaling: of the training part.
        length: samples that are kept of each, from its start.

    Item i is float32 (channels, length).
    """

    def __init__(self, samples: np.ndarray, rows: np.ndarray, scaling: Scaling, length: int):
        self.samples, self.scaling = samples, scaling
        self.rows = np.asarray(rows, dtype=np.int64)
        self.channels, self.size = samples.shape[1], (length,)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.batch([index])[0]

    def batch(self, indices: Indices) -> Tensor:
        """Signals at `indices` (n,) int -> (n, channels, length) float32."""
        taken = self.samples[self.rows[np.asarray(indices, dtype=np.int64)], :, : self.size[0]]
        mean, scale = (values[:, None] for values in self.scaling)
        return torch.from_numpy(((taken - mean) / scale).astype(np.float32, order="C"))


def find_signals(path: Path) -> Arrays:
    """Reads the array files at `path`, a file or a folder, and reads them through once.

    Raises:
        ValueError: there are none, or they hold no signals, or unlike ones in train and val.
    """
    found = read_arrays(path)
    if found is None:
        raise ValueError(f"{path} holds no .npy or .npz array; {EXPECTED}")
    _check(found.train, f"{path} (train)")
    if found.val is not None:
        _check(found.val, f"{path} (val)")
        if found.train.shape[1:] != found.val.shape[1:]:
            raise ValueError(
                f"{path}: train and val hold different signals: shapes {found.train.shape} and "
                f"{found.val.shape}"
            )
    return found


def kept_length(samples: np.ndarray, multiple: int, source: object) -> int:
    """The samples of a signal that are kept: a ``multiple``; warns of those cut off its end."""
    time = samples.shape[-1]
    length = time - time % multiple
    if length < time:
        warnings.warn(
            f"{source}: signals of {time} samples are cut at their end to {length}, a multiple of "
            f"{multiple}, the encoder's stride",
            stacklevel=3,
        )
    return length


def _check(samples: np.ndarray, source: str) -> None:
    """Raises ValueError if `samples` is no stack of signals."""
    shape = tuple(samples.shape)
    if samples.ndim != 3:
        raise ValueError(f"{source}: {EXPECTED}; found shape {shape}")
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"{source}: {EXPECTED}; found {samples.dtype}, so convert it first")
    if 0 in shape:
        raise ValueError(f"{source}: an empty split: the array's shape is {shape}")
    channels, time = shape[1:]
    if time < LEAST_SAMPLES:
        raise ValueError(
            f"{source}: signals of {time} samples are too short; expected at least {LEAST_SAMPLES}"
        )
    if channels > time:
        warnings.warn(
            f"{source}: shape {shape} is read as {channels} channels of {time} samples; if it is "
            "(n, time, channels), swap the last two axes",
            stacklevel=5,
        )
    start = 0
    for part in _parts(samples, np.arange(len(samples))):
        if not math.isfinite(part.sum()):  # or a sum of large numbers, which the next line tells
            for signal, channel, sample in np.argwhere(~np.isfinite(part))[:1]:
                raise ValueError(
                    f"{source}: signal {start + signal}, channel {channel}, sample {sample} is "
                    f"{part[signal, channel, sample]}"
                )
        start += len(part)


def _parts(samples: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The signals ``rows`` in float64, so many at a time that memory stays bounded."""
    step = max(1, SCAN_ITEMS // math.prod(samples.shape[1:]))
    for start in range(0, len(rows), step):
        yield samples[rows[start : start + step]].astype(np.float64)
