"""Rules on what surrounds the codebook: encoder, drift, loss, evaluation, processes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from vqlib.diagnosis.findings import (
    Evidence,
    Finding,
    Severity,
    clear,
    fired,
    not_applicable,
    unknown,
)
from vqlib.diagnosis.logs import Log
from vqlib.diagnosis.remedies import BALANCE
from vqlib.diagnosis.shares import LOW, in_use
from vqlib.quantization.geometry import isotropic_rank
from vqlib.watching.columns import RANKED, SAMPLED_OUTPUTS

ALIKE, RATHER_ALIKE = 0.95, 0.85  # the guide's levels of pairwise similarity
COLLAPSED_SIMILARITY, COLLAPSED_STD = 0.9, 0.01
LOW_RANK = 0.05  # of what directions at random would show: there it is below one in twenty
FEW_DIMENSIONS = 8  # and at most so many: with more, data may simply have no more to tell
ROOM_TO_FALL = 20  # dimensions that could be shown; of fewer, 5 % are less than one
OUTWEIGHS = 5.0  # as large as the other; in healthy runs it is at most half as large
STRETCH = 0.1  # of the run, and no fewer than
LEAST_STRETCH = 3  # measurements: one alone is noise
STRETCHES = 200  # that are looked at, of a long history
RECONSTRUCTED = 0.01  # of the first reconstruction loss: below it, both gradients are nearly 0
FAST = 20  # steps: outputs that leave their cell sooner outrun any reset's grace
FAST_DEGREES = 0.5  # a step, where the size of a cell is not known
SPIKE, SPIKES = 4.0, 3  # times the running median; that many are a pattern
DIVERGED, ABOVE_START = 10.0, 2.0  # times the lowest running median, and the start's
TAIL = 3  # rows without a finite loss at the end: at least so many, and more than any gap before
LOSS_LOOKS_SMALL = 0.01
JUMP = 0.05  # of the codebook
ROUNDING, CHANGED = 1e-4, 1e-3  # largest difference of an entry that means nothing
SEEN_IN_EVALUATION = (
    "Codes and counts were compared, as far as the layer shows them. Whether an evaluation changes "
    "anything else in it was not looked at; vqlib.audit(quantizer) looks."
)
NEAR, AROUND = 3, 20  # steps after a validation; tens of steps in which the jump falls back


def encoder_collapse(log: Log) -> Finding:
    name = "encoder-collapse"
    similarity, std = log.late("encoder_similarity"), log.late("encoder_std")
    if similarity is None:
        return unknown(
            name,
            "Encoder outputs were not compared.",
            "encoder_similarity: usage.pairwise_similarity of 100 outputs",
        )
    share = in_use(log)
    certain = (
        similarity.value > COLLAPSED_SIMILARITY and std is not None and (std.value < COLLAPSED_STD)
    )
    if not certain and similarity.value < RATHER_ALIKE:
        return clear(name, similarity, std)
    told_apart = share is not None and share.value >= LOW and log.settings.codebook_size > 1
    merged = share is not None and share.value < LOW
    grave = (certain and not told_apart) or (similarity.value > ALIKE and merged)
    if told_apart:
        cause = "Outputs share a large common offset, but the codes still tell them apart."
        remedy = (
            "nothing while the codes are in use; compare after subtracting the mean: "
            "usage.pairwise_similarity(z, centered=True)"
        )
    else:
        cause = "The encoder maps different inputs to nearly the same direction."
        remedy = (
            f"fix the encoder first: lower its learning rate{_tenth(log)}, lower beta, normalise "
            "its inputs; a reset cannot split outputs that are equal"
        )
    return fired(
        name,
        "critical" if grave else "note" if told_apart else "warning",
        similarity,
        std,
        share,
        cause=cause,
        remedy=remedy,
    )


def _tenth(log: Log) -> str:
    rate = log.settings.learning_rate
    return f" ({rate:g} to {rate / 10:g})" if rate else ""


def dimensional_collapse(log: Log) -> Finding:
    name, dim = "dimensional-collapse", log.settings.dim
    if log.settings.fixed_grid:
        return not_applicable(name, "The codes are a grid: every dimension of it is there.")
    ranks = {c: e for c in RANKED_ON if (e := log.late(c, log.best_split(c))) is not None}
    if not ranks:
        needs = "code_rank and encoder_rank (vqlib.watch measures them)"
        return unknown(name, "In how many dimensions the vectors vary was not measured.", needs)
    if dim is None:
        return unknown(name, "The dimension of a code is not known.", "dim, D")
    room = {c: isotropic_rank(max(2, int(RANKED_ON[c](log))), int(dim)) for c in ranks}
    judged = [c for c in ranks if room[c] >= ROOM_TO_FALL]
    if not judged:
        return not_applicable(
            name, f"Too few dimensions ({dim:g}), codes or tokens to call some of them missing."
        )
    low = [c for c in judged if ranks[c].value < min(FEW_DIMENSIONS, LOW_RANK * room[c])]
    possible = [
        Evidence(f"{c} if no direction were preferred", room[c], "dimensions", f"D = {dim:g}")
        for c in low or judged
    ]
    if not low:
        return clear(name, *ranks.values(), *possible)
    return fired(
        name,
        "warning" if "code_rank" in low else "note",
        *ranks.values(),
        *possible,
        **_why_flat(log, low, ranks),
    )


def _codes_ranked(log: Log) -> float:
    """How many codes the rank was measured on; 0 if not known."""
    used = log.late("used_codes", log.best_split("code_rank"))
    return min(RANKED, used.value) if used else 0


def _outputs_ranked(log: Log) -> float:
    """How many encoder outputs the rank was measured on, at least."""
    tokens = log.late("window_tokens", log.best_split("encoder_rank"))
    known = tokens.value if tokens else log.settings.tokens_per_step
    return min(SAMPLED_OUTPUTS, known or SAMPLED_OUTPUTS)


RANKED_ON = {"code_rank": _codes_ranked, "encoder_rank": _outputs_ranked}


def _why_flat(log: Log, low: list[str], ranks: dict[str, Evidence]) -> dict[str, str]:
    """Cause and remedy: they depend on whether the encoder's outputs are as flat as the codes."""
    outputs = ranks.get("encoder_rank")
    if outputs is not None and "encoder_rank" not in low:
        return {
            "cause": "The codes vary in few dimensions, though the encoder's outputs vary in more. "
            "Something narrower than the codes lies before them, or they started, or were reset, "
            "in one place.",
            "remedy": "look for a projection or a mask before the codebook; start at k-means of a "
            "whole batch, and let any input be a donor (donors='batch')",
        }
    return {
        "cause": "The vectors vary in few dimensions. A quantizer that is on from the first step "
        "keeps the directions that vary most, and no gradient brings back the others "
        "(arXiv:2605.06870).",
        "remedy": "train as an autoencoder first and quantize later; lower the learning rate"
        f"{_tenth(log)} or the weight of the commitment (beta); normalise the encoder's outputs. "
        "If the data have no more dimensions, a smaller D does as well",
    }


