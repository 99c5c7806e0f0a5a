"""What the tests of callbacks share: models, data, and readers of what loggers wrote."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from vector_quantize_pytorch import VectorQuantize

import vqlib
from tests.watching.watched_models import Autoencoder
from vqlib.diagnosis.reading.folders import read_folder

K, PICTURES, BATCH = 32, 40, 4
NAME = "vqlib/model.quantizer"


def data() -> torch.Tensor:
    return torch.randn(PICTURES, 10, 8, generator=torch.Generator().manual_seed(5))


def ours() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(vqlib.NormEMAQuantizer(K, 16, reset=vqlib.DeadCodeReset(threshold=0.5)))


def theirs() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(VectorQuantize(dim=16, codebook_size=K, threshold_ema_dead_code=2))


def collapsed() -> Autoencoder:
    """Gives every input the same code, for ever."""
    model = ours()
    model.quantizer = vqlib.NormEMAQuantizer(K, 16, reset=None)
    nn.init.zeros_(model.encoder.weight)
    model.encoder.requires_grad_(False)
    return model


def nothing() -> Autoencoder:
    torch.manual_seed(0)
    model = ours()
    model.quantizer = Nothing()
    return model


class Nothing(nn.Module):
    def forward(self, z):
        return z, None, z.sum() * 0


def loss_of(model: Autoencoder, x: torch.Tensor) -> torch.Tensor:
    decoded, output = model(x)
    return (decoded - x).square().mean() + output[2].sum()


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def tensorboard(folder, name: str) -> dict[int, float]:
    """{step: value} of a scalar in the event files under ``folder``."""
    (file,) = {path.parent for path in Path(folder).rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(file))
    events.Reload()
    return {e.step: e.value for e in events.Scalars(name)}


def mlflow(folder, name: str) -> dict[int, float]:
    """{step: value} of a metric in MLflow's file store."""
    (file,) = Path(folder).glob(f"*/*/metrics/{name}")
    lines = [line.split() for line in file.read_text().splitlines()]
    return {int(step): float(value) for _, value, step in lines}


def wandb(folder, name: str, step: str) -> dict[int, float]:
    """{step: value} of a metric in an offline run of W&B."""
    table, *_ = read_folder(Path(folder))
    rows = table[[step, name]].apply(pd.to_numeric).dropna()
    return {int(s): float(v) for s, v in rows.itertuples(index=False)}


def expected(watched, split: str, column: str = "utilization") -> dict[int, float]:
    """{step: value} of the history."""
    rows = watched.history.query("split == @split")
    return dict(zip(rows["step"], rows[column], strict=True))


def assert_among(written: dict[int, float], history: dict[int, float], steps: list[int]) -> None:
    """That just the history's values at ``steps`` were written."""
    assert written == pytest.approx({step: history[step] for step in steps}, rel=1e-6)
