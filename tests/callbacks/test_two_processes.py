"""Each trainer's callback in two processes that train one model together, over gloo."""

import json
import subprocess
import sys

import pytest

from tests import ROOT

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
START = {"lightning": (), "trainer": TORCHRUN, "accelerate": TORCHRUN}  # lightning starts its own
PACKAGE = {"trainer": "transformers"}
WROTE = {"lightning": "metrics.csv", "trainer": "events.out.*", "accelerate": "events.out.*"}
LIMIT = 240  # seconds, on a busy machine; a hang would be for ever


@pytest.mark.parametrize("trainer", START)
def test_two_processes(trainer, tmp_path):
    pytest.importorskip(PACKAGE.get(trainer, trainer))
    command = [sys.executable, *START[trainer], "-m", "tests.callbacks.ranks", trainer, tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank{r}.json").read_text()) for r in (0, 1))

    # the second alone has a reason to stop; it says so, and both do, after the same step
    assert (first["should_stop"], second["should_stop"]) == (False, True)
    assert first["steps"] == second["steps"] == 12
    assert not [said for said in first["said"] if "should stop" in said]
    assert len(second["said"]) == 1
    assert "codebook-collapse stays critical: this training should stop" in second["said"][0]
    assert "Counted in process 1 of 2 alone" in second["said"][0]

    (written,) = tmp_path.rglob(WROTE[trainer])
    assert "rank0" in str(written)

    # each counts its own four pictures, and a threshold is compared with all eight
    for rank, told in enumerate((first, second)):
        assert told["tokens"] == [40] and told["share"] == 2 * 40 / 32
        whose = f"tokens and hits of process {rank} of 2 alone"
        assert whose in told["watch"] and whose in told["diagnosis"]
    assert second["used"] == 1 < first["used"]
