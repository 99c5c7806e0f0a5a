"""What an execution costs, measured in real kernels; and a notebook over its budget goes red."""

import subprocess
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tests.suite.tiny_suite import parameters, write_notebook, write_settings
from vqlib import suite
from vqlib.suite.costs import MemoryMeter, output_bytes

CHILD = """\
import subprocess, sys
hungry = "a = bytearray(400_000_000); import time; time.sleep(1.5)"
subprocess.run([sys.executable, "-c", hungry])
"""
FAULTS = {  # what each notebook does too much of
    "01_seconds": "import time; time.sleep(2)",
    "02_memory": "a = b'x' * 400_000_000; del a",
    "03_memory_of_a_child": CHILD,
    "04_output": "print('x' * 300_000)",
}
BUDGET = "[{}.budget]\nseconds = {}\nmemory_mb = 350\noutput_mb = 0.2\n"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("costs")
    for name, source in FAULTS.items():
        write_notebook(root / "notebooks", name, parameters(), source)
    seconds = {name: 1.5 if name == "01_seconds" else 120 for name in FAULTS}
    directory = write_settings(
        root / "notebooks", "".join(BUDGET.format(name, seconds[name]) for name in FAULTS)
    )
    ran = suite.run(None, "quick", root / "build", directory=directory, progress=False)
    return {result.notebook: result for result in ran}


@pytest.mark.parametrize(
    ("notebook", "red"),
    list(zip(FAULTS, ["seconds", "memory_mb", "memory_mb", "output_mb"], strict=True)),
)
def test_a_notebook_over_its_budget_goes_red(results, notebook, red):
    result = results[notebook]
    assert result.error is None
    assert {v.record: v.passed for v in result.gates} == {
        f"budget/{name}": name != red for name in ("seconds", "memory_mb", "output_mb")
    }, result.gates
    assert suite.status([result], gates=True) == 1


def test_what_is_measured(results):
    assert 2 <= results["01_seconds"].cost.seconds == results["01_seconds"].seconds
    assert 400 < results["02_memory"].cost.memory_mb < 650
    assert 20 < results["01_seconds"].cost.memory_mb < 350
    assert 0.3 <= results["04_output"].cost.output_mb < 0.301


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system keeps no peak")
def test_a_peak_between_two_looks_is_not_missed():
    code = "a = b'x' * 300_000_000; del a; print('freed', flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        process.stdout.readline()
        meter = MemoryMeter()
        with meter.follow(process.pid):
            pass
        process.communicate(b"\n")
    assert meter.peak > 300_000_000


def test_a_process_that_is_gone_has_no_memory():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    meter = MemoryMeter()
    with meter.follow(ended.pid):
        pass
    assert meter.peak is None


def test_the_size_of_output_counts_bytes_and_widgets():
    def size(text, **metadata):
        output = new_output("stream", text=text)
        return output_bytes(
            new_notebook(cells=[new_code_cell(outputs=[output])], metadata=metadata)
        )

    assert output_bytes(new_notebook(cells=[new_code_cell("x = 1")])) == 0
    assert size("éé") - size("") == 4
    assert size("", widgets={"state": "x" * 100}) - size("") > 100
