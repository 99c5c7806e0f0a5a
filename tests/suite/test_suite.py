"""The suite in real kernels: every way a notebook can fail, and what is kept of it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from tests import ROOT
from tests.suite.tiny_suite import RECORD, execute_here, parameters, write_notebook, write_settings
from vqlib import suite
from vqlib.suite import executing, lineup, ownership, records, report
from vqlib.suite.errors import SuiteError
from vqlib.training import locks

EXPECTED = """
[01_good.records]
"same_python" = { equals = true }
"x" = { quick = { max = 5 } }
"jobs" = {}
"threads" = {}
[04_other_records.records]
"loss" = {}
"""
INTERACT = """\
import ipywidgets

@ipywidgets.interact(n=(0, 3))
def show(n):
    raise RuntimeError("hidden in the widget")
"""
PATHS = """\
import os, sys
print(os.getcwd(), sys.prefix)
open("here.txt", "w").close()
"""


def make_suite(root: Path) -> Path:
    directory = root / "notebooks"
    write_notebook(
        directory,
        "01_good",
        parameters("x = 1"),
        "import os, sys",
        RECORD,
        f"record('same_python', sys.executable == {sys.executable!r})",
        "record('x', x)",
        "from vqlib.training.slots import jobs; record('jobs', jobs())",
        "record('threads', int(os.environ['OMP_NUM_THREADS']))",
    )
    write_notebook(
        directory,
        "02_cell_error",
        parameters(),
        "print('reached')",
        "def broken():\n    return 1 / 0\nbroken()",
        "print('never')",
    )
    write_notebook(directory, "03_widget_error", parameters(), INTERACT, "print('went on')")
    write_notebook(directory, "04_other_records", parameters(), RECORD, "record('lose', 1)")
    write_notebook(directory, "05_twice", parameters(), RECORD, "record('a', 1)", "record('a', 2)")
    write_notebook(directory, "06_paths", parameters(), PATHS)
    write_notebook(directory, "07_dies", parameters(), "print('alive')", "import os; os._exit(3)")
    return write_settings(directory, EXPECTED, quick="[01_good]\nx = 4\n")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    root = tmp_path_factory.mktemp("suite")
    directory = make_suite(root)
    results = suite.run(None, "quick", root / "build", directory=directory, progress=False)
    return root, {result.notebook: result for result in results}


def names(folder: Path) -> list[str]:
    """What a person sees in a folder."""
    own = {locks.NAME, ownership.NOTE}
    return sorted(path.name for path in folder.iterdir() if path.name not in own)


def executed(ran, name) -> str:
    return (ran[0] / "build" / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")


def test_every_notebook_has_its_result(ran):
    assert list(ran[1]) == [path.stem for path in sorted((ran[0] / "notebooks").glob("*.ipynb"))]
    assert [name for name, result in ran[1].items() if not result.error] == ["01_good", "06_paths"]
    assert suite.status(list(ran[1].values()), gates=False) == 2


def test_the_kernel_is_this_interpreter_with_one_thread_and_as_many_jobs_as_asked_for(ran):
    good = ran[1]["01_good"]
    assert good.records == {"same_python": True, "x": 4, "threads": 1, "jobs": 1}
    assert good.parameters == {"x": 4}
    assert [verdict.passed for verdict in good.gates] == [True, True]
    assert 0 < good.seconds < 60


def test_a_cell_error_is_readable_and_what_was_reached_is_kept(ran):
    error = ran[1]["02_cell_error"].error
    assert error.startswith("ZeroDivisionError: division by zero (in cell In [2])\n")
    assert "\x1b" not in error
    assert "return 1 / 0" in error and error.endswith("ZeroDivisionError: division by zero")
    notebook = nbformat.reads(executed(ran, "02_cell_error"), as_version=4)
    texts = [o.get("text") for c in notebook.cells for o in c.get("outputs", ())]
    assert "reached\n" in texts and "never\n" not in texts


def test_an_error_hidden_in_a_widget_fails(ran):
    error = ran[1]["03_widget_error"].error
    assert error.startswith("RuntimeError: hidden in the widget (hidden in a widget's output)\n")
    assert "raise RuntimeError(" in error and "\x1b" not in error
    assert "went on" in executed(ran, "03_widget_error")


def test_missing_and_unexpected_records_fail(ran):
    assert ran[1]["04_other_records"].error.splitlines() == [
        "record `loss` is expected, but was not made - did you mean `lose`?",
        "record `lose` was made, but expected.toml does not list it",
    ]


def test_a_record_made_twice_fails(ran):
    assert "`a` was made twice with different values: 1, then 2" in ran[1]["05_twice"].error


def test_a_kernel_that_dies_fails_only_its_notebook(ran):
    assert "kernel died" in ran[1]["07_dies"].error
    assert "alive" in executed(ran, "07_dies")


def test_no_path_of_this_machine_is_left(ran):
    assert (ran[0] / "notebooks" / "here.txt").exists()  # a notebook runs where it lies
    for name in ran[1]:
        text = executed(ran, name)
        assert str(ran[0]) not in text and sys.prefix not in text and sys.base_prefix not in text
        assert not {"input_path", "output_path"} & set(
            nbformat.reads(text, as_version=4).metadata.papermill
        )
    assert "./notebooks <python>" in executed(ran, "06_paths")


def test_the_report_stands_and_nothing_else_is_left(ran):
    build = ran[0] / "build"
    assert names(build) == ["notebooks", "report"]
    front = (build / "report" / "index.html").read_text(encoding="utf-8")
    assert "5 of 7 notebooks failed" in front and "hidden in the widget" in front
    assert len(list((build / "report" / "notebooks").glob("*.html"))) == 7


@pytest.mark.parametrize(
    ("text", "hidden"),
    [("{r}", "."), ("in {r}/vqlib/a.py:3", "in ./vqlib/a.py:3"), ("{r}er/x", "{r}er/x")],
)
def test_scrubbing_replaces_whole_names_only(tmp_path, text, hidden):
    notebook = nbformat.v4.new_notebook(metadata={"note": text.format(r=tmp_path)})
    clean = executing.scrub(notebook, tmp_path)
    assert clean.metadata.note == hidden.format(r=tmp_path)


def test_scrubbing_knows_an_environment_inside_the_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    notebook = nbformat.v4.new_notebook(metadata={"note": f"{tmp_path}/.venv/lib {tmp_path}/a"})
    clean = executing.scrub(notebook, tmp_path)
    assert clean.metadata.note == "<python>/lib ./a"


def test_controls_have_to_turn_their_gates_red(tmp_path):
    directory = tmp_path / "notebooks"
    after = "raise RuntimeError('the gates have what they need before')"
    cells = [RECORD, "assert x < 100", "record('x', x)", after, "record('y', 0)"]
    write_notebook(directory, "01_a", parameters("x = 1"), *cells)
    controls = {"red": 6, "green": 5, "crash": 200}
    write_settings(
        directory,
        '[01_a.records]\n"x" = { quick = { max = 5 } }\n"y" = { full = { max = 1 } }\n'
        + "".join(
            f'[01_a.controls.{name}]\nparameters = {{ x = {x} }}\nmust_fail = ["x", "y"]\n'
            for name, x in controls.items()
        )
        + '[01_a.controls.other]\nparameters = { x = 1 }\nmust_fail = ["y"]\n',
        full="",
    )
    missed = suite.run_controls("quick", tmp_path / "out", directory=directory, progress=False)
    assert [(m.control, m.record) for m in missed] == [("green", "x"), ("crash", "x")]
    assert missed[0].reason == "5 still passes ≤ 5"
    assert missed[1].reason == (
        "the notebook failed before the gate could: AssertionError (in cell In [4])"
    )
    kept = names(tmp_path / "out" / "controls")
    assert kept == [f"01_a--{name}.ipynb" for name in ("crash", "green", "red")]
    red = nbformat.read(tmp_path / "out" / "controls" / "01_a--red.ipynb", as_version=4)
    assert records.collect(red) == {"x": 6}


def test_a_notebook_may_not_take_longer_than_its_timeout(tmp_path):
    directory = tmp_path / "notebooks"
    write_notebook(directory, "01_a", parameters(), "import time", "time.sleep(60)", "print(1)")
    write_settings(directory)
    (result,) = suite.run(
        None, "quick", tmp_path / "out", directory=directory, progress=False, timeout=2
    )
    assert result.error.startswith("timed out: not finished after 2 s\n")
    assert "----> 1 time.sleep(60)" in result.error  # where it was
    assert result.seconds < 15


STUBBORN = """\
import os, subprocess, time
child = subprocess.Popen(["sleep", "300"])
with open("pids.part", "w") as file:
    print(os.getpid(), child.pid, file=file)
