"""TrainConfig: everything that decides a training run, validated before any work."""

from __future__ import annotations

import numbers
import os
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

import torch

from vqlib.quantization import variants
from vqlib.quantization.reset import DeadCodeReset, Donors

Device = Literal["auto", "cpu", "cuda"]

# field: (lowest, highest, whether the lowest itself is allowed)
RANGES = {
    "image_size": (8, 4096, True),
    "val_fraction": (0, 0.9, False),
    "batch_size": (1, 2**20, True),
    "epochs": (1, 10**9, True),
    "steps": (1, 10**12, True),
    "codebook_size": (1, 2**24, True),
    "dim": (1, 2**16, True),
    "width": (2, 2**12, True),
    "decay": (0, 1, True),
    "dead_code_threshold": (0, 10**9, True),
    "reset_interval": (1, 10**9, True),
    "reset_refill": (0.0, 10**9, False),
    "beta": (0, 1e6, True),
    "learning_rate": (0, 1e3, False),
    "warmup_steps": (0, 10**12, True),
    "warmup_power": (0, 100, False),
    "cooldown_steps": (0, 10**12, True),
    "momentum": (0, 0.9999, True),
    "weight_decay": (0, 1e6, True),
    "freeze_encoder_at": (0, 10**12, True),
    "seed": (0, 2**62, True),
    "threads": (1, 4096, True),
    "usage_window": (1, 10**6, True),
    "log_every": (1, 10**9, True),
    "val_every": (1, 10**12, True),
    "trace_every": (0, 10**9, True),
    "checkpoint_every": (1, 10**12, True),
}


class SettingsError(ValueError):
    """A setting out of range or of the wrong type: names it, its value and what is allowed."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run. The defaults are the suite's calibrated settings with the guide's reset.

    Raises:
        SettingsError: a ValueError: a field out of range or of the wrong type.
    """

    dataset: str = "photos"
    """Built-in pictures: "photos" or "digits". Ignored if dataset_dir is given."""
    dataset_dir: str | None = None
    """A folder of pictures, .npy/.npz arrays, IDX files or CIFAR-10's binary version."""
    image_size: int = 56
    """Height and width to which photos and folders are cut or resized; a multiple of 4."""
    val_fraction: float = 0.1
    """Share of dataset_dir held out for validation, if the data has no split of its own."""
    batch_size: int = 32
    """Number of pictures in a training step."""
    epochs: int = 1
    """Passes over the training pictures. Ignored if steps is given."""
    steps: int | None = None
    """Number of training steps; None: as many as epochs asks for."""

    codebook_size: int = 512
    """K, the number of codes."""
    dim: int = 64
    """D, the dimension of a code."""
    width: int = 32
    """Channels of the model's inner layers."""
    decay: float = 0.9
    """Decay of the moving averages of codes and counts."""
    beta: float = 0.25
    """Weight of the commitment loss."""
    kmeans_init: bool = True
    """Start from k-means of the first batch; otherwise from random unit vectors."""

    dead_code_threshold: float = 1.0
    """A code whose average hits a step fall below this is dead and is reset; 0: no reset."""
    reset_relative: bool = False
    """Read threshold and refill as multiples of the uniform share N/K."""
    reset_donors: Donors = "most_used"
    """Encoder outputs that replace dead codes: those of the most used code, of the 8 most used
    (top), any (batch), or any in proportion to the use of their code (usage)."""
    reset_interval: int = 1
    """Reset only at every n-th step."""
    reset_refill: float | None = None
    """The count that a reset code starts with; None: the threshold + 1."""
    reset_distinct: bool = False
    """Avoid giving two dead codes the same vector."""
    variant: str | None = None
    """Name of an intervention or a known fault to build in; None: the correct quantizer."""

    learning_rate: float = 1e-3
    """Learning rate of AdamW, reached at the end of the warm-up."""
    warmup_steps: int = 310
    """Number of warm-up steps; 0: no warm-up."""
    warmup_power: float = 1.75
    """The rate at step s of the warm-up is learning_rate * (s / warmup_steps) ** warmup_power."""
    cooldown_steps: int = 0
    """Number of steps at the end over which the learning rate falls linearly to 0."""
    momentum: float = 0.945
    """AdamW's first beta."""
    weight_decay: float = 1e-4
    """Weight decay of AdamW."""
    freeze_encoder_at: int | None = None
    """Freeze the encoder from this step on (0: from the start); None: never."""

    seed: int = 0
    """Seed of the initial weights, the order of the pictures and the quantizer's draws."""
    device: Device = "auto"
    """The device to train on; "auto" is CUDA if there is a card, otherwise the CPU."""
    threads: int | None = None
    """Number of CPU threads of torch; None: unchanged. Same seed and same threads: same bits."""

    usage_window: int = 1
    """Number of steps over which training utilization is counted."""
    log_every: int = 1
    """Steps between training rows of the history."""
    val_every: int = 50
    """Steps between validations. There is always one at the end."""
    trace_every: int = 0
    """Steps between records of each code's counts (Run.trace); 0: none."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""

    def __post_init__(self):
        if isinstance(self.dataset_dir, os.PathLike):
            object.__setattr__(self, "dataset_dir", os.fspath(self.dataset_dir))
        for name, (low, high, closed) in RANGES.items():
            value = getattr(self, name)
            if value is None and getattr(TrainConfig, name) is None:
                continue
            whole = isinstance(low, int) and type(getattr(TrainConfig, name)) is not float
            kind = "a whole number" if whole else "a number"
            number = isinstance(value, numbers.Integral if whole else numbers.Real)
            number = number and not isinstance(value, bool)
            if not number or not low <= value <= high or (not closed and value == low):
                bound = f"{'>=' if closed else '>'} {low} and <= {high}"
                raise SettingsError(f"{name} must be {kind} {bound}, got {value!r}")
            if not isinstance(value, (int, float)):  # NumPy's, which JSON does not know
                object.__setattr__(self, name, int(value) if whole else float(value))
        for name in ("kmeans_init", "reset_relative", "reset_distinct"):
            if not isinstance(getattr(self, name), bool):
                raise SettingsError(f"{name} must be True or False, got {getattr(self, name)!r}")
        for name, choices in (("device", get_args(Device)), ("reset_donors", get_args(Donors))):
            if getattr(self, name) not in choices:
                raise SettingsError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        if self.image_size % 4:
            near = self.image_size // 4 * 4
            raise SettingsError(
                f"image_size must be a multiple of 4, the encoder's stride, got "
                f"{self.image_size}; try {near} or {near + 4}"
            )
        try:
            variants.named(self.variant)
        except ValueError as error:
            raise SettingsError(str(error)) from None
        try:
            self.reset()
        except ValueError as error:
            raise SettingsError(f"reset_refill, with dead_code_threshold: {error}") from None

    def reset(self) -> DeadCodeReset | None:
        """The reset that these settings ask for; None if the threshold is 0."""
        reset = DeadCodeReset(
            threshold=self.dead_code_threshold,
            relative=self.reset_relative,
            donors=self.reset_donors,
            every=self.reset_interval,
            refill=self.reset_refill,
            distinct=self.reset_distinct,
        )
        return reset if reset.threshold > 0 else None

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
    """Training steps of ``config`` on that many training ``pictures``.

    Raises ValueError if there is not one whole batch.
    """
    per_epoch = pictures // config.batch_size
    if per_epoch == 0:
        raise ValueError(
            f"batch_size {config.batch_size} is larger than the training set of {pictures} "
            f"pictures; use at most {pictures}"
        )
    return config.steps or config.epochs * per_epoch
