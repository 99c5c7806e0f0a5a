"""Array files from outside -> pictures: .npy and .npz, MNIST-style IDX, CIFAR-10's binary version.

Every reader maps or reads a file into an array of N pictures and checks it there and then, so a
wrong file is an error before training starts. Conversion to float waits until a picture is asked
for.
"""

import gzip
import math
import re
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vqlib.training.folders import holds_pictures
from vqlib.training.items import Indices

CHANNELS = (1, 3, 4)
ACCEPTED = (
    "a folder of pictures (png, jpg, webp, bmp), a .npy or .npz array (or a folder with train.npy "
    "and val.npy), MNIST-style IDX files, or CIFAR-10's binary version"
)
_VAL_STEMS = ("val", "valid", "validation", "test")
_TRAIN_KEYS = ("train", "x_train", "train_images")
_VAL_KEYS = ("val", "x_val", "val_images", "test", "x_test", "test_images")
_IDX_IMAGES = re.compile(r"(train|t10k)-images[.-]idx3-ubyte(\.gz)?$")
_CIFAR_TRAIN = re.compile(r"data_batch_\d\.bin$")
_CIFAR_RECORD = 1 + 3 * 32 * 32  # a label, then the red, green and blue planes
# RuntimeError: it is encrypted. NotImplementedError: compressed in a way that zipfile does not know
_BAD_NPZ = (
    *(ValueError, EOFError, OSError, TypeError, RuntimeError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)
SCAN_ITEMS = 2**22  # floats checked at a time: bounds the memory of a scan


class Arrays(NamedTuple):
    """What array files hold; `val` is None if they do not say which pictures validate."""

    train: np.ndarray
    val: np.ndarray | None
    files: tuple[Path, ...]


class ArrayPictures(Dataset):
    """Pictures in one array, converted on access.

    Args:
        pixels: (N, H, W), (N, H, W, C) or (N, C, H, W), C in {1, 3, 4}; uint8, or float in [0, 1].
            A fourth channel, alpha, is dropped.
        rows: which of the N pictures belong to this data set, in order; None for all.
        source: named in errors.

    Item i is float32 (channels, H, W) in [0, 1].
    """

    def __init__(self, pixels: np.ndarray, rows: np.ndarray | None = None, source="array"):
        self.pixels = pixels
        self.rows = np.arange(len(pixels)) if rows is None else np.asarray(rows, dtype=np.int64)
        self._channel_axis = channel_axis(pixels.shape, source)
        shape = list(pixels.shape[1:])
        stored = 1 if self._channel_axis is None else shape.pop(self._channel_axis - 1)
        self.channels = min(stored, 3)
        self.size = tuple(shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.batch([index])[0]

    def batch(self, indices: Indices) -> Tensor:
        """Pictures at `indices` (n,) int -> (n, channels, H, W) float32 in [0, 1]."""
        taken = self.pixels[self.rows[np.asarray(indices, dtype=np.int64)]]
        axis = self._channel_axis
        taken = np.expand_dims(taken, 1) if axis is None else np.moveaxis(taken, axis, 1)
        values = taken[:, : self.channels].astype(np.float32, order="C")
        if taken.dtype == np.uint8:
            values /= 255
        return torch.from_numpy(values)


def channel_axis(shape: tuple[int, ...], source="array") -> int | None:
    """Which axis of a stack of pictures holds the channels; None for (N, H, W).

    Raises:
        ValueError: the shape is none of the three, or could be two of them.
    """
    if len(shape) == 3:
        return None
    found = [axis for axis in (1, 3) if len(shape) == 4 and shape[axis] in CHANNELS]
    if len(found) == 1:
        return found[0]
    why = "could be both of the latter" if found else "is none of them"
    raise ValueError(
        f"{source}: expected shape (N, H, W), (N, H, W, C) or (N, C, H, W) with C in "
        f"{set(CHANNELS)}; {tuple(shape)} {why}"
    )


def read_arrays(path: Path) -> Arrays | None:
    """Reads the array files at `path`, a file or a folder; None for a folder without any.

    Raises:
        ValueError: a file that is none of the formats, or is damaged. What is in the arrays is
            not looked at.
    """
    return _in_folder(path) if path.is_dir() else Arrays(*_read(path), (path,))


def find_pictures(path: Path) -> Arrays | None:
    """As `read_arrays`, and reads floats through once. Raises ValueError for no pictures too."""
    found = read_arrays(path)
    if found is None:
        return None
    _check(found.train, f"{path} (train)")
    if found.val is not None:
        _check(found.val, f"{path} (val)")
        kinds = [(p.channels, p.size) for p in map(ArrayPictures, found[:2])]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"{path}: train and val hold different pictures: shapes {found.train.shape} and "
                f"{found.val.shape}"
            )
    return found


def _in_folder(folder: Path) -> Arrays | None:
    files = sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))
    names = {f.name for f in files}
    if any(_IDX_IMAGES.search(name) for name in names):
        return _idx_folder(folder, files)
    if any(_CIFAR_TRAIN.match(name) for name in names) or "test_batch.bin" in names:
        return _cifar_folder(folder, files)
    if "data_batch_1" in names:
        raise ValueError(
            f"{folder} holds CIFAR-10's Python version, which is pickled; expected the binary "
            "version (data_batch_1.bin ... test_batch.bin)"
        )
    return _array_folder(folder, [f for f in files if f.suffix.lower() in (".npy", ".npz")])


