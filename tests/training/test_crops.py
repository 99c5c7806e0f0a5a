"""Crops kept on disk: the same bits as decoded ones, never stale, never half written, bounded."""

import errno
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vqlib.training import crops, data, folders


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("VQLIB_CACHE", str(folder))
    crops._warn_once.cache_clear()
    return folder


@pytest.fixture
def root(tmp_path):
    """Ten pictures of noise, of several shapes and formats."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(10):
        save(folder / f"{n}.{('jpg', 'png')[n % 2]}", seed=n)
    return folder


def save(path: Path, seed: int) -> None:
    shape = (40 + seed, 60 - 3 * seed % 50, 3)
    noise = np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that are decoded."""
    names, cut = [], folders.cut
    monkeypatch.setattr(folders, "cut", lambda path, *a: names.append(path.name) or cut(path, *a))
    return names


def load(root, **options):
    return data.load(dataset_dir=root, image_size=16, val_fraction=0.3, **options)


def everything(pictures) -> torch.Tensor:
    return torch.cat([s.batch(range(len(s))) for s in (pictures.train, pictures.val)])


def decoded_alone(pictures) -> torch.Tensor:
    """What `everything` gives of centre crops, without a cache."""
    splits = (pictures.train, pictures.val)
    return torch.stack([folders.decode(s.root / name, 16) for s in splits for name in s.names])


def files(cache: Path) -> list[Path]:
    return sorted((cache / "crops").glob("*.npy"))


@pytest.mark.parametrize("several", [1, 3])
def test_a_picture_is_decoded_once_and_its_kept_crops_have_the_same_bits(root, decoded, several):
    first = everything(load(root, crops=several))
    assert sorted(set(decoded)) == sorted(p.name for p in root.iterdir())
    decoded.clear()
    again = load(root, crops=several)
    assert torch.equal(everything(again), first)
    assert torch.equal(torch.stack([again.train[i] for i in range(len(again.train))]), first[:-3])
    assert decoded == []
    if several == 1:
        assert torch.equal(first, decoded_alone(again))


def test_a_changed_file_is_decoded_anew_and_no_other(root, decoded):
    everything(load(root))
    status = (root / "4.jpg").stat()
    save(root / "4.jpg", seed=99)
    save(root / "6.jpg", seed=6)  # the same content at another time
    os.utime(root / "4.jpg", ns=(status.st_atime_ns, status.st_mtime_ns))  # another size alone
    assert (root / "4.jpg").stat().st_size != status.st_size
    decoded.clear()
    now = load(root)
    shown = everything(now)
    assert sorted(decoded) == ["4.jpg", "6.jpg"]
    names = now.train.names + now.val.names
    assert torch.equal(shown[names.index("4.jpg")], folders.decode(root / "4.jpg", 16))


def test_another_size_draw_or_decoder_has_crops_of_its_own(root, decoded, monkeypatch):
    everything(load(root))

    def fresh(**options):
        decoded.clear()
        data.load(dataset_dir=root, **({"image_size": 16, "val_fraction": 0.3} | options)).train[0]
        return bool(decoded)

    assert not fresh()
    assert fresh(image_size=20)
    assert fresh(crops=2)
    listed = folders.list_pictures(root)
    draws = [folders.FolderPictures.cached(root, listed, 16, crops=2, seed=n)[0] for n in (0, 1)]
    assert not torch.equal(*draws)
    monkeypatch.setattr(folders, "DECODING", "newer")
    assert fresh()


