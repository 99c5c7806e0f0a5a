"""World: a cloud of points that drifts, and our quantizer following it; small enough to watch.

The points are two-dimensional encoder outputs, drawn anew each step from one fixed mixture and
moved by the "encoder". They reach the quantizer, which lives on a sphere, in one of two ways:

- "circle": as they are. The quantizer scales them to length 1, onto the unit circle.
- "plane": as (SCALE x, SCALE y, 1), a patch of the sphere seen from its centre. In this view a
  great circle is a straight line, so cells are polygons, and the patch is nearly flat.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from vqlib.quantization import usage
from vqlib.quantization.interventions import RandomInputs, UnbalancedStart
from vqlib.quantization.quantizer import NormEMAQuantizer, on_sphere
from vqlib.quantization.ranges import Range, check_fields
from vqlib.quantization.reset import DeadCodeReset, Donors
from vqlib.quantization.variants import named
from vqlib.training.process import cpu_threads

Surface = Literal["plane", "circle"]
Pattern = Literal["translate", "rotate", "shrink", "spread"]
Start = Literal["k-means", "random inputs", "random directions", "unbalanced"]

SCALE = 0.25  # one unit of the plane, the cloud's radius, is 14 degrees of the sphere
WALL = 1.2  # the cloud's centre turns back here
SMALLEST, LARGEST = 0.12, 2.0  # of the cloud, against its size at the start
HEADING = (0.8, 0.6)  # of "translate", until a wall turns it
VALIDATE_EVERY = 10
HISTORY = 400  # steps that the curves look back


@dataclass(frozen=True)
class Setting:
    """One world.

    Raises:
        SettingsError: a ValueError: a field out of range.
    """

    surface: Surface = "plane"
    """How points reach the sphere; see the module."""
    tokens: Annotated[int, Range(1, 2**16)] = 1024
    """N, points a step."""
    drift: Annotated[float, Range(0, 100)] = 1.0
    """How far the encoder moves a step, in percent of the cloud's radius at the start."""
    pattern: Pattern = "translate"
    """How the encoder moves."""
    freeze: bool = False
    """The encoder stands still."""
    seed: int = 0
    """Seed of the points and the quantizer's draws."""
    codebook_size: Annotated[int, Range(1, 2**12)] = 64
    """K."""
    decay: Annotated[float, Range(0, 1)] = 0.9
    """Decay of the moving averages."""
    threshold: float = 0.0
    """Dead below this many hits a step; 0: no reset."""
    relative: bool = False
    """Threshold and refill are multiples of N/K."""
    every: int = 1
    """Reset only at every n-th step."""
    donors: Donors = "most_used"
    """Whose points replace dead codes."""
    refill: float | None = None
    """Count that a reset code starts with; None: threshold + 1."""
    distinct: bool = False
    """Never give two dead codes one point."""
    start: Start = "k-means"
    """Where the codes begin."""
    variant: str | None = None
    """A fault or an intervention by name; None: the correct quantizer."""

    def __post_init__(self):
        check_fields(self)
        named(self.variant)
        object.__setattr__(self, "_reset", DeadCodeReset.of(self))

    def reset(self) -> DeadCodeReset:
        """The reset rule; one of threshold 0 never acts."""
        return self._reset

    def quantizer(self) -> NormEMAQuantizer:
        """The quantizer that this setting asks for."""
        kind = named(self.variant)
        begin = {"unbalanced": UnbalancedStart, "random inputs": RandomInputs}.get(self.start)
        if begin is not None:  # the fault comes first: it may change the start again
            kind = type(kind.__name__, (begin,) if self.variant is None else (kind, begin), {})
        return kind(
            self.codebook_size,
            3 if self.surface == "plane" else 2,
            self.decay,
            kmeans_init=self.start != "random directions",
            reset=self.reset(),
            seed=self.seed,
        )


# a change of these starts over; all others act from the next step on
AT_THE_START = ("surface", "tokens", "seed", "codebook_size", "start", "variant")


