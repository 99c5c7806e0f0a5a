"""The page on one's own notebooks, followed word for word in a fresh folder."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell

from tests import ROOT
from tests.suite.tiny_suite import parameters, write_notebook

PAGE = (ROOT / "docs" / "check-your-notebooks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
STATUS = re.compile(r"  # exits with (\d)$")


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The folder after every block in its order, and what each command printed."""
    folder = tmp_path_factory.mktemp("newcomer")
    first, *cells = [text.strip() for kind, text in BLOCKS if kind == "python"]
    write_notebook(folder, "digits", parameters(first), *map(new_code_cell, cells))
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    printed, gates = {}, ""
    for kind, text in BLOCKS:
        if kind == "toml":  # the second one is added to the first
            gates += text + "\n"
            (folder / "expected.toml").write_text(gates, encoding="utf-8")
        for line in text.splitlines() if kind == "sh" else ():
            done = subprocess.run(
                STATUS.sub("", line), shell=True, cwd=folder, env=environment, timeout=300,
                capture_output=True, text=True,
            )  # fmt: skip
            expected = int(match[1]) if (match := STATUS.search(line)) else 0
            assert done.returncode == expected, (line, done.stdout, done.stderr)
            printed[line] = done.stdout + done.stderr
    return folder, printed


def said(followed, part: str) -> str:
    """What the only command with `part` in it printed."""
    (text,) = [text for line, text in followed[1].items() if part in line]
    return text


def test_expect_writes_a_first_version(followed):
    assert "what you decide now" in said(followed, "vqlib expect")


def test_the_fault_is_seen_and_its_claim_named(followed):
    text = said(followed, "--out build/fault")
    assert "forest/accuracy guards the claim: A forest reads unseen digits well" in text
    results = json.loads((followed[0] / "build/fault/report/results.json").read_text())
    assert results["notebooks"][0]["records"]["forest/accuracy"] < 0.2  # "to a tenth"
    assert "forest/accuracy" in said(followed, "vqlib diff")


def test_the_control_is_planted_and_found(followed):
    assert "each planted fault turned its gates red" in said(followed, "--controls")


def test_the_misspelt_parameter_is_named(followed):
    assert "`tree` is set, but no notebook declares it - did you mean `trees`?" in said(
        followed, "tree=5"
    )


def test_pytest_has_a_test_for_each_gate(followed):
    assert "6 passed" in said(followed, "pytest")


def test_the_reports_stand_where_the_page_says(followed):
    names = {path.name for path in (followed[0] / "build" / "check" / "report").iterdir()}
    assert {"index.html", "results.json", "junit.xml"} <= names


def test_the_readme_leads_to_the_page():
    assert "(docs/check-your-notebooks.md)" in (ROOT / "README.md").read_text()