os.rename("pids.part", "pids")
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        pass
"""


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_ctrl_c_stops_even_a_stubborn_kernel_and_keeps_the_earlier_report(tmp_path):
    directory = tmp_path / "notebooks"
    write_notebook(directory, "01_a", parameters(), STUBBORN)
    write_settings(directory)
    earlier = tmp_path / "build" / "report" / "index.html"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("earlier", encoding="utf-8")
    ownership.sign_all(earlier.parent)
    code = (
        "import sys, vqlib.suite.run; sys.modules['vqlib.suite.run'].GRACE = 0.3; "
        "from vqlib import cli; "
        "sys.exit(cli.main(['run', '--profile', 'quick']))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    runner = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        pids = directory / "pids"
        deadline = time.monotonic() + 60
        while not pids.exists() and runner.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        runner.send_signal(signal.SIGINT)
        _, printed = runner.communicate(timeout=30)
    finally:
        runner.kill()
    assert runner.returncode == 130 and "interrupted" in printed, printed
    assert all(gone(int(pid)) for pid in pids.read_text().split())
    assert earlier.read_text(encoding="utf-8") == "earlier"
    assert names(tmp_path / "build") == ["report"]


# what needs no kernel


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A small good suite, executed in this process."""
    monkeypatch.setattr(executing, "execute", execute_here)
    directory = tmp_path / "notebooks"
    write_notebook(
        directory,
        "01_a",
        parameters("x = 1\nfail = False"),
        "assert not fail, 'asked to'",
        "record('x', x)",
    )
    write_notebook(directory, "02_b", parameters("y = 'n'"))
    return write_settings(directory, '[01_a.records]\n"x" = { max = 5 }\n', full="")


