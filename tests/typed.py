"""A user's program for the type checker, which fails here if a public name loses its type.

It is checked by `make test`, and never run.
"""

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import vqlib
from vqlib import callbacks, experiments, usage
from vqlib.callbacks.accelerating import Accelerated
from vqlib.diagnosis.findings import Diagnosis, Finding
from vqlib.quantization.quantizer import Quantized
from vqlib.testing import parametrize_with_audit
from vqlib.watching.watch import Watch


class MyQuantizer(nn.Module):
    def __init__(self, size: int = 64, dim: int = 8):
        super().__init__()
        self.embedding = nn.Embedding(size, dim)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        indices = torch.cdist(z, self.embedding.weight).argmin(dim=-1)
        return self.embedding(indices), indices


def indices_of(layer: MyQuantizer, output: tuple[Tensor, Tensor]) -> Tensor:
    return output[1]


def codebook_of(layer: MyQuantizer) -> Tensor:
    return layer.embedding.weight


adapter = vqlib.Adapter(indices=indices_of, codebook=codebook_of)


def a_layer(z: Tensor) -> None:
    reset = vqlib.DeadCodeReset(threshold=0.1, relative=True)
    out = vqlib.NormEMAQuantizer(codebook_size=512, dim=32, reset=reset)(z)
    assert_type(out, Quantized)
    assert_type(out.loss, Tensor)


def a_training() -> None:
    config = vqlib.TrainConfig(steps=10, dead_code_threshold=1.0)
    run = vqlib.train(config, progress=False)
    assert_type(run, vqlib.Run)
    assert_type(run.history, pd.DataFrame)
    assert_type(vqlib.diagnose(run), Diagnosis)
    assert_type(experiments.arm("baseline", seed=1), vqlib.TrainConfig)


def a_watch(model: nn.Module) -> None:
    with vqlib.watch(model, adapters={MyQuantizer: adapter}) as watched:
        alarms = vqlib.Alarms(watched, every=50)
        assert_type(alarms.should_stop, bool)
    assert_type(watched, Watch)
    found = vqlib.diagnose(watched, codebook_size=512)
    assert_type(found.findings, tuple[Finding, ...])
    assert_type(found["codebook-collapse"], Finding)


def logs(path: Path, table: pd.DataFrame) -> None:
    vqlib.diagnose(path)
    vqlib.diagnose("history.csv", dead_code_threshold=1.0, map={"used_codes": "n_hit"})
    vqlib.diagnose(table)
    vqlib.diagnose({"step": [1, 2], "used_codes": [9, 8]})


def an_audit() -> None:
    assert_type(vqlib.audit(MyQuantizer, adapter=adapter, dim=8), Diagnosis)
    assert_type(vqlib.audit_table({"mine": vqlib.audit(MyQuantizer)}), pd.DataFrame)
    parametrize_with_audit([MyQuantizer], expected_failures={"cold-start": "known"}, tokens=200)


def numbers(counts: Tensor, array: np.ndarray, column: pd.Series) -> None:
    assert_type(usage.utilization(counts), float)
    usage.perplexity(array), usage.perplexity(column), usage.perplexity([1, 2])
    vqlib.record("after/val_utilization", 0.97)
    vqlib.record("after/used", np.int64(3))
    vqlib.record("after/loss", counts.sum())


def trainers(trainer: Any, accelerator: Any, model: nn.Module) -> None:
    callbacks.LightningCallback(stop_if={"codebook-collapse"})
    callbacks.HFCallback(trainer)
    following = callbacks.accelerate(accelerator, model)
    assert_type(following, Accelerated)
    assert_type(following.numbers(), dict[str, float])