def test_what_was_unreadable_is_tried_again_once_it_is_repaired(root):
    whole = (root / "3.png").read_bytes()
    (root / "3.png").write_bytes(whole[:100])
    with pytest.warns(UserWarning, match="skipped .*3.png"):
        everything(load(root))
    with pytest.warns(UserWarning, match="skipped .*3.png"):  # nothing stands in for it on disk
        everything(load(root))
    (root / "3.png").write_bytes(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        everything(load(root))


# --- what is not whole is not trusted ---


def cut_short(file: Path, share: float) -> None:
    os.truncate(file, int(file.stat().st_size * share))


def spoil_a_row(file: Path) -> None:
    with open(file, "r+b") as opened:
        opened.seek(-1, os.SEEK_END)
        last = opened.read(1)[0]
        opened.seek(-1, os.SEEK_END)
        opened.write(bytes([last ^ 1]))


def half_a_row(file: Path) -> None:
    """The row as it is while it is written: its digest is there, not all of its pixels."""
    row = np.lib.format.open_memmap(file, "r+")[-1]
    row["pixels"][8:] = 0


@pytest.mark.parametrize(
    ("harm", "count"),
    [
        (lambda f: cut_short(f, 0.99), 10),
        (lambda f: cut_short(f, 0.001), 10),
        (lambda f: f.write_bytes(b""), 10),
        (lambda f: f.write_bytes(b"\0" * f.stat().st_size), 10),
        (lambda f: f.write_bytes(b"no array"), 10),
        (lambda f: np.save(f, np.zeros(10, np.uint8)), 10),
        (spoil_a_row, 2),
        (half_a_row, 2),
    ],
)
def test_a_cache_that_is_not_whole_is_not_trusted(root, cache, decoded, harm, count):
    first = everything(load(root))
    assert len(files(cache)) == 2
    for file in files(cache):
        harm(file)
    decoded.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(everything(load(root)), first)
    assert len(decoded) == count  # all, or the last of each split
    decoded.clear()
    assert torch.equal(everything(load(root)), first) and decoded == []  # and then it is mended


def test_a_cache_that_is_cut_while_it_is_used_harms_nobody(root, cache):
    opened = load(root)
    first = everything(opened)
    for file in files(cache):
        os.truncate(file, 0)
    assert torch.equal(everything(opened), first)


def test_a_cache_that_is_deleted_while_it_is_used_harms_nobody(root, cache):
    opened = load(root)
    first = everything(opened)
    for file in files(cache):
        file.unlink()
    assert torch.equal(everything(opened), first)
    assert torch.equal(everything(load(root)), first)


READER = """
import sys, torch
from vqlib.training import data
pictures = data.load(dataset_dir=sys.argv[1], image_size=16, val_fraction=0.3)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(3):
    both = [s.batch(range(len(s))) for s in (pictures.train, pictures.val)]
torch.save(torch.cat(both), sys.argv[2])
"""


def test_two_processes_at_once_see_the_same_and_leave_one_whole_cache(
    root, cache, tmp_path, decoded
):
    outputs = [tmp_path / f"{n}.pt" for n in range(2)]
    readers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", READER, str(root), str(output)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for output in outputs
    ]
    for reader in readers:
        assert reader.stdout.readline() == "ready\n"
    for reader in readers:
        reader.stdin.write("go\n")
        reader.stdin.flush()
    assert [reader.communicate(timeout=60)[0] for reader in readers] == ["", ""]
    assert [reader.returncode for reader in readers] == [0, 0]
    assert len(files(cache)) == 2 and len(list((cache / "crops").iterdir())) == 3  # and a lock
    pictures = load(root)
    shown = everything(pictures)
    assert decoded == []
    assert torch.equal(shown, decoded_alone(pictures))
    assert all(torch.equal(torch.load(output), shown) for output in outputs)


def test_an_opened_cache_travels_to_another_process_by_its_name(root, decoded):
    split = load(root).train
    first = split.batch(range(len(split)))
    decoded.clear()
    sent = pickle.dumps(split)
    assert len(sent) < 5000
    assert torch.equal(pickle.loads(sent).batch(range(len(split))), first) and decoded == []


# --- room ---


def test_the_caches_unused_for_longest_go_first(root, cache, monkeypatch):
    def opened(size) -> set[Path]:
        before = set(files(cache))
        data.load(dataset_dir=root, image_size=size, val_fraction=0.5)  # two of the same size
        return set(files(cache)) - before

    made = {size: opened(size) for size in (16, 20, 24)}
    for size, both in made.items():
        for file in both:
            os.utime(file, (size, size))
    assert opened(16) == set()  # it is used again
    killed = cache / "crops" / ".x.npy.a1b2c3d4.part"  # what a killed process left
    killed.write_bytes(b"\0" * 1000)
    monkeypatch.setattr(crops, "MOST_BYTES", sum(f.stat().st_size for f in files(cache)))
    made[12] = opened(12)
    assert not killed.exists()
    left = set(files(cache))
    assert made[12] | made[16] | made[24] <= left and len(left & made[20]) == 1
    assert sum(file.stat().st_size for file in left) <= crops.MOST_BYTES
    monkeypatch.setattr(crops, "MOST_BYTES", 2 * made[12].pop().stat().st_size)
    assert opened(11) == set(files(cache))


def test_what_does_not_fit_is_not_kept_and_costs_no_other_cache(root, cache, monkeypatch):
    everything(load(root))
    before = files(cache)
    monkeypatch.setattr(crops, "MOST_BYTES", 5000)
    with pytest.warns(UserWarning, match=r"they would take 21,\d+ bytes, and the limit is 5,000"):
        large = data.load(dataset_dir=root, image_size=32, val_fraction=0.3)
    assert files(cache) == before
    assert everything(large).shape == (10, 3, 32, 32)


# --- no place to write ---


def one_warning(root, match) -> torch.Tensor:
    with pytest.warns(UserWarning) as caught:
        shown = everything(load(root))
        assert torch.equal(everything(load(root)), shown)
    assert len(caught) == 1, [str(w.message) for w in caught]
    text = str(caught[0].message)
    assert text.startswith("crops of pictures cannot be kept in ") and match in text
    assert text.endswith("pictures are decoded whenever they are used")
    return shown


