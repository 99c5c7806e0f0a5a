"""Pictures and signals -> float tensors; the training and the validation split share no pixel.

`load` is the way in. Built in, without a download: "photos", crops of the photographs inside
scikit-image and scikit-learn; "digits"; and "eeg", the short recording inside matplotlib. A user's
own data comes by `dataset_dir`.
"""

import csv
import gzip
import hashlib
import importlib.util
import io
import json
import tomllib
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from PIL import Image

from vqlib import extras
from vqlib.quantization.names import printable
from vqlib.quantization.ranges import Range, SettingsError, number, one_of, whole
from vqlib.training import places
from vqlib.training.arrays import ACCEPTED, ArrayPictures, Arrays, find_pictures
from vqlib.training.config import STRIDE, Kind
from vqlib.training.folders import FolderPictures, given_split, list_pictures
from vqlib.training.items import Items
from vqlib.training.signals import Scaling, SignalArrays, find_signals, kept_length

DATASETS = ("photos", "digits", "eeg")
EEG_WINDOW = 64  # samples
FEW_STEPS = 10  # of an epoch


@dataclass(frozen=True)
class Pictures:
    """What a training run reads: pictures, or signals.

    Item i of `train` and `val` is float32: a picture (channels, height, width) in [0, 1], or a
    signal (channels, time), standardised.

    Attributes:
        name: "photos", "digits", "eeg", or `dataset_dir` as it was given.
        train, val: the two splits.
        channels: 1 or 3 of pictures, any number of signals.
        size: (height, width), or (time,).
        checksum: sha256 in hex. Differs if an input byte (in a folder of pictures: a path, size
            or modification time), the split or the cropping does.
    """

    name: str
    train: Items
    val: Items
    channels: int
    size: tuple[int, ...]
    checksum: str
    scaling: Scaling | None = None
    """How signals were standardised; None for pictures."""

    @property
    def skipped(self) -> tuple[Path, ...]:
        """Pictures that could not be read so far; others stood in for them."""
        return tuple(p for split in (self.train, self.val) for p in getattr(split, "skipped", ()))

    def warn_of_few(self, batch_size: int) -> None:
        """Say how few steps an epoch has, if these are few pictures of a folder."""
        steps = len(self.train) // batch_size
        if isinstance(self.train, FolderPictures) and steps < FEW_STEPS:
            warnings.warn(
                f"{printable(self.name)}: an epoch of {len(self.train.names)} training pictures, "
                f"{self.train.crops} crop(s) of each, has {steps} step(s) of {batch_size}; set "
                "steps or epochs for a longer training, or crops to draw more of each picture",
                stacklevel=3,
            )


def load(
    dataset: str = "photos",
    dataset_dir: str | Path | None = None,
    *,
    dataset_kind: Kind = "pictures",
    image_size: int = 56,
    val_fraction: float = 0.1,
    crops: int = 1,
    seed: int = 0,
    max_pictures: int | None = None,
) -> Pictures:
    """Opens a data set, split in two.

    Args:
        dataset: "photos", "digits" or "eeg"; ignored if `dataset_dir` is given.
        dataset_dir: a folder of pictures, or array files (see data/README.md).
        dataset_kind: what is in `dataset_dir`, "pictures" or "signals". An array of three axes
            can be either, (N, H, W) or (n, channels, time), so this is never guessed.
        image_size: side in pixels of the squares that photographs and folders of pictures are cut
            to. Arrays and digits keep the size they have.
        val_fraction: share of the pictures that validates, where the data does not itself say
            which do. Photos have fixed validation regions.
        crops: training items of each picture of a folder. 1: its centre; more: squares of half
            to all of the short side, drawn at random. Validation has the centre alone.
        seed: chooses those pictures, which ones `max_pictures` keeps, and the crops.
        max_pictures: keep at most so many in each split.

    Raises:
        ValueError: a value out of range; data that is damaged, empty, or of another kind.
        FileNotFoundError: there is nothing at `dataset_dir`, or a built-in picture is missing.
        ModuleNotFoundError: the package that carries a built-in picture is not installed.
    """
    whole("image_size", image_size, least=8)
    whole("crops", crops)
    one_of("dataset_kind", dataset_kind, get_args(Kind))
    if max_pictures is not None:
        whole("max_pictures", max_pictures)
    number("val_fraction", val_fraction, Range(0, 1, above=True, below=True))
    division = _Division(val_fraction, seed, max_pictures)
    if dataset_dir is None:
        pictures = _load_built_in(dataset, image_size, division)
    elif dataset_kind == "signals":
        pictures = _load_signals(str(dataset_dir), _existing(dataset_dir), division)
    else:
        path = _existing(dataset_dir)
        pictures = _load_pictures(str(dataset_dir), path, image_size, crops, division)
    if crops > 1 and not isinstance(pictures.train, FolderPictures):
        text = f"crops are drawn from a folder of picture files, which {pictures.name} is not"
        raise SettingsError(f"{text}; expected 1, got {crops}", "crops")
    return pictures


