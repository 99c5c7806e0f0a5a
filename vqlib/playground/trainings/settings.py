"""The settings of a training as controls: each is a field of `TrainConfig`, by its name."""

from __future__ import annotations

from dataclasses import replace

from vqlib.playground.controls import Choice, Panel, Slider, Switch
from vqlib.playground.frames import limits
from vqlib.playground.trainings.worker import pictures_of
from vqlib.quantization.reset import FLAGS
from vqlib.training.config import TrainConfig, steps_of
from vqlib.training.experiments import SMALL
from vqlib.training.model import STRIDE

BASE = replace(
    SMALL, dead_code_threshold=1.0, trace_every=0, val_every=20, checkpoint_every=20, log_every=1
)
"""A small version of the calibrated settings, with the guide's reset: pictures within seconds."""

SHORT = {
    "dataset": "",
    "codebook_size": "K",
    "batch_size": "batch",
    "steps": "steps",
    "decay": "decay",
    "beta": "beta",
    **{FLAGS[name]: name for name in ("threshold", "relative", "every", "donors", "refill")},
    "learning_rate": "rate",
    "warmup_steps": "warm-up",
    "seed": "seed",
}
"""{field: what names and sentences call it}."""


def controls(base: TrainConfig) -> list:
    """One for each field in `SHORT`, standing at ``base``."""
    data = {"photographs": "photos", "digits": "digits"}
    if base.dataset_dir is not None:
        data = {"your pictures": base.dataset}
    donors = {
        "most used code": "most_used",
        "the 8 most used": "top",
        "any token": "batch",
        "in proportion to use": "usage",
    }
    return [
        Choice("dataset", "Data", base.dataset, data, "What the model is trained on."),
        _slider(base, "codebook_size", "Codes K", 2, 2048, 1, "codes", "Number of codes."),
        _slider(base, "batch_size", "Batch", 1, 256, 1, "pictures", "Pictures in a step."),
        _slider(base, "steps", "Steps", 1, 5000, 1, "steps", "Training steps in all."),
        _slider(
            base,
            "decay",
            "Decay",
            0.0,
            1.0,
            0.001,
            "of the old",
            "Decay of the averages of codes and counts; their memory is 1/(1 - decay) steps.",
        ),
        _slider(
            base, "beta", "Beta", 0.0, 2.0, 0.05, "x commitment", "Weight of the commitment loss."
        ),
        _slider(
            base,
            "dead_code_threshold",
            "Threshold",
            0.0,
            20.0,
            0.1,
            "hits a step",
            "A code whose moving average of hits is below this is dead; 0: no reset.",
        ),
        Switch(
            "reset_relative",
            "as multiples of N/K",
            base.reset_relative,
            "Read threshold and refill as multiples of N/K, so that they fit any N and K.",
        ),
        _slider(
            base,
            "reset_refill",
            "Refill",
            0.0,
            40.0,
            0.1,
            "0: thr. + 1",
            "The count that a reset code starts with; 0 means threshold + 1.",
        ),
        _slider(base, "reset_interval", "Interval", 1, 100, 1, "steps", "Reset every n-th step."),
        Choice(
            "reset_donors",
            "Donors",
            base.reset_donors,
            donors,
            "Whose encoder outputs replace dead codes.",
        ),
        Slider(
            "learning_rate",
            "Rate",
            base.learning_rate,
            1e-6,
            1000.0,
            0.05,
            "a step",
            "Learning rate of AdamW, reached at the end of the warm-up.",
            log=True,
        ),
        _slider(
            base,
            "warmup_steps",
            "Warm-up",
            0,
            2000,
            1,
            "steps",
            "Steps over which the learning rate rises.",
        ),
        _slider(
            base,
            "seed",
            "Seed",
            0,
            9999,
            1,
            "of all draws",
            "Seed of weights, order of pictures and draws: same seed, same run.",
        ),
    ]


def _slider(base: TrainConfig, name: str, label: str, *rest) -> Slider:
    return Slider(name, label, getattr(base, name) or 0, *rest)


def config_of(values: dict, base: TrainConfig) -> TrainConfig:
    """What the controls ask for; everything they do not show is ``base``'s.

    Raises SettingsError if they do not go together.
    """
    refill = values["reset_refill"] or None
    config = replace(base, **values | {"reset_refill": refill})
    steps_of(config, len(pictures_of(config).train))
    return config


def values_of(config: TrainConfig) -> dict:
    """The controls' values for a config."""
    values = {name: getattr(config, name) for name in SHORT}
    return values | {"reset_refill": values["reset_refill"] or 0.0, "steps": config.steps or 0}


def silence(panel: Panel) -> None:
    """Take back all that was said under the controls."""
    for name in {*panel.complaints, "codebook_size", "steps", "dead_code_threshold"}:
        panel.complain(name, "")


def explain(panel: Panel, config: TrainConfig) -> None:
    """Say under the controls what their values mean."""
    pictures = pictures_of(config)
    height, width = pictures.size
    tokens = config.batch_size * (height // STRIDE) * (width // STRIDE)
    share = tokens / config.codebook_size
    panel.note("codebook_size", f"N/K = {tokens}/{config.codebook_size} = {share:.3g} hits a step")
    panel.note("steps", f"{config.steps * config.batch_size / len(pictures.train):.2g} epochs")
    said = limits(config.reset(), config.codebook_size, tokens, config.decay)
    panel.note("dead_code_threshold", "; ".join(filter(None, said)))


def difference(config: TrainConfig, base: TrainConfig) -> str:
    """The settings that differ from ``base``'s in a few words; "" if none does."""
    ours, theirs = values_of(config), values_of(base)
    return ", ".join(_words(name, ours[name]) for name in SHORT if ours[name] != theirs[name])


def description(config: TrainConfig) -> str:
    """All of the settings in a few words."""
    values = values_of(config)
    if not values["reset_refill"]:
        values.pop("reset_refill")
    if not values["reset_relative"]:
        values.pop("reset_relative")
    return ", ".join(_words(name, value) for name, value in values.items())


def _words(name: str, value) -> str:
    if isinstance(value, bool):
        return SHORT[name] if value else f"not {SHORT[name]}"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f"{SHORT[name]} {text}".strip()
