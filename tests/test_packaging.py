"""environment.yml, pyproject.toml and requirements.lock name the same packages."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from itertools import chain

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import ROOT
from tests.test_layers import MODULES, imports
from vqlib.extras import DISTRIBUTIONS

CONDA_NAMES = {"pytorch": "torch"}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def named(lines: Iterable[str]) -> dict[str, Requirement]:
    found = {canonicalize_name(r.name): r for r in map(Requirement, lines)}
    found.pop("vqlib", None)  # an extra that includes another
    return found


def required() -> dict[str, Requirement]:
    return named(PROJECT["dependencies"])


def in_extras() -> dict[str, Requirement]:
    return named(chain(*PROJECT["optional-dependencies"].values()))


def declared() -> dict[str, Requirement]:
    return required() | in_extras()


def conda() -> dict[str, Requirement]:
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    by_pip = next(e["pip"] for e in entries if isinstance(e, dict))
    found = {}
    named = [e for e in [*entries, *by_pip] if isinstance(e, str) and e not in ("pip", "-e .")]
    for entry in named:
        requirement = Requirement(entry)
        name = canonicalize_name(requirement.name)
        found[CONDA_NAMES.get(name, name)] = requirement
    return found


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}


def test_conda_asks_for_the_same_packages_and_ranges_as_pyproject():
    environment = conda()
    python = environment.pop("python")
    assert {n: r.specifier for n, r in environment.items()} == {
        n: r.specifier for n, r in declared().items()
    }
    assert str(python.specifier) == PROJECT["requires-python"]


def test_conda_uses_conda_forge_alone():
    assert yaml.safe_load((ROOT / "environment.yml").read_text())["channels"] == [
        "conda-forge",
        "nodefaults",
    ]


@pytest.mark.parametrize("name", sorted(declared()))
def test_the_lock_pins_a_version_that_pyproject_accepts(name):
    assert declared()[name].specifier.contains(locked()[name])


def test_no_extra_repeats_what_is_required():
    assert not required().keys() & in_extras().keys()


def test_what_the_package_imports_is_declared():
    used = {name.split(".")[0] for file in MODULES.values() for name in imports(file)}
    used -= {"vqlib", *sys.stdlib_module_names}
    assert {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in used} <= set(declared())


def test_each_dependency_has_its_reason_beside_it():
    text = (ROOT / "pyproject.toml").read_text()
    for name in declared():
        assert re.search(rf'^ +"{name}[^"]*", +# \w+', text, flags=re.MULTILINE), name


def test_no_committed_file_names_a_path_of_one_machine_or_a_registry():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    # written in pieces, so that this file does not find itself
    unwanted = re.compile("|".join(["/wor" + "k/", "/hom" + "e/", "/roo" + "t/", "index-" + "url"]))
    for name in filter(None, listed.stdout.split("\0")):
        text = (ROOT / name).read_bytes().decode("utf-8", "replace")
        assert not unwanted.search(text), name
