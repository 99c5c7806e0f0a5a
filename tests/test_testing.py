"""The audit as a conformance test, run by a plain pytest in a folder of its own."""

import os
import re
import subprocess
import sys
from typing import NamedTuple

import pytest

from tests import ROOT
from vqlib.diagnosis.audit import ALWAYS, CODEBOOK, RANKS
from vqlib.testing import UNSTABLE, parametrize_with_audit

README = (ROOT / "README.md").read_text()
(EXAMPLE,) = [
    block
    for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    if "parametrize_with_audit" in block
]
QUESTIONS = len([*CODEBOOK, *ALWAYS, RANKS, UNSTABLE])
COLD = "vqlib.quantization.faults.ColdStart"

LAYERS = """
import torch, vqlib
from vqlib.quantization.faults import ColdStart, ForgetsTheCount
from vqlib.testing import parametrize_with_audit

RESET = vqlib.DeadCodeReset(threshold=1.0)

class Cold(ColdStart):
    def __init__(self):
        super().__init__(codebook_size=32, dim=16, reset=RESET)

class Good(vqlib.NormEMAQuantizer):
    def __init__(self):
        super().__init__(codebook_size=32, dim=16, reset=RESET)

class Grid(torch.nn.Module):
    def forward(self, z):
        return z.round(), (z[..., 0] > 0).long(), z.sum() * 0
"""


EXPECTING = 'expected_failures={"cold-start": "as in 2019"}'


def using(arguments: str) -> str:
    """A test file: the layers, and a test with these arguments of the decorator."""
    decorated = f"@parametrize_with_audit({arguments}, ranks=False)\n"
    return LAYERS + decorated + "def test_mine(check):\n    check()\n"


class Ended(NamedTuple):
    """What a run of pytest came to."""

    status: int
    counts: dict[str, int]  # of tests, by outcome
    out: str


def ended(status: int, out: str) -> Ended:
    said = out.strip().splitlines()[-1]
    counts = {word: int(n) for n, word in re.findall(r"(\d+) ([a-z]+)", said)}
    counts.pop("in", None)
    return Ended(status, counts, out)


@pytest.fixture
def run(pytester):
    """Runs a test file with pytest, in this process."""

    def run(text: str) -> Ended:
        pytester.makepyfile(text)
        done = pytester.runpytest_inprocess("-rA", "-p", "no:cacheprovider")
        return ended(int(done.ret), str(done.stdout) + str(done.stderr))

    return run


def test_the_readmes_example_with_a_plain_pytest(tmp_path):
    assert len([line for line in EXAMPLE.splitlines() if line]) <= 10
    (tmp_path / "test_layers.py").write_text(EXAMPLE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "test_layers.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    status, counts, out = ended(done.returncode, done.stdout)
    assert status == 0, out
    assert sum(counts.values()) == QUESTIONS and counts["xfailed"] == 1 and counts["passed"] >= 8


def test_a_fault_fails_by_name_with_its_finding(run):
    status, counts, out = run(using("[Cold, Good]"))
    assert status == 1 and counts["failed"] == 1, out
    assert "test_mine[Cold-cold-start]" in out and "test_mine[Good-cold-start]" in out
    assert "AuditFailed" in out and "remedy" in out


def test_an_expected_failure_is_no_failure_and_says_why(run):
    status, counts, out = run(using(f"[Cold], {EXPECTING}"))
    assert status == 0 and counts["xfailed"] == 1, out
    assert "as in 2019" in out


def test_an_expected_failure_that_passes_is_an_error(run):
    status, counts, out = run(using(f"[Good], {EXPECTING}"))
    assert status == 1 and counts["failed"] == 1, out
    assert "[XPASS(strict)] as in 2019" in out


def test_what_cannot_be_asked_is_skipped_and_what_was_expected_of_it_is_stale(run):
    status, counts, out = run(
        LAYERS + "from vqlib.watching.adapters import Adapter\n"
        "GRID = Adapter(codebook=lambda m: None, indices=lambda m, o: o[1], "
        'settings=lambda m: {"codebook_size": 2, "dim": 8})\n'
        '@parametrize_with_audit([Grid], expected_failures={"cold-start": "why"}, adapter=GRID, '
        "ranks=False)\ndef test_mine(check):\n    check()\n"
    )
    assert status == 1 and counts["failed"] == 1 and counts["skipped"] >= 5, out
    assert "not applicable: It holds no codebook." in out


def test_a_layer_is_audited_once_and_its_error_is_each_tests(run):
    status, counts, out = run(
        LAYERS + "def broken():\n    print('made anew')\n    raise OSError('no weights')\n"
        "@parametrize_with_audit([broken], ranks=False)\ndef test_mine(check):\n    check()\n"
    )
    assert status == 1 and counts == {"failed": QUESTIONS - 1}, out
    assert out.count("\nmade anew") == 1 and "no weights" in out


def test_names_of_tests():
    def ids(subjects):
        mark = parametrize_with_audit(subjects, ranks=False).mark
        return {case.id.removesuffix("-cold-start") for case in mark.args[1]} & NAMES

    class Mine:
        pass

    NAMES = {"Mine", "quantizer1", "a", "b"}
    assert ids([Mine, lambda: None]) == {"Mine", "quantizer1"}
    assert ids({"a": Mine, "b": Mine}) == {"a", "b"}


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "says"),
    [
        ((object,), {}, TypeError, "subjects must be a list"),
        (([],), {}, ValueError, "subjects is empty"),
        (([3],), {}, TypeError, "got 3"),
        (([dict],), {"expected_failures": ["cold-start"]}, TypeError, "finding: why"),
        (([dict],), {"expected_failures": {"cold-strat": "x"}}, ValueError, "`cold-start`?"),
        (([dict],), {"expected_failures": {"cold-start": " "}}, ValueError, "no words"),
        (([dict],), {"expected_failures": {"cold-start": None}}, TypeError, "in words"),
        (
            ([dict],),
            {"expected_failures": {"ranks-disagree": "x"}, "ranks": False},
            ValueError,
            "no such question",
        ),
    ],
)
def test_mistakes_are_found_while_tests_are_collected(arguments, options, kind, says):
    with pytest.raises(kind, match=re.escape(says)):
        parametrize_with_audit(*arguments, **options)
