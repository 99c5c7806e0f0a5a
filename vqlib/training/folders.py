"""A folder of pictures: listed at once, decoded one by one when they are asked for."""

import hashlib
import os
import random
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from vqlib.quantization.names import printable
from vqlib.training.crops import CropCache
from vqlib.training.items import Indices

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
        crops: items of each picture; if there are several, squares drawn at random in its place.
        seed: of those draws, which for each picture depend on its name alone.
        kept: crops decoded before; None: they are decoded anew each time.

    Item i is float32 (3, image_size, image_size) in [0, 1], of picture i // crops. In the place of
    a file that cannot be read stands the next one that can, so what item i shows does not depend
    on the order of access.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        image_size: int,
        crops: int = 1,
        seed: int = 0,
        kept: CropCache | None = None,
    ):
        self.root, self.names, self.image_size = root, tuple(names), image_size
        self.crops, self.seed, self._kept = crops, seed, kept
        self._unreadable: dict[str, str] = {}

    @classmethod
    def cached(
        cls, root: Path, listed: Sequence[Listed], image_size: int, crops: int = 1, seed: int = 0
    ) -> "FolderPictures":
        """As the class, but what is decoded once is kept on disk while the files are the same."""
        names = [p.name for p in listed]
        key = (str(root.resolve()), names, crops, seed if crops > 1 else None, DECODING)
        files = [(p.bytes, p.modified) for p in listed for _ in range(crops)]
        kept = CropCache(key, files, (image_size, image_size, 3))
        return cls(root, names, image_size, crops, seed, kept)

    def __len__(self) -> int:
        return len(self.names) * self.crops

    def __getitem__(self, index: int) -> Tensor:
        """Raises ValueError if none of the files can be read."""
        return as_floats(self._item(range(len(self))[index])[None])[0]

    def batch(self, indices: Indices) -> Tensor:
        """Pictures at `indices` (n,) int -> (n, 3, image_size, image_size), decoded in parallel."""
        rows = [range(len(self))[int(i)] for i in indices]
        found = [self._known(row) for row in rows]
        if any(item is None for item in found):
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                found = list(pool.map(self._item, rows))
        return as_floats(np.stack(found))

    @property
    def skipped(self) -> tuple[Path, ...]:
        """The files met so far that could not be read."""
        return tuple(self.root / name for name in sorted(self._unreadable))

    def _known(self, row: int) -> np.ndarray | None:
        """(image_size, image_size, 3) uint8, if it was kept."""
        return self._kept.get(row) if self._kept else None

    def _item(self, row: int) -> np.ndarray:
        first, crop = divmod(row, self.crops)
        for step in range(len(self.names)):
            found = self._try((first + step) % len(self.names), crop)
            if found is not None:
                return found
        name, why = next(iter(self._unreadable.items()))
        raise ValueError(
            f"{self.root}: none of the {len(self.names)} pictures of a split can be read; "
            f"for example {name}: {why}"
        )

    def _try(self, picture: int, crop: int) -> np.ndarray | None:
        name = self.names[picture]
        if name in self._unreadable:
            return None
        known = self._known(picture * self.crops + crop)
        if known is not None:
            return known
        draws = drawn(self.crops, f"{self.seed}/{name}") if self.crops > 1 else [CENTRE]
        try:
            crops = cut(self.root / name, self.image_size, draws)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            # Of two threads that meet the same file only the one whose text is stored warns.
            if self._unreadable.setdefault(name, why) is why:
                text = f"skipped {self.root / name}, unreadable: {why}"
                warnings.warn(printable(text), stacklevel=3)
            return None
        if self._kept:  # all that was cut: a picture is decoded once
            for number, pixels in enumerate(crops):
                self._kept.put(picture * self.crops + number, pixels)
        return crops[crop]


class Square(NamedTuple):
    """A square of a picture: its side as a share of the short side, its place as shares of what
    is left over to the left and right of it, and above and below."""

    side: float
    across: float
    down: float


CENTRE = Square(1.0, 0.5, 0.5)


def drawn(count: int, key: str) -> list[Square]:
    """Squares of half to all of the short side, anywhere in a picture; ``key`` decides them."""
    # half: large pictures are decoded at twice the size needed
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
    draw = random.Random(digest).random
    return [Square(0.5 + draw() / 2, draw(), draw()) for _ in range(count)]


def decode(path: Path, size: int) -> Tensor:
    """A picture file -> float32 (3, size, size) in [0, 1]: upright, centre-cropped, no alpha."""
    return as_floats(cut(path, size, [CENTRE]))[0]


def cut(path: Path, size: int, squares: Sequence[Square]) -> np.ndarray:
    """Squares of a picture file -> (n, size, size, 3) uint8: upright, without alpha."""
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
        resized = partial(rgb.resize, (size, size), Image.Resampling.BICUBIC)
        return np.stack([np.asarray(resized(box=_box(square, *rgb.size))) for square in squares])


def _box(square: Square, width: int, height: int) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) in pixels."""
    side = square.side * min(width, height)
    left, top = square.across * (width - side), square.down * (height - side)
    return left, top, min(left + side, width), min(top + side, height)  # sums are rounded


def as_floats(pixels: np.ndarray) -> Tensor:
    """Pictures (n, height, width, 3) uint8 -> (n, 3, height, width) float32 in [0, 1]."""
    values = pixels.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    values /= 255
    return torch.from_numpy(values)


# read now, as it was imported: crops that older code has cut are not taken for this code's
DECODING = (PIL.__version__, hashlib.sha256(Path(__file__).read_bytes()).hexdigest())
"""What decides a crop besides the file; decoders differ in their last bits."""
