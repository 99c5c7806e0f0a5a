"""Files that survive: written whole or not at all, and read without executing anything."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from vqlib import extras

_UMASK = os.umask(0o077)
os.umask(_UMASK)  # it can only be read by setting it


@contextmanager
def atomic(path: Path):
    """A temporary path beside ``path``, which takes its place only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_UMASK)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: dict[str, Tensor], info: dict | None = None) -> None:
    """Save named tensors and JSON-able ``info`` in the safetensors format."""
    with extras.named():
        from safetensors.torch import save_file
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with atomic(path) as temporary:
        save_file(plain, temporary, metadata={"info": json.dumps(info or {})})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """The tensors, on the CPU, and the info of a file from `write_tensors`.

    Raises:
        FileNotFoundError: no such file. ValueError: a file that is not whole or not ours.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    with _opened(path) as (file, info):
        return {name: file.get_tensor(name) for name in file.keys()}, info  # noqa: SIM118, no dict


def read_info(path: Path) -> dict:
    """The info alone. Raises ValueError for a file that is not whole or not ours."""
    with _opened(path) as (_, info):
        return info


@contextmanager
def _opened(path: Path):
    """The file and its info."""
    with extras.named():  # here, so that who only diagnoses does without safetensors
        from safetensors import SafetensorError, safe_open
    try:
        with safe_open(path, framework="pt") as file:
            yield file, json.loads((file.metadata() or {})["info"])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a checkpoint of vqlib: {error}") from error


def flatten(**parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """{"part/name": tensor} of several state dicts."""
    return {f"{part}/{name}": t for part, state in parts.items() for name, t in state.items()}


def unflatten(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """The state dict that `flatten` took as ``part``."""
    prefix = part + "/"
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's moments as named tensors; its settings come from the config."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": t for i, values in state.items() for name, t in values.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
