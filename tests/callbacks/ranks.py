"""One of two processes that train a model together, with a real trainer and our callback.

`test_two_processes` starts it. Only the second process has data that one code takes, so the
codebook collapses for it alone.
"""

import argparse
import json
import logging
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

import vqlib
from tests.callbacks import trained

STEPS = 200  # far more than a training takes that is stopped
ALARMS = {"every": 4, "warm_up": 0, "patience": 2}
OPTIONS = {"alarms": ALARMS, "stop_if": {"codebook-collapse"}}


class Pictures(Dataset):
    def __init__(self, rank: int):
        generator = torch.Generator().manual_seed(rank)
        self.data = torch.randn(8 * STEPS, 10, 8, generator=generator)
        if rank == 1:
            self.data[:] = self.data[:1, :1]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> dict:
        return {"x": self.data[i]}


def lightning(folder: Path, rank: int):
    import lightning as pl
    from lightning.pytorch.loggers import CSVLogger

    from tests.callbacks.test_lightning import module_of

    class Module(type(module_of(pl))):
        def training_step(self, batch, index):
            return trained.loss_of(self.model, batch["x"])

    callback = vqlib.callbacks.LightningCallback(**OPTIONS)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_steps=STEPS,
        log_every_n_steps=4,
        logger=CSVLogger(folder, name=f"rank{rank}"),
        callbacks=[callback],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), DataLoader(Pictures(rank), batch_size=4))
    return callback.following, trainer.global_step


def trainer(folder: Path, rank: int):
    from tests.callbacks import test_huggingface as hf

    trainer = hf.trainer_of(
        folder / f"rank{rank}",
        report_to="tensorboard",
        max_steps=STEPS,
        logging_steps=4,
        eval_strategy="no",
        ddp_backend="gloo",
    )
    trainer.train_dataset = Pictures(rank)
    callback = vqlib.callbacks.HFCallback(trainer, **OPTIONS)
    trainer.add_callback(callback)
    trainer.train()
    return callback.following, trainer.state.global_step


def accelerate(folder: Path, rank: int):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, project_dir=folder / f"rank{rank}", log_with="tensorboard")
    accelerator.init_trackers("run")
    model = trained.theirs()  # which sums its hits over the processes, too
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    model, optimizer = accelerator.prepare(model, optimizer)
    with vqlib.callbacks.accelerate(accelerator, model, **OPTIONS) as following:
        for step, batch in enumerate(DataLoader(Pictures(rank), batch_size=4), 1):
            loss = trained.loss_of(model, batch["x"])
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            if step % 4 == 0:
                following.log(step)
            if accelerator.check_trigger():
                break
    accelerator.end_training()
    return following, step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("train", choices=["lightning", "trainer", "accelerate"])
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    said = []
    logging.getLogger("vqlib").addHandler(logging.NullHandler())
    logging.getLogger("vqlib").addFilter(lambda record: said.append(record.getMessage()) or False)
    rank = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))
    following, steps = globals()[given.train](given.folder, rank)
    diagnosis = vqlib.diagnose(following.watch)
    (share,) = (e for e in diagnosis["threshold-above-share"].evidence if "N/K" in e.name)
    told = {
        "steps": steps,
        "should_stop": following.should_stop,
        "said": said,
        "watch": str(following.watch),
        "diagnosis": str(diagnosis),
        "tokens": sorted(set(following.watch.history["window_tokens"])),
        "used": int(following.watch.history["used_codes"].iloc[-1]),
        "share": share.value,
    }
    (given.folder / f"rank{rank}.json").write_text(json.dumps(told))
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
