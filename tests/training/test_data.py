"""The built-in data, the split, and what every data set promises."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tests import ROOT
from vqlib.quantization.ranges import SettingsError
from vqlib.training import data, places

REPO = ROOT


@pytest.fixture(scope="module")
def photos():
    return data.load()


def entry(name="coffee"):
    return next(e for e in data.manifest()["picture"] if e["name"] == name)


def photograph(name="coffee"):
    return data._decode_rgb(data._shipped_bytes(entry(name)))


def with_manifest(monkeypatch, **changes):
    """A manifest of one picture, coffee, with some of its fields changed."""
    others = {name: data.manifest()[name] | changes for name in ("digits", "eeg")}
    changed = {"picture": [entry() | changes]} | others
    monkeypatch.setattr(data, "manifest", lambda: changed)


# --- photos ---


def test_photos_have_the_size_and_range_that_they_promise(photos):
    assert (len(photos.train), len(photos.val)) == (6029, 156)
    assert (photos.name, photos.channels, photos.size) == ("photos", 3, (56, 56))
    for split in (photos.train, photos.val):
        batch = split.batch(torch.arange(0, len(split), 5))
        assert batch.shape[1:] == (3, 56, 56)
        assert batch.dtype == torch.float32
        assert batch.min() >= 0
        assert 0.9 < batch.max() <= 1
        assert torch.equal(batch[1], split[5])
    assert photos.skipped == ()


def test_an_item_is_the_crop_at_its_coordinates_upright(photos):
    crops = data.photo_crops("train")
    index = next(i for i, c in enumerate(crops) if c.picture == "coffee" and c.top and c.left)
    _, top, left = crops[index]
    expected = photograph()[top : top + 56, left : left + 56]
    shown = (photos.train[index] * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(shown, expected)


@pytest.mark.parametrize("size", [24, 56, 112])
def test_training_and_validation_share_no_pixel(size):
    for picture in data.manifest()["picture"]:
        owner = np.zeros((picture["height"], picture["width"]), dtype=np.uint8)
        for bit, split in enumerate(("train", "val")):
            crops = [c for c in data.photo_crops(split, size) if c.picture == picture["name"]]
            assert crops
            for _, top, left in crops:
                part = owner[top : top + size, left : left + size]
                assert part.shape == (size, size), "a crop reaches out of its picture"
                if split == "val":
                    assert not part.any(), f"{picture['name']}: {split} crop at {top}, {left}"
                part |= 1 << bit


def test_the_regions_themselves_are_apart():
    for picture in data.manifest()["picture"]:
        claims = np.zeros((picture["height"], picture["width"]), dtype=np.uint8)
        for top, left, bottom, right in picture["train"] + picture["val"]:
            assert 0 <= top < bottom <= picture["height"]
            assert 0 <= left < right <= picture["width"]
            claims[top:bottom, left:right] += 1
        assert claims.max() == 1, picture["name"]


def test_the_manifest_states_the_size_of_each_picture():
    for picture in data.manifest()["picture"]:
        assert photograph(picture["name"]).shape == (picture["height"], picture["width"], 3)
        assert picture["origin"]
        assert picture["licence"]
        assert picture["name"] in (REPO / "data" / "README.md").read_text()


def test_the_readme_states_the_counts(photos):
    text = (REPO / "data" / "README.md").read_text()
    assert f"{len(photos.train):,} training and {len(photos.val)} validation crops" in text
    digits = data.load("digits")
    assert f"{len(digits.train):,} training and {len(digits.val)} validation pictures" in text


def test_another_image_size_cuts_other_crops(photos):
    small = data.load(image_size=28)
    assert small.size == (28, 28)
    assert small.val[0].shape == (3, 28, 28)
    assert len(small.val) > 4 * len(photos.val)
    assert torch.equal(small.val[0], photos.val[0][:, :28, :28])
    assert small.checksum != photos.checksum
    with pytest.raises(ValueError, match="image_size up to 112; got 113"):
        data.load(image_size=113)


def test_max_pictures_keeps_a_mixture(photos):
    few = data.load(max_pictures=40)
    assert (len(few.train), len(few.val)) == (40, 40)
    assert few.train.batch(range(40)).mean(dim=(1, 2, 3)).std() > 0.05
    assert few.checksum == data.load(max_pictures=40).checksum
    assert len({few.checksum, photos.checksum, data.load(max_pictures=40, seed=1).checksum}) == 3


def test_the_checksum_of_photos_is_the_same_for_every_seed_and_machine(photos):
    assert data.load(seed=7, val_fraction=0.3).checksum == photos.checksum
    assert photos.checksum.startswith("4a743fc35fd0b3c3")  # a new value is a new data set


def test_a_changed_region_changes_the_checksum(monkeypatch):
    with_manifest(monkeypatch)
    before = data.load().checksum
    with_manifest(monkeypatch, val=[[0, 168, 400, 279]])
    assert data.load(image_size=56).checksum != before


@pytest.mark.parametrize("dataset", data.DATASETS)
def test_other_bytes_are_refused_by_name(monkeypatch, dataset):
    true = (entry() if dataset == "photos" else data.manifest()[dataset])["sha256"]
    with_manifest(monkeypatch, sha256="0" * 64)
    name = "coffee" if dataset == "photos" else dataset
    with pytest.raises(ValueError, match=rf"{name}.*expected sha256 0{{64}}, found {true}"):
        data.load(dataset)


def test_a_missing_picture_is_named(monkeypatch):
    with_manifest(monkeypatch, file="data/tea.png")
    with pytest.raises(FileNotFoundError, match=r"coffee: expected .*tea\.png with sha256 \w{64}"):
        data.load()


def test_a_missing_package_is_named(monkeypatch):
    with_manifest(monkeypatch, package="no_such_package")
    with pytest.raises(ModuleNotFoundError, match="scikit-image is not installed"):
        data.load()


def test_the_manifest_inside_a_wheel_is_found(monkeypatch, tmp_path):
    (tmp_path / "vqlib").mkdir()
    monkeypatch.setattr(places, "PACKAGE", tmp_path / "vqlib")
    monkeypatch.setattr(places, "PARENT", tmp_path)
    with pytest.raises(FileNotFoundError, match="no manifest of the built-in pictures"):
        data.manifest()
    (tmp_path / "vqlib" / "manifest.toml").write_text('[digits]\nname = "digits"\n')
    assert data.manifest() == {"digits": {"name": "digits"}}


def test_photo_crops_knows_its_splits():
    with pytest.raises(ValueError, match="'train' or 'val'; got 'test'"):
        data.photo_crops("test")
    with pytest.raises(ValueError, match="image_size must be a whole number of at least 8, got 0"):
        data.photo_crops("val", 0)


# --- digits ---


def test_digits_are_those_of_scikit_learn():
    digits = data.load("digits")
    assert (digits.channels, digits.size) == (1, (8, 8))
    together = torch.cat([s.batch(range(len(s))) for s in (digits.train, digits.val)])
    assert together.shape == (1797, 1, 8, 8)
    assert (together.min(), together.max()) == (0, 1)
    from sklearn.datasets import load_digits

    expected = load_digits().images / 16
    assert sorted(together[:, 0].flatten(1).tolist()) == sorted(expected.reshape(1797, -1).tolist())


def test_the_split_of_digits_depends_on_seed_and_fraction_only():
    first, again = data.load("digits"), data.load("digits", image_size=32)
    assert first.checksum == again.checksum
    assert torch.equal(first.val.batch(range(9)), again.val.batch(range(9)))
    assert not set(first.train.rows) & set(first.val.rows)
    others = [data.load("digits", seed=1), data.load("digits", val_fraction=0.2)]
    assert len({first.checksum, *(o.checksum for o in others)}) == 3
    assert len(others[1].val) == round(1797 * 0.2)


# --- every data set ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "imagenet"}, "unknown dataset 'imagenet'; expected one of photos, digits"),
        ({"image_size": 7}, "a whole number of at least 8, got 7"),
        ({"image_size": 56.0}, r"a whole number of at least 8, got 56\.0"),
        ({"max_pictures": 0}, "a whole number of at least 1, got 0"),
        ({"max_pictures": True}, "a whole number of at least 1, got True"),
        ({"val_fraction": 0.0}, r"above 0 and below 1, got 0\.0"),
        ({"val_fraction": 1}, "above 0 and below 1, got 1"),
        ({"val_fraction": float("nan")}, "above 0 and below 1, got nan"),
    ],
)
def test_a_value_out_of_range_is_named(arguments, message):
    with pytest.raises(SettingsError, match=message) as caught:
        data.load(**arguments)
    assert [caught.value.field] == list(arguments)


@pytest.mark.parametrize("given", ["", "nowhere/at/all"])
def test_a_missing_path_is_named(given):
    with pytest.raises(FileNotFoundError, match=f"dataset_dir '{given}' does not exist; exp"):
        data.load(dataset_dir=given)


def test_dataset_dir_wins_over_dataset(tmp_path):
    np.save(tmp_path / "train.npy", np.zeros((4, 8, 8), np.uint8))
    assert data.load("photos", str(tmp_path)).name == str(tmp_path)
    assert data.load("no such name", tmp_path).size == (8, 8)


@pytest.mark.parametrize("index", [4, -5])
def test_an_item_out_of_range_is_an_index_error(tmp_path, index):
    np.save(tmp_path / "train.npy", np.zeros((5, 8, 8), np.uint8))
    train = data.load(dataset_dir=tmp_path).train
    assert len(train) == 4
    with pytest.raises(IndexError):
        train[index]
    assert len(list(train)) == 4


def test_an_empty_batch_has_the_shape_of_others():
    assert data.load("digits").train.batch([]).shape == (0, 1, 8, 8)


def test_the_split_by_hash_is_fixed():
    division = data._Division(0.3, seed=0, max_pictures=None)
    train, val = division.split([f"{n}.png" for n in range(10)], "x")
    ranks = [hashlib.sha256(f"0/{n}.png".encode()).hexdigest() for n in range(10)]
    assert val == sorted(sorted(range(10), key=ranks.__getitem__)[:3])
    assert sorted(train + val) == list(range(10))


@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_neither_split_is_ever_empty(fraction, count):
    train, val = data._Division(fraction, 0, None).split(range(count), "x")
    assert train
    assert val
    assert len(train) + len(val) == count


def test_one_picture_cannot_be_split(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "only.png")
    with pytest.raises(ValueError, match=r"1 picture cannot be split .* expected at least 2"):
        data.load(dataset_dir=tmp_path)


def test_loading_imports_neither_scikit_nor_matplotlib():
    code = (
        "import sys; from vqlib.training import data; "
        "data.load(max_pictures=2); data.load('digits');"
        "print([m for m in ('skimage', 'sklearn', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert ran.stdout.strip() == "[]", ran.stderr
