"""vqlib.audit in two processes: do ranks agree?"""

import threading

import pytest
import torch
from torch.nn import functional as F

import vqlib
from vqlib import DeadCodeReset, NormEMAQuantizer
from vqlib.diagnosis.audit.bench import Bench
from vqlib.diagnosis.audit.processes import _compared, _late, ranks_disagree
from vqlib.quantization.faults import EXPECTED, FAULTS
from vqlib.quantization.quantizer import assigned_sums
from vqlib.watching.adapters import NORM_EMA

on_one_worker = pytest.mark.xdist_group("ranks")


def numbers(finding):
    return [e.value for e in finding.evidence]


@on_one_worker
def test_ranks_that_share_their_sums_and_draws_agree():
    class Here(NormEMAQuantizer):
        """Not importable from another process, so it is sent whole; starts at torch's seed."""

        def __init__(self):
            super().__init__(32, 8, kmeans_init=False, reset=DeadCodeReset())
            self.codebook.copy_(F.normalize(torch.randn(32, 8), dim=-1))

        def _start(self, x):
            return self.codebook, assigned_sums(x, self._nearest(x), 32)[0]

    found = vqlib.audit(Here, timeout=300)
    answer = found["ranks-disagree"]
    assert answer.severity == "clear"
    early, late, resets, counts = numbers(answer)
    assert (early, late, counts) == (0, 0, 0) and resets > 0
    assert found.verdict == "healthy"


@on_one_worker
def test_ranks_that_draw_alone_are_found_from_a_module():
    q = FAULTS["ranks-draw-alone"](32, 8, reset=DeadCodeReset())
    found = vqlib.audit(q, timeout=300)
    answer = found["ranks-disagree"]
    assert EXPECTED["ranks-draw-alone"] in found.ids("critical")
    early, late, resets, _ = numbers(answer)
    assert early == 0 and 0 < late <= 32 and resets > 0
    assert "not" in answer.cause and "draw" in answer.cause


def bench(module):
    return Bench(module, NORM_EMA, None, True, None, 0)


def test_what_cannot_be_sent_is_not_applicable_with_the_reason():
    q = NormEMAQuantizer(8, 2)
    lock = threading.Lock()
    answer = ranks_disagree(bench(q), lambda: (lock, q)[1], 1, 1.0)
    assert answer.severity == "not applicable"
    assert "cannot be sent to another process" in answer.cause and "lock" in answer.cause


@on_one_worker
def test_processes_that_do_not_start_in_time_leave_it_unknown():
    answer = ranks_disagree(bench(NormEMAQuantizer(8, 2)), None, 1, 0.2)
    assert answer.severity == "unknown"
    assert "did not start in time" in answer.cause


def test_processes_that_started_and_do_not_end_wait_for_each_other(tmp_path):
    (tmp_path / "0.begun").touch()
    assert _late(str(tmp_path), 5.0).severity == "unknown"
    (tmp_path / "1.begun").touch()
    answer = _late(str(tmp_path), 5.0)
    assert answer.severity == "warning" and numbers(answer) == [5.0]


@pytest.mark.parametrize(
    ("early", "late", "counts", "built_there", "severity"),
    [
        (0.0, 0.0, 0.0, True, "clear"),
        (1.0, 1.0, 1.0, True, "critical"),
        (1.0, 1.0, 1.0, False, "unknown"),
        (0.0, 1.0, 0.0, False, "critical"),
        (0.0, 0.0, 1.0, True, "critical"),
    ],
)
def test_what_two_processes_ended_with_is_judged(early, late, counts, built_there, severity):
    first = {"early": torch.ones(8, 2), "late": torch.ones(8, 2), "put": 0, "counts": torch.ones(8)}
    other = {
        "early": first["early"] + early,
        "late": first["late"] + late,
        "put": 0,
        "counts": first["counts"] + counts,
    }
    answer = _compared([first, other], bench(NormEMAQuantizer(8, 2)), 3, built_there=built_there)
    assert answer.severity == severity
    assert numbers(answer) == [8 * early, 8 * late, 0, 8 * counts]
