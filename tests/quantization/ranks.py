"""What `test_distributed` runs in 2 and in 3 gloo processes, and alone to compare with.

Each process gets an uneven part of every batch. The tokens of one place, which the most used code
takes, all lie in the first process's part: the others have no donor.
"""

import contextlib
import hashlib
import itertools

import torch
import torch.distributed as dist
from torch import Tensor

from vqlib.quantization import variants
from vqlib.quantization.distributed import process
from vqlib.quantization.flatter import FLATTER
from vqlib.quantization.interventions import INTERVENTIONS
from vqlib.quantization.quantizer import NormEMAQuantizer
from vqlib.quantization.reset import DeadCodeReset
from vqlib.quantization.rivals import RIVALS

CODES, DIM, PICTURES = 24, 6, 16  # of four tokens each
PARTS = {1: [16], 2: [11, 5], 3: [9, 2, 5]}  # pictures of each process
STEPS, FEW = 50, 8
VARIANTS = [*INTERVENTIONS, *RIVALS, *FLATTER]
RESETS = {
    f"{donors}{' distinct' * distinct}{' few' * few}": (
        DeadCodeReset(threshold, donors=donors, distinct=distinct, top=3),
        few,
    )
    for donors, distinct in itertools.product(("most_used", "top", "batch", "usage"), (False, True))
    for few, threshold in ((False, 1.5), (True, 3.0))
}
"""{name: (a reset, whether the batch has fewer tokens than codes)}"""


def batch(step: int, few: bool = False) -> Tensor:
    """(B, 2, 2, DIM): one place in the first third, equal tokens in all, a drift over steps.

    The place is wide: of two codes in a narrow one, rounding chooses.
    """
    generator = torch.Generator().manual_seed(step)
    z = torch.randn(PICTURES, 2, 2, DIM, generator=generator) * torch.linspace(1, 0.2, DIM)
    z[: PICTURES // 3] = torch.ones(DIM) + 0.3 * z[: PICTURES // 3]
    z[[0, 6, 12, 15], 0, 0] = z[0, 0, 0]
    if few:
        z = z[:, 1:, 1:]
    return z.roll(step // 10, dims=-1)


def mine(z: Tensor) -> Tensor:
    rank, ranks = process()
    return z.split(PARTS[ranks])[rank]


def learn(q: NormEMAQuantizer, steps: int, few: bool = False) -> dict:
    """What ``steps`` steps do: indices, what was reset and by which token, codes and counts."""
    indices, resets, states = [], [torch.empty(0, 3, dtype=torch.int64)], []
    for step in range(steps):
        indices.append(q(mine(batch(step, few))).indices.flatten())
        if q.last_reset is not None:
            codes, donors, _ = q.last_reset
            resets.append(torch.stack([torch.full_like(codes, step), codes, donors], dim=1))
        states.append(digest(q))
    return {
        "indices": indices,
        "resets": torch.cat(resets),
        "codebook": q.codebook.detach().clone(),
        "cluster_size": q.cluster_size.clone(),
        "states": states,
    }


def digest(q: NormEMAQuantizer) -> str:
    """Of the state, the generator's too: equal if all bits are."""
    state = [t.detach().contiguous().flatten().view(torch.uint8) for t in q.state_dict().values()]
    return hashlib.sha256(torch.cat(state).numpy().tobytes()).hexdigest()


def told(call, *args) -> str:
    """The error that ``call(*args)`` raises, as text; empty if there is none."""
    try:
        call(*args)
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    return ""


@contextlib.contextmanager
def messages():
    """Collects the names of the collectives inside the block."""
    names, kept = [], {}
    for name in ("all_reduce", "all_gather", "broadcast"):
        kept[name] = getattr(dist, name)

        def counted(*args, name=name, **more):
            names.append(name)
            return kept[name](*args, **more)

        setattr(dist, name, counted)
    try:
        yield names
    finally:
        for name, function in kept.items():
            setattr(dist, name, function)


def make(reset: DeadCodeReset | None = None, **more) -> NormEMAQuantizer:
    return NormEMAQuantizer(CODES, DIM, reset=reset, **more)


def resetting() -> dict[str, dict]:
    return {
        name: learn(make(reset, seed=process()[0]), FEW if few else STEPS, few)
        for name, (reset, few) in RESETS.items()
    }


def changed() -> dict[str, dict | str]:
    """Each variant's steps, or how it refuses."""
    found = {}
    for name in VARIANTS:
        q = variants.named(name)(CODES, DIM, reset=DeadCodeReset(1.0), seed=3)
        if process()[1] > 1 and q.one_process:
            found[name] = told(q, mine(batch(0)))
        else:
            found[name] = learn(q, FEW)
    return found


def spoilt() -> dict[str, str | list]:
    """{which batch of the last rank is spoilt, and when: the error}, and the states afterwards."""
    rank, ranks = process()
    found = {}
    nan = torch.full((2, DIM), float("nan"))
    for name, bad in {"nan": nan, "empty": torch.empty(0, DIM)}.items():
        for when in (0, 3):
            q = make(DeadCodeReset(1.0))
            learn(q, when)
            before = [t.clone() for t in q.state_dict().values()]
            found[f"{name} {when}"] = told(q, bad if rank == ranks - 1 else mine(batch(when)))
            same = all(map(torch.equal, before, q.state_dict().values()))
            found[f"{name} {when} after"] = [same, *learn(q, 2)["states"]]
    return found


def sent() -> dict[str, list[str]]:
    """Messages of steps, and of an evaluation on the first rank alone."""
    q, found = make(DeadCodeReset(1e-9)), {}
    with messages() as found["first"]:
        q(mine(batch(0)))
    with messages() as found["step"]:
        q(mine(batch(1)))
    q.reset = DeadCodeReset(1e9)
    with messages() as found["reset"]:
        q(mine(batch(2)))
    q.eval()
    with messages() as found["evaluation"]:
        if process()[0] == 0:
            q(batch(3))
    q.train()
    found["states"] = learn(q, 2)["states"]
    return found


def everything() -> dict:
    found = {"resetting": resetting(), "changed": changed()}
    if process()[1] > 1:
        found |= {"spoilt": spoilt(), "sent": sent()}
    return found


def work(rank: int, folder: str) -> None:
    """One of three processes; the third is idle while two work together."""
    torch.set_num_threads(1)
    for ranks in (3, 2):
        if rank < ranks:
            address = f"file://{folder}/meet{ranks}"
            dist.init_process_group("gloo", init_method=address, rank=rank, world_size=ranks)
            torch.save(everything(), f"{folder}/{ranks}-{rank}.pt")
            dist.destroy_process_group()