def commitment_outweighs_reconstruction(log: Log) -> Finding:
    name, column = "commitment-outweighs-reconstruction", "commit_gradient_ratio"
    rows = _before_perfection(log.rows(column))
    if log.has(column) and rows.empty:
        return clear(name, log.late(column), log.late("recon_loss"))
    if len(rows) < LEAST_STRETCH:
        return unknown(
            name,
            "The two gradients at the quantizer's input were not compared, or hardly.",
            f"{column} (vqlib.watch measures it if the layer returns its loss and its input has a "
            "gradient)",
        )
    late = log.late(column)
    worst = max(_stretches(rows), key=lambda stretch: stretch[column].median())
    most = log.number(column, float(worst[column].median()), worst, "train")
    most = replace(most, name="at most, over a stretch")
    if most.value < OUTWEIGHS:
        return clear(name, late, most)
    still = late.value >= 1
    return fired(
        name,
        "warning" if still else "note",
        late,
        most,
        log.late("recon_loss"),
        cause="The gradient of the quantizer's own loss outweighs what the decoder sends back. The "
        "encoder moves its outputs to where codes are, and hardly learns to reconstruct."
        if still
        else "The gradient of the quantizer's own loss outweighed what the decoder sent back, "
        "until the encoder had given in. What it unlearned by then it may lack for long.",
        remedy=BALANCE + ". The ratio says by how much",
    )


