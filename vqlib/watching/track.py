"""One codebook followed through time: what was seen of it becomes rows of a history."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vqlib.quantization import usage
from vqlib.quantization.geometry import similarity_of_each, std_of_each
from vqlib.quantization.ledger import ResetLedger, horizon_of
from vqlib.quantization.reset import DeadCodeReset
from vqlib.watching.balance import Norms
from vqlib.watching.columns import RANKED, looks

KEEP = 32  # records that wait on the device before they are fetched together
VAL_SAMPLES = 20  # forwards of one pass of evaluation whose sampled inputs are kept
MAX_COMPARED = 8192  # codes; beyond it, comparing all pairs at each validation takes too long
UNIT = 1e-2  # from the length 1 that codes on the sphere may be; a half type rounds that much
EQUAL = 0.999999  # cosine from which two codes are one; flat patches give 0.999 and differ
HITS = slice(2, -1)  # of `Seen.bins`, the hits of each code


class Seen(NamedTuple):
    """What one forward showed, as tensors that stay where they are until fetched."""

    step: int
    training: bool
    bins: Tensor  #: (K + 3,) int64: indices below -1, masked tokens, hits of each code, above
    reset: Tensor | None = None  #: (K,) bool or (n,) int64, codes reset; None: not to be told
    inputs: Tensor | None = None  #: (n, D) sampled inputs
    codes: Tensor | None = None  #: (n, D) what they became
    kept: Tensor | slice = slice(None)  #: (n,) bool, the sampled tokens that were not masked out
    loss: Tensor | None = None  #: scalar
    change: Tensor | None = None  #: scalar, how far evaluation moved counts or codebook
    norms: Norms | None = None  #: of the two gradients, once the backward pass has come


@dataclass
class Evaluation:
    """The forwards in evaluation mode between two training steps, added up."""

    step: int
    counts: Tensor | int = 0
    sampled: list[Seen] = field(default_factory=list)  #: thinned out evenly, never many
    stride: int = 1
    forwards: int = 0
    loss: float = 0.0
    loss_tokens: int = 0
    change: float | None = None  #: None: nothing that could have changed

    def add(self, seen: Seen, counts: Tensor) -> None:
        self.counts = self.counts + counts
        if seen.inputs is not None and self.forwards % self.stride == 0:
            self.sampled.append(seen)
            if len(self.sampled) == 2 * VAL_SAMPLES:
                self.sampled, self.stride = self.sampled[::2], 2 * self.stride
        self.forwards += 1
        if seen.loss is not None:
            self.loss += float(seen.loss) * int(counts.sum())
            self.loss_tokens += int(counts.sum())
        if seen.change is not None:
            self.change = max(self.change or 0.0, float(seen.change))

    def row(self) -> dict | None:
        """Its row of the history; None if every token was masked out."""
        if not int(self.counts.sum()):
            return None
        row = {"step": self.step, "split": "val", **usage.summarize(self.counts)}
        row |= _inputs(self.sampled)
        if self.loss:  # exactly 0: a layer that computes none in evaluation
            row["commit_loss"] = self.loss / self.loss_tokens
        if self.change is not None:
            row["eval_change"] = self.change
        return row


class OutOfRange(ValueError):
    """An index that is no code."""


def hits(indices: Tensor, codebook_size: int) -> Tensor:
    """(K + 3,) int64, see `Seen.bins`. Never waits for the device."""
    place = indices.detach().reshape(-1).long().clamp(-2, codebook_size).add_(2)
    if place.device.type == "cpu":
        return torch.bincount(place, minlength=codebook_size + 3)
    bins = torch.zeros(codebook_size + 3, dtype=torch.int64, device=place.device)
    return bins.index_add(0, place, torch.ones_like(place))  # there bincount would wait


def turned(old: Tensor, new: Tensor) -> Tensor:
    """(K,) bool: rows of ``new`` (K, D) that point elsewhere than in ``old``.

    A moving average leaves a code without hits where it is, or shrinks it: its direction
    stays. What turns it is a reset. (A row of zeros is a code not yet initialised.)
    """
    if old.device.type == "cpu" and torch.equal(old, new):  # elsewhere asking costs more
        return torch.zeros(len(old), dtype=torch.bool)
    old, new = old.float(), new.float()
    along = (old * new).sum(-1) / old.square().sum(-1).clamp_min(torch.finfo(old.dtype).tiny)
    aside = torch.linalg.vector_norm(new - along[:, None] * old, dim=-1)
    return (aside > 1e-3 * torch.linalg.vector_norm(new, dim=-1)) & (old != 0).any(-1)


def shrunk(old: Tensor, new: Tensor, z: Tensor, indices: Tensor) -> Tensor:
    """(K,) bool: a code of ``new`` (K, D) is less than half as long as in ``old``, and as the mean
    of the inputs ``z`` (N, D) that chose it by ``indices`` (N,). No moving average does that."""
    hits = torch.bincount(indices, minlength=len(old)).clamp(min=1)[:, None]
    means = torch.zeros_like(old).index_add_(0, indices, z) / hits
    least = torch.minimum(old.norm(dim=-1), means.norm(dim=-1))
    return new.norm(dim=-1) < 0.5 * least


def grace(settings: dict) -> int:
    """Steps a reset code lives without a hit, from a layer's ``settings``; 0 if unknown."""
    threshold, decay = settings.get("dead_code_threshold"), settings.get("decay")
    if not threshold or decay is None:
        return 0
    refill = settings.get("reset_refill", threshold)
    if refill <= threshold:
        return 1
    steps = DeadCodeReset(threshold=threshold, refill=refill).grace(decay)
    return int(min(steps, 10**6))