def run(directory, *, call=suite.run, notebooks=None, profile="quick", **tables):
    return call(
        notebooks,
        profile,
        directory.parent / "build",
        directory=directory,
        progress=False,
        overrides=tables or None,
    )


def test_overrides_win_over_the_profile(here):
    write_settings(here, '[01_a.records]\n"x" = {}\n', quick="[01_a]\nx = 2\n")
    assert run(here)[0].records == {"x": 2}
    assert run(here, **{"01_a": {"x": 3}})[0].records == {"x": 3}


@pytest.mark.parametrize(("x", "status"), [(5, 0), (6, 1)])
def test_check_tells_gates_by_its_exit_status(here, capsys, x, status):
    assert run(here, call=suite.check, **{"01_a": {"x": x}}) == status
    printed = capsys.readouterr().out
    assert ("FAIL" in printed) == bool(status) and "≤ 5" in printed


def test_check_tells_a_failed_notebook_by_2(here, capsys):
    assert run(here, call=suite.check, **{"01_a": {"fail": True}}) == 2
    printed = capsys.readouterr()
    assert "not run" in printed.out and "asked to" in printed.err


def test_a_red_gate_is_no_failure_of_run(here):
    results = run(here, **{"01_a": {"x": 6}})
    assert suite.status(results, gates=False) == 0 and suite.status(results, gates=True) == 1


def test_only_the_chosen_notebooks_run(here):
    assert [r.notebook for r in run(here, notebooks=[here / "02_b.ipynb"])] == ["02_b"]


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"01_a": {"xx": 1}}, "(--set): 01_a declares no parameter `xx`"),
        ({"03": {}}, "(--set): there is no notebook `03`"),
    ],
)
def test_overrides_are_checked_too(here, tables, says):
    with pytest.raises(SuiteError, match=re.escape(says)):
        run(here, **tables)


def test_what_is_malformed_is_found_before_anything_runs(here, monkeypatch):
    monkeypatch.setattr(executing, "execute", lambda *_, **__: pytest.fail("ran"))
    write_notebook(here, "03_c", "no = 'tag'")
    write_notebook(here, "04_d", parameters("x = f()"))
    with pytest.raises(SuiteError) as caught:
        run(here)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "03_c.ipynb",
        "04_d.ipynb",
    ]
    assert not (here.parent / "build").exists()


def test_a_half_written_neighbour_does_not_stop_one_notebook(here):
    write_notebook(here, "03_c", "no = 'tag'")
    assert run(here, notebooks=[here / "01_a.ipynb"])[0].error is None


def test_a_control_with_an_unknown_parameter_is_found_before_anything_runs(here):
    control = '[01_a.controls.c]\nparameters = { xx = 1 }\nmust_fail = ["x"]\n'
    write_settings(here, '[01_a.records]\n"x" = { max = 5 }\n' + control)
    with pytest.raises(SuiteError, match="control c: 01_a declares no parameter `xx`"):
        run(here)


@pytest.mark.parametrize("where", ["quick", "overrides", "control"])
def test_a_parameter_that_is_bound_and_never_read_fails_by_name(here, where):
    control = '[02_b.controls.c]\nparameters = { y = "m" }\nmust_fail = ["x"]\n'
    write_settings(
        here,
        '[02_b.records]\n"x" = { max = 5 }\n' + control * (where == "control"),
        quick="[02_b]\ny = 'm'" if where == "quick" else "",
    )
    with pytest.raises(SuiteError, match=f"{where}.*: 02_b: `y` is set, but nothing after"):
        run(
            here,
            notebooks=[here / "02_b.ipynb"],
            **({"02_b": {"y": "m"}} if where == "overrides" else {}),
        )
    write_settings(here)
    assert run(here, notebooks=[here / "02_b.ipynb"])[0].error is None  # declared, not bound


def test_no_kernel_at_once_is_refused(here):
    with pytest.raises(SuiteError, match="jobs must be at least 1, got 0"):
        suite.run(None, "quick", here.parent / "out", directory=here, jobs=0)


