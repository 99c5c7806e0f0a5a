"""What a stranger meets first: citation, changes, workflow, issue forms."""

import re
import tomllib

import yaml

import vqlib
from tests import ROOT

GITHUB = ROOT / ".github"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## (\S+),", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert vqlib.__version__ == citation["version"] == newest[1] == VERSION
    assert citation["license"] == "MIT" and citation["title"] and citation["authors"]


def test_the_workflow_calls_the_readmes_two_commands():
    job = yaml.safe_load((GITHUB / "workflows" / "test.yml").read_text())["jobs"]["test"]
    commands = [step["run"].split(" #")[0] for step in job["steps"] if "run" in step]
    assert commands == ["bash .ci/run", "make run"]
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")


def test_issue_forms_ask_for_a_diagnosis():
    forms = [p for p in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if p.name != "config.yml"]
    assert len(forms) == 2
    for path in forms:
        form = yaml.safe_load(path.read_text())
        fields = [field for field in form["body"] if field["type"] != "markdown"]
        assert form["name"] and form["description"]
        assert len({field["id"] for field in fields}) == len(fields)
        assert any("`vqlib diagnose`" in field["attributes"]["label"] for field in fields)


def test_types_are_shipped():
    assert (ROOT / "vqlib" / "py.typed").is_file()
