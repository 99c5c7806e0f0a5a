"""vqlib from its wheel, with its required dependencies alone: it watches, diagnoses and audits.

Nothing is fetched: the fresh environment borrows what is installed beside the tests.
"""

import os
import re
import subprocess
import sys
import venv

import pytest
from packaging.utils import canonicalize_name

from tests import ROOT
from tests.installed import closure
from tests.test_packaging import in_extras, required

USE = """
import sys, torch, vqlib
quantizer = vqlib.NormEMAQuantizer(16, 4, reset=vqlib.DeadCodeReset(1.0))
with vqlib.watch(quantizer) as watched:
    for z in torch.randn(5, 64, 4):
        quantizer(z)
diagnosis = vqlib.diagnose(watched)
assert "not found: codebook-collapse" in str(diagnosis), diagnosis
assert "<" in diagnosis._repr_html_()
audit = vqlib.audit(quantizer)  # some of it in two processes
assert audit.verdict == "healthy", audit
assert [a.severity for a in audit.answers if a.id == "ranks-disagree"] == ["clear"], audit
assert vqlib.diagnose(sys.argv[1]).verdict == "healthy"  # a run's folder
vqlib.record("a", 1.0)
print(vqlib.__file__)
"""
MISSING = {  # what needs an extra: in Python, and on the command line
    "vqlib.train()": "train",
    "vqlib.Run.load(run)": "train",
    "from vqlib import experiments": "train",
    "from vqlib import lessons": "notebooks",
    "from vqlib.playground import Playground": "notebooks",
    "from vqlib import suite; suite.run()": "notebooks",
    "cli.main(['train'])": "train",
    "cli.main(['selftest'])": "train",
    "cli.main(['run'])": "notebooks",
    "cli.main(['sweep', 'arms.toml'])": "notebooks",
    "cli.main(['lessons', '--student', 'class'])": "notebooks",
}
ERROR = r"(error: )?\S+ is not installed; pip install 'vqlib\[{}\]'"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Runs a program of an environment that holds vqlib and what it requires, and nothing else."""
    folder = tmp_path_factory.mktemp("fresh")
    home = folder / "venv"
    venv.create(home, symlinks=True)
    (packages,) = home.glob("lib/python*/site-packages")
    for distribution in closure(required().values()).values():
        for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            (packages / top).symlink_to(distribution.locate_file(top))
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_"))}
    settings["PIP_CONFIG_FILE"] = os.devnull

    def run(*command) -> subprocess.CompletedProcess:
        command = [home / "bin" / command[0], *command[1:]]
        return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=settings)

    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", home, "install", "--no-index", "--no-deps"]
    subprocess.run([*pip, wheel], env=settings, check=True, capture_output=True)
    return run


@pytest.fixture
def run_folder(tmp_path):
    """What a run leaves, as far as it can be read here."""
    (tmp_path / "history.csv").write_text("step,split,used_codes\n1,train,500\n")
    (tmp_path / "config.json").write_text('{"codebook_size": 512}')
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "run.safetensors").touch()
    return tmp_path


def test_nothing_else_is_there(fresh):
    code = "from importlib import metadata; print(*(d.name for d in metadata.distributions()))"
    names = {canonicalize_name(name) for name in fresh("python", "-c", code).stdout.split()}
    assert names == {"vqlib", *closure(required().values())}
    assert names & in_extras().keys() <= {"filelock", "markupsafe"}  # of torch and jinja2


def test_it_watches_diagnoses_and_audits(fresh, run_folder):
    done = fresh("python", "-c", USE, run_folder)
    assert done.returncode == 0, done.stderr
    assert "site-packages" in done.stdout


def test_its_command_diagnoses(fresh, run_folder):
    done = fresh("vqlib", "diagnose", run_folder / "history.csv", "--codebook_size", "512")
    assert done.returncode == 0 and "healthy" in done.stdout, done.stderr
    done = fresh("vqlib", "--help")
    assert done.returncode == 0 and "diagnose" in done.stdout, done.stderr


def test_the_error_for_what_is_missing_names_the_extra(fresh, run_folder):
    lines = ["import sys, vqlib", "from vqlib import cli", "run = sys.argv[1]"]
    lines += ["sys.stderr = sys.stdout"]
    for statement in MISSING:
        tried = statement.replace("cli.main(", "assert 2 == cli.main(")
        lines += ["try:", f"    {tried}", "except ModuleNotFoundError as error: print(error)"]
    done = fresh("python", "-c", "\n".join(lines), run_folder)
    assert done.returncode == 0, done.stdout
    for line, (tried, extra) in zip(done.stdout.splitlines(), MISSING.items(), strict=True):
        assert line.startswith("error: ") == tried.startswith("cli"), line
        assert re.fullmatch(ERROR.format(extra), line), line