class Track:
    """The history of one codebook.

    Args:
        name: of the layer. codebook_size: K. settings: of the layer, see `Adapter`.
        every: training steps between rows. window: steps that a row's usage counts.
        observed: whether resets can be seen; else their columns stay NaN.
        counted: whether the layer keeps counts, by which its codes are divided.
        ledger: of its resets; None: one with the grace that ``settings`` tell.
    """

    def __init__(
        self, name, codebook_size, settings, *, every, window, observed, counted, ledger=None
    ):
        self.name, self.codebook_size = name, codebook_size
        self.every, self.observed, self.counted = every, observed, counted
        if ledger is None:
            steps = grace(settings)
            ledger = ResetLedger(codebook_size, horizon_of(steps), steps or None)
        self.ledger = ledger
        self.known = settings | {"codebook_size": codebook_size, "survival_horizon": ledger.horizon}
        self.blind = False  # a step since the last row could not be judged
        self.window: deque[Tensor] = deque(maxlen=window)
        self.tokens: deque[int] = deque(maxlen=1001)
        self.rows: list[dict] = []
        self.pending: list[Seen] = []
        self.awaited: list[tuple[dict, Norms]] = []  # rows whose backward pass may still come
        self.val: Evaluation | None = None  # the evaluation under way
        self.codebook: Tensor | None = None  # as it was when that began

    def observe(self, settings: dict) -> None:
        """Look for resets from now on; ``settings`` are what is known by now of the layer."""
        steps = grace(settings)
        self.ledger = ResetLedger(self.codebook_size, horizon_of(steps), steps or None)
        self.known = settings | self.known | {"survival_horizon": self.ledger.horizon}
        self.observed = True

    def add(self, seen: Seen) -> None:
        """Take in a forward. Raises OutOfRange, at the latest some forwards after it."""
        self.pending.append(seen)
        if len(self.pending) >= KEEP or seen.step <= 1:
            self.fetch()

    def fetch(self) -> None:
        """Turn everything that waits into rows. Raises OutOfRange, after what came before it."""
        self._settle()
        bins = [seen.bins.cpu() for seen in self.pending]
        outside = [b[0].item() + b[-1].item() for b in bins]
        end = next((i for i, n in enumerate(outside) if n), len(bins))
        known, wrong, self.pending = self.pending[:end], self.pending[end:], self.pending[end + 1 :]
        self._take(known, [b[HITS] for b in bins[:end]])
        if wrong:
            raise OutOfRange(
                f"layer {self.name!r} gave {outside[end]} indices outside "
                f"[0, {self.codebook_size}) at step {wrong[0].step}: its adapter reads the wrong "
                "tensor, or the wrong codebook"
            )

    def _take(self, forwards: list[Seen], counts: list[Tensor]) -> None:
        """Make rows of ``forwards`` with their hits (K,); what rows have alike is done at once."""
        used: list[tuple[dict, Tensor]] = []  # rows, and the hits that they count
        columns = _inputs_of_each(forwards, self.every)
        for seen, hit, inputs in zip(forwards, counts, columns, strict=True):
            if seen.training:
                self.close_val()
                used += self._train(seen, hit, inputs)
            else:
                self.val = self.val or Evaluation(seen.step)
                self.val.add(seen, hit)
        if used:
            found = usage.summarize_each(torch.stack([total for _, total in used]))
            for (row, _), summary in zip(used, found, strict=True):
                row |= summary

    def close_val(self) -> None:
        """End the evaluation under way: its forwards become one row."""
        self.rows += self.under_way()
        self.val = None

    def table(self) -> list[dict]:
        """All rows so far, with the evaluation under way as the last."""
        self.fetch()
        return self.rows + self.under_way()

    def settings(self) -> dict:
        """What is known of the layer, with its ``tokens_per_step``.

        That is the median over the steps that reached it: a level of a residual quantizer
        that drops levels is skipped in the others.
        """
        self.fetch()
        tokens = sorted(n for n in self.tokens if n)
        return self.known | ({"tokens_per_step": tokens[len(tokens) // 2]} if tokens else {})

    @property
    def reached(self) -> bool:
        """Whether any token was seen, but for those of an evaluation under way."""
        return bool(self.rows) or any(self.tokens)

    def begin_val(self, codebook: Tensor | None) -> None:
        """Evaluation begins, with this ``codebook`` (K, D)."""
        self.fetch()
        self.codebook = None if codebook is None else codebook.detach().clone()

    def finish(self, codebook: Tensor | None) -> None:
        """Nothing more will come; the last row shows the ``codebook`` (K, D) as it is left."""
        self.fetch()
        self.close_val()
        if self.rows and self.window:
            self.rows[-1] |= self._codes(codebook, self._in_window())

    def know_dead(self, counts: Tensor) -> None:
        """Remember how many ``counts`` (K,) lie so far below the threshold that a reset is due.

        "So far": they would have fallen there while the reset could have acted several times.
        """
        limits, tokens = self.known, self.settings().get("tokens_per_step")
        threshold, decay = limits.get("dead_code_threshold"), limits.get("decay", 0.5)
        if not threshold or not tokens:
            return
        if limits.get("reset_relative"):
            threshold *= tokens * limits.get("processes", 1) / self.codebook_size
        late = decay ** (2 * limits.get("reset_interval", 1) + 3)
        self.known["below_threshold"] = int((counts.detach() < threshold * late).sum())

    def _train(self, seen: Seen, counts: Tensor, inputs: dict) -> list[tuple[dict, Tensor]]:
        """Take in a training step. The row that is due, if any, and the hits (K,) it counts."""
        self.window.append(counts)
        self.tokens.append(int(counts.sum()))
        if self.observed:
            codes = seen.reset
            self.blind |= codes is None
            if codes is not None and codes.dtype == torch.bool:
                codes = codes.cpu().nonzero().flatten()
            self.ledger.update(counts, codes)
        if seen.step % self.every:
            return []
        total = self._in_window()
        if not total.any():
            return []
        row = {"step": seen.step, "split": "train", **inputs}
        if self.observed:
            row |= self.ledger.row() | {"mature_utilization": self._mature(total)}
            if self.blind:
                row |= dict.fromkeys(("resets", "re_resets", "premature"), math.nan)
            self.ledger.clear()
            self.blind = False
        if seen.loss is not None:
            row["commit_loss"] = float(seen.loss)
        self.rows.append(row)
        if seen.norms is not None:
            self.awaited.append((row, seen.norms))
            self._settle()
        return [(row, total)]

    def _settle(self) -> None:
        """Fill in the ratios of gradients that have been seen since; no row waits for long."""
        for row, norms in self.awaited:
            row["commit_gradient_ratio"] = norms.ratio()
        self.awaited = self.awaited[-1:]

    def val_row(self, val: Evaluation, codebook: Tensor | None) -> dict | None:
        """The row of an evaluation with this ``codebook`` (K, D); None as in `Evaluation.row`."""
        row = val.row()
        if row and self.observed:
            row["mature_utilization"] = self._mature(val.counts)
        return row and row | self._codes(codebook, val.counts)

    def _codes(self, codebook: Tensor | None, counts: Tensor) -> dict[str, float]:
        """The columns about a codebook (K, D) used ``counts`` (K,) times."""
        found = look(codebook, counts, self.counted)
        if codebook is not None:
            found["code_rank"] = rank(codebook.detach()[counts.to(codebook.device) > 0])
        return found

    def under_way(self) -> list[dict]:
        """The row of the evaluation under way, if there is one. Of what was fetched."""
        row = self.val and self.val_row(self.val, self.codebook)
        return [row] if row else []

    def _in_window(self) -> Tensor:
        """(K,) hits over the last ``window`` training steps."""
        if len(self.window) == 1:
            return self.window[0]
        return torch.stack(list(self.window)).sum(dim=0)

    def _mature(self, counts: Tensor) -> float:
        older = self.ledger.older_than(self.ledger.grace or 0)
        return int((counts * older).count_nonzero()) / self.codebook_size


def _inputs(seen: list[Seen]) -> dict[str, float]:
    """The columns about a layer's inputs, from all samples in ``seen`` together."""
    sampled = [s for s in seen if s.inputs is not None]
    if not sampled:
        return {}
    return _columns(*_joined(sampled, lambda parts: torch.cat(parts)[None]), [True])[0]


def _inputs_of_each(seen: list[Seen], every: int) -> list[dict[str, float]]:
    """`_inputs` of each training forward in ``seen``; of those alike in one go."""
    found: list[dict] = [{} for _ in seen]
    alike = defaultdict(list)
    for i, s in enumerate(seen):
        if s.training and s.inputs is not None:
            whole = isinstance(s.kept, slice) or bool(s.kept.all())
            alike[(s.inputs.shape, s.codes is None) if whole else i].append(i)
    for places in alike.values():
        group = [seen[i] for i in places]
        columns = _columns(*_joined(group, torch.stack), [looks(s.step, every) for s in group])
        for i, row in zip(places, columns, strict=True):
            found[i] = row
    return found


def _joined(seen: list[Seen], join: Callable) -> tuple[Tensor, Tensor | None]:
    """Inputs and codes of the samples in ``seen``; None for codes if one has none."""
    known = all(s.codes is not None for s in seen)
    inputs = join([s.inputs[s.kept] for s in seen])
    return inputs, join([s.codes[s.kept] for s in seen]) if known else None


def _columns(inputs: Tensor, codes: Tensor | None, ranked: list[bool]) -> list[dict[str, float]]:
    """Of each of B samples, ``inputs`` (B, n, D) that became ``codes`` (B, n, D): its columns."""
    if inputs.shape[1] < 2:
        return [{} for _ in ranked]
    inputs = inputs.float().cpu()
    found = {"encoder_similarity": similarity_of_each(inputs), "encoder_std": std_of_each(inputs)}
    if codes is not None:
        codes = codes.float().cpu()
        found["cosine_error"] = 1 - F.cosine_similarity(inputs, codes, dim=-1).mean(dim=-1)
    lists = {name: values.tolist() for name, values in found.items()}
    rows = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
    for i, row in enumerate(rows):
        if ranked[i]:  # where codes have unit length, the inputs' own lengths say nothing
            on_sphere = codes is not None and bool(((codes[i].norm(dim=-1) - 1).abs() < UNIT).all())
            row["encoder_rank"] = rank(F.normalize(inputs[i], dim=-1) if on_sphere else inputs[i])
    return rows


def rank(vectors: Tensor) -> float:
    """`usage.effective_rank` of ``vectors`` (n, D), of a random choice if they are many.

    NaN if there are fewer than two: a single point has no dimension.
    """
    if len(vectors) < 2:
        return math.nan
    if len(vectors) > RANKED:
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randperm(len(vectors), generator=generator)[:RANKED]
        vectors = vectors[chosen.to(vectors.device)]
    return usage.effective_rank(vectors.cpu())


def codebook_columns(codebook: Tensor, counts: Tensor) -> dict[str, float]:
    """``duplicates`` and ``longest_code`` of a codebook (K, D) used ``counts`` (K,) times."""
    length = codebook.detach().float().norm(dim=-1)
    usual = length[counts.to(length.device) > 0].median().clamp(min=1e-30)
    few = len(codebook) <= MAX_COMPARED
    return {
        "duplicates": usage.near_duplicates(codebook, EQUAL) if few else math.nan,
        "longest_code": float(length.max() / usual),
    }


def look(codebook: Tensor | None, counts: Tensor, counted: bool) -> dict[str, float]:
    """``duplicates`` and ``longest_code`` of a codebook (K, D) used ``counts`` (K,) times.

    Where no count divides the codes, a long one is unused since it was made, and no fault.
    """
    found = {} if codebook is None else codebook_columns(codebook, counts)
    return found if counted else found | {"longest_code": math.nan}
