"""Importing vqlib, watching, diagnosing and auditing load nothing of an extra, and no compiler."""

import json
import subprocess
import sys

import pytest
from packaging.utils import canonicalize_name

from tests.installed import closure
from tests.test_packaging import in_extras, required
from vqlib.extras import DISTRIBUTIONS

IMPORT = "import vqlib"
NAMES = """
import vqlib
vqlib.watch, vqlib.diagnose, vqlib.audit, vqlib.usage, vqlib.NormEMAQuantizer
vqlib.DeadCodeReset, vqlib.Adapter, vqlib.record
"""
USE = """
import vqlib
quantizer = vqlib.NormEMAQuantizer(16, 4, reset=vqlib.DeadCodeReset(1.0))
with vqlib.watch(quantizer) as watched:
    for z in torch.randn(5, 64, 4):
        quantizer(z)
vqlib.diagnose(watched), vqlib.audit(quantizer, ranks=False), vqlib.record("a", 1.0)
"""
COMMANDS = "import vqlib.cli"


def modules(code: str) -> set[str]:
    """What is imported in a fresh interpreter after torch, pandas and ``code``."""
    code = f"import torch, pandas\n{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def anyway():
    return modules("")


@pytest.mark.parametrize("code", [IMPORT, NAMES, USE, COMMANDS])
def test_what_is_light(code, anyway):
    extra = modules(code) - anyway
    assert "vqlib" in extra
    assert not {name for name in extra if name.split(".")[:2] == ["torch", "_dynamo"]}
    roots = {name.split(".")[0] for name in extra}
    optional = in_extras().keys() - closure(required().values()).keys()
    optional -= {"pyarrow"}  # pandas loads it by itself if it is there, for its strings
    assert not {canonicalize_name(DISTRIBUTIONS.get(r, r)) for r in roots} & optional
