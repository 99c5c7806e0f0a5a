"""The history of a run: one tidy row per (step, split). Its columns are documented here.

`Recorder` measures; it reads a training step's output and changes nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqlib.quantization import geometry, usage
from vqlib.quantization.ledger import ResetLedger
from vqlib.quantization.quantizer import on_sphere
from vqlib.training.config import TrainConfig
from vqlib.training.model import VQVAE, Output

PROBE_PICTURES = 4  # whose encoder outputs measure the drift
DRIFT_EVERY = 5  # steps between two looks at the probe
MAX_COMPARED = 8192  # codes; beyond it, comparing all pairs at each validation takes too long
EQUAL = 0.999999  # cosine from which two codes are one; flat patches give 0.999 and differ
VAL_BATCH = 64  # pictures; every picture counts the same whatever this is
LEDGER_TALLY = ("step", "resets", "re_resets", "premature", "judged", "lived")
SAMPLED_OUTPUTS = 100  # encoder outputs whose similarity is measured, the guide's number


class Column(NamedTuple):
    unit: str
    window: str
    meaning: str


COLUMNS = {
    "step": Column("steps", "-", "training steps done when the row was written, from 1"),
    "split": Column("-", "-", '"train" or "val"'),
    "used_codes": Column("codes", "usage", "codes chosen at least once"),
    "utilization": Column("share of K", "usage", "used_codes / K"),
    "perplexity": Column("codes", "usage", "exp of the entropy of use"),
    "top_code_ratio": Column("x average", "usage", "hits of the most used code over N/K"),
    "window_tokens": Column("tokens", "usage", "N, the tokens counted"),
    "uniform_utilization": Column(
        "share of K", "usage", "utilization that perfectly uniform use would show"
    ),
    "mature_utilization": Column(
        "share of K", "usage", "utilization without codes reset less than the grace ago"
    ),
    "resets": Column("codes", "row", "codes reset"),
    "re_resets": Column("codes", "row", "of these, codes that had been reset before"),
    "premature": Column(
        "codes",
        "row",
        "of these, codes reset less than the grace ago: a refilled count cannot fall so soon",
    ),
    "survived": Column(
        "share",
        "row",
        "of resets whose verdict fell due: hit, and not reset again, within the survival horizon",
    ),
    "encoder_similarity": Column(
        "cosine",
        "step",
        "average over pairs of 100 random encoder outputs (val: over the whole set)",
    ),
    "encoder_std": Column("-", "step", "standard deviation of an encoder feature, averaged"),
    "drift": Column(
        "degrees a step",
        f"{DRIFT_EVERY} steps",
        "turn of the encoder's outputs on a fixed "
        "probe since the last look, over the steps between",
    ),
    "duplicates": Column("codes", "val", "codes equal to one before them (cosine above 0.999999)"),
    "longest_code": Column("x usual", "val", "longest code's norm over the median of used codes'"),
    "eval_change": Column(
        "-", "val", "largest change of a count or a codebook entry by the validation itself"
    ),
    "lag": Column(
        "degrees", "val", "angle between a used code and the mean of the outputs now assigned to it"
    ),
    "dead_distance": Column(
        "degrees", "val", "angle from a code that is not used to the nearest encoder output"
    ),
    "recon_loss": Column("MSE", "step", "mean squared error of pictures in [0, 1]"),
    "commit_loss": Column("-", "step", "the quantizer's loss, beta in it"),
    "cosine_error": Column("-", "step", "1 - cosine between encoder output and its code"),
    "lr": Column("-", "step", "learning rate"),
}
"""What each column of `Run.history` means. Windows: *usage* is the last ``usage_window``
steps for split "train" and the whole validation set for "val"; *row* is the steps since
the train row before; *step* is this step's batch (val: the whole validation set); *val* is
the whole validation set, in rows of split "val" alone."""


def survival_horizon(config: TrainConfig, tokens: int) -> int:
    """Steps after which a reset is judged: twice the grace, at least 10."""
    reset = config.reset()
    grace = reset.grace(config.decay, config.codebook_size, tokens) if reset else 1
    return max(10, 2 * int(min(grace, 10**6)))


class Recorder:
    """Turns training steps and validations into rows.

    Args:
        config: of the run. tokens: a step's tokens N. probe: (P, C, H, W) fixed pictures.
    """

    def __init__(self, config: TrainConfig, tokens: int, probe: Tensor):
        self.config, self.probe = config, probe
        reset = config.reset()
        self.grace = reset.grace(config.decay, config.codebook_size, tokens) if reset else 0
        self.ledger = ResetLedger(
            config.codebook_size, survival_horizon(config, tokens), self.grace
        )
        self.window: deque[Tensor] = deque(maxlen=config.usage_window)
        self.rows: list[dict] = []
        self.probed: Tensor | None = None  # unit encoder outputs at the last look
        self.drift = math.nan

    def train_step(self, step: int, output: Output, model, lr: float) -> None:
        """Take in training step ``step`` (from 1); write a row where one is due."""
        counts = _count(output.indices, self.config.codebook_size)
        self.window.append(counts)
        reset = model.quantizer.last_reset
        self.ledger.update(counts, None if reset is None else reset.codes)
        if step % DRIFT_EVERY == 0:
            self.drift = self._look(model)
        if step % self.config.log_every == 0:
            self.rows.append(self._train_row(step, output, lr))
            self.ledger.clear()
            self.drift = math.nan

    def val_row(self, step: int, counts: Tensor, measured: dict[str, float]) -> None:
        """Write a validation row: ``counts`` (K,) and what else was measured."""
        row = {"step": step, "split": "val"} | usage.summarize(counts) | measured
        row["mature_utilization"] = self._mature(counts)
        self.rows.append(row)

    def history(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=list(COLUMNS))

    def _train_row(self, step: int, output: Output, lr: float) -> dict:
        counts = torch.stack(list(self.window)).sum(dim=0)
        encoded = output.encoded.detach().reshape(-1, output.encoded.shape[-1])
        generator = torch.Generator().manual_seed(step)
        chosen = torch.randperm(len(encoded), generator=generator)[:SAMPLED_OUTPUTS]
        sample = encoded[chosen.to(encoded.device)]
        return {
            "step": step,
            "split": "train",
            **usage.summarize(counts),
            "mature_utilization": self._mature(counts),
            **self.ledger.row(),
            "encoder_similarity": usage.pairwise_similarity(sample),
            "encoder_std": usage.feature_std(sample),
            "drift": self.drift,
            "recon_loss": output.recon_loss.item(),
            "commit_loss": output.commit_loss.item(),
            "cosine_error": cosine_error(output).item(),
            "lr": lr,
        }

    def _mature(self, counts: Tensor) -> float:
        return usage.utilization(counts * self.ledger.older_than(self.grace))

    @torch.no_grad()
    def _look(self, model) -> float:
        """Degrees a step that the probe's encoder outputs turned since the last look."""
        now = F.normalize(model.encode(self.probe).float(), dim=-1)
        before, self.probed = self.probed, now
        if before is None:
            return math.nan
        return float(geometry.angles(now, before).mean()) / DRIFT_EVERY

    def state_dict(self) -> dict[str, Tensor]:
        """All that is needed to go on, as tensors."""
        ledger, columns = self.ledger, [c for c in COLUMNS if c != "split"]
        rows = [
            [float(row.get(c, math.nan)) for c in columns] + [float(row["split"] == "val")]
            for row in self.rows
        ]
        cohorts = [
            (born, code) for born, codes in ledger.cohorts.items() for code in codes.tolist()
        ]
        state = {
            "rows": torch.tensor(rows, dtype=torch.float64).reshape(-1, len(columns) + 1),
            "window": torch.stack(list(self.window)) if self.window else torch.empty(0),
            "times": ledger.times,
            "born": ledger.born,
            "hit": ledger.hit,
            "cohorts": torch.tensor(cohorts, dtype=torch.int64).reshape(-1, 2),
            "tally": torch.tensor([getattr(ledger, name) for name in LEDGER_TALLY]),
            "drift": torch.tensor(self.drift, dtype=torch.float64),
        }
        return state if self.probed is None else state | {"probed": self.probed}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        ledger, columns = self.ledger, [c for c in COLUMNS if c != "split"]
        self.rows = []
        for *values, is_val in state["rows"].tolist():
            row = dict(zip(columns, values, strict=True))
            row |= {c: int(row[c]) for c in ("step", "used_codes", "window_tokens")}
            self.rows.append(row | {"split": "val" if is_val else "train"})
        self.window.clear()
        self.window.extend(state["window"])
        ledger.times, ledger.born, ledger.hit = state["times"], state["born"], state["hit"]
        for name, value in zip(LEDGER_TALLY, state["tally"].tolist(), strict=True):
            setattr(ledger, name, value)
        ledger.cohorts.clear()
        for born in state["cohorts"][:, 0].unique().tolist():
            ledger.cohorts[born] = state["cohorts"][state["cohorts"][:, 0] == born, 1]
        self.drift = float(state["drift"])
        probed = state.get("probed")
        self.probed = None if probed is None else probed.to(self.probe.device)