def _array_folder(folder: Path, files: list[Path]) -> Arrays | None:
    if not files or holds_pictures(folder):  # arrays beside pictures are labels or features
        return None
    stems = {f.stem.lower(): f for f in files}
    train = stems.get("train")
    val = next((stems[stem] for stem in _VAL_STEMS if stem in stems), None)
    if train is not None and val is not None:
        return Arrays(_single(train), _single(val), (train, val))
    if len(files) == 1:
        return Arrays(*_read(files[0]), (files[0],))
    raise ValueError(
        f"{folder}: expected train.npy and val.npy (or .npz), or exactly one such file; found "
        f"{', '.join(f.name for f in files)}"
    )


def _single(path: Path) -> np.ndarray:
    train, val = _read(path)
    if val is not None:
        raise ValueError(f"{path} holds both splits itself, but there is also a file for the other")
    return train


def _read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    name = path.name.lower()
    if not path.is_file():  # a pipe, say, which nobody may ever fill
        raise ValueError(f"{path} is no file; expected {ACCEPTED}")
    if name.endswith(".npy"):
        return _read_npy(path), None
    if name.endswith(".npz"):
        return _read_npz(path)
    if name.endswith(".bin"):
        return _read_cifar(path), None
    if "ubyte" in name or name.endswith((".idx", ".gz")):
        return _read_idx(path), None
    raise ValueError(f"{path} is a file that cannot be read; expected {ACCEPTED}")


def _read_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a .npy array: {error}") from error


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = list(archive)
            train = next((k for k in (*_TRAIN_KEYS, "x", *keys) if k in keys), None)
            if train is None:
                raise ValueError("it holds no array")
            val = next((k for k in _VAL_KEYS if k in keys), None) if train in _TRAIN_KEYS else None
            return archive[train], None if val is None else archive[val]
    except _BAD_NPZ as error:
        raise ValueError(f"{path} cannot be read as a .npz of arrays: {error}") from error


def _idx_folder(folder: Path, files: list[Path]) -> Arrays:
    chosen = {}
    for file in files:
        if match := _IDX_IMAGES.search(file.name):
            split = "train" if match[1] == "train" else "val"
            earlier = chosen.get(split)
            # Downloaders leave x.gz beside the x they unpacked; x sorts first and can be mapped.
            if earlier is None:
                chosen[split] = file
            elif file.name != f"{earlier.name}.gz":
                raise ValueError(
                    f"{folder}: two files of {split} pictures, {earlier.name} and {file.name}"
                )
    if "train" not in chosen:
        raise ValueError(f"{folder} has {chosen['val'].name} but no train-images-idx3-ubyte")
    val = _read_idx(chosen["val"]) if "val" in chosen else None
    return Arrays(_read_idx(chosen["train"]), val, tuple(chosen.values()))


