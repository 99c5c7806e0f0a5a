"""The callback in real trainings of both of Lightning's packages, with its real loggers."""

import importlib
import os
import subprocess
import sys
import warnings

import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import vqlib
from tests.callbacks import trained
from tests.callbacks.trained import BATCH, NAME, PICTURES

STEPS = PICTURES // BATCH  # of an epoch
PACKAGES = ("lightning.pytorch", "pytorch_lightning")


@pytest.fixture(params=PACKAGES)
def pl(request):
    return importlib.import_module(request.param)


@pytest.fixture
def lightning():
    return importlib.import_module(PACKAGES[0])


def module_of(pl, build=trained.ours):
    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = build()

        def training_step(self, batch, index):
            loss = trained.loss_of(self.model, batch[0])
            self.log("train_loss", loss)
            if getattr(self, "fails_at", None) == index:
                raise RuntimeError("broken step")
            return loss

        def validation_step(self, batch, index):
            self.log("val_loss", trained.loss_of(self.model, batch[0]))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    return Module()


def loader() -> DataLoader:
    return DataLoader(TensorDataset(trained.data()), batch_size=BATCH)


def fit(pl, module, folder, *callbacks, ckpt_path=None, **more):
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary"), False)
    options = {"max_epochs": 2, "log_every_n_steps": 5, "logger": False, "accelerator": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            default_root_dir=folder, callbacks=list(callbacks), **(quiet | options | more)
        )
        trainer.fit(module, loader(), loader(), ckpt_path=ckpt_path)
    return trainer


@pytest.mark.parametrize("build", [trained.ours, trained.theirs])
def test_csv(pl, build, tmp_path):
    callback = vqlib.callbacks.LightningCallback()
    logger = importlib.import_module(f"{pl.__name__}.loggers").CSVLogger(tmp_path)
    trainer = fit(pl, module_of(pl, build), tmp_path, callback, logger=logger)
    table, watch = pd.read_csv(f"{logger.log_dir}/metrics.csv"), callback.following.watch
    written = table[["step", f"{NAME}/utilization"]].dropna()
    trained.assert_among(
        dict(written.itertuples(index=False)), trained.expected(watch, "train"), [5, 10, 15, 20]
    )
    assert len(table[f"{NAME}/val_utilization"].dropna()) == 2  # the sanity check is no evaluation
    assert trainer.callback_metrics[f"{NAME}/val_utilization"] == pytest.approx(
        trained.expected(watch, "val")[2 * STEPS]
    )
    assert trained.hooks(trainer.lightning_module) == 0
    assert vqlib.diagnose(logger.log_dir).verdict == vqlib.diagnose(watch).verdict


def test_tensorboard(lightning, tmp_path):
    callback = vqlib.callbacks.LightningCallback(alarms={"every": 5, "warm_up": 0})
    logger = importlib.import_module("lightning.pytorch.loggers").TensorBoardLogger(tmp_path)
    fit(lightning, module_of(lightning, trained.collapsed), tmp_path, callback, logger=logger)
    written = trained.tensorboard(tmp_path, f"{NAME}/utilization")
    history = trained.expected(callback.following.watch, "train")
    trained.assert_among(written, history, [5, 10, 15, 20])
    assert trained.tensorboard(tmp_path, f"{NAME}/critical")[20] >= 1