class Encoder:
    """Where the cloud is: turned by ``angle``, scaled by ``size``, moved to ``centre`` (2,)."""

    def __init__(self, surface: Surface):
        # off the origin, or on the circle a cloud would lie in all directions at once
        self.centre = torch.tensor([1.1, 0.0] if surface == "circle" else [0.0, 0.0])
        self.heading = torch.tensor(HEADING)
        self.angle, self.size = 0.0, 1.0

    def move(self, pattern: Pattern, percent: float) -> None:
        """One step of ``percent`` of the cloud's radius."""
        way = percent / 100
        if pattern == "translate":
            self.centre = self.centre + way * self.heading
            outside = self.centre.abs() > WALL
            self.heading = torch.where(
                outside, -self.centre.sign() * self.heading.abs(), self.heading
            )
        elif pattern == "rotate":
            self.angle += way
        else:
            grown = self.size * (1 - way if pattern == "shrink" else 1 + way)
            self.size = min(LARGEST, max(SMALLEST, grown))

    def __call__(self, x: Tensor) -> Tensor:
        """Points (N, 2) of the mixture, where the encoder puts them."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        turn = torch.tensor([[cos, sin], [-sin, cos]])
        return self.centre + self.size * (x @ turn)


class World:
    """A setting at work: `step` it, read its state.

    Attributes:
        quantizer: the real one. encoder: where the cloud is. points: (N, 2), the last step's.
        counts: (K,), hits of the last step. idle: (K,), steps since each code was chosen.
        age: (K,), steps since each was reset (infinite: never). came_from: (K, 2), where it
        was before. rows: the last steps' measurements. val: the last validation utilization.
        loss: as the quantizer reports it.
    """

    def __init__(self, setting: Setting | None = None):
        self.setting = setting or Setting()
        self.restart()

    def restart(self) -> None:
        """Begin anew at step 0, with the same setting."""
        s = self.setting
        self.generator = torch.Generator().manual_seed(s.seed)
        self.quantizer, self.encoder = s.quantizer(), Encoder(s.surface)
        self.step_number, self.resets = 0, 0
        self.rows: deque[dict[str, float]] = deque(maxlen=HISTORY)
        self.val = self.loss = math.nan
        self.counts = torch.zeros(s.codebook_size)
        self.idle = torch.zeros(s.codebook_size)
        self.age = torch.full((s.codebook_size,), math.inf)
        self.points = self.encoder.centre.expand(1, 2)  # none are drawn before the first step
        self.came_from = self.places()

    def change(self, setting: Setting) -> bool:
        """Continue with another setting; True if that had to start over."""
        before, self.setting = self.setting, setting
        if any(getattr(before, name) != getattr(setting, name) for name in AT_THE_START):
            self.restart()
            return True
        fresh = setting.quantizer()  # a variant may have a rule of its own
        self.quantizer.decay, self.quantizer.reset = setting.decay, fresh.reset
        return False

    def step(self, count: int = 1) -> None:
        """``count`` training steps, each followed by a move of the encoder."""
        with cpu_threads(1):  # on tensors so small, a second thread costs more than it brings
            for _ in range(count):
                self._step()

    def places(self, vectors: Tensor | None = None) -> Tensor:
        """(K, 2): codes (or ``vectors``, (n, dim)) in the picture; far ones far outside."""
        v = self.quantizer.codebook if vectors is None else vectors
        if self.setting.surface == "circle":
            return v.clone()
        # behind the horizon there is no place in the picture: far away in the same direction
        return v[:, :2] / (SCALE * v[:, 2:].clamp(min=1e-2))

    def cells(self, side: int, reach: float) -> Tensor:
        """(side, side) int64: the code that a point there would get, rows from top to bottom.

        The picture shows [-reach, reach] in both directions.
        """
        ticks = (torch.arange(side) + 0.5) / side * 2 * reach - reach
        y, x = torch.meshgrid(-ticks, ticks, indexing="ij")
        return self._asked(torch.stack([x, y], dim=-1).reshape(-1, 2)).view(side, side)

    def sectors(self, count: int) -> Tensor:
        """(count,) int64: the code that a point gets in so many directions, from 0 on leftwards."""
        angle = (torch.arange(count) + 0.5) / count * 2 * math.pi
        return self._asked(torch.stack([angle.cos(), angle.sin()], dim=-1))

    @torch.no_grad()
    def _asked(self, points: Tensor) -> Tensor:
        with cpu_threads(1):
            return self.quantizer._nearest(on_sphere(self._lift(points)))

    @property
    def alive(self) -> float:
        """Share of codes chosen in the last step."""
        return usage.utilization(self.counts)

    def _step(self) -> None:
        s, q = self.setting, self.quantizer
        self.points = self.encoder(self._draw(self.generator, s.tokens))
        before = self.places()
        out = q.train()(self._lift(self.points))
        self.step_number += 1
        self.loss = float(out.loss)
        self.counts = torch.bincount(out.indices, minlength=s.codebook_size).float()
        self.idle = torch.where(self.counts > 0, 0.0, self.idle + 1)
        codes = None if q.last_reset is None else q.last_reset.codes
        self.age += 1
        if codes is not None:
            self.age[codes] = 0
            self.came_from[codes] = before[codes]
            self.resets += len(codes)
        if self.step_number % VALIDATE_EVERY == 0:
            self._validate()
        self._note(codes)
        if not s.freeze:
            self.encoder.move(s.pattern, s.drift)

    @torch.no_grad()
    def _validate(self) -> None:
        """Utilization on as many other points; a correct quantizer does not change by it."""
        drawn = torch.Generator().manual_seed(self.setting.seed + 2**32 + self.step_number)
        points = self.encoder(self._draw(drawn, self.setting.tokens))
        indices = self.quantizer.eval()(self._lift(points)).indices
        counts = torch.bincount(indices, minlength=self.setting.codebook_size)
        self.val = usage.utilization(counts)

    def _note(self, codes: Tensor | None) -> None:
        K = self.setting.codebook_size
        self.rows.append(
            {
                "step": self.step_number,
                "utilization": usage.utilization(self.counts),
                "perplexity": usage.perplexity(self.counts) / K,
                "top_code_ratio": usage.top_code_ratio(self.counts),
                "resets": 0 if codes is None else len(codes),
                "val": self.val,
            }
        )

    def _lift(self, points: Tensor) -> Tensor:
        if self.setting.surface == "circle":
            return points
        return torch.cat([SCALE * points, torch.ones(len(points), 1)], dim=1)

    @staticmethod
    def _draw(generator: torch.Generator, n: int) -> Tensor:
        """(n, 2) points of the mixture: seven groups, of unequal share and width."""
        group = torch.multinomial(SHARES, n, replacement=True, generator=generator)
        noise = torch.randn(n, 2, generator=generator)
        return MEANS[group] + WIDTHS[group, None] * noise


SHARES = torch.tensor([0.30, 0.20, 0.15, 0.12, 0.10, 0.08, 0.05])
MEANS = torch.tensor(
    [
        [0.0, 0.1],
        [-0.55, 0.35],
        [0.5, 0.45],
        [-0.35, -0.5],
        [0.6, -0.3],
        [0.05, -0.75],
        [-0.8, -0.2],
    ]
)
WIDTHS = torch.tensor([0.16, 0.11, 0.13, 0.10, 0.09, 0.07, 0.06])


def run(setting: Setting, steps: int) -> World:
    """A world after ``steps`` steps."""
    world = World(setting)
    world.step(steps)
    return world