def _load_built_in(dataset: str, image_size: int, division: "_Division") -> Pictures:
    if dataset == "photos":
        return _load_photos(image_size, division)
    if dataset == "digits":
        return _load_digits(division)
    if dataset == "eeg":
        return _load_eeg(division)
    text = f"unknown dataset {dataset!r}; expected one of {', '.join(DATASETS)}"
    raise SettingsError(text, "dataset")


def of(
    dataset: str,
    dataset_dir: str | None,
    dataset_kind: Kind,
    image_size: int,
    val_fraction: float,
    crops: int = 1,
) -> Pictures:
    """As `load`, but a built-in data set is opened once: a process trains many small runs on it."""
    if dataset_dir is None:
        return _built_in(dataset, image_size, val_fraction, crops)
    # read each time: a person's files may change while this process lives
    return load(
        dataset_dir=dataset_dir,
        dataset_kind=dataset_kind,
        image_size=image_size,
        val_fraction=val_fraction,
        crops=crops,
    )


@lru_cache(maxsize=4)
def _built_in(dataset: str, image_size: int, val_fraction: float, crops: int) -> Pictures:
    return load(dataset, image_size=image_size, val_fraction=val_fraction, crops=crops)


@dataclass(frozen=True)
class _Division:
    """Which pictures train and which validate. By hashes, so that every machine agrees."""

    val_fraction: float
    seed: int
    max_pictures: int | None

    def split(
        self, keys: Sequence[Hashable], source: object, noun: str = "picture"
    ) -> tuple[list[int], list[int]]:
        """Positions in `keys` that train and that validate; neither is empty."""
        if len(keys) < 2:
            raise ValueError(
                f"{source}: {len(keys)} {noun} cannot be split into training and validation; "
                "expected at least 2"
            )
        order = self._shuffled(keys)
        held = min(max(round(len(keys) * self.val_fraction), 1), len(keys) - 1)
        return sorted(order[held:][: self.max_pictures]), sorted(order[:held][: self.max_pictures])

    def keep(self, keys: Sequence[Hashable]) -> list[int]:
        """Positions in `keys` that `max_pictures` leaves, if the split is given."""
        return sorted(self._shuffled(keys)[: self.max_pictures])

    def _shuffled(self, keys: Sequence[Hashable]) -> list[int]:
        def rank(position: int) -> bytes:
            text = f"{self.seed}/{keys[position]}"
            return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()

        return sorted(range(len(keys)), key=rank)


