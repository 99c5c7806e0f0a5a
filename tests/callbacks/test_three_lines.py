"""The lines that the README shows for each trainer work as they stand there."""

import accelerate
import lightning
import pytest
import torch
import transformers

import vqlib
from tests import ROOT
from tests.callbacks import trained
from tests.callbacks.test_huggingface import Model
from tests.callbacks.test_lightning import loader, module_of

LIGHTNING = """
callback = vqlib.callbacks.LightningCallback(stop_if={"codebook-collapse"})
trainer = lightning.Trainer(callbacks=[callback], max_epochs=1)
trainer.fit(model, loader)
"""
TRAINER = """
trainer = transformers.Trainer(model, args, train_dataset=data)
trainer.add_callback(vqlib.callbacks.HFCallback(trainer, stop_if={"codebook-collapse"}))
trainer.train()
"""
ACCELERATE = """
with vqlib.callbacks.accelerate(accelerator, model) as following:
    for step, batch in enumerate(loader):
        train_step(model, batch), following.log(step)
"""
OWN_LOOP = """
with vqlib.watch(model, on_row=rows.append) as watched:
    alarms = vqlib.Alarms(watched, stop_if={"codebook-collapse"})
    for batch in loader:
        train_step(model, batch)
        if alarms.should_stop:
            break
"""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("text", [LIGHTNING, TRAINER, ACCELERATE, OWN_LOOP])
def test_it_runs(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = []
    args = transformers.TrainingArguments("out", report_to="none", use_cpu=True, max_steps=3)
    model = {LIGHTNING: lambda: module_of(lightning), TRAINER: Model}.get(text, trained.ours)()
    given = {
        "lightning": lightning,
        "transformers": transformers,
        "accelerator": accelerate.Accelerator(cpu=True),
        "args": args,
        "data": [{"x": x} for x in trained.data()],
        "loader": loader(),
        "model": model,
        "rows": rows,
        "train_step": lambda model, batch: trained.loss_of(model, batch[0]).backward(),
        "vqlib": vqlib,
        "torch": torch,
    }
    exec(text, given)
    if text is LIGHTNING:
        assert text in (ROOT / "README.md").read_text()
    followed = given.get("callback") or given.get("following")
    if followed is not None:
        watch = getattr(followed, "following", followed).watch
        assert watch.steps == 10
    if text == OWN_LOOP:
        assert len(rows) == 10 and not given["alarms"].should_stop
    assert trained.hooks(model) == 0
