"""vqlib.experiments: a run is trained once, and never taken for another."""

import ast
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import vqlib
from tests import ROOT
from tests.training.tiny_training import same_bits, tiny
from vqlib.training import experiments, places
from vqlib.training.experiments import ARMS, PRESET, arm, cached_run, compare, interval, run_key


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VQLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VQLIB_JOBS", "1")
    return tmp_path / "cache"


@pytest.fixture
def trained(monkeypatch):
    """The configs that were really trained, in their order."""
    configs, train = [], experiments.train

    def counting(config, **more):
        configs.append(config)
        return train(config, **more)

    monkeypatch.setattr(experiments, "train", counting)
    return configs


def quick(**changes):
    return tiny(**({"steps": 2} | changes))


# --- the cache ---


def test_a_run_is_trained_once_and_read_back_whole(trained):
    first, second = cached_run(quick()), cached_run(quick())
    assert trained == [quick()]
    pd.testing.assert_frame_equal(first.history, second.history, check_exact=True)
    assert same_bits(first.model.state_dict(), second.model.state_dict())
    assert same_bits(first.trace, second.trace)
    assert first.summary == second.summary and first.config == second.config


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", None),
        ("config.json", None),
        ("history.csv", None),
        ("run.safetensors", None),
        ("run.safetensors", b"garbage"),
        ("config.json", b"[]"),
        ("history.csv", b""),
        ("summary.json", b"{"),
        ("config.json", b'{"decya": 1}'),
    ],
)
def test_a_damaged_entry_is_trained_again(trained, name, content):
    whole = cached_run(quick(steps=1))
    file = experiments.cache_dir() / run_key(quick(steps=1)) / name
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    again = cached_run(quick(steps=1))
    assert len(trained) == 2
    assert same_bits(again.model.state_dict(), whole.model.state_dict())
    cached_run(quick(steps=1))
    assert len(trained) == 2


def test_the_weights_of_another_model_are_not_taken_for_this_ones(trained):
    cached_run(quick())
    cached_run(quick(codebook_size=16))
    here, other = (experiments.cache_dir() / run_key(c) for c in (quick(), quick(codebook_size=16)))
    (here / "run.safetensors").write_bytes((other / "run.safetensors").read_bytes())
    assert cached_run(quick()).model.quantizer.codebook_size == 32 and len(trained) == 3


def test_a_run_that_fails_leaves_no_entry(trained):
    config = quick(steps=9, learning_rate=1000.0, warmup_steps=0)
    for _ in range(2):
        with pytest.raises(vqlib.TrainingDiverged):
            cached_run(config)
    assert len(trained) == 2 and not (experiments.cache_dir() / run_key(config)).exists()


CHILD = """
import torch; torch.set_num_threads(1)
from vqlib.training.experiments import cached_run
from vqlib import TrainConfig
print(cached_run(TrainConfig(**{})).summary["seconds"])
"""


def test_two_processes_that_want_one_run_train_it_once(trained, cache):
    config = quick(steps=120)
    lock = cache / f"{run_key(config)}.lock"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(config.to_dict())], stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not lock.exists():
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    run = cached_run(config)  # while the child trains it, or waits for us to
    assert child.communicate()[0].strip() == str(run.summary["seconds"])
    assert child.returncode == 0 and len(trained) <= 1


# --- the key ---


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"decay": 0.8}, {"steps": 3}, {"threads": 2}, {"trace_every": 1}]
)
def test_any_setting_makes_it_another_run(change):
    assert run_key(quick()) == run_key(quick()) != run_key(replace(quick(), **change))


def test_the_version_of_torch_and_its_threads_make_it_another_run(monkeypatch):
    before = run_key(quick(threads=None))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    many = run_key(quick(threads=None))
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert len({before, many, run_key(quick(threads=None))}) == 3


def test_changed_data_make_it_another_run_within_one_process(tmp_path, trained):
    path = tmp_path / "pictures.npy"
    config = quick(dataset_dir=str(path), steps=1)
    for seed in (0, 1, 0):
        pixels = np.random.default_rng(seed).integers(256, size=(40, 8, 8), dtype=np.uint8)
        np.save(path, pixels)
        cached_run(config)
    assert len(trained) == 2


PACKAGE = ROOT / "vqlib"
ROOMS = ("quantization", "watching", "training")
CODE = [file for room in ROOMS for file in (PACKAGE / room).rglob("*.py")]


@pytest.mark.parametrize("file", CODE, ids=lambda file: file.stem)
def test_changed_code_makes_it_another_run(file, monkeypatch):
    before, read = run_key(quick()), Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda p: read(p) + b"# changed" * (p == file))
    # a file edited under a running process does not lend its key to the older code
    assert run_key(quick()) == before
    monkeypatch.setattr(experiments, "CODE_CHECKSUM", experiments._code_checksum())
    assert run_key(quick()) != before