def test_wandb_offline(lightning, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    callback = vqlib.callbacks.LightningCallback()
    logger = importlib.import_module("lightning.pytorch.loggers").WandbLogger(
        save_dir=tmp_path, offline=True
    )
    fit(lightning, module_of(lightning), tmp_path, callback, logger=logger)
    logger.experiment.finish()
    importlib.import_module("wandb").teardown()  # writes the last records when it ends
    written = trained.wandb(tmp_path / "wandb", f"{NAME}/utilization", "trainer/global_step")
    history = trained.expected(callback.following.watch, "train")
    trained.assert_among(written, history, [5, 10, 15, 20])


def test_mlflow(lightning, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    callback = vqlib.callbacks.LightningCallback()
    logger = importlib.import_module("lightning.pytorch.loggers").MLFlowLogger(
        tracking_uri=f"file://{tmp_path}/runs"
    )
    fit(lightning, module_of(lightning), tmp_path, callback, logger=logger)
    written = trained.mlflow(tmp_path / "runs", f"{NAME}/utilization")
    history = trained.expected(callback.following.watch, "train")
    trained.assert_among(written, history, [5, 10, 15, 20])


def test_the_training_is_the_same_to_the_bit(lightning, tmp_path):
    modules = [module_of(lightning), module_of(lightning)]
    callback = vqlib.callbacks.LightningCallback(alarms={"every": 3, "warm_up": 0})
    for module, callbacks in zip(modules, ((), (callback,)), strict=True):
        torch.manual_seed(3)
        fit(lightning, module, tmp_path, *callbacks, enable_checkpointing=False)
    assert trained.same_weights(*modules)
    assert len(callback.following.watch.history) == 22


def test_a_checkpoint_may_monitor_the_codebook(lightning, tmp_path):
    best = importlib.import_module("lightning.pytorch.callbacks").ModelCheckpoint(
        tmp_path, monitor=f"{NAME}/val_utilization", mode="max"
    )
    fit(lightning, module_of(lightning), tmp_path, vqlib.callbacks.LightningCallback(), best)
    assert 0 < float(best.best_model_score) <= 1


def test_a_resumed_training_counts_on_and_micro_batches_are_steps(lightning, tmp_path):
    first, second = (vqlib.callbacks.LightningCallback() for _ in range(2))
    options = {"accumulate_grad_batches": 2}
    trainer = fit(lightning, module_of(lightning), tmp_path, first, max_epochs=1, **options)
    assert trainer.global_step == STEPS // 2 and first.following.watch.steps == STEPS
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    fit(
        lightning,
        module_of(lightning),
        tmp_path,
        second,
        ckpt_path=tmp_path / "last.ckpt",
        **options,
    )
    train = second.following.watch.history.query("split == 'train'")
    assert train["step"].tolist() == list(range(STEPS + 1, 2 * STEPS + 1))


def test_a_hopeless_training_is_stopped_by_the_trainer(lightning, tmp_path):
    said = []
    callback = vqlib.callbacks.LightningCallback(
        alarms={"every": 2, "warm_up": 0, "patience": 2, "on_alarm": said.append},
        stop_if={"codebook-collapse"},
    )
    trainer = fit(lightning, module_of(lightning, trained.collapsed), tmp_path, callback)
    assert callback.following.should_stop and trainer.global_step < 2 * STEPS
    assert "stop" in [alarm.event for alarm in said]
    kept = vqlib.callbacks.LightningCallback(alarms={"every": 2, "warm_up": 0, "patience": 2})
    trainer = fit(lightning, module_of(lightning, trained.collapsed), tmp_path, kept)
    assert trainer.global_step == 2 * STEPS


def test_an_exception_in_fit_ends_the_watch(lightning, tmp_path):
    module = module_of(lightning)
    module.fails_at = 3
    callback = vqlib.callbacks.LightningCallback()
    with pytest.raises(RuntimeError, match="broken step"):
        fit(lightning, module, tmp_path, callback)
    assert trained.hooks(module) == 0 and callback.following.watch.steps == 4
    module.fails_at = None
    fit(lightning, module, tmp_path, callback, max_epochs=1)
    assert callback.following.watch.steps == STEPS and trained.hooks(module) == 0


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (trained.nothing, {}, "no quantizer layer that is recognised"),
        (trained.ours, {"every": 0}, "every must be a whole number"),
        (trained.ours, {"alarms": {"every": -1}}, "every must be a whole number"),
        (trained.ours, {"stop_if": {"collapse"}}, "no finding is called collapse"),
        (trained.ours, {"stop_if": {"cold-start"}, "alarms": False}, "stop_if needs alarms"),
        (trained.ours, {"columns": ["usage"]}, "no column is called usage"),
    ],
)
def test_what_cannot_be_followed_is_said_when_fit_starts(
    lightning, build, options, message, tmp_path
):
    module = module_of(lightning, build)
    with pytest.raises(ValueError, match=message):
        fit(lightning, module, tmp_path, vqlib.callbacks.LightningCallback(**options))
    assert trained.hooks(module) == 0


def test_importing_the_room_imports_no_trainer():
    code = (
        "import vqlib.callbacks, sys; vqlib.callbacks.accelerate; vqlib.Alarms; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    trainers = {"lightning", "pytorch_lightning", "transformers", "accelerate"}
    assert not trainers & set(done.stdout.split())


def test_a_missing_trainer_names_its_extra(monkeypatch):
    monkeypatch.setattr("vqlib.extras._extras", lambda: {"lightning": "trainers"})
    monkeypatch.setitem(sys.modules, "lightning", None)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "vqlib.callbacks.lightning", raising=False)
    monkeypatch.delattr(vqlib.callbacks, "LightningCallback", raising=False)
    monkeypatch.delitem(sys.modules, "pytorch_lightning", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"lightning is not installed; pip install"):
        _ = vqlib.callbacks.LightningCallback