def test_a_cache_folder_that_cannot_be_made_costs_one_warning(root, tmp_path, monkeypatch):
    expected = everything(load(root))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VQLIB_CACHE", str(tmp_path / "file"))
    assert torch.equal(one_warning(root, "Not a directory"), expected)


@pytest.mark.parametrize("refusal", [errno.EROFS, errno.EACCES])
def test_a_cache_folder_to_read_alone_is_read(root, monkeypatch, decoded, refusal):
    first = load(root).train.batch([0, 1])
    decoded.clear()
    opened = os.open

    def read_only(path, flags, *more, **options):
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise OSError(refusal, os.strerror(refusal), path)
        return opened(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", read_only)
    split = load(root).train
    assert torch.equal(split.batch([0, 1]), first) and decoded == []
    one_warning(root, os.strerror(refusal))


def test_a_full_disk_costs_one_warning(root, monkeypatch):
    expected = everything(load(root))
    for file in files(crops.cache_dir()):
        file.unlink()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    assert torch.equal(one_warning(root, "No space left on device"), expected)


def test_a_row_that_a_full_disk_took_in_part_is_not_trusted(root, monkeypatch, decoded):
    expected = everything(load(root))
    for file in files(crops.cache_dir()):
        file.unlink()
    write = os.pwrite
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", lambda file, content, at: write(file, content[:200], at))
        assert torch.equal(one_warning(root, "the disk is full"), expected)
    decoded.clear()
    assert torch.equal(everything(load(root)), expected) and len(decoded) == 10


# --- several crops of a picture ---


def test_crops_are_squares_within_the_picture_as_large_as_promised():
    for square in folders.drawn(500, "0/a.png"):
        for width, height in ((300, 200), (200, 300), (7, 7)):
            left, top, right, bottom = folders._box(square, width, height)
            assert 0 <= left < right <= width and 0 <= top < bottom <= height
            assert right - left == pytest.approx(bottom - top)
            assert 0.5 - 1e-9 <= (right - left) / min(width, height) <= 1
    sides, across, down = np.array(folders.drawn(500, "0/a.png")).T
    assert sides.min() < 0.52 and sides.max() > 0.98
    assert min(across.min(), down.min()) < 0.02 and max(across.max(), down.max()) > 0.98
    assert abs(np.corrcoef(across, down)[0, 1]) < 0.15


def test_a_crop_shows_its_square(tmp_path):
    x = np.broadcast_to(np.linspace(0, 250, 200), (100, 200))
    Image.fromarray(x.astype(np.uint8)).save(tmp_path / "a.png")
    square = folders.Square(side=0.5, across=1.0, down=0.0)
    (shown,) = folders.cut(tmp_path / "a.png", 10, [square])
    assert abs(shown[:, 0].mean() - 250 * 152.5 / 199) < 3  # pixels 150 to 200 of 200
    assert abs(shown[:, -1].mean() - 250 * 197 / 199) < 3


def test_crops_are_fixed_by_seed_and_name_and_share_no_picture_with_validation(root, tmp_path):
    pictures = load(root, crops=4)
    train, val = pictures.train, pictures.val
    assert (len(train.names), len(train), len(val)) == (7, 28, 3)
    assert not set(train.names) & set(val.names)
    assert torch.equal(everything(load(root))[7:], val.batch(range(3)))  # centres, as ever
    shown = train.batch(range(28))
    assert len({crop.numpy().tobytes() for crop in shown}) == 28
    for item in range(28):  # of the picture it says
        one = folders.FolderPictures(root, [train.names[item // 4]], 16, crops=4)
        assert torch.equal(one[item % 4], shown[item])
    assert torch.equal(load(root, crops=4).train.batch(range(28)), shown)
    for file in files(crops.cache_dir()):
        file.unlink()
    order = torch.randperm(28, generator=torch.Generator().manual_seed(0))
    anew = load(root, crops=4)
    assert torch.equal(anew.train.batch(order), shown[order])
    assert anew.checksum == pictures.checksum


def test_the_checksum_follows_the_draws_and_is_as_before_without(root):
    sums = [load(root, **o).checksum for o in ({}, {"crops": 2}, {"crops": 3})]
    assert len(set(sums)) == 3
    listed = folders.list_pictures(root)
    rows = data._Division(0.3, 0, None).split([p.name for p in listed], root)
    chosen = [[listed[i] for i in part] for part in rows]
    assert sums[0] == data._checksum("folder", 16, chosen)


@pytest.mark.parametrize("options", [{}, {"dataset": "digits"}, {"dataset_dir": "array"}])
def test_crops_of_what_is_no_folder_of_pictures_are_refused(options, tmp_path):
    if "dataset_dir" in options:
        np.save(tmp_path / "a.npy", np.zeros((4, 8, 8), np.uint8))
        options = {"dataset_dir": tmp_path / "a.npy"}
    with pytest.raises(ValueError, match="is not; expected 1, got 2") as caught:
        data.load(**options, crops=2)
    assert caught.value.field == "crops"
