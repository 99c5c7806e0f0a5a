"""What `test_ranks` runs in 2 and in 3 gloo processes that train one model together."""

import hashlib
import os
import signal
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from tests.training.tiny_training import TINY, quiet, tiny
from vqlib.quantization.distributed import process
from vqlib.training import parallel
from vqlib.training.trainer import Trainer

# the encoder stands still soon: what k processes do to a codebook can be compared with what one
# does, where a moving encoder would enlarge the rounding of sums
FROZEN = {"freeze_encoder_at": 2, "steps": 50, "batch_size": 17, "dead_code_threshold": 1.0}
FROZEN |= {"trace_every": 1, "val_every": 20}
STOPPED = 9
LONG = TINY | {"steps": 160, "checkpoint_every": 20, "val_every": 60}


def digests(kept: list[str]):
    """A callback that keeps what all bits of the model and the optimizer are after each step."""

    def keep(trainer):
        state, _ = trainer.state()
        mine = hashlib.sha256()
        for name, tensor in sorted(state.items()):
            if name.startswith(("model/", "optimizer/")):
                mine.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        kept.append(mine.hexdigest())

    return keep


def followed(out_dir=None, resume=False, **changes) -> dict:
    """A training, and its states on the way."""
    kept: list[str] = []
    config = tiny(**FROZEN | changes)
    run = quiet(config, out_dir, resume=resume, callbacks=[digests(kept)])
    return {
        "states": kept,
        "history": run.history,
        "summary": run.summary,
        "trace": run.trace,
        "codebook": run.model.quantizer.codebook.clone(),
    }


def error_of(call, *args, **more) -> str:
    try:
        call(*args, **more)
    except (Exception, KeyboardInterrupt) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def on_last(action, step: int):
    """A callback that does ``action(trainer)`` after ``step``, on the last rank alone."""

    def act(trainer):
        rank, ranks = process()
        if (rank, trainer.step) == (ranks - 1, step):
            action(trainer)

    return act


def spoil(trainer) -> None:
    next(trainer.model.decoder.parameters()).data.fill_(float("nan"))


def interrupt(trainer) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def refused(folder: Path) -> dict[str, str]:
    """What goes wrong before the first step, on all ranks."""
    taken = folder / "taken"
    taken.mkdir(exist_ok=True)
    (taken / "file").touch()
    return {
        "taken": error_of(quiet, tiny(), taken),
        "settings": error_of(quiet, tiny(seed=process()[0])),
        "batch": error_of(quiet, tiny(batch_size=1)),
        "variant": error_of(quiet, tiny(variant="balanced")),
    }


def ended(folder: Path) -> dict:
    """Trainings that the last rank ends."""
    stopped = quiet(tiny(), callbacks=[on_last(lambda t: t.stop(), 4)])
    return {
        "stopped": stopped.summary["steps"],
        "diverged": error_of(quiet, tiny(), folder / "diverged", callbacks=[on_last(spoil, 6)]),
        "interrupted": error_of(
            quiet, tiny(), folder / "interrupted", callbacks=[on_last(interrupt, 5)]
        ),
    }


def messages() -> list[str]:
    """Those of one step: a training step that is neither among the first nor resets."""
    trainer = Trainer(tiny(dead_code_threshold=0.0))
    for _ in range(3):
        trainer._train_step()
    with torch.profiler.profile() as seen:
        trainer._train_step()
    return [event.name for event in seen.events() if event.name.startswith("gloo:")]


def gradient() -> float:
    """Of a loss that is infinite on the last rank alone, though its own gradient is finite."""
    rank, ranks = process()
    layer = torch.nn.Linear(1, 1)
    wrapped = parallel.wrapped(layer)  # a name, or it is gone before the backward pass
    out = wrapped(torch.ones(1)).sum()
    parallel.backward(out + (torch.inf if rank == ranks - 1 else 0.0), 1 / ranks)
    return float(layer.weight.grad)


def everything(folder: Path) -> dict:
    ranks = process()[1]
    return {
        "trained": followed(folder / f"trained{ranks}"),
        "unsound": followed(variant="counts-in-evaluation", steps=22),
        "refused": refused(folder),
        "ended": ended(folder / str(ranks)),
        "messages": messages(),
        "gradient": gradient(),
    }


def half(folder: Path) -> None:
    """The first steps of a training that another number of ranks goes on with."""
    stop = [lambda trainer: trainer.stop() if trainer.step == STOPPED - 1 else None]
    quiet(tiny(**FROZEN), folder / "half", callbacks=stop)


@contextmanager
def group(place: Path, rank: int, ranks: int, timeout: float):
    dist.init_process_group(
        "gloo",
        init_method=f"file://{place}/meet {ranks} {timeout}",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=timeout),
    )
    yield
    dist.destroy_process_group()


def work(rank: int, folder: str) -> None:
    """One of three processes; the third has left when two work together."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    place = Path(folder)
    with group(place, rank, 3, timeout=60):
        found = everything(place)
        half(place)
    torch.save(found, place / f"3-{rank}.pt")
    if rank == 2:
        return
    with group(place, rank, 2, timeout=60):
        found = everything(place)
        found["resumed"] = followed(place / "half", resume=True)
        quiet(tiny(**LONG), place / "never cut")
    with group(place, rank, 2, timeout=2):
        hang = on_last(lambda trainer: time.sleep(5), 3)
        found["hung"] = error_of(quiet, tiny(), callbacks=[hang])
    torch.save(found, place / f"2-{rank}.pt")
