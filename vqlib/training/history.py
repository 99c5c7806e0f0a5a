"""The history of a run: one tidy row per (step, split). Its columns are those of `COLUMNS`.

`Recorder` measures; it reads a training step's output and changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqlib.quantization import geometry, usage
from vqlib.quantization.distributed import many, sum_over_ranks
from vqlib.quantization.ledger import ResetLedger, horizon_of
from vqlib.quantization.quantizer import on_sphere
from vqlib.training.config import TrainConfig
from vqlib.training.model import VQVAE, Output
from vqlib.watching.balance import Norms
from vqlib.watching.columns import COLUMNS, DRIFT_EVERY, SAMPLED_OUTPUTS
from vqlib.watching.columns import Column as Column  # also found here
from vqlib.watching.track import Evaluation, Seen, Track, hits, rank
from vqlib.watching.track import codebook_columns as codebook_columns

PROBE_PICTURES = 4  # whose encoder outputs measure the drift
VAL_BATCH = 64  # pictures; every picture counts the same at any size


def survival_horizon(config: TrainConfig, tokens: int) -> int:
    """Steps after which a reset is judged, at ``tokens`` a step."""
    return horizon_of(_grace(config, tokens))


def _grace(config: TrainConfig, tokens: int) -> float:
    reset = config.reset()
    return reset.grace(config.decay, config.codebook_size, tokens) if reset else 0


class Measures(NamedTuple):
    """Of one training step, over the batches of all processes."""

    counts: Tensor  #: (K + 3,) int64, see `Seen.bins`
    recon_loss: Tensor  #: scalar, as are the others
    commit_loss: Tensor
    cosine_error: Tensor  #: NaN where no row is due

    @classmethod
    def of(cls, output: Output, codebook_size: int, due: bool) -> Measures:
        """Of a step's ``output``, for this process's part of the batch."""
        losses = output.recon_loss.detach(), output.commit_loss.detach()
        error = cosine_error(output).detach() if due else torch.full_like(losses[0], math.nan)
        return cls(hits(output.indices, codebook_size), *losses, error)

    def over_ranks(self, share: float, wishes: list[bool]) -> tuple[Measures, list[bool]]:
        """Of the whole batch, this process having a ``share`` of it, and which of the
        ``wishes`` any process has. One message; alone, both as they are."""
        if not many():
            return self, wishes
        counts, *means = self
        parts = counts, share * torch.stack(means), counts.new_tensor(wishes)
        message = sum_over_ranks(torch.cat([part.double() for part in parts]))
        counts, means, wishes = message.split([len(counts), len(means), len(wishes)])
        return Measures(counts.long(), *means), (wishes > 0).tolist()


class Recorder:
    """Turns training steps and validations into rows: a `Track`'s, as in a watch, and more.

    Args:
        config: of the run. tokens: a step's tokens N. probe: (P, C, H, W) fixed pictures.
    """

    def __init__(self, config: TrainConfig, tokens: int, probe: Tensor):
        self.config, self.probe = config, probe
        size, grace = config.codebook_size, _grace(config, tokens)
        self.track = Track(
            "quantizer",
            size,
            {},
            every=config.log_every,
            window=config.usage_window,
            observed=True,
            counted=True,
            ledger=ResetLedger(size, horizon_of(grace), grace),
        )
        self.ledger, self.window, self.rows = self.track.ledger, self.track.window, self.track.rows
        self.probed: Tensor | None = None  # unit encoder outputs at the last look
        self.drift = math.nan

    def due(self, step: int) -> bool:
        """Whether training step ``step`` gets a row."""
        return step % self.config.log_every == 0

    def train_step(
        self,
        step: int,
        output: Output,
        model,
        lr: float,
        norms: Norms | None = None,
        measures: Measures | None = None,
    ) -> None:
        """Take in training step ``step`` (from 1); write a row if one is due.

        ``norms``: of the two gradients at the quantizer's input, if its backward pass was seen.
        ``measures``: of the batches of all processes; None: this ``output`` is all.
        Encoder outputs are sampled from this ``output``.
        """
        due = self.due(step)
        if measures is None:
            measures = Measures.of(output, self.config.codebook_size, due)
        if step % DRIFT_EVERY == 0:
            self.drift = self._look(model)
        reset, indices = model.quantizer.last_reset, output.indices
        self.track.add(
            Seen(
                step,
                True,
                measures.counts,
                indices.new_empty(0) if reset is None else reset.codes,
                inputs=_sample(step, output.encoded) if due else None,
                codes=_sample(step, output.quantized) if due else None,
                norms=norms,
                loss=measures.commit_loss,
            )
        )
        self.track.fetch()
        if due:
            self.rows[-1] |= {
                "drift": self.drift,
                "recon_loss": measures.recon_loss.item(),
                "cosine_error": measures.cosine_error.item(),
                "lr": lr,
            }
            self.drift = math.nan

    def val_row(
        self, step: int, counts: Tensor, measured: dict[str, float], codebook: Tensor | None = None
    ) -> None:
        """Write a validation row: of ``counts`` (K,), the ``codebook`` (K, D), and what else was
        ``measured``."""
        self.rows.append(self.track.val_row(Evaluation(step, counts), codebook) | measured)

    def history(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=list(COLUMNS))

    @torch.no_grad()
    def _look(self, model) -> float:
        """Degrees a step that the probe's encoder outputs turned since the last look."""
        now = F.normalize(model.encode(self.probe).float(), dim=-1)
        before, self.probed = self.probed, now
        if before is None:
            return math.nan
        return float(geometry.angles(now, before).mean()) / DRIFT_EVERY

    def state_dict(self) -> dict[str, Tensor]:
        """All that resuming needs, as tensors."""
        columns = [c for c in COLUMNS if c != "split"]
        rows = [
            [float(row.get(c, math.nan)) for c in columns] + [float(row["split"] == "val")]
            for row in self.rows
        ]
        state = self.ledger.state_dict() | {
            "rows": torch.tensor(rows, dtype=torch.float64).reshape(-1, len(columns) + 1),
            "window": torch.stack(list(self.window)) if self.window else torch.empty(0),
            "drift": torch.tensor(self.drift, dtype=torch.float64),
        }
        return state if self.probed is None else state | {"probed": self.probed}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        columns = [c for c in COLUMNS if c != "split"]
        self.rows.clear()
        width = state["rows"].shape[-1] - 1  # an older version wrote the first columns alone
        for *values, is_val in state["rows"].tolist():
            row = dict(zip(columns[:width], values, strict=True))
            row |= {c: int(row[c]) for c in ("step", "used_codes", "window_tokens")}
            self.rows.append(row | {"split": "val" if is_val else "train"})
        self.window.clear()
        self.window.extend(state["window"])
        self.ledger.load_state_dict(state)
        self.drift = float(state["drift"])
        probed = state.get("probed")
        self.probed = None if probed is None else probed.to(self.probe.device)