def _checksum(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


# --- built in -------------------------------------------------------------------------------------


class Crop(NamedTuple):
    """A square of a photograph, by the pixel of its top left corner."""

    picture: str
    top: int
    left: int


def manifest() -> dict:
    """data/manifest.toml, from the package if it is installed, else from the repository."""
    known = (places.PACKAGE / "manifest.toml", places.PARENT / "data" / "manifest.toml")
    for place in known:
        if place.is_file():
            return tomllib.loads(place.read_text(encoding="utf-8"))
    raise FileNotFoundError(
        f"no manifest of the built-in pictures at {' or '.join(map(str, known))}"
    )


def photo_crops(split: str, image_size: int = 56) -> list[Crop]:
    """The crops of "photos": overlapping for split "train", side by side for "val".

    Raises:
        ValueError: another split, or an image_size below 8 or larger than a validation region.
    """
    if split not in ("train", "val"):
        raise ValueError(f"split must be 'train' or 'val'; got {split!r}")
    whole("image_size", image_size, least=8)
    entries = manifest()["picture"]
    sides = [min(b - t, r - x) for entry in entries for t, x, b, r in entry["val"]]
    if image_size > min(sides):
        raise ValueError(f"photos are cut at image_size up to {min(sides)}; got {image_size}")
    # 16 pixels at 56: an epoch of 32-picture batches is then some 200 steps, as in the guide
    stride = image_size if split == "val" else 2 * image_size // 7
    return [
        Crop(entry["name"], y, x)
        for entry in entries
        for top, left, bottom, right in entry[split]
        for y in range(top, bottom - image_size + 1, stride)
        for x in range(left, right - image_size + 1, stride)
    ]


def _load_photos(image_size: int, division: _Division) -> Pictures:
    photographs = {entry["name"]: entry for entry in manifest()["picture"]}
    pixels = {name: _decode_rgb(_shipped_bytes(entry)) for name, entry in photographs.items()}
    cut, crops = {}, []
    for split in ("train", "val"):
        whole = photo_crops(split, image_size)
        crops.append([whole[i] for i in division.keep(whole)])
        squares = [pixels[p][y : y + image_size, x : x + image_size] for p, y, x in crops[-1]]
        cut[split] = ArrayPictures(np.stack(squares).transpose(0, 3, 1, 2).copy())
    hashes = [entry["sha256"] for entry in photographs.values()]
    checksum = _checksum("photos", hashes, image_size, crops)
    return Pictures("photos", **cut, channels=3, size=(image_size, image_size), checksum=checksum)


def _load_digits(division: _Division) -> Pictures:
    entry = manifest()["digits"]
    text = gzip.decompress(_shipped_bytes(entry)).decode("ascii")
    table = np.array(list(csv.reader(io.StringIO(text))), dtype=np.float32)
    pixels = table[:, :-1].reshape(-1, 8, 8) / 16  # the last column is the label
    rows = division.split(range(len(pixels)), "digits")
    train, val = (ArrayPictures(pixels, np.array(r)) for r in rows)
    return Pictures("digits", train, val, 1, train.size, _checksum("digits", entry["sha256"], rows))


def _load_eeg(division: _Division) -> Pictures:
    """Windows of each channel as a signal of its own: overlapping to train, else side by side."""
    entry = manifest()["eeg"]
    recording = np.frombuffer(_shipped_bytes(entry), dtype="<f8").reshape(-1, entry["channels"]).T
    cut, rows = [], []
    for split, step in (("train", 1), ("val", EEG_WINDOW)):
        part = recording[:, slice(*entry[split])]
        windows = np.lib.stride_tricks.sliding_window_view(part, EEG_WINDOW, axis=1)[:, ::step]
        cut.append(windows.reshape(-1, 1, EEG_WINDOW))
        rows.append(division.keep(range(len(cut[-1]))))
    scaling = Scaling.of(cut[0], rows[0], "eeg")
    train, val = (SignalArrays(c, r, scaling, EEG_WINDOW) for c, r in zip(cut, rows, strict=True))
    checksum = _checksum("eeg", entry["sha256"], entry["train"], entry["val"], EEG_WINDOW, rows)
    return Pictures("eeg", train, val, 1, train.size, checksum, scaling)


def _shipped_bytes(entry: dict) -> bytes:
    """A file inside an installed package, found without importing that package."""
    name, expected = entry["name"], entry["sha256"]
    spec = importlib.util.find_spec(entry["package"])
    if spec is None or not spec.submodule_search_locations:
        raise extras.not_installed(entry["distribution"])
    path = Path(spec.submodule_search_locations[0], entry["file"])
    if not path.is_file():
        raise FileNotFoundError(
            f"{name}: expected {path} with sha256 {expected}, found no such file"
        )
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(
            f"{name}: {path} has other bytes: expected sha256 {expected}, found {found}. "
            f"Install the version of {entry['distribution']} named in requirements.lock"
        )
    return content


def _decode_rgb(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


# --- a user's own ---------------------------------------------------------------------------------


def _existing(given: str | Path) -> Path:
    path = Path(given).expanduser()
    if not str(given) or not path.exists():
        raise FileNotFoundError(f"dataset_dir {str(given)!r} does not exist; expected {ACCEPTED}")
    return path


def _load_pictures(
    name: str, path: Path, image_size: int, crops: int, division: _Division
) -> Pictures:
    arrays = find_pictures(path)
    if arrays is None:
        return _load_folder(name, path, image_size, crops, division)
    sources, rows = _divided(arrays, path, division, "picture")
    train, val = map(ArrayPictures, sources, rows)
    checksum = _checksum("arrays", [_file_sha256(f) for f in arrays.files], rows)
    return Pictures(name, train, val, train.channels, train.size, checksum)


def _load_signals(name: str, path: Path, division: _Division) -> Pictures:
    arrays = find_signals(path)
    length = kept_length(arrays.train, STRIDE, path)
    sources, rows = _divided(arrays, path, division, "signal")
    scaling = Scaling.of(sources[0], rows[0], path)
    train, val = (SignalArrays(s, r, scaling, length) for s, r in zip(sources, rows, strict=True))
    checksum = _checksum("signals", [_file_sha256(f) for f in arrays.files], rows)
    return Pictures(name, train, val, train.channels, train.size, checksum, scaling)


def _divided(arrays: Arrays, path: Path, division: _Division, noun: str) -> tuple[tuple, tuple]:
    """The array of each split, and which of its rows belong to it."""
    if arrays.val is None:
        return (arrays.train,) * 2, division.split(range(len(arrays.train)), path, noun)
    sources = arrays.train, arrays.val
    return sources, tuple(division.keep(range(len(items))) for items in sources)


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load_folder(
    name: str, root: Path, image_size: int, crops: int, division: _Division
) -> Pictures:
    listed = list_pictures(root)
    if not listed:
        raise ValueError(f"{root} holds nothing that can be read; expected {ACCEPTED}")
    given = given_split(root, listed)
    if given is None:
        chosen = [
            [listed[i] for i in rows] for rows in division.split([p.name for p in listed], root)
        ]
    else:
        chosen = [[part[i] for i in division.keep([p.name for p in part])] for part in given]
    train = FolderPictures.cached(root, chosen[0], image_size, crops, division.seed)
    val = FolderPictures.cached(root, chosen[1], image_size)
    for split in (train, val):
        split[0]  # a split in which nothing can be read is found out now
    drawn = [crops, division.seed] if crops > 1 else []
    checksum = _checksum("folder", image_size, chosen, *drawn)
    return Pictures(name, train, val, 3, (image_size, image_size), checksum)
