"""Notebooks in a plain pytest, in a folder of their own and in real kernels."""

import os
import re
import subprocess
import sys

import pytest

from tests import ROOT
from tests.suite.tiny_suite import RECORD, parameters, write_notebook

GATES = """
[good.records]
"x" = { max = 5 }
"free" = {}
[good.claims]
"It stays small" = ["x"]
[broken.records]
"y" = { max = 1 }
"""
PLUGIN = ("-p", "vqlib.suite.pytest_plugin")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("theirs")
    cells = [
        RECORD,
        "print('ran')\nopen('count', 'a').write('.')",
        "record('x', x)",
        "record('free', 0)",
    ]
    write_notebook(folder / "notebooks", "good", parameters("x = 4"), *cells)
    write_notebook(folder / "notebooks", "broken", "1 / 0")
    (folder / "notebooks" / "expected.toml").write_text(GATES)
    (folder / "high.toml").write_text("[good]\nx = 6\n")
    write_notebook(folder / "others", "not_ours", "1 / 0")
    (folder / "notebooks" / "test_python.py").write_text("def test_theirs():\n    pass\n")
    return folder


def run(folder, *arguments):
    """Exit status, {outcome: number of tests} and what was printed."""
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--rootdir", folder]
    ended = subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "150"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    line = ended.stdout.strip().splitlines()[-1]
    counts = {word: int(n) for n, word in re.findall(r"(\d+) ([a-z]+)", line) if word != "in"}
    return ended.returncode, counts, ended.stdout + ended.stderr


def test_each_notebook_and_each_gate_is_a_test(folder):
    status, counts, out = run(folder, *PLUGIN, ".")
    assert status == 1 and counts == {"passed": 3, "failed": 1, "skipped": 1}, out
    assert "notebooks/good.ipynb::executes PASSED" in out
    assert "notebooks/good.ipynb::x PASSED" in out and "::free" not in out
    assert "ZeroDivisionError: division by zero" in out and "pytest_plugin.py" not in out
    assert "not_ours" not in out
    assert (folder / "notebooks" / "count").read_text() == "."  # executed once for its tests


def test_a_gate_that_fails_says_value_gate_and_claim(folder):
    status, counts, out = run(
        folder, *PLUGIN, "notebooks/good.ipynb", "--vqlib-profile", "high.toml"
    )
    assert status == 1 and counts == {"passed": 1, "failed": 1}, out
    assert "x is 6; expected ≤ 5\nguards: It stays small" in out


def test_nobody_who_does_not_ask_gets_it(folder):
    status, counts, out = run(folder, ".")
    assert status == 0 and counts == {"passed": 1} and "ipynb" not in out


def test_a_notebook_that_is_named_needs_gates_and_they_must_make_sense(folder):
    status, counts, out = run(folder, *PLUGIN, "others/not_ours.ipynb")
    assert status == 2 and counts == {"error": 1}, out
    assert "others/expected.toml is not there; expected a file of gates" in out
    (folder / "bad.toml").write_text('[not_ours.records]\n"a" = { mx = 1 }\n')
    status, counts, out = run(folder, *PLUGIN, "others", "--vqlib-expected", "bad.toml")
    assert status == 2 and "unknown key `mx` - did you mean `max`?" in out
    assert "Traceback" not in out
