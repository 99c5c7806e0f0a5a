"""vqlib.training.slots: never more at once than there are cores, and no deadlock."""

import subprocess
import sys
import threading
import time

import joblib
import pytest
from filelock import FileLock, Timeout

from tests.training.tiny_training import tiny
from vqlib.quantization.ranges import SettingsError
from vqlib.training import experiments, slots


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    monkeypatch.setenv("VQLIB_JOBS", "1")


HOLDER = """
import sys, time, pathlib, joblib
joblib.cpu_count = lambda: 2
from vqlib.training import experiments, slots
for _ in range(int(sys.argv[2])):
    with slots.slot(pathlib.Path(sys.argv[1])):
        start = time.time()
        print("held", flush=True)
        time.sleep(float(sys.argv[3]))
        print(start, time.time(), flush=True)
"""


def holder(cache, times: int, seconds: float) -> subprocess.Popen:
    """A process that holds a slot so many times, for so long."""
    command = [sys.executable, "-c", HOLDER, str(cache), str(times), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_as_many_at_once_as_there_are_cores_over_all_processes(tmp_path):
    processes = [holder(tmp_path, 4, 0.2) for _ in range(4)]
    lines = [line for p in processes for line in p.communicate(timeout=120)[0].splitlines()]
    spans = [tuple(map(float, line.split())) for line in lines if line != "held"]
    assert len(spans) == 16
    at_once = [sum(a <= start < b for a, b in spans) for start, _ in spans]
    assert max(at_once) == 2


def test_a_killed_process_holds_nothing(tmp_path):
    processes = [holder(tmp_path, 1, 600) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "held\n"
    threading.Timer(0.3, processes[0].kill).start()
    start = time.monotonic()
    with slots.slot(tmp_path):  # both are taken until one dies
        assert 0.2 < time.monotonic() - start < 60
    processes[1].kill()
    for process in processes:
        process.wait()


def free(cache) -> int:
    """How many slots nobody holds."""
    number = 0
    for file in cache.glob("slots/*/*.lock"):
        lock = FileLock(file)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        lock.release()
        number += 1
    return number


def test_one_inside_another_is_the_same(tmp_path):
    with slots.slot(tmp_path), slots.slot(tmp_path), slots.slot(tmp_path):
        assert free(tmp_path) <= 1
    with slots.slot(tmp_path):
        pass
    with slots.slot(tmp_path), slots.lent(), slots.slot(tmp_path):
        pass  # a run that the outer one waits for


def test_a_lent_slot_is_free_and_comes_back(tmp_path):
    with slots.slot(tmp_path):
        with slots.lent():
            done = []
            other = threading.Thread(target=lambda: done.append(take(tmp_path)))
            other.start()
            other.join(30)
            assert done
        blocked = threading.Thread(target=take, args=[tmp_path], daemon=True)
        blocked.start()
        blocked.join(0.3)
        assert blocked.is_alive()  # in one process one thread at a time
    blocked.join(30)
    assert not blocked.is_alive()


def take(cache) -> bool:
    with slots.slot(cache):
        return True


def test_after_an_error_nothing_is_held(tmp_path):
    with pytest.raises(ZeroDivisionError), slots.slot(tmp_path), slots.lent():
        raise ZeroDivisionError
    assert take(tmp_path)
    with pytest.raises(ZeroDivisionError), slots.slot(tmp_path):
        raise ZeroDivisionError
    assert take(tmp_path)


def test_a_training_waits_for_a_slot(tmp_path, monkeypatch):
    monkeypatch.setenv("VQLIB_CACHE", str(tmp_path))
    experiments.cached_run(tiny(steps=1))
    held = [FileLock(file) for file in tmp_path.glob("slots/*/*.lock")]
    held += [FileLock(held[0].lock_file[: -len("0.lock")] + "1.lock")]
    for lock in held:
        lock.acquire()
    experiments.cached_run(tiny(steps=1))  # to read one needs none
    waiting = threading.Thread(target=experiments.cached_run, args=[tiny(steps=2)], daemon=True)
    waiting.start()
    waiting.join(2)
    assert waiting.is_alive()
    held[1].release()
    waiting.join(60)
    assert not waiting.is_alive()
    held[0].release()


@pytest.mark.parametrize("given", ["0", "two", "1.5", "-1"])
def test_jobs_that_cannot_be(given, monkeypatch):
    monkeypatch.setenv("VQLIB_JOBS", given)
    with pytest.raises(SettingsError, match="VQLIB_JOBS must be a whole number"):
        slots.jobs()


def test_jobs_are_the_cores_unless_said_otherwise(monkeypatch):
    assert slots.jobs() == 1
    monkeypatch.delenv("VQLIB_JOBS")
    assert slots.jobs() == 2
