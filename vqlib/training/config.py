"""TrainConfig: everything that decides a training run, validated before any work."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Literal

import torch

from vqlib.quantization import variants
from vqlib.quantization.ranges import Range, SettingsError, check_fields
from vqlib.quantization.reset import FLAGS, DeadCodeReset, Donors

Device = Literal["auto", "cpu", "cuda"]
Kind = Literal["pictures", "signals"]
STRIDE = 4  # pixels a token is wide and high, or samples it is long


@dataclass(frozen=True)
class TrainConfig:
    """One training run. The defaults are the suite's calibrated settings with the guide's reset.

    Raises:
        SettingsError: a ValueError: a field out of range or of the wrong type, its ``field``.
    """

    dataset: str = "photos"
    """Built-in data: "photos", "digits", or "eeg", a signal. Ignored if dataset_dir is given."""
    dataset_dir: str | None = None
    """A folder of pictures, .npy/.npz arrays, IDX files or CIFAR-10's binary version."""
    dataset_kind: Kind = "pictures"
    """What dataset_dir holds. Signals are .npy/.npz floats of shape (n, channels, time): each
    channel is standardised by its training part, and time is cut to a multiple of 4."""
    image_size: Annotated[int, Range(8, 2**12)] = 56
    """Height and width to which photos and folders are cut or resized; a multiple of 4."""
    crops: Annotated[int, Range(1, 2**12)] = 1
    """Training crops of each picture of a folder. 1: its centre; more: squares of half to all of
    the short side, drawn at random, the same for every seed."""
    val_fraction: Annotated[float, Range(0, 0.9, above=True)] = 0.1
    """Share of dataset_dir held out for validation, if the data has no split of its own."""
    batch_size: Annotated[int, Range(1, 2**20)] = 32
    """Number of pictures in a training step, over all processes."""
    epochs: Annotated[int, Range(1, 10**9)] = 1
    """Passes over the training pictures. Ignored if steps is given."""
    steps: Annotated[int | None, Range(1, 10**12)] = None
    """Number of training steps; None: as many as epochs asks for."""

    codebook_size: Annotated[int, Range(1, 2**24)] = 512
    """K, the number of codes."""
    dim: Annotated[int, Range(1, 2**16)] = 64
    """D, the dimension of a code."""
    width: Annotated[int, Range(2, 2**12)] = 32
    """Channels of the model's inner layers."""
    decay: Annotated[float, Range(0, 1)] = 0.9
    """Decay of the moving averages of codes and counts."""
    beta: Annotated[float, Range(0, 1e6)] = 0.25
    """Weight of the commitment loss."""
    kmeans_init: bool = True
    """Start from k-means of the first batch; otherwise from random unit vectors."""

    dead_code_threshold: Annotated[float, Range(0, 10**9)] = 1.0
    """A code whose average hits a step fall below this is dead and is reset; 0: no reset."""
    reset_relative: bool = False
    """Read threshold and refill as multiples of the uniform share N/K."""
    reset_donors: Donors = "most_used"
    """Encoder outputs that replace dead codes: those of the most used code, of the 8 most used
    (top), any (batch), or any in proportion to the use of their code (usage)."""
    reset_interval: Annotated[int, Range(1, 10**9)] = 1
    """Reset only at every n-th step."""
    reset_refill: Annotated[float | None, Range(0, 10**9, above=True)] = None
    """The count that a reset code starts with; None: the threshold + 1."""
    reset_distinct: bool = False
    """Avoid giving two dead codes the same vector."""
    variant: str | None = None
    """Name of an intervention or a known fault to build in; None: the correct quantizer."""

    learning_rate: Annotated[float, Range(0, 1e3, above=True)] = 1e-3
    """Learning rate of AdamW, reached at the end of the warm-up."""
    warmup_steps: Annotated[int, Range(0, 10**12)] = 310
    """Number of warm-up steps; 0: no warm-up."""
    warmup_power: Annotated[float, Range(0, 100, above=True)] = 1.75
    """The rate at step s of the warm-up is learning_rate * (s / warmup_steps) ** warmup_power."""
    cooldown_steps: Annotated[int, Range(0, 10**12)] = 0
    """Number of steps at the end over which the learning rate falls linearly to 0."""
    momentum: Annotated[float, Range(0, 0.9999)] = 0.945
    """AdamW's first beta."""
    weight_decay: Annotated[float, Range(0, 1e6)] = 1e-4
    """Weight decay of AdamW."""
    freeze_encoder_at: Annotated[int | None, Range(0, 10**12)] = None
    """Freeze the encoder from this step on (0: from the start); None: never."""

    seed: Annotated[int, Range(0, 2**62)] = 0
    """Seed of the initial weights, the order of the pictures and the quantizer's draws."""
    device: Device = "auto"
    """The device to train on; "auto" is CUDA if there is a card, otherwise the CPU."""
    threads: Annotated[int | None, Range(1, 2**12)] = None
    """Number of CPU threads of torch; None: unchanged. Same seed and same threads: same bits."""

    usage_window: Annotated[int, Range(1, 10**6)] = 1
    """Number of steps over which training utilization is counted."""
    log_every: Annotated[int, Range(1, 10**9)] = 1
    """Steps between training rows of the history."""
    val_every: Annotated[int, Range(1, 10**12)] = 50
    """Steps between validations. There is always one at the end."""
    trace_every: Annotated[int, Range(0, 10**9)] = 0
    """Steps between records of each code's counts (Run.trace); 0: none."""
    checkpoint_every: Annotated[int, Range(1, 10**12)] = 100
    """Steps between checkpoints."""

    def __post_init__(self):
        if isinstance(self.dataset_dir, os.PathLike):
            object.__setattr__(self, "dataset_dir", os.fspath(self.dataset_dir))
        check_fields(self)
        if self.image_size % STRIDE:
            near = self.image_size // STRIDE * STRIDE
            raise SettingsError(
                f"image_size must be a multiple of {STRIDE}, the encoder's stride, got "
                f"{self.image_size}; try {near} or {near + STRIDE}",
                "image_size",
            )
        variants.named(self.variant)
        object.__setattr__(self, "_reset", DeadCodeReset.of(self, FLAGS))

    @property
    def source(self) -> tuple:
        """The settings that say which data a run reads, as arguments of `data.of`."""
        own = self.dataset, self.dataset_dir, self.dataset_kind
        return (*own, self.image_size, self.val_fraction, self.crops)

    def reset(self) -> DeadCodeReset | None:
        """The reset that these settings ask for; None if the threshold is 0."""
        return self._reset if self._reset.threshold > 0 else None

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step ``step``, counted from 0, of ``steps`` in all."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        cool = min(1.0, (steps - step) / self.cooldown_steps) if self.cooldown_steps else 1.0
        return self.learning_rate * warm**self.warmup_power * cool

    def resolved_device(self) -> torch.device:
        """The device itself. Raises ValueError if CUDA is asked for and there is none."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device is 'cuda', but torch sees no CUDA card; use 'cpu' or 'auto'")
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> TrainConfig:
        """The inverse of `to_dict`. Raises SettingsError for a name that is no field."""
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise SettingsError(f"unknown settings {sorted(unknown)}")
        return cls(**values)


def steps_of(config: TrainConfig, pictures: int) -> int:
    """Training steps of ``config`` on that many training ``pictures``, or signals.

    Raises SettingsError if there is not one whole batch.
    """
    per_epoch = pictures // config.batch_size
    if per_epoch == 0:
        raise SettingsError(
            f"batch_size {config.batch_size} is larger than the training set of {pictures}; "
            f"use at most {pictures}",
            "batch_size",
        )
    return config.steps or config.epochs * per_epoch