def imported(module: str) -> set[str]:
    """What the source of a module imports: "vqlib.model", "torch", ..."""
    names = set()
    for node in ast.walk(ast.parse(Path(sys.modules[module].__file__).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "vqlib":
            names |= {f"vqlib.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def reached_from(*modules: str) -> set[str]:
    found, todo = set(), set(modules)
    while todo:
        found |= todo
        ours = {name for name in todo if name.startswith("vqlib") and name in sys.modules}
        todo = set().union(*map(imported, ours)) - found
    return found


def test_all_code_that_decides_a_run_is_in_its_key():
    ours = {n for n in reached_from("vqlib.training.trainer") if n.startswith("vqlib.")}
    assert "vqlib.quantization.quantizer" in ours
    assert {name.split(".")[1] for name in ours} <= set(ROOMS)


def test_experiments_need_nothing_that_draws():
    roots = {name.split(".")[0] for name in reached_from("vqlib.training.experiments")}
    assert "torch" in roots
    assert not roots & {"matplotlib", "seaborn", "ipywidgets"}


def test_where_the_cache_is(monkeypatch, tmp_path, cache):
    assert experiments.cache_dir() == cache
    monkeypatch.delenv("VQLIB_CACHE")
    assert experiments.cache_dir() == Path(vqlib.__file__).parent.parent / "data" / "cache"
    monkeypatch.setattr(places, "PARENT", tmp_path)
    assert experiments.cache_dir() == Path.home() / ".cache" / "vqlib"


# --- arms ---


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_changes_what_it_says_and_nothing_else(name):
    before, after = PRESET.to_dict(), arm(name, seed=3).to_dict()
    changed = {key: value for key, value in after.items() if value != before[key]}
    assert changed == ARMS[name] | {"seed": 3}


def test_arms_take_further_changes_and_unknown_ones_are_named():
    assert arm("reset", decay=0.5) == replace(PRESET, dead_code_threshold=1.0, decay=0.5)
    with pytest.raises(ValueError, match="unknown arm 'rest'; the arms are baseline, reset"):
        arm("rest")


def test_the_baseline_is_the_guides_setting_without_the_reset():
    c = arm("baseline")
    assert (c.codebook_size, c.batch_size, c.decay, c.beta) == (512, 32, 0.9, 0.25)
    assert c.dead_code_threshold == 0 and c.kmeans_init and c.threads == 1


def test_compare_pairs_the_seeds(trained):
    arms = {"before": quick(dead_code_threshold=0.0, seed=99), "after": quick(seed=99)}
    runs = compare(arms, seeds=(3, 4), progress=False)
    assert set(runs) == {("before", 3), ("before", 4), ("after", 3), ("after", 4)}
    for (name, seed), run in runs.items():
        assert run.config == replace(arms[name], seed=seed)
    for seed in (3, 4):  # one seed: one model, one order of pictures
        first = [runs[name, seed].split("train")["recon_loss"].iloc[0] for name in arms]
        assert first[0] == first[1]
    assert len(trained) == 4
    compare(arms, seeds=iter((4, 3)), progress=False)
    assert len(trained) == 4


def test_compare_pins_the_threads_that_a_worker_would_change(trained):
    (run,) = compare({"one": quick(threads=None, steps=1)}, [0], progress=False).values()
    assert run.config.threads == torch.get_num_threads()


def test_compare_by_name(monkeypatch, trained):
    monkeypatch.setattr(experiments, "PRESET", quick(steps=1))
    runs = compare(["baseline", "decay 0"], seeds=[7], progress=False)
    assert runs["decay 0", 7].config == quick(steps=1, decay=0.0, seed=7)
    with pytest.raises(ValueError, match="'none'"):
        compare(["baseline", "none"], [0])


def test_tables():
    runs = compare({"one": quick(), "two": quick(decay=0.5)}, (0, 1), progress=False)
    history = experiments.history_table(runs)
    assert len(history) == sum(len(run.history) for run in runs.values())
    part = history.query("arm == 'two' and seed == 1").drop(columns=["arm", "seed"])
    expected = runs["two", 1].history
    pd.testing.assert_frame_equal(part.reset_index(drop=True), expected, check_exact=True)
    summary = experiments.summary_table(runs)
    assert list(zip(summary["arm"], summary["seed"], strict=True)) == list(runs)
    assert summary["val_utilization"].tolist() == [
        run.summary["val_utilization"] for run in runs.values()
    ]


# --- intervals ---


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_an_interval_covers_the_mean_as_often_as_it_says(n):
    rng, hits = np.random.default_rng(0), 0
    for _ in range(600):
        _, low, high = interval(rng.normal(5.0, 2.0, size=n), confidence=0.9)
        hits += low <= 5.0 <= high
    assert 0.86 < hits / 600 < 0.94


def test_an_interval_widens_with_confidence():
    values = [1.0, 2.0, 4.0, 8.0]
    mean, low, high = interval(values)
    narrow = interval(values, confidence=0.5)
    assert low < narrow[1] < mean == 3.75 < narrow[2] < high


def test_one_value_has_no_interval():
    mean, low, high = interval([0.3])
    assert mean == 0.3 and np.isnan(low) and np.isnan(high)