def _stretches(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Stretches of ``rows``, each `STRETCH` of the steps long, and `LEAST_STRETCH` rows at least.

    All of them, or of a long history `STRETCHES` that overlap.
    """
    steps = rows["step"].to_numpy()
    starts = np.searchsorted(steps, steps - STRETCH * (steps[-1] - steps[0]))
    ends = range(LEAST_STRETCH - 1, len(steps))
    whole = [end for end in ends if starts[end] > 0] or [len(steps) - 1]
    some = whole[:: math.ceil(len(whole) / STRETCHES)]
    return [rows.iloc[min(starts[end], end - LEAST_STRETCH + 1) : end + 1] for end in some]


def _before_perfection(rows: pd.DataFrame) -> pd.DataFrame:
    """``rows`` without those in which hardly anything is left to reconstruct.

    There both gradients are nearly 0, and their ratio says nothing.
    """
    if "recon_loss" not in rows or rows["recon_loss"].isna().all():
        return rows
    first = rows["recon_loss"].dropna().iloc[0]
    return rows[~(rows["recon_loss"] <= RECONSTRUCTED * first)] if first > 0 else rows


def encoder_drift(log: Log) -> Finding:
    name = "encoder-drift"
    drift, error = log.late("drift"), log.late("cosine_error")
    if drift is None:
        return unknown(
            name,
            "The drift of the encoder was not measured.",
            "drift: degrees a step by which outputs on fixed inputs turn (vqlib.train records it)",
        )
    leaves = None
    if error is not None and drift.value > 0:
        radius = math.degrees(math.acos(max(-1.0, min(1.0, 1 - error.value))))
        leaves = Evidence(
            "outputs leave their cell in",
            radius / drift.value,
            "steps",
            "angle to the code / drift",
        )
    fast = leaves.value < FAST if leaves is not None else drift.value > FAST_DEGREES
    share = in_use(log)
    if not fast or drift.value == 0:
        return clear(name, drift, leaves)
    harmed = share is not None and share.value < LOW
    return fired(
        name,
        "warning" if harmed else "note",
        drift,
        leaves,
        share,
        cause="Outputs move so fast that codes without hits, which are not updated, are soon too "
        "far away to be chosen.",
        remedy="lower the learning rate" + _tenth(log) + " or let it fall at the end; a reset "
        "brings codes back, and a smaller drift keeps them in use",
    )


def unstable_training(log: Log) -> Finding:
    name = "unstable-training"
    train, lost = log.split("train"), [c for c in ("recon_loss", "commit_loss") if c in log.table]
    broken = next((e for e in (_broken(train, c) for c in lost) if e is not None), None)
    if broken is None and not any(log.has(c) for c in lost):
        return unknown(name, "The data hold no finite loss.", "recon_loss")
    if broken is not None:
        return _unstable(log, "critical", broken)
    if not log.has("recon_loss"):  # the quantizer's own loss rightly rises from nothing
        return clear(name, log.late("commit_loss"))
    loss = train["recon_loss"].replace(np.inf, np.nan).dropna()
    calm = loss.rolling(21, min_periods=3, center=True).median().bfill().ffill()
    end, best, start = log.late("recon_loss"), float(calm.min()), float(calm.iloc[0])
    if not best > 0:  # a likelihood, say: it has no zero to be a multiple of
        return clear(name, end)
    settled = loss.iloc[len(loss) // 10 :]
    spikes = int((settled > SPIKE * calm.loc[settled.index]).sum())
    evidence = (
        end,
        Evidence("at the start", start, "", "recon_loss, running median"),
        Evidence("at best", best, "", "recon_loss, running median"),
        Evidence("spikes", spikes, "rows", f"recon_loss above {SPIKE:g} x its running median"),
    )
    if end.value > DIVERGED * best and end.value > ABOVE_START * start:
        return _unstable(log, "critical", *evidence)
    if spikes >= SPIKES or (end.value > SPIKE * best and end.value > start):
        return _unstable(log, "warning", *evidence)
    return clear(name, *evidence)


def _unstable(log: Log, severity: Severity, *evidence: Evidence) -> Finding:
    return fired(
        "unstable-training",
        severity,
        *evidence,
        cause="The loss stops being finite, or rises far above its best value. Usually steps are "
        "too large, or resets move codes faster than the decoder can follow.",
        remedy="lower the learning rate" + _tenth(log) + ", warm up longer, and reset less: every "
        "10 steps, with a lower threshold",
    )


def _broken(train: pd.DataFrame, column: str) -> Evidence | None:
    """How many last rows hold no finite loss; None if that is only a gap like those before."""
    values = train[column].to_numpy()
    there = np.flatnonzero(np.isfinite(values))
    last = int(there[-1]) if len(there) else -1
    tail, infinite = len(values) - 1 - last, bool(np.isinf(values[last + 1 :]).any())
    gap = int(np.diff(there).max(initial=1)) - 1
    if not infinite and (last < 0 or tail < max(TAIL, TAIL * gap)):
        return None
    since = f"after step {int(train['step'].iloc[last])}" if last >= 0 else "from the first row"
    return Evidence(f"{column} not finite", tail, "rows", f"train, {since} to the end")


def loss_hides_collapse(log: Log) -> Finding:
    name = "loss-hides-collapse"
    loss, share = log.late("commit_loss"), in_use(log)
    if loss is None or share is None:
        return unknown(
            name, "The quantizer's loss or the use of its codes is not in the data.", "commit_loss"
        )
    if share.value >= LOW or loss.value >= LOSS_LOOKS_SMALL:
        return clear(name, loss)
    return fired(
        name,
        "note",
        loss,
        log.late("cosine_error"),
        share,
        cause="The quantizer's loss averages over all elements of vectors that lie close together, "
        "so it is small no matter what the codebook does.",
        remedy="log 1 - cosine between outputs and codes, and the number of codes in use, next "
        "to the loss",
    )


def evaluation_changes_counts(log: Log) -> Finding:
    name = "evaluation-changes-counts"
    change = log.late("eval_change", "val")
    if change is not None:
        if change.value < CHANGED:
            return clear(name, change, only=SEEN_IN_EVALUATION)
        return _evaluation_learns("critical", change)
    jumps = _jumps_after_validation(log)
    if jumps is None:
        return unknown(
            name,
            "There are too few validations, or too few training rows around them.",
            "training rows at nearly every step around 3 validations, or eval_change "
            "(vqlib.watch measures it)",
        )
    if jumps[0].value >= JUMP and jumps[1].value >= 0.6:
        return _evaluation_learns("warning", *jumps)  # something else may keep the same beat
    return clear(name, *jumps)


def _evaluation_learns(severity: Severity, *evidence: Evidence) -> Finding:
    return fired(
        "evaluation-changes-counts",
        severity,
        *evidence,
        cause="A validation pass changes the quantizer's counts or codes. Codes that it does not "
        "use may then be reset at the next training step."
        if severity == "critical"
        else "Use rises right after validations and falls back. So it does when a validation pass "
        "changes the counts: codes it does not use are reset at the next training step.",
        remedy="call model.eval() before validation, and update counts and codes only "
        "`if self.training`",
    )


def _jumps_after_validation(log: Log) -> tuple[Evidence, Evidence] | None:
    """Median jump of use after validations that falls back, and how many exceed chance.

    The jump is the use in the 3 steps after a moment less that in the 3 before, over K, and
    less again that 20 steps later. The same at all other moments says what chance does.
    """
    size, train = log.settings.codebook_size, log.split("train")
    moments = log.split("val")["step"].to_numpy()
    if size is None or not log.has("utilization") or len(train) < 4 * AROUND:
        return None
    use = pd.Series(train["utilization"].to_numpy(), index=train["step"].to_numpy())
    jump = _peak_above(use)
    after = jump.reindex(moments).dropna()
    rest = jump.drop(after.index).dropna()
    if len(after) < 3 or len(rest) < AROUND:
        return None
    usual = float(rest.quantile(0.95))
    window = f"{len(after)} validations"
    return (
        Evidence(
            "rise of use after a validation, gone 20 steps later",
            float(after.median()),
            "of the codebook",
            f"median of {window}",
        ),
        Evidence(
            "rises above what 95 % of other moments show",
            float((after > usual).mean()),
            f"of {window}",
            f"there at most {usual:.3g}",
        ),
    )


def _peak_above(use: pd.Series) -> pd.Series:
    """At each step: the use just after it less the higher of that before and of that later on.

    Rows a step apart or nearly: if they lie more than 3 apart, there is nothing to see.
    """
    first, last = int(use.index[0]), int(use.index[-1])
    if last - first > 3 * len(use):
        return pd.Series(dtype=float)
    steps = np.arange(first, last + 1)
    even = use.reindex(steps).interpolate(limit=NEAR)
    before = even.rolling(NEAR).median()
    after = even.rolling(NEAR).max().shift(-NEAR)
    later = even.rolling(NEAR).median().shift(-AROUND)
    return after - np.maximum(before, later)


def ranks_disagree(log: Log) -> Finding:
    name = "ranks-disagree"
    if not log.has("rank_difference"):
        return unknown(
            name,
            "A single history shows only one process.",
            "vqlib.audit(quantizer), which runs two processes",
        )
    worst = log.late("rank_difference")
    if worst.value < ROUNDING:
        return clear(name, worst)
    return fired(
        name,
        "critical",
        worst,
        cause="Each process draws or counts on its own, so each learns its own codebook.",
        remedy="sum counts and sums over ranks, and broadcast the rows of a reset from rank 0",
    )


RULES = (
    encoder_collapse,
    dimensional_collapse,
    commitment_outweighs_reconstruction,
    encoder_drift,
    unstable_training,
    loss_hides_collapse,
    evaluation_changes_counts,
    ranks_disagree,
)
