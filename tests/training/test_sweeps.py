"""experiments.sweep: one tidy table, nothing done twice, and a failure costs only itself."""

import json
import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from tests.training import sweep_measures as measures
from tests.training.tiny_training import tiny
from vqlib.quantization.ranges import SettingsError
from vqlib.training import experiments, slots, sweeps
from vqlib.training.experiments import compare, sweep
from vqlib.training.runs import TrainingDiverged

WILD = {"learning_rate": 1000.0, "warmup_steps": 0}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VQLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VQLIB_JOBS", "1")
    return tmp_path / "cache"


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def arms(log):
    return {f"x {x:g}": {"x": x, "log": str(log)} for x in (1.5, 2.0, 3.0)}


def measured(arms, seeds=(1, 2), measure=measures.product, key="1", **more) -> pd.DataFrame:
    return sweep(arms, seeds, measure, key=key, progress=False, **more)


def same(one: pd.DataFrame, two: pd.DataFrame) -> bool:
    return one.to_csv(index=False) == two.to_csv(index=False)


# --- the table ---


def test_a_row_for_each_arm_and_seed_with_settings_and_summary():
    arms = {"off": tiny(dead_code_threshold=0.0), "on": tiny(decay=0.5)}
    table = sweep(arms, [3, 0], progress=False)
    assert table[["arm", "seed"]].values.tolist() == [["off", 3], ["off", 0], ["on", 3], ["on", 0]]
    assert list(table.columns[:4]) == ["arm", "seed", "decay", "dead_code_threshold"]
    assert table["decay"].tolist() == [0.9, 0.9, 0.5, 0.5]
    assert table.columns[-1] == "problem" and set(table["problem"]) == {""}
    assert "seconds" not in table
    run = compare(arms, [0], progress=False)["on", 0]  # the same runs: nothing is trained again
    assert table["val_perplexity"].iloc[3] == run.summary["val_perplexity"]


def test_the_same_sweep_gives_the_same_table_and_trains_nothing(monkeypatch):
    arms = {"one": tiny(), "two": tiny(decay=0.5)}
    first = sweep(arms, [0, 1], progress=False)
    monkeypatch.setattr(experiments, "train", None)
    assert same(first, sweep(arms, [0, 1], progress=False))


def test_arms_by_name_and_one_thread_unless_said_otherwise(monkeypatch):
    monkeypatch.setattr(experiments, "PRESET", tiny(steps=1, threads=None))
    table = sweep(["baseline", "decay 0"], [0], progress=False)
    assert table["arm"].tolist() == ["baseline", "decay 0"] and set(table["threads"]) == {1}


def test_a_run_that_fails_is_a_row_and_the_others_go_on(monkeypatch):
    arms = {"wild": tiny(**WILD), "tame": tiny()}
    table = sweep(arms, [0, 1], progress=False)
    assert table["problem"].str.startswith("TrainingDiverged: the loss").tolist() == [
        *(True, True),
        *(False, False),
    ]
    assert table["val_utilization"].isna().tolist() == [True, True, False, False]
    assert table["learning_rate"].tolist() == [1000.0, 1000.0, 0.001, 0.001]


def test_compare_raises_once_the_others_are_trained(cache):
    with pytest.raises(TrainingDiverged):
        compare({"wild": tiny(**WILD), "tame": tiny()}, [0], progress=False)
    assert len(list(cache.glob("*/summary.json"))) == 1


