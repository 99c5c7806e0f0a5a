"""The callback in real trainings of the transformers' Trainer, with its real reporters."""

import json
import sqlite3
import sys

import pytest
import torch
import transformers
from torch import nn

import vqlib
from tests.callbacks import trained
from tests.callbacks.trained import BATCH, NAME, PICTURES

STEPS = PICTURES // BATCH  # of an epoch


class Model(nn.Module):
    def __init__(self, build=trained.ours):
        super().__init__()
        self.model = build()
        self.fails = False

    def forward(self, x):
        if self.fails:
            raise RuntimeError("broken step")
        return {"loss": trained.loss_of(self.model, x)}


def trainer_of(folder, model=None, report_to="none", **more) -> transformers.Trainer:
    settings = {
        "logging_steps": 5,
        "num_train_epochs": 2,
        "eval_strategy": "epoch",
        "save_strategy": "no",
        "per_device_train_batch_size": BATCH,
        "use_cpu": True,
        "disable_tqdm": True,
        "prediction_loss_only": True,
        "run_name": "a run",
        "learning_rate": 1e-2,
    }
    args = transformers.TrainingArguments(str(folder), report_to=report_to, **(settings | more))
    pictures = [{"x": x} for x in trained.data()]
    return transformers.Trainer(
        model or Model(), args, train_dataset=pictures, eval_dataset=pictures
    )


def train(trainer, **options):
    """The callback, once the trainer has trained with it."""
    callback = vqlib.callbacks.HFCallback(trainer, **options)
    trainer.add_callback(callback)
    trainer.train()
    assert trained.hooks(trainer.model) == 0
    return callback


@pytest.mark.parametrize("build", [trained.ours, trained.theirs])
def test_the_log_history(build, tmp_path):
    trainer = trainer_of(tmp_path, Model(build))
    watch = train(trainer).following.watch
    for name, split, steps in (("", "train", [5, 10, 15, 20]), ("val_", "val", [10, 20])):
        rows = [r for r in trainer.state.log_history if f"{NAME}/{name}utilization" in r]
        written = {r["step"]: r[f"{NAME}/{name}utilization"] for r in rows}
        trained.assert_among(written, trained.expected(watch, split), steps)
    losses = [r["step"] for r in trainer.state.log_history if "loss" in r]
    assert losses == [5, 10, 15, 20]  # the trainer's own log is left as it was
    state = tmp_path / "trainer_state.json"
    trainer.state.save_to_json(str(state))
    # the log does not tell the threshold
    assert vqlib.diagnose(state).ids("critical") <= vqlib.diagnose(watch).ids("critical")


def test_tensorboard(tmp_path):
    watch = train(trainer_of(tmp_path, report_to="tensorboard")).following.watch
    for name, split, steps in (("", "train", [5, 10, 15, 20]), ("val_", "val", [10, 20])):
        written = trained.tensorboard(tmp_path, f"train/{NAME}/{name}utilization")
        trained.assert_among(written, trained.expected(watch, split), steps)


def test_wandb_offline(tmp_path, monkeypatch):
    for key, value in {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{key}", value)
    import wandb

    watch = train(trainer_of(tmp_path, report_to="wandb")).following.watch
    wandb.finish()
    wandb.teardown()  # its service writes the last records when it ends
    written = trained.wandb(tmp_path / "wandb", f"train/{NAME}/utilization", "train/global_step")
    trained.assert_among(written, trained.expected(watch, "train"), [5, 10, 15, 20])


def test_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/runs")
    mlflow.set_tracking_uri(f"file://{tmp_path}/runs")
    watch = train(trainer_of(tmp_path, report_to="mlflow")).following.watch
    mlflow.end_run()
    written = trained.mlflow(tmp_path / "runs", f"{NAME}/utilization")
    trained.assert_among(written, trained.expected(watch, "train"), [5, 10, 15, 20])


def test_trackio(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))  # read when trackio is imported
    pytest.importorskip("trackio", reason="trackio is not in the lock: it holds Pillow below 13")
    watch = train(trainer_of(tmp_path, report_to="trackio")).following.watch
    (file,) = tmp_path.glob("*.db")
    with sqlite3.connect(file) as base:
        rows = base.execute("select step, metrics from metrics order by id").fetchall()
    name = f"train/{NAME}/utilization"
    written = [m[name] for _, m in ((s, json.loads(m)) for s, m in rows) if name in m]
    history = trained.expected(watch, "train")
    assert written == pytest.approx([history[s] for s in (5, 10, 15, 20)])


