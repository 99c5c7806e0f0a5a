"""Array files: .npy and .npz, IDX, CIFAR-10; right ones, and each way to be wrong."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from vqlib.training import data

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 10, 9), dtype=np.uint8)


def load(path, **options):
    return data.load(dataset_dir=path, **options)


def all_of(split):
    return split.batch(range(len(split)))


def saved(path, **arrays):
    (np.savez(path, **arrays) if path.suffix == ".npz" else np.save(path, arrays["x"]))
    return path


# --- arrays ---


@pytest.mark.filterwarnings("ignore:.*is read as grey pictures")
@pytest.mark.parametrize("scale", ["uint8", "float16", "float32", ">f8"])
@pytest.mark.parametrize("channels", [None, 1, 3, 4])
@pytest.mark.parametrize("first", [True, False])
def test_every_layout_means_the_same_pictures(tmp_path, channels, first, scale):
    shape = (12, 10, 9) if channels is None else (12, channels, 10, 9)
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    stored = pixels if first or channels is None else pixels.transpose(0, 2, 3, 1)
    if scale != "uint8":
        stored = (stored / 255).astype(scale)
    pictures = load(saved(tmp_path / "mine.npy", x=stored))
    expected = torch.from_numpy(pixels.reshape(12, channels or 1, 10, 9)[:, :3] / 255).float()
    assert pictures.channels == min(channels or 1, 3)
    assert pictures.size == (10, 9)
    for split in (pictures.train, pictures.val):
        assert torch.allclose(all_of(split), expected[split.rows], atol=1e-3)
        assert torch.equal(split[0], all_of(split)[0])
        assert split[0].dtype == torch.float32


def test_a_single_array_is_split_by_position(tmp_path):
    pictures = load(saved(tmp_path / "mine.npy", x=GREY), val_fraction=0.25)
    assert (len(pictures.train), len(pictures.val)) == (9, 3)
    assert sorted([*pictures.train.rows, *pictures.val.rows]) == list(range(12))


def test_npy_is_mapped_not_loaded(tmp_path):
    pictures = load(saved(tmp_path / "mine.npy", x=GREY))
    assert isinstance(pictures.train.pixels, np.memmap)
    assert pictures.train.pixels.dtype == np.uint8


@pytest.mark.parametrize("val", ["val", "valid", "validation", "test"])
def test_train_and_val_files_in_a_folder(tmp_path, val):
    saved(tmp_path / "train.npy", x=GREY)
    saved(tmp_path / f"{val}.npy", x=GREY[:4])
    pictures = load(tmp_path)
    assert (len(pictures.train), len(pictures.val)) == (12, 4)
    assert torch.equal(all_of(pictures.val), all_of(pictures.train)[:4])


@pytest.mark.parametrize(
    "keys", [("train", "val"), ("x_train", "x_test"), ("train_images", "val_images")]
)
def test_npz_with_both_splits(tmp_path, keys):
    labels = np.arange(12)
    arrays = {"y_train": labels, keys[0]: GREY, keys[1]: GREY[:3]}
    pictures = load(saved(tmp_path / "mine.npz", **arrays))
    assert (len(pictures.train), len(pictures.val)) == (12, 3)


@pytest.mark.parametrize("arrays", [{"y": np.arange(3), "x": GREY}, {"a": GREY, "b": np.arange(3)}])
def test_npz_with_one_array(tmp_path, arrays):
    saved(tmp_path / "mine.npz", **arrays)
    assert len(load(tmp_path).train) == 11


def test_a_byte_or_the_split_changes_the_checksum_and_the_place_does_not(tmp_path):
    changed = GREY.copy()
    changed[5, 5, 5] ^= 1
    first = load(saved(tmp_path / "a.npy", x=GREY))
    assert load(saved(tmp_path / "b.npy", x=GREY)).checksum == first.checksum
    assert load(saved(tmp_path / "c.npy", x=changed)).checksum != first.checksum
    assert load(tmp_path / "a.npy", seed=1).checksum != first.checksum
    assert load(tmp_path / "a.npy", max_pictures=5).checksum != first.checksum


def test_max_pictures_limits_arrays(tmp_path):
    pictures = load(saved(tmp_path / "m.npz", train=GREY, val=GREY), max_pictures=5)
    assert (len(pictures.train), len(pictures.val)) == (5, 5)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 8), np.uint8), r"expected shape \(N, H, W\).*\(5, 8\) is none of them"),
        (np.zeros((5, 8, 8, 2), np.uint8), r"C in \{1, 3, 4\}; \(5, 8, 8, 2\) is none of them"),
        (np.zeros((5, 3, 8, 3), np.uint8), r"\(5, 3, 8, 3\) could be both of the latter"),
        (np.zeros((2, 5, 3, 8, 8), np.uint8), "is none of them"),
        (np.zeros((0, 8, 8), np.uint8), r"an empty split: the array's shape is \(0, 8, 8\)"),
        (np.zeros((5, 0, 8), np.uint8), "an empty split"),
        (np.zeros((5, 8, 8), np.int64), r"expected uint8, or float in \[0, 1\]; found int64"),
        (np.zeros((5, 8, 8), bool), "found bool"),
        (np.full((5, 8, 8), 255.0), r"must lie in \[0, 1\]; found 255 to 255"),
        (np.full((5, 8, 8), -0.5), r"must lie in \[0, 1\]; found -0.5 to -0.5"),
        (np.full((5, 8, 8), np.inf), r"must lie in \[0, 1\]; found inf"),
        (np.full((5, 8, 8), np.nan), "NaN among pictures 0 to 4"),
        (np.array([{"a": 1}], dtype=object), "cannot be read as a .npy array"),
        (np.zeros((1, 8, 8), np.uint8), "1 picture cannot be split"),
    ],
)
def test_a_wrong_array_is_refused(tmp_path, array, message):
    np.save(tmp_path / "mine.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "mine.npy")


def test_a_wrong_value_is_found_in_the_last_picture_too(tmp_path, monkeypatch):
    monkeypatch.setattr("vqlib.training.arrays.SCAN_ITEMS", 200)
    pixels = np.zeros((50, 8, 8), np.float32)
    pixels[-1, -1, -1] = np.nan
    with pytest.raises(ValueError, match="NaN among pictures 48 to 49"):
        load(saved(tmp_path / "mine.npy", x=pixels))


def test_splits_of_different_pictures_are_refused(tmp_path):
    saved(tmp_path / "m.npz", train=GREY, val=GREY[:, :5])
    with pytest.raises(ValueError, match=r"different pictures: .*\(12, 10, 9\) and \(12, 5, 9\)"):
        load(tmp_path / "m.npz")


def test_an_empty_validation_array_is_refused(tmp_path):
    saved(tmp_path / "m.npz", train=GREY, val=GREY[:0])
    with pytest.raises(ValueError, match=r"\(val\): an empty split"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["m.npy", "m.npz"])
@pytest.mark.parametrize("keep", [0, 50, -30])
def test_a_truncated_array_file_is_refused(tmp_path, name, keep):
    path = saved(tmp_path / name, x=GREY)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"{name} cannot be read as a \{name[1:]}"):
        load(path)


def test_a_pickle_is_not_executed(tmp_path):
    np.savez(tmp_path / "m.npz", x=np.array([print], dtype=object))
    with pytest.raises(ValueError, match=r"m\.npz cannot be read .*allow_pickle=False"):
        load(tmp_path / "m.npz")


def test_npz_with_another_kind_of_file_inside_the_name(tmp_path):
    saved(tmp_path / "m.npy", x=GREY).rename(tmp_path / "m.npz")
    with pytest.raises(ValueError, match=r"cannot be read as a \.npz"):
        load(tmp_path / "m.npz")


def test_npz_without_arrays(tmp_path):
    np.savez(tmp_path / "m.npz")
    with pytest.raises(ValueError, match="it holds no array"):
        load(tmp_path / "m.npz")


@pytest.mark.parametrize("names", [("a", "b"), ("train", "features")])
def test_several_arrays_that_do_not_say_what_they_are(tmp_path, names):
    for name in names:
        saved(tmp_path / f"{name}.npy", x=GREY)
    with pytest.raises(ValueError, match=r"expected train\.npy and val\.npy .*; found \w+\.npy, "):
        load(tmp_path)


def test_a_file_with_both_splits_beside_one_for_the_other(tmp_path):
    saved(tmp_path / "train.npz", train=GREY, val=GREY)
    saved(tmp_path / "val.npz", x=GREY)
    with pytest.raises(ValueError, match=r"train\.npz holds both splits itself"):
        load(tmp_path)


def test_hidden_pictures_do_not_hide_arrays(tmp_path):
    saved(tmp_path / "mine.npy", x=GREY)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "preview.png").write_bytes(b"")
    assert len(load(tmp_path).train) == 11


def test_arrays_beside_pictures_are_left_alone(tmp_path):
    from PIL import Image

    saved(tmp_path / "features.npy", x=np.zeros((3, 7)))
    (tmp_path / "all").mkdir()
    for n in range(2):
        Image.new("RGB", (9, 9)).save(tmp_path / "all" / f"{n}.png")
    assert len(load(tmp_path, image_size=8).train) == 1


@pytest.mark.parametrize("name", ["cat.png", "notes.txt", "data"])
def test_a_file_of_another_kind_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(ValueError, match=rf"{name} is a file that cannot be read; expected"):
        load(tmp_path / name)


# --- IDX ---


def idx(pixels):
    return struct.pack(">2x2B3I", 8, 3, *pixels.shape) + pixels.tobytes()


def write_idx(path, content):
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("dot", ["-", "."])
def test_idx_files(tmp_path, suffix, dot):
    write_idx(tmp_path / f"train-images{dot}idx3-ubyte{suffix}", idx(GREY))
    write_idx(tmp_path / f"t10k-images{dot}idx3-ubyte{suffix}", idx(GREY[:5]))
    write_idx(tmp_path / f"train-labels{dot}idx1-ubyte{suffix}", b"labels are not read")
    pictures = load(tmp_path)
    assert (pictures.channels, pictures.size) == (1, (10, 9))
    assert torch.equal(all_of(pictures.train), torch.from_numpy(GREY)[:, None] / 255)
    assert len(pictures.val) == 5


def test_a_single_idx_file_is_split(tmp_path):
    path = write_idx(tmp_path / "train-images-idx3-ubyte.gz", idx(GREY))
    for given in (path, tmp_path):
        assert (len(load(given).train), len(load(given).val)) == (11, 1)


def test_the_unpacked_file_beside_its_gz_is_read(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", idx(GREY))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"never opened")
    assert len(load(tmp_path).train) == 11


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(GREY)[:-1], r"truncated or damaged: its header promises \(12, 10, 9\), so 1096"),
        (idx(GREY) + b"\0", "1096 bytes, but there are 1097"),
        (idx(GREY)[:9], "expected an IDX file of pictures"),
        (b"", "found nothing"),
        (struct.pack(">2x2BI", 8, 1, 12) + bytes(12), "found 00 00 08 01"),
        (struct.pack(">2x2B3I", 13, 3, 1, 1, 1) + bytes(4), "found 00 00 0d 03"),
        (idx(GREY[:0]), "an empty split"),
    ],
)
def test_a_wrong_idx_file_is_refused(tmp_path, content, message, suffix):
    write_idx(tmp_path / f"train-images-idx3-ubyte{suffix}", content)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("content", [gzip.compress(idx(GREY))[:-30], b"not gzip", b""])
def test_a_damaged_gz_is_refused(tmp_path, content):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"ubyte\.gz: .*(truncated|found nothing)"):
        load(tmp_path)


def test_idx_without_a_training_file(tmp_path):
    write_idx(tmp_path / "t10k-images-idx3-ubyte", idx(GREY))
    with pytest.raises(ValueError, match="has t10k-images-idx3-ubyte but no train-images"):
        load(tmp_path)


def test_two_idx_data_sets_in_one_folder(tmp_path):
    for name in ("digits", "letters"):
        write_idx(tmp_path / f"emnist-{name}-train-images-idx3-ubyte", idx(GREY))
    with pytest.raises(ValueError, match=r"two files of train pictures, emnist-d.* and emnist"):
        load(tmp_path)


# --- CIFAR-10 ---


def cifar(pixels):
    labels = np.arange(len(pixels), dtype=np.uint8)[:, None]
    return np.concatenate([labels, pixels.reshape(len(pixels), -1)], axis=1).tobytes()


COLOUR = RNG.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)


@pytest.mark.parametrize("reverse", [False, True])
def test_cifar_in_whatever_order_a_folder_is_listed(tmp_path, monkeypatch, reverse):
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: sorted(listing(self), reverse=reverse))
    (tmp_path / "data_batch_1.bin").write_bytes(cifar(COLOUR[:2]))
    (tmp_path / "data_batch_2.bin").write_bytes(cifar(COLOUR[2:]))
    (tmp_path / "test_batch.bin").write_bytes(cifar(COLOUR[:1]))
    (tmp_path / "batches.meta.txt").write_text("airplane")
    pictures = load(tmp_path)
    assert (pictures.channels, pictures.size) == (3, (32, 32))
    assert torch.equal(all_of(pictures.train), torch.from_numpy(COLOUR) / 255)
    assert torch.equal(all_of(pictures.val), torch.from_numpy(COLOUR[:1]) / 255)


def test_one_cifar_file(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(cifar(COLOUR))
    assert (len(load(tmp_path).train), len(load(tmp_path).val)) == (5, 1)
    assert len(load(tmp_path / "data_batch_1.bin").train) == 5


@pytest.mark.parametrize("content", [b"", cifar(COLOUR)[:-1], cifar(COLOUR) + b"\0"])
def test_a_truncated_cifar_file_is_refused(tmp_path, content):
    (tmp_path / "data_batch_1.bin").write_bytes(content)
    with pytest.raises(ValueError, match=f"records of 3073 bytes, found {len(content)} bytes"):
        load(tmp_path)


def test_cifar_without_training_batches(tmp_path):
    (tmp_path / "test_batch.bin").write_bytes(cifar(COLOUR))
    with pytest.raises(ValueError, match=r"has test_batch\.bin but no data_batch_1\.bin"):
        load(tmp_path)


def test_the_pickled_version_of_cifar_is_not_opened(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x04")
    with pytest.raises(ValueError, match="Python version, which is pickled; expected the binary"):
        load(tmp_path)