@pytest.mark.parametrize(
    ("arms", "seeds", "wrong"),
    [
        ({}, [0], "at least one arm"),
        ({"a": tiny()}, [], "at least one arm and one seed"),
        ({"a": tiny()}, [-1], "seed must be a whole number"),
        ({"a": tiny(), "b": tiny(batch_size=5000)}, [0], "batch_size 5000 is larger"),
        ({"a": tiny(), "b": tiny(dataset_dir="nowhere")}, [0], "'nowhere' does not exist"),
        (["rest"], [0], "unknown arm 'rest'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(arms, seeds, wrong, cache):
    with pytest.raises((ValueError, FileNotFoundError), match=wrong):
        sweep(arms, seeds, progress=False)
    assert not cache.exists()


# --- any function ---


def test_any_function_of_a_config_and_a_seed(arms, log):
    table = measured(arms)
    assert table["product"].tolist() == [1.5, 3.0, 2.0, 4.0, 3.0, 6.0]
    assert list(table.columns) == ["arm", "seed", "x", "product", "name", "problem"]
    assert same(table, measured(arms)) and set(measures.calls(log).values()) == {1}


def test_another_key_function_config_or_seed_is_another_run(arms, log):
    measured(arms)
    measured(arms, key="2")
    measured(arms, measure=measures.deadly)
    measured(arms | {"x 1.5": arms["x 1.5"] | {"more": 1}})
    measured(arms, [3])
    assert measures.calls(log)[1.5, 1] == 4 and measures.calls(log)[3.0, 1] == 3
    assert measures.calls(log)[3.0, 3] == 1


def test_numbers_of_numpy_and_torch_become_plain(arms):
    values = {"a": np.float32(0.1), "b": torch.tensor(2), "c": np.bool_(True), "d": float("nan")}
    table = measured(arms, [0], lambda config, seed: values)
    assert table["a"].iloc[0] == float(np.float32(0.1)) and table["b"].iloc[0] == 2
    assert table["c"].iloc[0] and table["d"].isna().all()


@pytest.mark.parametrize("value", [np.zeros(2), object(), 1 + 2j, torch.zeros(2)])
def test_what_is_no_number_is_that_runs_failure(arms, value):
    table = measured(arms, [0], lambda config, seed: {"a": value})
    assert table["problem"].str.startswith("TypeError: a summary holds numbers").all()


def test_a_measure_needs_a_key_and_plain_configs(arms):
    with pytest.raises(SettingsError, match="measure needs a key"):
        measured(arms, key="")
    with pytest.raises(SettingsError, match="plain values only"):
        measured({"a": {"x": object()}})
    with pytest.raises(SettingsError, match="a dataclass or a mapping, got 3"):
        measured({"a": 3})


def test_a_measure_has_one_thread_here_too(arms):
    torch.set_num_threads(2)
    try:
        table = measured(arms, [0], lambda config, seed: {"n": torch.get_num_threads()})
        assert set(table["n"]) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_partial_function_can_be_measured(arms):
    table = measured(arms, [2], partial(measures.product), key="partial")
    assert table["product"].tolist() == [3.0, 4.0, 6.0]


# --- what is kept ---


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"product": 1'])
def test_nothing_half_written_is_trusted(arms, log, cache, content):
    first = measured(arms)
    files = list(cache.glob("*/summary.json"))
    files[0].write_text(content)
    (files[1].parent / "summary.json").rename(files[1].parent / ".summary.json.abc")
    assert same(first, measured(arms))
    assert sorted(measures.calls(log).values()) == [1, 1, 1, 1, 2, 2]


def test_what_failed_is_tried_again_and_nothing_else_is(arms, log):
    arms["x 2"]["fails"] = 1
    for _ in range(2):
        table = measured(arms)
        assert table["problem"].tolist() == ["", "", "ArithmeticError: no result", "", "", ""]
    counted = measures.calls(log)
    assert counted.pop((2.0, 1)) == 2 and set(counted.values()) == {1}


def test_two_arms_of_the_same_settings_are_one_run(arms, log):
    table = measured({"a": arms["x 2"], "b": arms["x 2"]})
    assert table["product"].tolist() == [2.0, 4.0, 2.0, 4.0]
    assert set(measures.calls(log).values()) == {1}


def test_a_worker_that_is_not_the_same_trains_nothing(monkeypatch, cache):
    before = experiments._trainings({0: tiny()})
    monkeypatch.setattr(experiments, "CODE_CHECKSUM", "other")
    (problem,) = experiments.sweeps.run(before.values(), progress=False).values()
    assert "would not train the same run" in problem
    assert not list(cache.glob("*/summary.json"))


# --- several processes ---


def test_several_processes_give_the_same_bits(monkeypatch, tmp_path):
    arms = {"one": tiny(), "two": tiny(decay=0.5), "wild": tiny(**WILD)}
    alone = sweep(arms, [0, 1], progress=False)
    monkeypatch.setenv("VQLIB_CACHE", str(tmp_path / "another"))
    monkeypatch.setenv("VQLIB_JOBS", "2")
    assert same(alone, sweep(arms, [0, 1], progress=False))


@pytest.mark.parametrize("backend", ["threading", "multiprocessing"])
def test_on_another_engine_of_joblib(arms, log, backend):
    arms["x 2"]["fails"] = 1
    table = measured(arms, backend=backend)
    assert table["problem"].tolist() == ["", "", "ArithmeticError: no result", "", "", ""]
    assert table["product"].dropna().tolist() == [1.5, 3.0, 4.0, 3.0, 6.0]
    assert set(measures.calls(log).values()) == {1}


def test_an_engine_that_nobody_knows(arms, log):
    with pytest.raises(ValueError, match="daks"):
        measured(arms, backend="daks")
    assert not log.exists()


def test_a_worker_that_dies_costs_only_its_run(arms, log, monkeypatch):
    monkeypatch.setenv("VQLIB_JOBS", "2")
    arms["x 2"]["dies"] = 3
    table = measured(arms, range(6), measures.deadly).set_index(["arm", "seed"])
    assert table.loc[("x 2", 3), "problem"].startswith("its process died")
    rest = table.drop(("x 2", 3))
    assert len(rest) == 17 and set(rest["problem"]) == {""}
    assert all(row.product == row.x * row.Index[1] for row in rest.itertuples())
    counted = measures.calls(log)
    assert counted.pop((2.0, 3)) <= 3
    assert sum(counted.values()) <= len(counted) + 2  # who was under way beside it


SWEEP = """
import json, sys, joblib
joblib.cpu_count = lambda: int(sys.argv[4])
from tests.training import sweep_measures
from vqlib.training.experiments import sweep
measure = getattr(sweep_measures, sys.argv[1])
table = sweep(json.loads(sys.argv[2]), range(4), measure, key="1", progress=False)
table.to_csv(sys.argv[3], index=False)
"""


def started(name, arms, out, cores=2) -> subprocess.Popen:
    command = [sys.executable, "-c", SWEEP, name, json.dumps(arms), str(out), str(cores)]
    return subprocess.Popen(command)


def test_two_sweeps_at_once_do_nothing_twice(arms, log, tmp_path):
    for config in arms.values():
        config["seconds"] = 0.2
    outs = [tmp_path / "one.csv", tmp_path / "two.csv"]
    both = [started("product", arms, out) for out in outs]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert len(measures.calls(log)) == 12 and set(measures.calls(log).values()) == {1}


def test_runs_that_wait_for_runs_do_not_block_each_other(arms, log, tmp_path):
    outs = [tmp_path / "one.csv", tmp_path / "two.csv"]
    both = [started("waits_for_another", arms, out, cores=1) for out in outs]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    assert set(pd.read_csv(outs[0])["total"]) == {6.0}
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_who_waits_for_a_run_lends_its_slot(cache):
    """One thread holds a slot and wants a run; another has that run and waits for a slot."""
    folder, made = cache / "run", []

    def make(place):
        made.append(place)
        place.mkdir()
        (place / "summary.json").write_text("{}")

    def get():
        sweeps.once(folder, make, sweeps.read_summary)

    def outer():
        with slots.slot(cache):
            other.start()
            while not (cache / "run.lock").exists():
                time.sleep(0.01)
            time.sleep(0.2)
            get()

    other = threading.Thread(target=get, daemon=True)
    first = threading.Thread(target=outer, daemon=True)
    first.start()
    first.join(30)
    assert not first.is_alive() and made == [folder]