def _sample(step: int, encoded: Tensor) -> Tensor:
    """(n, D) of the encoder's outputs, or their codes, (..., D), drawn by the step."""
    flat = encoded.detach().flatten(0, -2)
    generator = torch.Generator().manual_seed(step)
    chosen = torch.randperm(len(flat), generator=generator)[:SAMPLED_OUTPUTS]
    return flat[chosen.to(flat.device)]


def state_of(quantizer: nn.Module) -> Tensor:
    """A copy of a quantizer's counts and codes, flattened."""
    return torch.cat([quantizer.cluster_size.flatten(), quantizer.codebook.flatten()])


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
    sums["encoder_rank"] = rank(on_sphere(encoded))
    codebook, counts = codebook.cpu(), counter.counts.cpu()
    sums["lag"] = geometry.codebook_lag(codebook, counts, assigned.cpu())
    sums["dead_distance"] = geometry.distance_to_nearest(codebook[counts == 0], on_sphere(encoded))
    return counter.counts, sums


def cosine_error(output: Output) -> Tensor:
    """1 - cosine between encoder outputs and their codes, averaged; scalar."""
    return 1 - F.cosine_similarity(output.encoded.float(), output.quantized.float(), dim=-1).mean()


def final_values(history: pd.DataFrame) -> dict[str, float]:
    """{"train_utilization": ..., "val_recon_loss": ...}: the last row of each split."""
    columns = ["utilization", "perplexity", "top_code_ratio", "recon_loss"]
    last = history.groupby("split").tail(1).set_index("split")[columns]
    return {
        f"{split}_{name}": float(last.at[split, name]) for split in last.index for name in columns
    }