def state_of(quantizer: nn.Module) -> Tensor:
    """A copy of a quantizer's counts and codes, flattened."""
    return torch.cat([quantizer.cluster_size.flatten(), quantizer.codebook.flatten()])


def codebook_columns(codebook: Tensor, counts: Tensor) -> dict[str, float]:
    """``duplicates`` and ``longest_code`` of a codebook (K, D) used ``counts`` (K,) times."""
    length = codebook.detach().float().norm(dim=-1)
    usual = length[counts.to(length.device) > 0].median().clamp(min=1e-30)
    few = len(codebook) <= MAX_COMPARED
    return {
        "duplicates": usage.near_duplicates(codebook, EQUAL) if few else math.nan,
        "longest_code": float(length.max() / usual),
    }


@torch.no_grad()
def measure(model: VQVAE, pictures, to_device: Callable) -> tuple[Tensor, dict[str, float]]:
    """One pass over a data set in evaluation mode: code counts (K,), and a row's averages."""
    model.eval()
    counter = usage.UsageCounter(model.quantizer.codebook_size)
    sums = dict.fromkeys(("recon_loss", "commit_loss", "cosine_error"), 0.0)
    thin = 1 + len(pictures) // 1000  # so much of a large set's encoder outputs is left out
    outputs, codebook = [], model.quantizer.codebook
    assigned = torch.zeros_like(codebook)  # per code, the sum of the unit outputs it took
    for rows in torch.arange(len(pictures)).split(VAL_BATCH):
        output = model(to_device(pictures.batch(rows)))
        counter.update(output.indices)
        share = len(rows) / len(pictures)
        sums["recon_loss"] += share * output.recon_loss.item()
        sums["commit_loss"] += share * output.commit_loss.item()
        sums["cosine_error"] += share * cosine_error(output).item()
        encoded = output.encoded.flatten(0, -2)
        assigned.index_add_(0, output.indices.flatten(), on_sphere(encoded))
        encoded = encoded.cpu()
        generator = torch.Generator().manual_seed(int(rows[0]))
        chosen = torch.randperm(len(encoded), generator=generator)[: -(-len(encoded) // thin)]
        outputs.append(encoded[chosen])
    encoded = torch.cat(outputs)
    sums["encoder_similarity"] = usage.pairwise_similarity(encoded)
    sums["encoder_std"] = usage.feature_std(encoded)
    codebook, counts = codebook.cpu(), counter.counts.cpu()
    sums["lag"] = geometry.codebook_lag(codebook, counts, assigned.cpu())
    sums["dead_distance"] = geometry.distance_to_nearest(codebook[counts == 0], on_sphere(encoded))
    return counter.counts, sums


def cosine_error(output: Output) -> Tensor:
    """1 - cosine between encoder outputs and their codes, averaged; scalar."""
    return 1 - F.cosine_similarity(output.encoded.float(), output.quantized.float(), dim=-1).mean()


def _count(indices: Tensor, codebook_size: int) -> Tensor:
    return torch.bincount(indices.reshape(-1), minlength=codebook_size).cpu()


def final_values(history: pd.DataFrame) -> dict[str, float]:
    """{"train_utilization": ..., "val_recon_loss": ...}: the last row of each split."""
    columns = ["utilization", "perplexity", "top_code_ratio", "recon_loss"]
    last = history.groupby("split").tail(1).set_index("split")[columns]
    return {
        f"{split}_{name}": float(last.at[split, name]) for split in last.index for name in columns
    }
