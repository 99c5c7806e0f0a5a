"""A sweep on dask.distributed, by joblib: two local workers, one of which may die."""

import os
import signal
import threading
import time

import dask
import pytest
from distributed import Client, LocalCluster

from tests.training import sweep_measures as measures
from tests.training.test_sweeps import arms, cache, log, measured, same  # noqa: F401, fixtures
from tests.training.tiny_training import tiny
from vqlib.training import sweeps
from vqlib.training.experiments import sweep


@pytest.fixture(scope="module")
def client():
    two_deaths = {"distributed.scheduler.allowed-failures": 1}
    local = {"n_workers": 2, "threads_per_worker": 2, "dashboard_address": None}
    with dask.config.set(two_deaths), LocalCluster(**local) as cluster, Client(cluster) as client:
        yield client


def test_the_same_bits_as_on_this_machine(client, tmp_path, monkeypatch):
    two = {"one": tiny(), "two": tiny(decay=0.5)}
    there = sweep(two, [0, 1], backend="dask", progress=False)
    monkeypatch.setenv("VQLIB_CACHE", str(tmp_path / "another"))
    assert same(there, sweep(two, [0, 1], progress=False))


def test_a_worker_killed_in_mid_run_costs_only_that_run(client, arms, log):  # noqa: F811
    arms["x 2"]["waits"] = 1

    def kill():
        while True:
            lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
            for x, seed, pid in lines:
                if (x, seed) == ("2.0", "1"):
                    os.kill(int(pid), signal.SIGKILL)
                    return
            time.sleep(0.05)

    threading.Thread(target=kill, daemon=True).start()
    table = measured(arms, range(4), measures.once_killed, backend="dask")
    assert set(table["problem"]) == {""}
    assert (table["product"] == table["x"] * table["seed"]).all()
    counted = measures.calls(log)
    assert counted[2.0, 1] == 2
    # who shared the dead process may have been under way too
    assert sum(counted.values()) <= 12 + 2
    assert same(table, measured(arms, range(4), measures.once_killed))  # all of it is kept


def test_a_run_that_kills_every_worker_fails_and_the_others_go_on(client, arms):  # noqa: F811
    arms["x 2"]["dies"] = 1
    table = measured(arms, range(3), measures.deadly, backend="dask").set_index(["arm", "seed"])
    assert table.loc[("x 2", 1), "problem"] == "its process died (KilledWorker)"
    assert set(table.drop(("x 2", 1))["problem"]) == {""}


def test_a_run_that_fails_there_is_a_row(client, arms):  # noqa: F811
    arms["x 2"]["fails"] = 1
    table = measured(arms, [0, 1], backend="dask")
    assert sorted(table["problem"]) == [*[""] * 5, "ArithmeticError: no result"]


def test_workers_with_another_disk_are_told_apart(client, arms, monkeypatch):  # noqa: F811
    monkeypatch.setattr(sweeps, "_is_whole", lambda folder: False)
    table = measured(arms, [0], backend="dask")
    assert table["problem"].str.contains("the workers must share its disk").all()
