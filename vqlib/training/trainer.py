"""TrainConfig -> Run: the training loop, its state, and how it stops."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from vqlib.quantization.distributed import from_first_rank, process
from vqlib.quantization.quantizer import NonFiniteInput
from vqlib.quantization.ranges import SettingsError
from vqlib.training import checkpoints, data, locks, parallel, runs
from vqlib.training.ahead import Ahead
from vqlib.training.config import TrainConfig, steps_of
from vqlib.training.history import (
    PROBE_PICTURES,
    Measures,
    Recorder,
    final_values,
    measure,
    state_of,
)
from vqlib.training.model import STRIDE
from vqlib.training.optimizer import AdamW
from vqlib.training.process import cpu_threads, deferred_interrupt
from vqlib.training.runs import Run, Trace, TrainingDiverged
from vqlib.watching.balance import Balance
from vqlib.watching.columns import looks


def train(
    config: TrainConfig | None = None,
    out_dir: str | Path | None = None,
    *,
    resume: bool = False,
    progress: bool = True,
    callbacks: Sequence[Callable[[Trainer], None]] = (),
) -> Run:
    """Train a VQ-VAE.

    In a torch.distributed process group all ranks call it together, and it trains what one process
    would, up to the order of its sums: each computes its part of every batch. The first one
    validates and writes; callbacks are called on all.

    Args:
        config: settings; None: the defaults.
        out_dir: where history.csv, config.json, summary.json, run.safetensors and the
            checkpoint go; None: nothing is written. A folder with another run is refused.
        resume: continue from the checkpoint in ``out_dir``, bit for bit as if never stopped (on a
            CPU with as many threads; CUDA's sums are not reproducible).
        progress: show a progress bar.
        callbacks: each is called with the `Trainer` after every step, and may `Trainer.stop` it.

    Raises:
        TypeError: ``config`` is no TrainConfig.
        ValueError, FileNotFoundError: unusable settings or data, before training starts.
        FileExistsError: ``out_dir`` holds a run and ``resume`` is false.
        FolderInUse: an OSError: another process trains in ``out_dir``.
        TrainingDiverged: the loss or its gradient is not finite.
        KeyboardInterrupt: after Ctrl-C, once the step is done and the checkpoint written.
        RankLost: another rank died or hangs.
    """
    config = TrainConfig() if config is None else config
    if not isinstance(config, TrainConfig):
        raise TypeError(f"config must be a vqlib.TrainConfig or None, got {type(config).__name__}")
    folder = None if out_dir is None else Path(out_dir)
    with cpu_threads(config.threads), parallel.lost_told(), ExitStack() as held:
        parallel.check_same("the settings", config)
        claimed = runs.claimed(folder, config, resume)
        state = parallel.on_first(lambda: held.enter_context(claimed))
        trainer = parallel.on_all(lambda: Trainer(config, folder, callbacks))
        parallel.check_same("the data", trainer.data.checksum)
        if state is not None:
            parallel.on_all(lambda: trainer.load_state(*state))
            kept = trainer.recorder.history()
            if folder is not None:
                parallel.on_first(lambda: runs.check_history(folder, kept))
        if folder is not None:
            finished = trainer.step == trainer.steps
            parallel.on_first(lambda: runs.begin(folder, config, finished=finished))
        return trainer.run(progress)


class Trainer:
    """The loop and its state: ``model``, ``optimizer``, ``recorder``, and ``step``, those done."""

    def __init__(
        self,
        config: TrainConfig,
        folder: Path | None = None,
        callbacks: Sequence[Callable[[Trainer], None]] = (),
    ):
        self.config, self.folder, self.callbacks = config, folder, callbacks
        self.device = config.resolved_device()
        self.data = data.of(*config.source)
        if any(side % STRIDE for side in self.data.size):
            raise ValueError(
                f"the pictures of {self.data.name} are {self.data.size} pixels; height and "
                f"width must be multiples of {STRIDE}, the encoder's stride"
            )
        if config.batch_size < process()[1]:
            raise SettingsError(
                f"batch_size {config.batch_size} is smaller than the number of processes, "
                f"{process()[1]}, and each needs a picture",
                "batch_size",
            )
        self.steps = steps_of(config, len(self.data.train))
        self.per_epoch = len(self.data.train) // config.batch_size
        if parallel.first():
            self.data.warn_of_few(config.batch_size)
        self.batches = Ahead(self.data.train)
        self.tokens = config.batch_size * math.prod(side // STRIDE for side in self.data.size)
        dims = len(self.data.size)
        self.model = runs.build_model(config, self.data.channels, dims).to(self.device)
        if process()[1] > 1 and self.model.quantizer.one_process:
            raise SettingsError(
                f"variant {config.variant!r} learns from the batch of one process; got "
                f"{process()[1]} processes",
                "variant",
            )
        if self.data.scaling is not None:
            for name, values in self.data.scaling._asdict().items():
                getattr(self.model, name).copy_(torch.from_numpy(values)[:, None])
        self.optimizer = AdamW(
            self.model.parameters(),
            betas=(config.momentum, 0.999),
            weight_decay=config.weight_decay,
        )
        probe = self.data.val.batch(range(min(PROBE_PICTURES, len(self.data.val))))
        self.recorder = Recorder(config, self.tokens, self._to_device(probe))
        self.trace = Trace()
        self.step = 0
        self.stopped = False
        self.seconds = 0.0
        self.history_due = 0.0
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))
        self.told: list[bool] | None = None  # whether any rank wished to stop, or was interrupted
        self.wrapped: tuple[int, nn.Module] = (-1, self.model)

    def run(self, progress: bool = True) -> Run:
        """Train to the end; see `train`."""
        start = time.perf_counter() - self.seconds
        good = self.state()
        self._write(good)
        hidden = not (progress and parallel.first())
        bar = tqdm(total=self.steps, initial=self.step, unit="step", disable=hidden, leave=False)
        with bar, deferred_interrupt() as signals:
            interrupted = signals
            while self.step < self.steps:
                if not self._train_step(signals):
                    raise self._diverged(good)
                self.seconds = time.perf_counter() - start
                self._after_step(bar)
                stopped = self.stopped  # read once: a thread may stop it
                if self.told is not None:  # together, all do what any of them wished before
                    stopped, interrupted = self.told
                    self.stopped |= stopped
                end = stopped or self.step == self.steps
                due = end or self.step % self.config.checkpoint_every == 0 or interrupted
                state = self.state() if due else good
                if end and not self._validation():
                    self.validate()  # after the state: whoever goes on never sees this row
                if not math.isfinite(self._validation().get("recon_loss", 0.0)):
                    raise self._diverged(good)
                if due:
                    good = state
                    self._write(good)
                if end:
                    break
                if due and interrupted:
                    parallel.wait()
                    raise KeyboardInterrupt(self._how_to_go_on())
            run = self.kept()
            if self.folder is not None and parallel.first():
                run.save(self.folder)
            parallel.wait()
            if interrupted:
                raise KeyboardInterrupt(f"interrupted after step {self.step} of {self.steps}")
        return run

    def stop(self) -> None:
        """End the training after the step under way: a whole run of fewer steps is kept.

        From a callback or another thread. ``resume`` goes on with it as if it had never stopped.
        Of several processes any can ask, and all end together, after the step that follows.
        """
        self.stopped = True

    def _train_step(self, signals: Sequence[int] = ()) -> bool:
        """One step; False, with the weights untouched, if the loss is not finite.

        ``signals``: of interruption, seen so far.
        """
        rate = self.config.rate(self.step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.config.freeze_encoder_at is not None:
            self.model.encoder.requires_grad_(self.step < self.config.freeze_encoder_at)
        last = self.step + 1 == self.steps
        rows = parallel.part(self._batch_of(self.step))
        following = None if last else parallel.part(self._batch_of(self.step + 1))
        share = len(rows) / self.config.batch_size
        pictures = self._to_device(self.batches.take(rows, following))
        self.model.train()
        self.optimizer.zero_grad()
        try:
            output = self._forward()(pictures)
        except NonFiniteInput:
            return False
        balance = None
        if looks(self.step + 1, self.config.log_every):
            balance = Balance.of(output.encoded, output.quantized, output.commit_loss)
        parallel.backward(output.recon_loss + output.commit_loss, share)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        size = torch.nn.utils.get_total_norm(gradients) + output.recon_loss.detach()
        if not math.isfinite(size.item()):
            return False
        self.optimizer.step()
        self.step += 1
        due = self.recorder.due(self.step)
        measures = Measures.of(output, self.config.codebook_size, due)
        if process()[1] > 1:
            wishes = [self.stopped, bool(signals)]
            measures, self.told = measures.over_ranks(share, wishes)
        norms = None if balance is None else balance.norms
        self.recorder.train_step(self.step, output, self.model, rate, norms, measures)
        return True

    def _forward(self) -> nn.Module:
        """The model as it is trained; made anew when the encoder freezes or thaws."""
        trained = sum(p.requires_grad for p in self.model.parameters())
        if self.wrapped[0] != trained:
            self.wrapped = trained, parallel.wrapped(self.model)
        return self.wrapped[1]

    def _to_device(self, pictures: Tensor) -> Tensor:
        if pictures.ndim == 3:  # signals
            return pictures.to(self.device)
        # channels last: convolutions run a fifth faster, and tokens lie as the quantizer wants
        return pictures.to(self.device, memory_format=torch.channels_last)

    def _batch_of(self, step: int) -> Tensor:
        """Indices of a step's pictures: a new order each epoch, the last short batch dropped."""
        epoch, position = divmod(step, self.per_epoch)
        if self.order[0] != epoch:
            seed = (self.config.seed * 1_000_003 + epoch) % 2**63
            generator = torch.Generator().manual_seed(seed)
            self.order = epoch, torch.randperm(len(self.data.train), generator=generator)
        start = position * self.config.batch_size
        return self.order[1][start : start + self.config.batch_size]

    def _after_step(self, bar: tqdm) -> None:
        every = self.config.trace_every
        if every and self.step % every == 0:
            self.trace.add("steps", torch.tensor(self.step))
            self.trace.add("counts", self.recorder.window[-1])
            self.trace.add("cluster_size", self.model.quantizer.cluster_size)
        reset = self.model.quantizer.last_reset
        if every and reset is not None:
            when = torch.full_like(reset.codes, self.step)
            self.trace.add("reset_events", torch.stack([when, reset.codes, reset.donors], dim=1))
        if self.step % self.config.val_every == 0 or self.step == self.steps:
            self.validate()
        if self.recorder.rows:
            row = self.recorder.rows[-1]
            text = f"{row['split']} utilization {row['utilization']:.1%}"
            bar.set_postfix_str(f"{text}, loss {row['recon_loss']:.4f}", refresh=False)
        bar.update()
        for callback in self.callbacks:
            callback(self)

    @torch.no_grad()
    def validate(self) -> None:
        """One pass over the whole validation set; a sound quantizer changes nothing by it.

        The first rank does it and tells the others.
        """
        counts, measured = parallel.on_first(self._measured)
        if measured["eval_change"]:  # an unsound one changes on all ranks alike
            for buffer in self.model.quantizer.buffers():
                from_first_rank(buffer)
        self.recorder.val_row(self.step, counts, measured, self.model.quantizer.codebook)
        self.trace.add("val_steps", torch.tensor(self.step))
        self.trace.add("val_counts", counts)
        if self.config.trace_every:
            self.trace.add("codebook", self.model.quantizer.codebook)
            probe = self.model.encode(self.recorder.probe).reshape(-1, self.config.dim)
            self.trace.add("probe", F.normalize(probe, dim=-1))

    def _measured(self) -> tuple[Tensor, dict[str, float]]:
        before = state_of(self.model.quantizer)
        counts, measured = measure(self.model, self.data.val, self._to_device)
        change = (state_of(self.model.quantizer) - before).abs().max()
        return counts, measured | {"eval_change": float(change)}

    def _validation(self) -> dict:
        """The row that validates the weights as they are; empty if none does."""
        row = self.recorder.rows[-1] if self.recorder.rows else {"split": "train"}
        return row if row["split"] == "val" and row["step"] == self.step else {}

    # --- what is kept ---

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """(tensors, info): copies of everything that going on needs."""
        tensors = checkpoints.flatten(
            model=self.model.state_dict(),
            optimizer=checkpoints.optimizer_tensors(self.optimizer),
            recorder=self.recorder.state_dict(),
            trace=self.trace.stacked(),
        )
        info = {"step": self.step, "seconds": self.seconds, "checksum": self.data.checksum}
        info["config"] = runs.identity(self.config)
        return {name: t.detach().cpu().clone() for name, t in tensors.items()}, info

    def load_state(self, tensors: dict[str, Tensor], info: dict) -> None:
        """Go back to a `state`.

        Raises ValueError if the data has changed since, the run is past its last step, or the
        state is of another model.
        """
        if info["checksum"] != self.data.checksum:
            raise ValueError(
                f"the data of {self.data.name} has changed since the checkpoint was written; "
                "resume with the same data, or start anew in another out_dir"
            )
        if info["step"] > self.steps:
            raise ValueError(
                f"the checkpoint is of step {info['step']}, past the last one asked for, "
                f"{self.steps}; resume with at least as many steps"
            )
        with runs.fitting("the checkpoint"):
            self.model.load_state_dict(checkpoints.unflatten(tensors, "model"))
            checkpoints.load_optimizer(self.optimizer, checkpoints.unflatten(tensors, "optimizer"))
            self.recorder.load_state_dict(checkpoints.unflatten(tensors, "recorder"))
            self.trace = Trace(checkpoints.unflatten(tensors, "trace"))
        self.step, self.seconds = info["step"], info["seconds"]

    def _write(self, state: tuple[dict[str, Tensor], dict]) -> None:
        if self.folder is None or not parallel.first():
            return
        locks.confirm(self.folder)
        checkpoints.write_tensors(self.folder / "checkpoint.safetensors", *state)
        if time.perf_counter() >= self.history_due:  # a long history takes long to write
            start = time.perf_counter()
            runs.write_history(self.folder, self.recorder.history())
            now = time.perf_counter()
            self.history_due = now + 20 * (now - start)

    def kept(self) -> Run:
        """The run as it stands."""
        history = self.recorder.history()
        return Run(
            self.config, history, self._summary(history), self.model.eval(), self.trace.stacked()
        )

    def _summary(self, history: pd.DataFrame) -> dict:
        return {
            "steps": self.step,
            "stopped": self.stopped and self.step < self.steps,
            "steps_per_epoch": self.per_epoch,
            "tokens_per_step": self.tokens,
            "uniform_share": self.tokens / self.config.codebook_size,
            "survival_horizon": self.recorder.ledger.horizon,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "data": self.data.name,
            "data_checksum": self.data.checksum,
            "train_pictures": len(self.data.train),
            "val_pictures": len(self.data.val),
            "skipped_pictures": len(self.data.skipped),
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "ranks": process()[1],
            "torch": torch.__version__,
            "seconds": round(self.seconds, 3),
            "total_resets": int(self.recorder.ledger.times.sum()),
        } | final_values(history)

    def _diverged(self, good: tuple[dict[str, Tensor], dict]) -> TrainingDiverged:
        failed, history = self.step + 1, self.recorder.history()
        self.load_state(*good)
        kept = "in the error's .run" if self.folder is None else f"in {self.folder}"
        run = replace(self.kept(), history=history)
        if self.folder is not None and parallel.first():
            runs.write_history(self.folder, history)
        parallel.wait()
        return TrainingDiverged(
            f"the loss or its gradient is not finite at step {failed}; the last good state, of "
            f"step {self.step}, is kept {kept}. Lower learning_rate (now "
            f"{self.config.learning_rate}) or lengthen warmup_steps ({self.config.warmup_steps})",
            run,
        )

    def _how_to_go_on(self) -> str:
        if self.folder is None:
            return f"stopped after step {self.step}; nothing was saved, as no out_dir was given"
        return (
            f"stopped after step {self.step} of {self.steps}; saved in {self.folder}. Resume "
            f"with the same settings and --out_dir {self.folder} --resume (resume=True in Python)"
        )