def _read_idx(path: Path) -> np.ndarray:
    """(N, rows, columns) uint8. Header: 0, 0, type, axes, then each length as big-endian u32."""
    if path.suffix.lower() == ".gz":
        try:
            data = np.frombuffer(gzip.decompress(path.read_bytes()), dtype=np.uint8)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: truncated or damaged gzip file: {error}") from error
    else:
        data = _mapped(path)
    header = data[:16].tobytes()
    if header[:4] != b"\x00\x00\x08\x03" or len(header) < 16:
        raise ValueError(
            f"{path}: expected an IDX file of pictures (unsigned bytes in 3 axes, so its first "
            f"bytes are 00 00 08 03), found {header[:4].hex(' ') or 'nothing'}"
        )
    shape = struct.unpack(">3I", header[4:])
    if len(data) != 16 + math.prod(shape):
        raise ValueError(
            f"{path}: truncated or damaged: its header promises {shape}, so "
            f"{16 + math.prod(shape)} bytes, but there are {len(data)}"
        )
    return data[16:].reshape(shape)


def _cifar_folder(folder: Path, files: list[Path]) -> Arrays:
    batches = [f for f in files if _CIFAR_TRAIN.match(f.name)]
    tests = [f for f in files if f.name == "test_batch.bin"]
    if not batches:
        raise ValueError(f"{folder} has test_batch.bin but no data_batch_1.bin to train on")
    train = np.concatenate([_read_cifar(f) for f in batches])
    return Arrays(train, _read_cifar(tests[0]) if tests else None, (*batches, *tests))


def _read_cifar(path: Path) -> np.ndarray:
    """(N, 3, 32, 32) uint8."""
    data = _mapped(path)
    if len(data) == 0 or len(data) % _CIFAR_RECORD:
        raise ValueError(
            f"{path}: truncated, or not CIFAR-10's binary version: expected records of "
            f"{_CIFAR_RECORD} bytes, found {len(data)} bytes"
        )
    return data.reshape(-1, _CIFAR_RECORD)[:, 1:].reshape(-1, 3, 32, 32)


def _mapped(path: Path) -> np.ndarray:
    if path.stat().st_size == 0:  # nothing to map, and mmap says so obscurely
        return np.empty(0, dtype=np.uint8)
    return np.memmap(path, dtype=np.uint8, mode="r")


def _check(pixels: np.ndarray, source: str) -> None:
    """Raises ValueError if `pixels` is no stack of pictures; reads floats through once."""
    shape = pixels.shape
    channel_axis(shape, source)
    if 0 in shape:
        raise ValueError(f"{source}: an empty split: the array's shape is {shape}")
    if pixels.dtype == np.uint8:
        return
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(
            f"{source}: expected uint8, or float in [0, 1]; found {pixels.dtype}"
            f"{_or_signals(shape)}"
        )
    step = max(1, SCAN_ITEMS // math.prod(shape[1:]))
    for start in range(0, len(pixels), step):
        part = pixels[start : start + step]
        low, high = float(part.min()), float(part.max())
        if math.isnan(low):
            raise ValueError(f"{source}: NaN among pictures {start} to {start + len(part) - 1}")
        if low < 0 or high > 1:
            raise ValueError(
                f"{source}: float pictures must lie in [0, 1]; found {low:g} to {high:g}. "
                f"Divide by their maximum, or store uint8{_or_signals(shape)}"
            )
    if len(shape) == 3 and shape[1] != shape[2]:
        warnings.warn(
            f"{source}: shape {shape} is read as grey pictures (N, H, W){_or_signals(shape)}",
            stacklevel=5,
        )


def _or_signals(shape: tuple[int, ...]) -> str:
    """What to do if an array of pictures was meant as one of signals, which has three axes too."""
    if len(shape) != 3:
        return ""
    return "; if these are signals (n, channels, time), set dataset_kind to 'signals'"
