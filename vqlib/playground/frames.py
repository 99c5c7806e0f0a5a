"""A world as numbers for the canvas: what one picture needs, whole, as one block of bytes."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vqlib.playground.world import Setting, World
from vqlib.quantization.reset import DeadCodeReset

REACH = 2.1  # the picture shows [-REACH, REACH] in both directions
CELLS = 120  # cells are asked for on a grid of so many points a side
SECTORS = 1440  # and on the circle in so many directions
SHOWN = 1024  # points drawn at most
TRAIL = 16  # places that a code leaves behind it
DEAD_AFTER = 20  # steps without a hit, after which a code is drawn as dead
CURVES = ("utilization", "perplexity", "top_code_ratio", "val", "resets")


class Trails:
    """The last places of each code. A code that stands still keeps the way it came."""

    def __init__(self) -> None:
        self.places: Tensor | None = None  # (TRAIL, K, 2), the newest first
        self.step = 0  # of the world, when it was last looked at

    def follow(self, world: World) -> Tensor:
        """(TRAIL, K, 2), with the codes' places of now in front."""
        now, since = world.places(), world.step_number - self.step
        self.step = world.step_number
        known = self.places is not None and self.places.shape[1] == len(now)
        if not known or since < 0 or (since == 0 and not torch.equal(now, self.places[0])):
            self.places = now.expand(TRAIL, *now.shape).clone()
            return self.places
        jumped = world.age < since
        moved = ((now - self.places[0]).norm(dim=1) > 5e-3) & ~jumped
        self.places[1:, moved] = self.places[:-1, moved].clone()
        self.places[0] = now
        self.places[:, jumped] = now[jumped]
        return self.places


def frame(world: World, trails: Trails) -> tuple[dict, bytes]:
    """(meta, bytes) of a picture.

    ``meta["arrays"]`` is {name: [dtype, shape, offset in bytes]}; dtypes are "f4" and "u2".
    """
    setting = world.setting
    K = setting.codebook_size
    threshold, _ = world.quantizer.reset.limits(K, setting.tokens)
    arrays = {
        "cells": _cells(world),
        "points": world.points[:SHOWN].numpy(),
        "trails": trails.follow(world).numpy(),
        "from": world.came_from.numpy(),
        "counts": world.counts.numpy(),
        "sizes": world.quantizer.cluster_size.numpy(),
        "idle": world.idle.numpy(),
        "age": world.age.numpy(),
        **_curves(world),
    }
    meta = {
        "step": world.step_number,
        "surface": setting.surface,
        "reach": REACH,
        "K": K,
        "share": setting.tokens / K,
        "threshold": threshold if setting.threshold else 0,
        "dead_after": DEAD_AFTER,
        "words": words(world),
    }
    return pack(meta, arrays)


def pack(meta: dict, arrays: dict[str, np.ndarray]) -> tuple[dict, bytes]:
    """``meta`` with a directory of ``arrays``, and their bytes one after another."""
    directory, parts, offset = {}, [], 0
    for name, array in arrays.items():
        kind = "u2" if array.dtype.kind in "iu" else "f4"
        data = np.ascontiguousarray(array, dtype=f"<{kind}").tobytes()
        data += bytes(-len(data) % 4)  # the browser reads floats at multiples of four only
        directory[name] = [kind, list(array.shape), offset]
        parts.append(data)
        offset += len(data)
    return meta | {"arrays": directory}, b"".join(parts)


def words(world: World) -> str:
    """What the picture shows, in one sentence."""
    s = world.setting
    still = s.freeze or s.drift == 0
    motion = "a still encoder" if still else f"drift {s.drift:g} % a step ({s.pattern})"
    begun = f"With K {s.codebook_size}, {s.tokens:,} tokens, decay {s.decay:g}, {motion} and "
    begun += f"{rule(s)}, "
    if not world.rows:
        return begun + "nothing has been trained yet."
    row = world.rows[-1]
    K = s.codebook_size
    used = round(row["utilization"] * K)
    return (
        f"{begun}after {_count(world.step_number, 'step')} {used} of {K} codes are in use "
        f"({100 * row['utilization']:.0f} %), perplexity is {row['perplexity'] * K:.0f}, "
        f"the top code takes {row['top_code_ratio']:.1f} times its share, the loss reads "
        f"{world.loss:.2g}, and {_fate(world)}."
    )


def rule(setting: Setting) -> str:
    """A setting's reset, and its variant if it has one, in a few words."""
    text = "no reset"
    if setting.threshold:
        text = f"threshold {setting.threshold:g}" + " x N/K" * setting.relative
        text += f" every {setting.every} steps" * (setting.every > 1)
    return text + (f" ({setting.variant})" if setting.variant else "")


def _fate(world: World) -> str:
    idle = int((world.idle >= DEAD_AFTER).sum())
    gone = f"{idle} have not been chosen for {DEAD_AFTER} steps"
    if world.setting.threshold == 0:
        return gone
    share = world.resets / world.step_number
    return f"{_count(world.resets, 'reset')} happened ({share:.1f} a step)"


def _count(number: int, of: str) -> str:
    return f"{number:,} {of}" + "s" * (number != 1)


def _cells(world: World) -> np.ndarray:
    """(CELLS, CELLS) on the plane, (SECTORS,) on the circle: a code's number at each place."""
    if world.step_number == 0:
        return np.zeros(0, dtype=np.int64)  # before the first batch there are no codes
    if world.setting.surface == "circle":
        return world.sectors(SECTORS).numpy()
    return world.cells(CELLS, REACH).numpy()


def _curves(world: World) -> dict[str, np.ndarray]:
    rows = world.rows
    return {f"curve_{name}": np.array([r[name] for r in rows], "f4") for name in CURVES}


def limits(
    reset: DeadCodeReset | None, codebook_size: int, tokens: int, decay: float
) -> tuple[str, str]:
    """What a threshold means, in words: its ceiling, and the grace of a reset code."""
    if reset is None or reset.threshold == 0:
        return "0: no code is ever reset", ""
    ceiling = reset.ceiling(codebook_size, tokens)
    grace = reset.grace(decay, codebook_size, tokens)
    shown = "forever" if math.isinf(grace) else _count(int(grace), "step")
    hits, _ = reset.limits(codebook_size, tokens)
    return (
        f"{hits:.3g} a step: at most {100 * ceiling:.0f} % of the codes can stay above (ceiling)",
        f"a reset code lives {shown} without a hit (grace)",
    )
