"""What becomes of reset codes: which live, and which are reset again and again."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vqlib.quantization.ranges import whole

TALLY = ("step", "resets", "re_resets", "premature", "judged", "lived")


def horizon_of(grace: float) -> int:
    """Steps after which a reset is judged: twice the ``grace``, at least 10."""
    return max(10, 2 * int(min(grace, 10**6)))


class ResetLedger:
    """Bookkeeping over steps: which reset codes live, and which are reset again and again.

    A reset code *survived* if within ``horizon`` steps of its reset it was chosen at
    least once and was not reset again.

    Args:
        codebook_size: K. horizon: steps after which survival is judged.
        grace: steps that a reset code lives without a hit (`DeadCodeReset.grace`); None: not
            known, and ``premature`` is NaN.
    """

    def __init__(self, codebook_size: int, horizon: int, grace: float | None = None):
        self.horizon, self.grace = whole("horizon", horizon), grace
        self.step = 0
        self.times = torch.zeros(codebook_size, dtype=torch.int64)  # resets of each code
        self.born = torch.full((codebook_size,), -1)  # step of its last reset; -1: never
        self.hit = torch.zeros(codebook_size, dtype=torch.bool)  # chosen since then
        self.cohorts: dict[int, Tensor] = {}
        self.clear()

    def clear(self) -> None:
        """Begin a new window of ``row``."""
        self.resets = self.re_resets = self.premature = self.judged = self.lived = 0

    def update(self, counts: Tensor, codes: Tensor | None) -> None:
        """One training step: its ``counts`` (K,) and the ``codes`` reset after it, if any."""
        self.step += 1
        self.hit |= counts.cpu() > 0
        codes = torch.empty(0, dtype=torch.int64) if codes is None else codes.cpu()
        born = self.step - self.horizon
        if born in self.cohorts:
            due = self.cohorts.pop(born)
            same = (self.born[due] == born) & ~torch.isin(due, codes)
            self.judged += len(due)
            self.lived += int((same & self.hit[due]).sum())
        if len(codes):
            self.resets += len(codes)
            again = self.times[codes] > 0
            self.re_resets += int(again.sum())
            early = self.step - self.born[codes] < (self.grace or 0)
            self.premature += int((again & early).sum())
            self.times[codes] += 1
            self.born[codes] = self.step
            self.hit[codes] = False
            self.cohorts[self.step] = codes

    def row(self) -> dict[str, float]:
        """The window's counts, and the share that ``survived`` (NaN: none was due)."""
        return {
            "resets": self.resets,
            "re_resets": self.re_resets,
            "premature": math.nan if self.grace is None else self.premature,
            "survived": self.lived / self.judged if self.judged else math.nan,
        }

    def older_than(self, steps: float) -> Tensor:
        """(K,) bool: never reset, or last reset at least ``steps`` steps ago."""
        return (self.born < 0) | (self.step - self.born >= steps)

    def state_dict(self) -> dict[str, Tensor]:
        """All of it but the settings. ``cohorts`` (n, 2): each reset that awaits its verdict,
        as (step, code)."""
        cohorts = [(born, code) for born, codes in self.cohorts.items() for code in codes.tolist()]
        return {
            "times": self.times,
            "born": self.born,
            "hit": self.hit,
            "cohorts": torch.tensor(cohorts, dtype=torch.int64).reshape(-1, 2),
            "tally": torch.tensor([getattr(self, name) for name in TALLY]),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`; other names in ``state`` are ignored."""
        self.times, self.born, self.hit = state["times"], state["born"], state["hit"]
        for name, value in zip(TALLY, state["tally"].tolist(), strict=True):
            setattr(self, name, value)
        born, codes = state["cohorts"].unbind(1)
        self.cohorts = {step: codes[born == step] for step in born.unique().tolist()}
