"""Folders of pictures: what is listed, what is decoded and when, what becomes of damaged files."""

import os
import random
import time
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from vqlib.training import data, folders


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("VQLIB_CACHE", str(tmp_path_factory.mktemp("cache")))


def save(path, colour=(200, 100, 50), size=(20, 16), mode="RGB", **options):
    """Writes a picture of one colour; `size` is (width, height), as Pillow has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)


def many(root, count=10, suffix=".png"):
    for n in range(count):
        save(root / f"{n}{suffix}", (n, 0, 0))


def names(split):
    return set(split.names)


def red(split):
    """The red value of each picture, which tells pictures of `many` apart."""
    return [round(x.item() * 255) for x in split.batch(range(len(split)))[:, 0, 0, 0]]


def test_nested_pictures_of_each_kind_and_case_are_found(tmp_path):
    kinds = ["a.png", "b/c.JPG", "b/d/e.jpeg", "f.WebP", "g.bmp"]
    for name in kinds:
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    save(tmp_path / ".thumbs" / "h.png")
    save(tmp_path / "._a.png")
    pictures = data.load(dataset_dir=tmp_path, image_size=8)
    assert names(pictures.train) | names(pictures.val) == set(kinds)
    assert (pictures.channels, pictures.size, pictures.name) == (3, (8, 8), str(tmp_path))
    for split in (pictures.train, pictures.val):
        colours = split.batch(torch.arange(len(split))).mean(dim=(2, 3)) * 255
        assert (colours - torch.tensor([200, 100, 50])).abs().max() < 5


def test_the_short_side_is_resized_and_the_centre_kept(tmp_path):
    pixels = np.zeros((16, 64, 3), np.uint8)
    pixels[:, 24:40] = (0, 255, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert torch.allclose(folders.decode(tmp_path / "a.png", 16)[1], torch.ones(16, 16))
    Image.fromarray(pixels.transpose(1, 0, 2)).save(tmp_path / "b.png")
    assert folders.decode(tmp_path / "b.png", 8)[1, 2:-2].min() > 0.95


def test_rows_stay_rows_and_exif_turns_the_picture_upright(tmp_path):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "up.png")
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    picture.save(tmp_path / "down.png", exif=exif)
    assert folders.decode(tmp_path / "up.png", 16)[:, :8].min() == 1
    assert folders.decode(tmp_path / "up.png", 16)[:, 8:].max() == 0
    assert folders.decode(tmp_path / "down.png", 16)[:, 8:].min() == 1


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 51, 0.2),
        ("1", 1, 1.0),
        ("RGBA", (51, 51, 51, 0), 0.2),
        ("LA", (51, 128), 0.2),
        ("P", 0, None),
        ("I;16", 13107, 0.2),
        ("CMYK", (0, 0, 0, 204), 0.2),
    ],
)
def test_other_colour_modes_become_rgb(tmp_path, mode, colour, expected):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    save(path, colour, mode=mode)
    shown = folders.decode(path, 8)
    assert shown.shape == (3, 8, 8)
    assert shown.dtype == torch.float32
    if expected is not None:
        assert (shown - expected).abs().max() < 0.02


def test_a_large_jpeg_is_decoded_as_well_as_its_pixels(tmp_path):
    stripes = np.sin(np.arange(300) / 4)
    grey = 127 + 60 * (stripes[:, None] + stripes)
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "a.png")
    difference = folders.decode(tmp_path / "a.jpg", 56) - folders.decode(tmp_path / "a.png", 56)
    assert difference.abs().mean() < 0.01


@pytest.mark.parametrize("val", ["val", "VALID", "validation", "test"])
def test_train_and_val_folders_are_honoured(tmp_path, val):
    many(tmp_path / "Train" / "deep", 3)
    many(tmp_path / val, 2)
    pictures = data.load(dataset_dir=tmp_path, image_size=8, val_fraction=0.9)
    assert names(pictures.train) == {f"Train/deep/{n}.png" for n in range(3)}
    assert names(pictures.val) == {f"{val}/{n}.png" for n in range(2)}


def test_pictures_outside_of_the_two_folders_are_mentioned(tmp_path):
    for folder in ("train", "val", "test"):
        many(tmp_path / folder, 2)
    save(tmp_path / "stray.png")
    with pytest.warns(UserWarning, match="3 pictures outside train/ and val/ are not used"):
        pictures = data.load(dataset_dir=tmp_path, image_size=8)
    assert (len(pictures.train), len(pictures.val)) == (2, 2)


def test_a_lone_train_folder_is_split_by_file(tmp_path):
    many(tmp_path / "train")
    pictures = data.load(dataset_dir=tmp_path, image_size=8)
    assert (len(pictures.train), len(pictures.val)) == (9, 1)


@pytest.mark.parametrize(("lone", "missing"), [("train", "val"), ("val", "train")])
def test_half_a_split_is_an_error(tmp_path, lone, missing):
    many(tmp_path / lone, 2)
    many(tmp_path / "dev", 2)
    with pytest.raises(ValueError, match=f"{lone}/ but no {missing}/ beside it; expected both, or"):
        data.load(dataset_dir=tmp_path)


def test_an_empty_split_is_an_error(tmp_path):
    many(tmp_path / "train", 2)
    (tmp_path / "val").mkdir()
    with pytest.raises(ValueError, match="val is an empty split: no picture with"):
        data.load(dataset_dir=tmp_path)


def test_the_split_depends_on_names_and_seed_alone(tmp_path, monkeypatch):
    many(tmp_path / "a", 30)
    many(tmp_path / "b", 30)
    (tmp_path / "copy").mkdir()
    (tmp_path / "a").rename(tmp_path / "copy" / "a")
    (tmp_path / "b").rename(tmp_path / "copy" / "b")
    first = data.load(dataset_dir=tmp_path / "copy", image_size=8)
    walk = os.walk

    def shuffled(*args, **kwargs):
        for folder, subfolders, files in walk(*args, **kwargs):
            random.Random(1).shuffle(files)
            yield folder, subfolders, files

    monkeypatch.setattr(os, "walk", shuffled)
    (tmp_path / "copy").rename(tmp_path / "moved")
    again = data.load(dataset_dir=tmp_path / "moved", image_size=8)
    assert again.train.names == first.train.names
    assert again.val.names == first.val.names
    assert again.checksum == first.checksum
    assert not names(first.train) & names(first.val)
    assert (
        data.load(dataset_dir=tmp_path / "moved", image_size=8, seed=1).val.names != again.val.names
    )


def test_the_checksum_follows_size_time_name_and_cropping(tmp_path):
    many(tmp_path)

    def checksum(**options):
        return data.load(dataset_dir=tmp_path, **({"image_size": 8} | options)).checksum

    seen = [
        checksum(),
        checksum(image_size=9),
        checksum(val_fraction=0.5),
        checksum(max_pictures=3),
    ]
    status = (tmp_path / "3.png").stat()
    os.utime(tmp_path / "3.png", ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    seen.append(checksum())
    (tmp_path / "4.png").rename(tmp_path / "4b.png")
    seen.append(checksum())
    assert len(set(seen)) == 6
    assert checksum() == seen[-1]


def test_only_what_is_asked_for_is_decoded(tmp_path, monkeypatch):
    save(tmp_path / "0.png")
    content = (tmp_path / "0.png").read_bytes()
    for n in range(1, 3000):
        (tmp_path / f"{n}.png").write_bytes(content)
    decoded = []
    cut = folders.cut
    monkeypatch.setattr(folders, "cut", lambda *a: decoded.append(a) or cut(*a))
    start = time.perf_counter()
    pictures = data.load(dataset_dir=tmp_path, image_size=8)
    assert time.perf_counter() - start < 3
    assert len(decoded) == 2
    pictures.train.batch([5, 6, 7])
    assert len(decoded) == 5


def test_max_pictures_limits_both_splits_of_a_folder(tmp_path):
    many(tmp_path / "train", 6)
    many(tmp_path / "val", 6)
    pictures = data.load(dataset_dir=tmp_path, image_size=8, max_pictures=2)
    assert (len(pictures.train), len(pictures.val)) == (2, 2)


# --- damaged pictures ---


def damaged(root, kind):
    """Ten pictures, of which 3 and 4 are in `train` and damaged."""
    many(root / "train")
    many(root / "val", 2)
    for n in (3, 4):
        path = root / "train" / f"{n}.png"
        content = path.read_bytes()
        path.write_bytes(
            {"cut": content[: len(content) // 2], "text": b"no picture", "empty": b""}[kind]
        )
    return root


@pytest.mark.parametrize("kind", ["cut", "text", "empty"])
def test_a_damaged_picture_is_named_once_counted_and_replaced(tmp_path, kind):
    pictures = data.load(dataset_dir=damaged(tmp_path, kind), image_size=8)
    assert pictures.skipped == ()
    with pytest.warns(UserWarning, match="unreadable") as caught:
        shown = red(pictures.train)
    assert shown == [0, 1, 2, 5, 5, 5, 6, 7, 8, 9]
    texts = sorted(str(w.message) for w in caught)
    assert len(texts) == 2
    assert "3.png, unreadable:" in texts[0]
    assert "4.png, unreadable:" in texts[1]
    assert pictures.skipped == tuple(tmp_path / "train" / f"{n}.png" for n in (3, 4))
    save(tmp_path / "train" / "3.png", (3, 0, 0))  # repaired during a run: the run does not notice
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert red(pictures.train) == shown
    assert len(pictures.train) == 10


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
def test_a_picture_cut_short_is_never_shown(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for n in range(3):
        Image.fromarray(noise).save(tmp_path / f"{n}{suffix}")
    whole = (tmp_path / f"1{suffix}").read_bytes()
    (tmp_path / f"1{suffix}").write_bytes(whole[: len(whole) * 2 // 3])
    split = folders.FolderPictures(tmp_path, [f"{n}{suffix}" for n in range(3)], 16)
    with pytest.warns(UserWarning, match=f"1{suffix}"):
        assert torch.equal(split[1], split[2])


def test_the_replacement_does_not_depend_on_the_order_of_access(tmp_path):
    pictures = data.load(dataset_dir=damaged(tmp_path, "cut"), image_size=8)
    with pytest.warns(UserWarning, match="png"):
        assert red(pictures.train)[4] == round(pictures.train[4][0, 0, 0].item() * 255) == 5


def test_the_last_picture_is_replaced_by_the_first(tmp_path):
    many(tmp_path / "train", 3)
    many(tmp_path / "val", 2)
    (tmp_path / "train" / "2.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="2.png"):
        assert red(data.load(dataset_dir=tmp_path, image_size=8).train) == [0, 1, 0]


def test_a_dangling_link_is_a_damaged_picture(tmp_path):
    many(tmp_path / "train", 2)
    many(tmp_path / "val", 2)
    (tmp_path / "train" / "9.png").symlink_to(tmp_path / "gone.png")
    with pytest.warns(UserWarning, match=r"9\.png.*FileNotFoundError"):
        assert len(red(data.load(dataset_dir=tmp_path, image_size=8).train)) == 3


def test_a_link_to_a_folder_is_followed_but_not_in_circles(tmp_path):
    many(tmp_path / "elsewhere", 4)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "mine", target_is_directory=True)
    assert len(folders.list_pictures(tmp_path / "mine")) == 4


@pytest.mark.filterwarnings("ignore:skipped")
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_with_nothing_readable_is_an_error_at_once(tmp_path, split):
    many(tmp_path / "train", 2)
    many(tmp_path / "val", 2)
    for n in range(2):
        (tmp_path / split / f"{n}.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=rf"none of the 2 pictures .* example {split}/0\.png: "):
        data.load(dataset_dir=tmp_path)


@pytest.mark.parametrize("stray", [None, "notes.txt", "labels.csv"])
def test_a_folder_with_nothing_to_read_is_an_error(tmp_path, stray):
    if stray:
        (tmp_path / stray).write_text("1, 2")
    with pytest.raises(ValueError, match="holds nothing that can be read; expected a folder"):
        data.load(dataset_dir=tmp_path)
