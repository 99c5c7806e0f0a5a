"""vqlib.checkpoints: whole or not at all, and nothing in a file is ever executed."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.training.tiny_training import same_bits
from vqlib.training import checkpoints, files

TENSORS = {
    "weights": torch.arange(6.0).reshape(2, 3),
    "scalar": torch.tensor(7),
    "bits": torch.tensor([True, False]),
    "state": torch.arange(5, dtype=torch.uint8),
    "empty": torch.empty(0),
    "turned": torch.arange(6.0).reshape(2, 3).T,
    "double": torch.tensor([0.1, float("nan")], dtype=torch.float64).nan_to_num(3.3),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.safetensors"


def test_what_is_written_is_read(path):
    checkpoints.write_tensors(path, TENSORS, {"step": 3, "name": "é", "seconds": 0.1})
    tensors, info = checkpoints.read_tensors(path)
    assert same_bits(tensors, TENSORS)
    assert info == {"step": 3, "name": "é", "seconds": 0.1}


def test_folders_are_made(tmp_path):
    files.write_text(tmp_path / "a" / "b" / "text", "ä")
    assert (tmp_path / "a" / "b" / "text").read_text(encoding="utf-8") == "ä"


@pytest.mark.parametrize("crash", [OSError("disk full"), KeyboardInterrupt()])
def test_a_crash_in_the_writer_leaves_the_old_file_whole_and_nothing_beside_it(
    path, monkeypatch, crash
):
    checkpoints.write_tensors(path, TENSORS, {"step": 1})

    whole = Path.write_bytes

    def half(target, content):
        whole(target, content[: len(content) // 2])
        assert all(p == path or files.is_part(p) for p in path.parent.iterdir())
        raise crash

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(type(crash)):
        checkpoints.write_tensors(path, {"other": torch.zeros(3)}, {"step": 2})
    assert checkpoints.read_tensors(path)[1] == {"step": 1}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_crash_before_anything_was_there_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), files.atomic(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_others_see_the_old_file_until_the_new_one_is_whole(tmp_path):
    file = tmp_path / "file"
    files.write_text(file, "old")
    with files.atomic(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old" and temporary.parent == file.parent
    assert file.read_text() == "new"


@pytest.mark.parametrize("kept", [0, 1, 7, 100, -1])
def test_a_truncated_checkpoint_is_named(path, kept):
    checkpoints.write_tensors(path, TENSORS, {"step": 3})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is not a checkpoint of vqlib"):
        checkpoints.read_tensors(path)


@pytest.mark.parametrize("content", [b"\x00" * 200, b"garbage " * 50, b"\xff" * 64])
def test_garbage_is_named(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=path.name):
        checkpoints.read_tensors(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"info": "{broken"}])
def test_somebody_elses_tensors_are_no_checkpoint(path, metadata):
    save_file({"weights": torch.zeros(2)}, path, metadata)
    with pytest.raises(ValueError, match=path.name):
        checkpoints.read_tensors(path)


def test_a_missing_checkpoint(path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*checkpoint\.safetensors"):
        checkpoints.read_tensors(path)


class Attack:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return Path.touch, (self.victim,)


@pytest.mark.parametrize("save", [lambda x, p: p.write_bytes(pickle.dumps(x)), torch.save])
def test_a_pickle_is_refused_and_never_executed(path, tmp_path, save):
    victim = tmp_path / "executed"
    save(Attack(victim), path)
    with pytest.raises(ValueError, match=path.name):
        checkpoints.read_tensors(path)
    assert not victim.exists()
    pickle.loads(pickle.dumps(Attack(victim)))
    assert victim.exists(), "the attack itself must work, or this test shows nothing"


def test_parts_come_apart_as_they_were_put_together():
    one, two = {"a/b": torch.zeros(1)}, {"a": torch.ones(2), "_extra_state": torch.ones(3)}
    flat = checkpoints.flatten(model=one, models=two)
    assert same_bits(checkpoints.unflatten(flat, "model"), one)
    assert same_bits(checkpoints.unflatten(flat, "models"), two)
    assert checkpoints.unflatten(flat, "mod") == {}


def make_optimizer():
    weights = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2, 2))]
    return weights, torch.optim.AdamW(weights, lr=0.1, betas=(0.95, 0.999))


def advance(weights, optimizer, steps):
    for step in range(steps):
        for i, weight in enumerate(weights):
            weight.grad = torch.full_like(weight, 0.3 * (step + 1) + i)
        optimizer.step()


def test_an_optimizer_goes_on_as_if_never_stopped(path):
    weights, optimizer = make_optimizer()
    advance(weights, optimizer, 3)
    checkpoints.write_tensors(path, checkpoints.optimizer_tensors(optimizer))
    others, other = make_optimizer()
    for mine, theirs in zip(others, weights, strict=True):
        mine.data = theirs.data.clone()
    checkpoints.load_optimizer(other, checkpoints.read_tensors(path)[0])
    advance(weights, optimizer, 2), advance(others, other, 2)
    assert all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))


def test_an_optimizer_that_has_not_stepped_has_no_moments():
    _, optimizer = make_optimizer()
    assert checkpoints.optimizer_tensors(optimizer) == {}
    checkpoints.load_optimizer(optimizer, {})