def test_the_training_is_the_same_to_the_bit(tmp_path):
    models = [Model(), Model()]
    for model, options in zip(models, (None, {"alarms": {"every": 3, "warm_up": 0}}), strict=True):
        trainer = trainer_of(tmp_path, model)
        trainer.train() if options is None else train(trainer, **options)
    assert trained.same_weights(*models)


def test_a_resumed_training_counts_on_and_micro_batches_are_steps(tmp_path):
    options = {"gradient_accumulation_steps": 2, "save_strategy": "epoch"}
    watch = train(trainer_of(tmp_path, **options, num_train_epochs=1)).following.watch
    assert watch.steps == STEPS
    trainer = trainer_of(tmp_path, **options)
    callback = vqlib.callbacks.HFCallback(trainer)
    trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=True)
    rows = callback.following.watch.history.query("split == 'train'")
    assert rows["step"].tolist() == list(range(STEPS + 1, 2 * STEPS + 1))


def test_a_hopeless_training_is_stopped_by_the_trainer(tmp_path):
    trainer = trainer_of(tmp_path, Model(trained.collapsed), logging_strategy="no")
    alarms = {"every": 2, "warm_up": 0, "patience": 2, "on_alarm": lambda alarm: None}
    callback = train(trainer, alarms=alarms, stop_if={"codebook-collapse"})
    assert callback.following.should_stop and trainer.state.global_step < 2 * STEPS


def test_after_an_exception_the_watch_is_closed_or_replaced(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.model.fails = True
    with pytest.raises(RuntimeError, match="broken step"), vqlib.callbacks.HFCallback(trainer):
        trainer.train()
    assert trained.hooks(trainer.model) == 0
    callback = vqlib.callbacks.HFCallback(trainer)
    trainer.add_callback(callback)
    with pytest.raises(RuntimeError, match="broken step"):
        trainer.train()
    trainer.model.fails = False
    trainer.train()
    assert callback.following.watch.steps == 2 * STEPS and trained.hooks(trainer.model) == 0


def test_a_model_without_quantizer_is_said_when_training_starts(tmp_path):
    with pytest.raises(ValueError, match="no quantizer layer that is recognised"):
        train(trainer_of(tmp_path, Model(trained.nothing)))


@pytest.mark.parametrize("given", [(), (3,)])
def test_it_asks_for_the_trainer(given):
    with pytest.raises(TypeError, match=r"trainer.add_callback\(vqlib.callbacks.HFCallback"):
        vqlib.callbacks.HFCallback(*given)
    with pytest.raises(TypeError, match="HFCallback needs the Trainer"):
        trainer_of("unused").add_callback(vqlib.callbacks.HFCallback)


def test_a_missing_trainer_names_its_extra(monkeypatch):
    monkeypatch.setattr("vqlib.extras._extras", lambda: {"transformers": "peers"})
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "vqlib.callbacks.huggingface", raising=False)
    monkeypatch.delattr(vqlib.callbacks, "HFCallback", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"transformers .* 'vqlib\[trainers\]'"):
        _ = vqlib.callbacks.HFCallback


def test_the_numbers_are_finite(tmp_path):
    trainer = trainer_of(tmp_path)
    train(trainer, columns=None)
    ours = [v for r in trainer.state.log_history for k, v in r.items() if k.startswith("vqlib/")]
    assert torch.isfinite(torch.tensor(ours)).all()
    assert any(f"{NAME}/val_eval_change" in r for r in trainer.state.log_history)
