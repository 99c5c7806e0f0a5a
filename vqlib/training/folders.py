"""A folder of pictures: listed at once, decoded one by one when they are asked for."""

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from vqlib.quantization.names import printable

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # whatever a file is called, no other decoder is started
MOST_PIXELS = 2**25  # decoded of one picture at each step: bounds time and memory
VAL_FOLDERS = ("val", "valid", "validation", "test")  # the first that exists is used


class Listed(NamedTuple):
    name: str  # relative to the root, with forward slashes
    bytes: int
    modified: int  # ns


def holds_pictures(root: Path) -> bool:
    """Whether there is a picture file below `root`; stops at the first."""
    return next(_picture_names(root), None) is not None


def list_pictures(root: Path) -> list[Listed]:
    """Every picture file below `root`, hidden ones aside, sorted; nothing is opened."""
    return sorted(Listed(name, *_size_and_time(root / name)) for name in _picture_names(root))


def _picture_names(root: Path) -> Iterator[str]:
    def stop(error: OSError):
        raise error

    seen = set()
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=stop):
        identity = os.stat(folder)
        if (identity.st_dev, identity.st_ino) in seen:  # a link back up
            subfolders.clear()
            continue
        seen.add((identity.st_dev, identity.st_ino))
        subfolders[:] = sorted(s for s in subfolders if not s.startswith((".", "__MACOSX")))
        below = Path(folder).relative_to(root).as_posix()
        prefix = "" if below == "." else f"{below}/"
        for file in files:
            if file.lower().endswith(SUFFIXES) and not file.startswith("."):
                yield prefix + file


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:  # a dangling link: listed here, and skipped by name when it is opened
        return -1, -1
    return status.st_size, status.st_mtime_ns


def given_split(root: Path, listed: list[Listed]) -> tuple[list[Listed], ...] | None:
    """The pictures under `train/` and under `val/`; None if the folders give no split.

    Raises:
        ValueError: one of the two folders is empty, or is missing while pictures lie elsewhere.
    """
    folders = {p.name.lower(): p.name for p in root.iterdir() if p.is_dir()}
    val = next((folders[v] for v in VAL_FOLDERS if v in folders), None)
    train = folders.get("train")
    if train is None and val is None:
        return None
    if train is None or val is None:
        if all(p.name.startswith(f"{train or val}/") for p in listed):
            return None  # a lone train/ is only a wrapper
        raise ValueError(
            f"{root} has {train or val}/ but no {'val' if train else 'train'}/ beside it; expected "
            "both, or neither"
        )
    parts = tuple([p for p in listed if p.name.startswith(f"{f}/")] for f in (train, val))
    for folder, part in zip((train, val), parts, strict=True):
        if not part:
            raise ValueError(f"{root / folder} is an empty split: no picture with {SUFFIXES}")
    if unused := len(listed) - sum(map(len, parts)):
        warnings.warn(
            f"{root}: {unused} pictures outside {train}/ and {val}/ are not used", stacklevel=4
        )
    return parts


class FolderPictures(Dataset):
    """Pictures in files, decoded when they are asked for.

    Args:
        root: the folder.
        names: the files, relative to `root`.
        image_size: the short side is resized to it, then the centre is cut out.

    Item i is float32 (3, image_size, image_size) in [0, 1]. In the place of a file that cannot be
    read stands the next one that can, so what item i shows does not depend on the order of access.
    """

    def __init__(self, root: Path, names: Sequence[str], image_size: int):
        self.root, self.names, self.image_size = root, tuple(names), image_size
        self._unreadable: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        """Raises ValueError if none of the files can be read."""
        first = range(len(self))[index]
        for step in range(len(self)):
            picture = self._try(self.names[(first + step) % len(self)])
            if picture is not None:
                return picture
        name, why = next(iter(self._unreadable.items()))
        raise ValueError(
            f"{self.root}: none of the {len(self)} pictures of a split can be read; "
            f"for example {name}: {why}"
        )

    def batch(self, indices) -> Tensor:
        """Pictures at `indices` (n,) int -> (n, 3, image_size, image_size), decoded in parallel."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            return torch.stack(list(pool.map(self.__getitem__, map(int, indices))))

    @property
    def skipped(self) -> tuple[Path, ...]:
        """The files met so far that could not be read."""
        return tuple(self.root / name for name in sorted(self._unreadable))

    def _try(self, name: str) -> Tensor | None:
        if name in self._unreadable:
            return None
        try:
            return decode(self.root / name, self.image_size)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            # Of two threads that meet the same file only the one whose text is stored warns.
            if self._unreadable.setdefault(name, why) is why:
                text = f"skipped {self.root / name}, unreadable: {why}"
                warnings.warn(printable(text), stacklevel=3)
            return None


def decode(path: Path, size: int) -> Tensor:
    """A picture file -> float32 (3, size, size) in [0, 1]: upright, centre-cropped, no alpha."""
    if path.exists() and not path.is_file():  # a pipe, say, which nobody may ever fill
        raise OSError("it is no file")
    with Image.open(path, formats=FORMATS) as image:
        image.draft("RGB", (2 * size, 2 * size))  # a large JPEG is decoded near the size needed
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(
                f"it is {image.width} x {image.height} pixels; expected at most {MOST_PIXELS:,}"
            )
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits of grey, which a plain conversion would clip
            image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
        rgb = image.convert("RGBA" if image.mode == "P" else "RGB").convert("RGB")
        pixels = np.asarray(ImageOps.fit(rgb, (size, size), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1).contiguous() / 255
