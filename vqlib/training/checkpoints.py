"""Named tensors in files: written whole or not at all, and read without executing anything."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from vqlib import extras
from vqlib.training.files import atomic


def write_tensors(path: Path, tensors: dict[str, Tensor], info: dict | None = None) -> None:
    """Save named tensors and JSON-able ``info`` in the safetensors format, with their digest.

    Raises OSError if they cannot be written; what was at ``path`` is then as before.
    """
    with extras.named():
        from safetensors.torch import save
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    info = (info or {}) | {"digest": _digest(plain, info or {})}
    # not save_file, which writes to a temporary file of its own: one that a kill leaves behind
    content = save(plain, metadata={"info": json.dumps(info)})
    with atomic(path) as temporary:
        try:
            temporary.write_bytes(content)
        except OSError as error:  # a full disk, say
            raise OSError(f"{path} could not be written: {error}") from None


def _digest(tensors: dict[str, Tensor], info: dict) -> str:
    """Hex digest of every bit of them."""
    found = hashlib.blake2b(json.dumps(info).encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        found.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """The tensors, on the CPU, and the info of a file from `write_tensors`.

    Raises:
        FileNotFoundError: no such file. ValueError: a file that is not whole or not ours.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    with _opened(path) as (file, info):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no dict
    digest = info.pop("digest", None)
    if digest is not None and digest != _digest(tensors, info):  # None: an older version's
        raise ValueError(f"{path} is damaged: it does not hold what was written")
    return tensors, info


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
            yield file, _object((file.metadata() or {})["info"])
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a checkpoint of vqlib: {error}") from error


def _object(text: str) -> dict:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"its info is {text[:40]}")
    return found


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
