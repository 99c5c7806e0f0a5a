"""What the notebooks share: sentences and small tables here; claims, exercises, figures below."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

import vqlib
from vqlib import extras
from vqlib.training.config import TrainConfig

with extras.named("notebooks"):
    from IPython.display import Markdown, display

    from vqlib.lessons import guide
    from vqlib.training.experiments import interval


def provenance(config: TrainConfig, seeds: int, first: int = 0) -> None:
    """One line: versions, seeds, device, threads."""
    used = f"seeds {first} to {first + seeds - 1}" if seeds > 1 else f"seed {first}"
    say(
        f"<small>vqlib {vqlib.__version__} · torch {torch.__version__} · Python "
        f"{platform.python_version()} · {used} · device "
        f"{config.resolved_device()} · {config.threads or torch.get_num_threads()} thread(s) "
        f"a run</small>"
    )


def reaches_the_curve(steps: int) -> None:
    """Raises ValueError if a training of ``steps`` ends before the guide's curve does."""
    if steps <= (last := max(guide.CURVE_BEFORE)):
        raise ValueError(
            f"steps: got {steps}; the guide's curve goes on to iteration {last}, so expected at "
            f"least {last + 1}"
        )


def say(text: str) -> None:
    """Show a sentence whose numbers come from variables."""
    display(Markdown(text))


def percent(share: float) -> str:
    """0.117 -> "11.7 %"."""
    return f"{100 * share:.1f} %"


def settings(config: TrainConfig) -> pd.DataFrame:
    """The settings that matter here, beside the guide's."""
    rows = {
        name: (guide.SETTING.get(name, "not stated"), getattr(config, name))
        for name in (
            *guide.SETTING,
            *("dim", "width", "learning_rate", "warmup_steps", "warmup_power", "momentum", "steps"),
        )
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["the guide", "here"])


def beside_guide(
    theirs: Mapping[int, float], ours: Mapping[int, float], what: str = "here, median"
) -> pd.DataFrame:
    """A table by iteration: the guide's utilization, ours, and the difference in points."""
    rows = [
        (
            step,
            percent(theirs[step]),
            percent(ours[step]),
            f"{100 * (ours[step] - theirs[step]):+.1f}",
        )
        for step in theirs
    ]
    columns = ["iteration", "the guide", what, "difference (points)"]
    return pd.DataFrame(rows, columns=columns).set_index("iteration")


def record_change(name: str, before, after) -> None:
    """Record the means of ``before/NAME`` and ``after/NAME``, and whether ``decided/NAME``.

    ``before``, ``after``: (n,), one value a seed, the same seeds in the same order. Decided: the
    95 % interval of the change leaves out 0. With one seed there is no interval and no such record.
    """
    change = np.subtract(after, before)
    _, low, high = interval(change)
    vqlib.record(f"before/{name}", np.mean(before))
    vqlib.record(f"after/{name}", np.mean(after))
    if len(change) > 1:
        vqlib.record(f"decided/{name}", bool(low > 0 or high < 0))


def with_interval(values, form: str, within: tuple[float, float] = (-math.inf, math.inf)) -> str:
    """Mean over seeds and its 95 % interval as text.

    Args:
        form: a format such as ".2f".
        within: what the number can be; the interval is cut there.
    """
    mean, low, high = interval(values)
    if math.isnan(low):
        return f"{mean:{form}} (one seed, no interval)"
    low, high = max(low, within[0]), min(high, within[1])
    return f"{mean:{form}} (95 % interval {low:{form}} to {high:{form}})"


def measured(values: Mapping[str, object], column: str) -> pd.DataFrame:
    """The closing table of a notebook; ``column`` says what was averaged over."""
    rows = [", ".join(v) if isinstance(v, list) else v for v in values.values()]
    return pd.DataFrame({column: rows}, index=list(values))


def text_table(table: pd.DataFrame):
    """A table of sentences: uncut, aligned left, without its index."""
    shown = table.style.hide(axis="index").set_properties(**{"text-align": "left"})
    return shown.set_table_styles([{"selector": "th", "props": "text-align: left"}])
