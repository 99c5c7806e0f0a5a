"""Two beds for remedies: the real model, trained; and an encoder that is only a recording.

Both make the same steps in the same way: same pictures, order, optimizer and rate. On the second
bed a quantizer gets, step by step, what the encoder of an ordinary training gave then, and what
it does cannot reach that encoder. A remedy that helps the codebook helps on both; one that helps
through the encoder helps on the first alone.
"""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqlib.lessons import downstream, packages, remedies
from vqlib.lessons.remedies import REMEDIES, Remedy
from vqlib.lessons.tables import WOBBLE_STEPS
from vqlib.quantization import usage
from vqlib.quantization.quantizer import on_sphere
from vqlib.training import data
from vqlib.training.config import TrainConfig
from vqlib.training.data import Pictures
from vqlib.training.model import VQVAE, build_model
from vqlib.training.optimizer import AdamW

BEDS = ("model", "latents")
COLUMNS = (
    *("utilization", "perplexity", "top_code_ratio", "effective_dimension"),
    *("error", "accuracy", "wobble", "step_cost"),
)
TIMED = 12  # steps of each of two quantizers that are timed in turn

Forward = Callable[[Any, Tensor], tuple[Tensor, Tensor]]  # module, batch -> loss, indices


def through_model(model: VQVAE, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and indices of a step on ``pictures`` (B, C, H, W)."""
    out = model(pictures)
    return out.recon_loss + out.commit_loss, out.indices


def alone(quantizer: nn.Module, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and indices of a step on ``latents`` (N, D): codes that learn by gradients approach."""
    unit = on_sphere(latents)
    quantized, indices, loss = quantizer(unit.requires_grad_())
    return F.mse_loss(quantized, unit.detach()) + loss, indices


class Learner:
    """A module and its optimizer; ``step`` by step as `training.trainer` trains.

    Attributes:
        used: share of the codes in use in each step so far.
    """

    def __init__(self, module: nn.Module, forward: Forward, config: TrainConfig):
        self.module, self.forward, self.config = module, forward, config
        self.quantizer = getattr(module, "quantizer", module)
        parameters = list(module.parameters())
        self.optimizer = parameters and AdamW(
            parameters, betas=(config.momentum, 0.999), weight_decay=config.weight_decay
        )
        self.used: list[float] = []

    def step(self, batch: Tensor) -> None:
        """One training step. Raises FloatingPointError if the loss is not finite."""
        done, frozen = len(self.used), self.config.freeze_encoder_at
        if frozen is not None:
            self.module.encoder.requires_grad_(done < frozen)
        self.module.train()
        loss, indices = self.forward(self.module, batch)
        if not loss.isfinite():
            raise FloatingPointError(f"the loss is not finite at step {done + 1}")
        if self.optimizer:
            self.optimizer.param_groups[0]["lr"] = self.config.rate(
                min(done, self.config.steps - 1), self.config.steps
            )
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        self.used.append(len(indices.unique()) / self.quantizer.codebook_size)

    def wobble(self) -> float:
        """Standard deviation of the use over the last steps, in points."""
        return 100 * float(np.std(self.used[-WOBBLE_STEPS:], ddof=1))


def model_of(remedy: Remedy, config: TrainConfig) -> VQVAE:
    """The model of a remedy; the weights around its quantizer are the same for each."""
    model = build_model(config)
    if remedy.layer:
        model.quantizer = packages.packaged(remedy.layer, config)
    return model


def picture_batches(config: TrainConfig, pictures: Pictures) -> Iterator[Tensor]:
    """The training pictures of each step, in an order that the seed decides; without end."""
    generator = torch.Generator().manual_seed(config.seed)
    while True:
        order = torch.randperm(len(pictures.train), generator=generator)
        for rows in order.split(config.batch_size)[: len(order) // config.batch_size]:
            batch = pictures.train.batch(rows)
            yield batch.contiguous(memory_format=torch.channels_last)


class Recording(NamedTuple):
    """What an encoder gave at each step of an ordinary training without a reset."""

    latents: list[Tensor]  #: a step: (N, D)
    model: VQVAE  #: as it was after the last step


@lru_cache(maxsize=1)  # the sweep asks for one seed after the other
def recording(config: TrainConfig) -> Recording:
    """Train without a remedy, and keep what the encoder gave at each step."""
    latents: list[Tensor] = []
    learner = Learner(build_model(config), through_model, config)
    learner.quantizer.register_forward_pre_hook(
        lambda _, given: latents.append(given[0].detach().reshape(-1, config.dim).clone())
    )
    for _, batch in zip(range(config.steps), picture_batches(config, data.load()), strict=False):
        learner.step(batch)
    return Recording(latents, learner.module)


class Setup(NamedTuple):
    """A learner on a bed, the batches of its steps, and the model that shows what came of it."""

    learner: Learner
    batches: Iterator[Tensor]
    model: VQVAE


def set_up(bed: str, remedy: Remedy, seed: int, **changes) -> Setup:
    """A remedy on a bed, before its first step. ``changes``: of `remedies.BED`.

    Raises ValueError for an unknown bed, and for a remedy that changes nothing there.
    """
    config = remedy.config(seed, **changes)
    if bed == "model":
        model = model_of(remedy, config)
        batches = picture_batches(config, data.load())
        return Setup(Learner(model, through_model, config), batches, model)
    if bed != "latents" or not remedy.alone:
        raise ValueError(f"no such remedy on the bed {bed!r}; the beds are {BEDS}")
    recorded = recording(REMEDIES["baseline"].config(seed, **changes))
    quantizer = model_of(remedy, config).quantizer
    model = VQVAE(quantizer, recorded.model.channels, config.width)
    model.encoder, model.decoder = recorded.model.encoder, recorded.model.decoder
    return Setup(Learner(quantizer, alone, config), iter(recorded.latents), model)


def trained(bed: str, name: str, seed: int, **changes) -> tuple[Learner, VQVAE]:
    """A remedy, trained on a bed: its learner and the model that it is part of."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # packages draw from the global generator
        learner, batches, model = set_up(bed, REMEDIES[name], seed, **changes)
        for _, batch in zip(range(learner.config.steps), batches, strict=False):
            learner.step(batch)
    return learner, model.eval()


@torch.no_grad()
def examine(model: VQVAE, bed: str, pictures: Pictures) -> dict[str, float]:
    """Use and error of a model in evaluation mode, over the validation pictures.

    ``error``: on the bed "model" the mean squared error of a pixel, on "latents" the mean squared
    distance |z - q|^2 of a unit vector and what it became.
    """
    size = model.quantizer.codebook_size
    counts, codes, error = torch.zeros(size), torch.zeros(size, model.quantizer.dim), 0.0
    for rows in torch.arange(len(pictures.val)).split(52):
        batch = pictures.val.batch(rows)
        encoded = model.encode(batch)
        quantized, indices, _ = model.quantizer(encoded)
        flat = indices.flatten()
        counts += torch.bincount(flat, minlength=size)
        codes[flat] = quantized.reshape(len(flat), -1)
        if bed == "model":
            away = F.mse_loss(model.decode(quantized), batch)
        else:
            away = (on_sphere(encoded) - quantized).square().sum(dim=-1).mean()
        error += float(away) * len(rows) / len(pictures.val)
    used = codes[counts > 0]
    summary = usage.summarize(counts)
    shown = {name: summary[name] for name in COLUMNS[:3]}
    dimension = usage.effective_rank(used) if len(used) > 1 else 0.0
    return shown | {"effective_dimension": dimension, "error": error}


def step_cost(learner: Learner, bed: str, seed: int, **changes) -> float:
    """Seconds of a step over those of the guide's reset, medians of steps made in turn.

    Both go on with the training, so ask this last.
    """
    other, batches, _ = set_up(bed, REMEDIES["reset"], seed, **changes)
    taken: dict[Learner, list[float]] = {learner: [], other: []}
    for number, batch in zip(range(TIMED + 3), batches, strict=False):
        for one in taken if number % 2 else reversed(taken):
            start = time.perf_counter()
            one.step(batch)
            taken[one].append(time.perf_counter() - start)
    mine, theirs = (np.median(seconds[3:]) for seconds in taken.values())
    return float(mine / theirs)


def measure(config: Mapping, seed: int) -> dict[str, float]:
    """The measures of one remedy on one bed with one seed: `COLUMNS`.

    ``config``: "bed" and "remedy", names; what else it holds are changes of `remedies.BED`.
    """
    changes = dict(config)
    bed, name = changes.pop("bed"), changes.pop("remedy")
    learner, model = trained(bed, name, seed, **changes)
    pictures = data.load()
    labels = {split: [c.picture for c in data.photo_crops(split)] for split in ("train", "val")}
    found = examine(model, bed, pictures)
    found["accuracy"] = downstream.bag_of_codes_accuracy(model, pictures, labels)
    found["wobble"] = learner.wobble()
    found["step_cost"] = step_cost(learner, bed, seed, **changes)
    return found


def key() -> str:
    """What decides a measurement besides its settings: for `experiments.sweep`."""
    sources = "".join(map(inspect.getsource, (inspect.getmodule(key), packages, remedies)))
    return data.load().checksum + hashlib.sha256(sources.encode()).hexdigest()


def arms(bed: str, names, **changes) -> dict[str, dict]:
    """{remedy: config for `measure`} of those of ``names`` that change anything on this bed."""
    there = [name for name in names if bed == "model" or REMEDIES[name].alone]
    return {name: {"bed": bed, "remedy": name, **changes} for name in there}
