"""A kernel that starts and never answers is given up soon, by name, and tried once more."""

import asyncio
import sys
import time
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpec

from tests.suite.tiny_suite import RECORD, parameters, write_notebook, write_settings
from vqlib import suite
from vqlib.suite import clients, kernels

MUTE = Path(__file__).with_name("mute_kernel.py")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs one notebook in kernels that `mute_kernel.py` starts."""
    directory = tmp_path / "notebooks"
    write_notebook(directory, "01_a", parameters(), RECORD, "record('x', 1)")
    write_settings(directory, '[01_a.records]\n"x" = {}\n')

    def run(*arguments: str):
        argv = [sys.executable, str(MUTE), *arguments, "{connection_file}"]

        def spec(**fields):
            return KernelSpec(**fields | {"argv": argv, "metadata": {}})

        monkeypatch.setattr(kernels, "KernelSpec", spec)
        begin = time.monotonic()
        (result,) = suite.run(
            None, "quick", tmp_path / "out", directory=directory, progress=False, timeout=600
        )
        assert time.monotonic() - begin < 50
        return result

    return run


def test_after_a_lost_request_the_notebook_is_run_once_more(run, tmp_path, monkeypatch):
    monkeypatch.setattr(clients, "SILENCE", 3.0)
    monkeypatch.setattr(clients, "NUDGE", 0.5)
    started = tmp_path / "started"
    result = run("cells", str(started))
    assert started.exists()
    assert result.error is None, result.error
    assert result.records == {"x": 1}


def test_a_kernel_that_stays_mute_is_given_up(run, monkeypatch):
    monkeypatch.setattr(clients, "START", 2)
    result = run("start", "")
    assert result.error == (
        "the kernel did not answer in two attempts: Kernel didn't respond in 2 seconds"
    )


def test_a_reply_that_nobody_was_told_of_is_found(tmp_path, monkeypatch):
    """The event loop no longer hears of messages that come, as was seen on a busy machine."""
    directory = tmp_path / "notebooks"
    write_notebook(directory, "01_a", parameters(), RECORD, "import time; time.sleep(1)", "1 + 1")
    write_settings(directory)
    process = clients.Client.process_message

    def deaf(self, *arguments, **keywords):
        for channel in (self.kc.shell_channel, self.kc.iopub_channel):
            asyncio.get_running_loop().remove_reader(channel.socket._shadow_sock.FD)
        return process(self, *arguments, **keywords)

    monkeypatch.setattr(clients.Client, "process_message", deaf)
    (result,) = suite.run(
        None, "quick", tmp_path / "out", directory=directory, progress=False, timeout=30
    )
    assert result.error is None, result.error