@pytest.mark.parametrize("wanted", ["01", "01_a", "01_a.ipynb", "notebooks/01_a.ipynb"])
def test_a_notebook_is_found_by_number_stem_or_path(here, wanted, monkeypatch):
    monkeypatch.chdir(here.parent)
    assert suite.find([wanted, "01"], here) == [here / "01_a.ipynb"]


def test_a_path_elsewhere_is_another_notebook(here):
    with pytest.raises(SuiteError, match=r"there is no notebook `other/01_a\.ipynb`"):
        suite.find(["other/01_a.ipynb"], here)


def test_a_number_that_two_notebooks_share_is_not_enough(here):
    write_notebook(here, "01_again", parameters())
    with pytest.raises(SuiteError, match="several notebooks are `01`; available: 01_a, 01_again"):
        suite.find(["01"], here)


def test_an_unknown_notebook_names_what_there_is(here):
    with pytest.raises(SuiteError) as caught:
        suite.find(["07", "01_b"], here)
    assert caught.value.problems[0] == "there is no notebook `07`; available: 01_a, 02_b"
    assert caught.value.problems[1].endswith("01_a, 02_b - did you mean `02_b`?") or (
        caught.value.problems[1].endswith("01_a, 02_b - did you mean `01_a`?")
    )


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(SuiteError, match="there is no notebook named"):
        lineup.names(tmp_path)


def good(place: Path) -> bool:
    return report.passed(place)


def test_the_last_good_report_survives_any_number_of_failing_runs(here):
    build = here.parent / "build"
    run(here)
    assert good(build / "report") and not (build / "report.previous").exists()
    for _ in range(2):
        run(here, **{"01_a": {"fail": True}})
        assert not good(build / "report") and good(build / "report.previous")
    run(here, **{"01_a": {"x": 4}})
    assert good(build / "report") and good(build / "report.previous")


def compared(here, waits: str):
    """02_b compares; 01_a runs the code ``waits``, which records ``seen``."""
    pair = "record('before/n', 1.0)\nrecord('after/n', 2.0)"
    write_notebook(here, "02_b", parameters("y = 'n'"), pair)
    write_notebook(here, "01_a", parameters("x = 1"), waits)
    text = '[01_a.records]\n"seen" = {}\n[02_b.records]\n"before/n" = {}\n"after/n" = {}\n'
    return write_settings(here, text)


def test_what_is_compared_is_shown_while_the_rest_is_coming(here):
    place = here.parent / "build" / "report"
    waits = f"""
import json, pathlib, time
said, page = pathlib.Path({str(place / "results.json")!r}), ""
for _ in range(300):
    if said.exists():
        page = pathlib.Path({str(place / "index.html")!r}).read_text()
        break
    time.sleep(0.1)
now = json.loads(said.read_text())
early = now["coming"] == ["01_a"] and not now["passed"] and "Done: 1 of 2 notebooks" in page
record('seen', early and "Before and after" in page)"""
    results = run(compared(here, waits))
    assert results[0].records == {"seen": True} and not results[0].error
    assert good(place) and "Done:" not in (place / "index.html").read_text()
    assert not (place.parent / "report.previous").exists()  # what was shown early is no report


def test_a_relative_place_is_found_from_another_folder(here, monkeypatch):
    """What papermill remembers of an earlier run, in another folder, does not matter."""
    seen = []

    def execute(plan, path, *args, **kwargs):
        seen.append(path)
        return execute_here(plan, path, *args, **kwargs)

    monkeypatch.setattr(executing, "execute", execute)
    monkeypatch.chdir(here.parent)
    suite.run(None, "quick", Path("build"), directory=here, progress=False)
    assert len(seen) == 2 and all(path.is_absolute() for path in seen)


def test_an_early_report_replaces_no_good_one(here):
    place = here.parent / "build" / "report"
    run(compared(here, "record('seen', True)"))
    run(compared(here, "import time; time.sleep(1); assert False"))
    assert not good(place) and good(place.parent / "report.previous")


def test_a_red_gate_makes_no_good_report(here):
    run(here, **{"01_a": {"x": 6}})
    assert not good(here.parent / "build" / "report")


def test_a_report_that_cannot_be_written_leaves_the_earlier_one(here, monkeypatch):
    build = here.parent / "build"
    run(here)
    before = (build / "report" / "index.html").read_bytes()

    def broken(results, folder, **_):
        folder.mkdir()
        (folder / "index.html").write_text("half", encoding="utf-8")
        raise OSError("disk full")

    monkeypatch.setattr(report, "write", broken)
    with pytest.raises(OSError, match="disk full"):
        run(here)
    assert (build / "report" / "index.html").read_bytes() == before
    assert names(build) == ["notebooks", "report"]
