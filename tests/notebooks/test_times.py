"""The times that readers are told: the same everywhere, and true by the suite's last results."""

import json
import re

import nbformat
import pytest

from tests import NOTEBOOKS, ROOT

RESULTS = ROOT / "build" / "report" / "results.json"
COST = re.compile(r"\*\*Cost\.\*\* About (\d+) min on two cores, first run; ")
ROW = re.compile(r"^\| \[.*?\]\((?:notebooks/)?(\w+)\.ipynb\) \|.*?\| (\d+) min \|", re.MULTILINE)
HEADING = "| time on two cores, first run |"
TRIAL = re.compile(r"--profile trial.*?about\s+(\d+) min", re.DOTALL)


def stated():
    """{notebook: minutes on two cores at its first run}, as the notebooks say."""
    texts = {path.stem: nbformat.read(path, as_version=4).cells[0].source for path in NOTEBOOKS}
    return {stem: int(COST.search(text)[1]) for stem, text in texts.items()}


@pytest.mark.parametrize("readme", ["README.md", "notebooks/README.md"])
def test_the_readmes_say_what_the_notebooks_say(readme):
    text = (ROOT / readme).read_text()
    assert HEADING in text
    assert {stem: int(minutes) for stem, minutes in ROW.findall(text)} == stated()


def test_the_trials_time_is_the_same_everywhere():
    (trial,) = [path for path in NOTEBOOKS if path.stem.startswith("02")]
    notebook = nbformat.read(trial, as_version=4).cells[0].source
    told = {TRIAL.search(text)[1] for text in ((ROOT / "README.md").read_text(), notebook)}
    profile = (NOTEBOOKS[0].parent / "profiles" / "trial.toml").read_text()
    assert told == set(re.findall(r"about (\d+) min", profile))


def wrong(results, told):
    """{notebook: (minutes told, minutes measured)} of those that differ by more than a factor 2.

    Empty unless ``results`` are of a first run of the full profile on two cores, without an error.
    """
    about = results["provenance"]
    if (about["Profile"], about["Cores"], about.get("Runs kept before")) != ("full", "2", "none"):
        return {}
    took = {r["notebook"]: r["seconds"] / 60 for r in results["notebooks"] if r["error"] is None}
    return {n: (told[n], t) for n, t in took.items() if not told[n] / 2 <= t <= 2 * told[n]}


def test_the_last_full_run_took_as_long_as_stated():
    if not RESULTS.is_file():
        pytest.skip("no report in build/report: `make run` writes it")
    assert not wrong(json.loads(RESULTS.read_text(encoding="utf-8")), stated())


def test_a_time_that_is_wrong_is_found():
    results = {
        "provenance": {"Profile": "full", "Cores": "2", "Runs kept before": "none"},
        "notebooks": [
            {"notebook": name, "seconds": seconds, "error": None}
            for name, seconds in {"fits": 61.0, "slow": 250.0, "fast": 20.0}.items()
        ],
    }
    told = {"fits": 1, "slow": 2, "fast": 1}
    assert set(wrong(results, told)) == {"slow", "fast"}
    results["provenance"]["Runs kept before"] = "some"
    assert not wrong(results, told)
