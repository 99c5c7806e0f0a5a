"""Batches made in the background: the same ones, in time, and errors where they belong."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.tiny_training import assert_same_run, quiet, tiny
from vqlib.training import data
from vqlib.training.ahead import Ahead
from vqlib.training.trainer import Trainer


class Noted:
    """A data set of numbers that notes which batches it made, and in which thread."""

    def __init__(self):
        self.made, self.threads, self.done = [], [], threading.Semaphore(0)

    def batch(self, indices):
        self.made.append(indices.tolist())
        self.threads.append(threading.current_thread())
        if 13 in indices:
            raise ValueError("unlucky")
        self.done.release()
        return 10 * indices


def rows(*numbers):
    return torch.tensor(numbers)


def test_the_following_batch_is_made_before_it_is_asked_for():
    noted = Noted()
    batches = Ahead(noted)
    assert batches.take(rows(1, 2), rows(3, 4)).tolist() == [10, 20]
    assert noted.done.acquire(timeout=10) and noted.done.acquire(timeout=10)
    assert batches.take(rows(3, 4)).tolist() == [30, 40]
    assert noted.made == [[1, 2], [3, 4]]
    main, other = noted.threads
    assert main is threading.current_thread() is not other


def test_another_batch_than_announced_is_the_one_asked_for():
    noted = Noted()
    batches = Ahead(noted)
    batches.take(rows(1), rows(2))
    assert batches.take(rows(7), rows(8)).tolist() == [70]
    assert batches.take(rows(8, 9)).tolist() == [80, 90]


def test_an_error_is_raised_when_its_batch_is_asked_for():
    batches = Ahead(Noted())
    assert batches.take(rows(1), rows(13)).tolist() == [10]
    with pytest.raises(ValueError, match="unlucky"):
        batches.take(rows(13), rows(2))
    assert batches.take(rows(2)).tolist() == [20]


def test_a_training_makes_each_batch_once_and_none_beyond_its_end(monkeypatch):
    trainer = Trainer(tiny(steps=5))
    made = []
    batch = trainer.data.train.batch
    monkeypatch.setattr(trainer.data.train, "batch", lambda i: made.append(i) or batch(i))
    expected = [trainer._batch_of(step) for step in range(5)]
    trainer.run(progress=False)
    assert torch.equal(torch.cat(made), torch.cat(expected))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A hundred little pictures."""
    monkeypatch.setenv("VQLIB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "pictures").mkdir()
    noise = np.random.default_rng(0).integers(256, size=(100, 8, 8, 3), dtype=np.uint8)
    for n, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{n}.png")
    return tmp_path / "pictures"


def test_a_folder_trains_as_an_array_of_its_crops_decoded_or_kept(folder, tmp_path):
    pictures = data.load(dataset_dir=folder, image_size=8)
    (tmp_path / "arrays").mkdir()
    for name in ("train", "val"):
        split = getattr(pictures, name)
        np.save(tmp_path / "arrays" / name, split.batch(range(len(split))).numpy())
    for file in (tmp_path / "cache" / "crops").glob("*.npy"):
        file.unlink()
    settings = {"batch_size": 4, "image_size": 8, "steps": 30}
    arrays = quiet(tiny(dataset_dir=str(tmp_path / "arrays"), **settings))
    for _ in range(2):
        assert_same_run(quiet(tiny(dataset_dir=str(folder), **settings)), arrays)


def test_few_pictures_say_how_few_steps_an_epoch_has(folder, recwarn):
    def said(**settings):
        recwarn.clear()
        Trainer(tiny(dataset_dir=str(folder), image_size=8, **settings))
        return [str(w.message) for w in recwarn if "an epoch" in str(w.message)]

    (text,) = said(batch_size=16)
    assert text.startswith(f"{folder}: an epoch of 90 training pictures, 1 crop(s) of each, has 5 ")
    assert "steps or epochs" in text and "crops to draw more" in text
    assert said(batch_size=8) == []
    assert said(batch_size=16, crops=2) == []
    assert len(said(batch_size=32, crops=2)) == 1


def test_several_crops_make_a_longer_epoch(folder):
    config = tiny(dataset_dir=str(folder), image_size=8, batch_size=16, crops=3, steps=None)
    run = quiet(config)
    assert run.summary["steps"] == run.summary["steps_per_epoch"] == 270 // 16
    assert (run.summary["train_pictures"], run.summary["val_pictures"]) == (270, 10)
    assert_same_run(quiet(config), run)
