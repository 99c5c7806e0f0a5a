"""vqlib.runs: a run in a folder comes back as it was; a folder is claimed once."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.training.tiny_training import same_bits, tiny
from vqlib import Run, train
from vqlib.training.model import build_model
from vqlib.training.runs import begin, claim


@pytest.fixture(scope="module")
def run():
    return train(tiny(trace_every=3, dead_code_threshold=2.0), progress=False)


def test_a_run_comes_back_as_it_was(run, tmp_path):
    run.save(tmp_path)
    again = Run.load(tmp_path)
    assert again.config == run.config and again.summary == run.summary
    pd.testing.assert_frame_equal(again.history, run.history, check_exact=True)
    assert same_bits(again.trace, run.trace)
    assert same_bits(again.model.state_dict(), run.model.state_dict())
    assert not again.model.training
    pictures = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for ours, expected in zip(again.model(pictures), run.model(pictures), strict=True):
        assert torch.equal(ours, expected)


def test_a_split_is_numbered_anew(run):
    val = run.split("val")
    assert val["step"].tolist() == [6, 12] and val.index.tolist() == [0, 1]
    assert len(run.split("train")) + len(val) == len(run.history)


def test_the_summary_is_written_last(run, tmp_path, monkeypatch):
    from vqlib.training import checkpoints, files

    written = []
    original = files.atomic
    for module in (checkpoints, files):
        monkeypatch.setattr(module, "atomic", lambda p: written.append(p.name) or original(p))
    run.save(tmp_path)
    assert written[-1] == "summary.json" and len(written) == 4


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("summary.json", None, FileNotFoundError),
        ("config.json", None, FileNotFoundError),
        ("history.csv", None, FileNotFoundError),
        ("run.safetensors", None, FileNotFoundError),
        ("run.safetensors", b"garbage", ValueError),
        ("config.json", b"", ValueError),
        ("history.csv", b"", ValueError),
        ("summary.json", b"{", ValueError),
    ],
)
def test_a_folder_without_a_whole_run(run, tmp_path, name, content, error):
    run.save(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error):
        Run.load(tmp_path)


def test_a_models_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    one = build_model(tiny(), channels=1).state_dict()
    before = torch.get_rng_state()
    torch.rand(5)
    two = build_model(tiny(decay=0.5), channels=1).state_dict()
    assert same_bits(one, two)
    assert not same_bits(one, build_model(tiny(seed=1), channels=1).state_dict())
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_model_is_built_as_the_config_says():
    q = build_model(tiny(decay=0.7, beta=0.1, kmeans_init=False, reset_donors="top")).quantizer
    assert (q.codebook_size, q.dim, q.decay, q.beta, q.kmeans_init) == (32, 8, 0.7, 0.1, False)
    assert q.reset == tiny(reset_donors="top").reset()
    assert build_model(tiny(dead_code_threshold=0.0)).quantizer.reset is None


# --- claiming a folder ---


def test_an_absent_or_empty_folder_is_free_and_stays_untouched(tmp_path):
    assert claim(tmp_path / "new", tiny(), resume=False) is None
    assert claim(tmp_path, tiny(), resume=False) is None
    assert claim(None, tiny(), resume=False) is None
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_anything_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"is not empty and is not overwritten.*--resume"):
        claim(tmp_path, tiny(), resume=False)
    for taken in (tmp_path / "notes.txt", Path("/dev/null")):
        with pytest.raises(FileExistsError, match=f"{taken} is a file; expected a folder"):
            claim(taken, tiny(), resume=False)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_changed_settings_are_named_with_both_values(tmp_path):
    begin(tmp_path, tiny(), finished=False)
    with pytest.raises(ValueError) as caught:
        claim(tmp_path, tiny(decay=0.75, seed=3), resume=True)
    assert "changed: decay was 0.9, is 0.75, seed was 0, is 3" in str(caught.value)


def test_the_length_of_a_run_may_change(tmp_path):
    begin(tmp_path, tiny(), finished=False)
    assert claim(tmp_path, tiny(steps=99, epochs=7), resume=True) is None


def test_the_length_of_a_run_whose_rate_falls_at_the_end_may_not(tmp_path):
    begin(tmp_path, tiny(cooldown_steps=4), finished=False)
    with pytest.raises(ValueError, match="changed: steps was 12, is 99"):
        claim(tmp_path, tiny(cooldown_steps=4, steps=99), resume=True)


def test_nothing_to_resume(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing to resume: .* holds no config\.json"):
        claim(tmp_path, tiny(), resume=True)
    with pytest.raises(ValueError, match="resume needs out_dir"):
        claim(None, tiny(), resume=True)


def test_json_is_for_people_too(run, tmp_path):
    run.save(tmp_path)
    text = (tmp_path / "config.json").read_text()
    assert json.loads(text) == run.config.to_dict() and text.count("\n") > 20


def test_a_finished_run_is_no_checkpoint(tmp_path):
    config = tiny(steps=1)
    train(config, tmp_path / "run", progress=False)
    (tmp_path / "run" / "run.safetensors").replace(tmp_path / "run" / "checkpoint.safetensors")
    with pytest.raises(ValueError, match="holds no training that can be resumed"):
        train(config, tmp_path / "run", resume=True, progress=False)


def test_a_run_that_goes_on_is_no_finished_run(tmp_path):
    train(tiny(steps=2), tmp_path, progress=False)

    def stop(trainer):
        raise RuntimeError("the machine went down")

    with pytest.raises(RuntimeError):
        train(tiny(steps=4), tmp_path, resume=True, progress=False, callbacks=[stop])
    with pytest.raises(FileNotFoundError, match="no finished run"):
        Run.load(tmp_path)
    assert train(tiny(steps=4), tmp_path, resume=True, progress=False).summary["steps"] == 4
