"""Repeats, calibration and trust, on notebooks whose numbers are drawn from the seed."""

import re
import tomllib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from tests.suite.tiny_suite import RECORD, execute_here, parameters, write_notebook, write_settings
from vqlib import cli, suite
from vqlib.suite import (
    calibration,
    detection,
    executing,
    gates,
    junit,
    pytest_plugin,
    repeats,
    report,
    tables,
    trust,
    versions,
)
from vqlib.suite.errors import SuiteError
from vqlib.suite.lineup import load

KINDS = ("default:1", "avx2:2")
NOTEBOOK = Path("notebooks", "01_a.ipynb")
DRAWN = """
import random
random.seed(first_seed)
record("a/level", random.gauss(1.0, 0.1) + shift)
record("a/exact", 3)
record("a/effect", random.random() + 0.5)
record("a/flag", True)
"""
IMPORTS = "import json, nbformat"
GATES = """\
# the head

[01_a.records]   # of the first
"a/level" = "band"  # why it is one
"a/exact" = { equals = 3, tolerance = 0 }
"a/effect" = { min = 0.5 }
"a/flag" = {}

# the second
[02_b.records]
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A small suite, executed in this process; `here.plans` are those that were."""
    directory = tmp_path / "notebooks"
    write_notebook(directory, "01_a", parameters("first_seed = 0\nshift = 0.0"), DRAWN)
    used = "used_seeds = range(first_seed, first_seed + seeds)"
    write_notebook(directory, "02_b", parameters("first_seed = 0\nseeds = 1"), used)
    write_settings(directory, GATES, quick="[02_b]\nseeds = 3\n")
    plans = []

    def execute(plan, path, kernels, **options):
        plans.append(plan)
        return execute_here(plan, path, kernels, **options)

    monkeypatch.setattr(executing, "execute", execute)
    monkeypatch.setattr(repeats.torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.chdir(tmp_path)
    return plans


def read(*notebooks, **overrides):
    directory = Path("notebooks")
    chosen = [directory / f"{name}.ipynb" for name in notebooks or ("01_a",)]
    return load(chosen, "quick", overrides={"common": overrides} if overrides else None)


def measured(times=10, first=100, **overrides):
    return calibration.measure(read(**overrides), Path("out"), KINDS, first, times, progress=False)


def write(found) -> str:
    file = Path("notebooks/expected.toml")
    file.write_text(found.written(file.read_text()))
    return file.read_text()


# --- bands ---


def test_a_band_is_students_prediction_interval():
    # t(0.9995, 9) = 4.7809 and t(0.9995, 19) = 3.8834, from a printed table
    assert gates.Band(0, 1, 20, 10).half == pytest.approx(4.7809 * 1.1**0.5, rel=1e-4)
    assert gates.Band(0, 2, 20, 20).half == pytest.approx(2 * 3.8834 * 1.05**0.5, rel=1e-4)


def test_fresh_values_of_the_same_population_are_rarely_out_of_the_band():
    import numpy as np

    draws = np.random.default_rng(0).normal(size=(4000, 11))
    out = 0
    for *known, fresh in draws:
        out += not gates.Band(np.mean(known), np.std(known, ddof=1), 10, 10).holds(fresh)
    assert 0 < out / len(draws) < 4 * gates.RISK


def test_a_fresh_seed_is_green_and_a_shifted_number_is_red(here):
    write(measured())
    for seed in range(300, 320):
        (result,) = suite.execute(read(first_seed=seed))
        assert {v.record: v.passed for v in result.gates}["a/level"]
    (result,) = suite.execute(read(first_seed=300, shift=1.0))
    assert {v.record: v.passed for v in result.gates} == {
        "a/level": False,
        "a/exact": True,
        "a/effect": True,
    }


def test_what_was_not_measured_judges_nothing(here):
    (result,) = suite.execute(read())
    verdict = result.gates[0]
    assert (verdict.record, verdict.passed, str(verdict.gate)) == ("a/level", None, "not measured")
    assert [verdict.kind for verdict in result.gates] == ["band", "invariant", "effect"]


def test_what_was_not_measured_passes_nothing(here, tmp_path):
    (result,) = found = suite.execute(read())
    assert suite.status(found, gates=True) == 1 and suite.status(found, gates=False) == 0
    assert "2 of 3 gates pass; not measured, see vqlib calibrate: a/level" in (
        tables.gates_summary(found)
    )
    junit.write(found, tmp_path / "junit.xml")
    (failure,) = ElementTree.parse(tmp_path / "junit.xml").getroot().iter("failure")
    assert failure.get("message").endswith("expected not measured")
    (item,) = [g for g in result.gates if g.record == "a/level"]
    with pytest.raises(pytest_plugin.GateFailed, match="not measured"):
        pytest_plugin.Gate.runtest(SimpleNamespace(_verdict=lambda: item))


def test_a_planted_fault_needs_a_band_that_was_measured(here):
    file = Path("notebooks", "expected.toml")
    control = '[01_a.controls.far]\nparameters = { shift = 9.0 }\nmust_fail = ["a/level"]\n'
    file.write_text(file.read_text() + control)
    run = lambda: suite.run_controls("quick", Path("out"), notebooks=[NOTEBOOK], progress=False)  # noqa: E731
    (missed,) = run()
    assert missed.reason == "its band was not measured, so nothing can turn it red"
    write(measured())
    assert run() == []


# --- the file ---


def test_the_rest_of_the_file_survives_and_a_second_measurement_replaces_the_first(here):
    once = write(measured())
    assert once.startswith(GATES)
    again = write(measured(times=4))
    assert again.startswith(GATES) and again.count("[measured.quick.01_a]") == 1
    assert 'seeds = "100 to 103"' in again and "100 to 109" not in again
    found = read().expected.measured["quick", "01_a"]
    assert (found.seeds, found.kinds) == (range(100, 104), KINDS)
    assert found.numbers.keys() == {"a/level", "a/exact", "a/effect"}  # a flag has no mean
    assert found.numbers["a/level"].n == 8


def test_the_packages_that_a_notebook_imports_are_named(here):
    write_notebook(
        Path("notebooks"), "01_a", parameters("first_seed = 0\nshift = 0.0"), IMPORTS + DRAWN
    )
    (measured_on,) = re.findall(r"^packages = (.*)$", write(measured(times=2)), re.MULTILINE)
    known = tomllib.loads(f"packages = {measured_on}")["packages"]
    assert known.keys() == {"vqlib", "torch", "nbformat"}
    assert known["nbformat"] == metadata.version("nbformat")


def test_another_version_of_a_package_is_measured_again(here, monkeypatch):
    measured(times=2)
    kept = len(here)
    monkeypatch.setattr(versions, "depended_on", lambda notebook: {"torch": "9.9"})
    measured(times=2)
    assert len(here) == 2 * kept


def test_another_notebooks_measurement_stays(here):
    write(measured())
    text = write(calibration.measure(read("02_b"), Path("out"), KINDS, 7, 2, progress=False))
    assert '[measured.quick.01_a.numbers]\n"a/level" = { mean' in text.replace("{mean", "{ mean")
    assert 'seeds = "7 to 12"' in text  # three seeds an execution


@pytest.mark.parametrize(
    ("old", "new"), [("repeats = 10", "repeats = 1"), ("100 to 109", "some"), ("sd = ", "std = ")]
)
def test_a_measurement_that_makes_no_sense_is_refused(here, old, new):
    text = write(measured())
    Path("notebooks/expected.toml").write_text(text.replace(old, new))
    with pytest.raises(SuiteError, match="not as `vqlib calibrate` writes it"):
        read()


# --- executions ---


def test_each_kind_has_an_environment_and_a_cache_of_its_own(here):
    repeats.execute(read(), repeats.plan(read(), KINDS, 0, 1), Path("out"), progress=False)
    environs = [plan.environ for plan in here]
    assert [e["ATEN_CPU_CAPABILITY"] for e in environs] == ["default", "avx2"]
    assert [e["OMP_NUM_THREADS"] for e in environs] == ["1", "2"]
    assert len({e["VQLIB_CACHE"] for e in environs}) == 2
    assert all(Path(e["VQLIB_CACHE"]).is_relative_to(Path("out").resolve()) for e in environs)


def test_the_environment_reaches_the_kernel(tmp_path):
    directory = tmp_path / "notebooks"
    look = "import os\nrecord('x', int(os.environ['OMP_NUM_THREADS']))"
    look += "\nrecord('avx2', os.environ.get('ATEN_CPU_CAPABILITY') == 'avx2')"
    write_notebook(directory, "01_a", parameters("first_seed = 0"), RECORD, look, "first_seed")
    write_settings(directory, '[01_a.records]\n"x" = {}\n"avx2" = {}\n')
    lineup = load(None, "quick", directory)
    asked = repeats.plan(lineup, ["avx2:2", "native:1"], 0, 1)
    done = repeats.execute(lineup, asked, tmp_path / "out", progress=False)
    assert [o.records for o in done] == [{"x": 2, "avx2": True}, {"x": 1, "avx2": False}]


def test_what_was_done_is_not_done_again(here):
    first = measured(times=3)
    assert len(here) == 6
    assert measured(times=4).numbers().keys() == first.numbers().keys()
    assert len(here) == 8
    measured(times=3, shift=0.5)  # other parameters: other executions
    assert len(here) == 14


def test_an_edited_notebook_is_executed_again(here):
    measured(times=2)
    edited = DRAWN.replace("0.1", "0.2")
    write_notebook(Path("notebooks"), "01_a", parameters("first_seed = 0\nshift = 0.0"), edited)
    measured(times=2)
    assert len(here) == 8


def test_after_a_kill_the_same_call_does_the_rest(here, monkeypatch):
    whole, count = executing.execute, len(here)

    def killed(plan, *arguments, **options):
        if len(here) == 3:
            raise KeyboardInterrupt
        return whole(plan, *arguments, **options)

    monkeypatch.setattr(executing, "execute", killed)
    with pytest.raises(KeyboardInterrupt):
        measured(times=3)
    assert len(here) == count + 3
    monkeypatch.setattr(executing, "execute", whole)
    found = measured(times=3)
    assert len(here) == 6 and len(found.outcomes) == 6


def test_a_failed_execution_is_named_and_tried_again(here, capsys):
    failing = DRAWN + "assert first_seed != 101, 'unlucky'\n"
    write_notebook(Path("notebooks"), "01_a", parameters("first_seed = 0\nshift = 0.0"), failing)
    assert cli.main(["calibrate", "01", "--seeds", "2", "--kinds", "avx2:1", "--write"]) == 2
    said = capsys.readouterr()
    assert "FAILED 01_a on avx2:1 (first_seed = 101): AssertionError: unlucky" in said.err
    assert "measured" not in Path("notebooks/expected.toml").read_text()  # not of a part
    count = len(here)
    assert cli.main(["calibrate", "01", "--seeds", "2", "--kinds", "avx2:1"]) == 2
    assert len(here) == count + 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--kinds", "avx3:1"], "kinds: expected CAPABILITY:THREADS like avx2:1, got 'avx3:1'"),
        (["--kinds", "avx2:0"], "kinds: expected a number of threads in 'avx2:0'"),
        (["--kinds", "avx512:1"], "kinds: this machine cannot do avx512; expected one it can"),
        (["--seeds", "1"], "seeds must be a whole number of at least 2"),
        (["--first", "-1"], "first must be a whole number"),
    ],
)
def test_bad_flags_get_one_line(here, capsys, arguments, says):
    assert cli.main(["calibrate", "01", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error and error.count("\n") == 1
    assert not here


def test_a_notebook_without_seeds_is_refused(here, capsys):
    write_notebook(Path("notebooks"), "01_a", parameters("shift = 0.0"), "record('a/exact', 3)")
    assert cli.main(["calibrate", "01"]) == 2
    assert "01_a declares no parameter first_seed or seed" in capsys.readouterr().err


# --- the command ---


def test_calibrate_shows_a_diff_and_writes_only_if_asked(here, capsys):
    file = Path("notebooks/expected.toml")
    assert cli.main(["calibrate", "01", "--seeds", "3"]) == 0
    said = capsys.readouterr().out
    assert file.read_text() == GATES
    assert "+[measured.quick.01_a]" in said and "--write" in said.splitlines()[-1]
    assert cli.main(["calibrate", "01", "--seeds", "3", "--write"]) == 0
    assert file.read_text().startswith(GATES) and "[measured.quick.01_a]" in file.read_text()


def test_an_effect_that_fails_on_some_seeds_is_undecided(here):
    text = measured().text()
    assert re.search(r"a/effect +effect .* ≥ 0.5 +20 of 20$", text, re.MULTILINE)
    file = Path("notebooks/expected.toml")
    file.write_text(file.read_text().replace("min = 0.5", "min = 0.9"))
    assert re.search(r"a/effect .* \d+ of 20, undecided$", measured().text(), re.MULTILINE)


# --- trust ---


def trusted(first=200, times=5, faults=None, **options):
    return detection.measure(
        read(),
        Path("notebooks/expected.toml"),
        Path("out"),
        kinds=KINDS,
        first=first,
        times=times,
        faults=faults or {"shifted": {"shift": 1.0}, "hardly": {"shift": 1e-9}},
        fault_times=1,
        command="vqlib trust",
        progress=False,
        **options,
    )


def test_false_alarms_and_detection_are_counted(here):
    write(measured())
    found = trusted()
    assert (found.executions, found.gates, found.alarms) == (10, 30, [])
    assert found.found == {"shifted": ["01_a a/level"], "hardly": []}
    assert (found.planted, found.detected, found.missed) == (4, 2, ["hardly"])


def test_a_gate_that_is_too_narrow_is_a_false_alarm(here):
    text = write(measured())
    narrow = re.sub(r"sd = [\d.]+", "sd = 0.0001", text)
    Path("notebooks/expected.toml").write_text(narrow)
    found = trusted()
    assert any(
        re.fullmatch(r"01_a, seed 20\d, (default:1|avx2:2): a/level is .*; expected .*", line)
        for line in found.alarms
    )


def test_the_seeds_of_the_calibration_do_not_count_as_fresh(here):
    write(measured())
    with pytest.raises(SuiteError, match="expected --first 110 or more"):
        trusted(first=109)


def test_a_fault_that_no_notebook_can_plant_is_refused(here):
    with pytest.raises(SuiteError, match="no notebook declares ours"):
        trusted(faults={"cold-start": {"ours": "cold-start"}})


def test_faults_that_no_notebook_can_have_are_told_apart(here):
    faults = {"shifted": {"shift": 9.0}, "other": {"ours": "x"}, "half": {"shift": 9.0, "x": True}}
    assert [*repeats.plantable(read(), faults)] == ["shifted"]


def test_what_was_measured_is_read_back_and_shown_in_the_report(here):
    write(measured())
    expected = Path("notebooks/expected.toml")
    assert trust.read(expected) is None
    found = trusted()
    expected.with_name(trust.FILE).write_text(found.written())
    assert trust.read(expected) == found

    page = _page()
    assert "1 of 2 planted faults turned a gate red, in 2 of 4 tries" in page
    assert "0 of 30 gates went red, on 10 executions" in page and "have changed since" not in page
    expected.write_text(expected.read_text() + "\n# a comment changes nothing\n")
    assert "have changed since" not in _page()
    expected.write_text(expected.read_text().replace("min = 0.5", "min = 0.4"))
    assert "The gates have changed since." in _page()


def test_without_a_measurement_the_report_says_so(here):
    assert "Not measured. <code>vqlib trust</code>" in _page()


def test_a_damaged_file_is_refused(here):
    Path("notebooks/trust.toml").write_text("[about]\n")
    with pytest.raises(SuiteError, match="is missing; measure again with vqlib trust"):
        trust.read(Path("notebooks/expected.toml"))


def _page() -> str:
    suite.run(None, "quick", Path("build"), directory=Path("notebooks"), progress=False)
    page = Path("build/report/index.html").read_text()
    return re.sub(r"\s+", " ", page)


def test_each_kind_of_gate_has_a_name_in_the_report(here):
    write(measured())
    page = _page()
    assert all(f"<td>{kind}</td>" in page for kind in ("band", "invariant", "effect"))
    assert report.passed(Path("build/report"))


def test_only_a_change_of_the_gates_that_were_judged_makes_it_old(here):
    text = write(measured())
    file, judged = Path("notebooks/expected.toml"), trusted().about["judged"]

    def after(old: str, new: str) -> bool:
        assert old in text
        file.write_text(text.replace(old, new))
        return trust.digest(file, ["01_a"]) == judged

    assert after("# the head", "[01_a.budget]\nseconds = 600")
    assert after("[02_b.records]", '[02_b.records]\n"b/level" = { min = 0.0 }')
    assert not after("min = 0.5", "min = 0.4")
    assert not after("mean = 1", "mean = 2")
    assert not after('"a/flag" = {}', '"a/flag" = { equals = true }')
