"""The commands `run` and `check`: their flags, what they print, how they end."""

import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from tests.suite.tiny_suite import execute_here, parameters, write_notebook, write_settings
from vqlib import cli
from vqlib.suite import executing, report


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A small suite in the current folder, executed in this process."""
    monkeypatch.setattr(executing, "execute", execute_here)
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "notebooks"
    write_notebook(
        directory,
        "01_a",
        parameters("x = 0.9\nfail = False"),
        "assert not fail, 'asked to'",
        "record('before/val_utilization', 0.1)",
        "record('after/val_utilization', x)",
    )
    write_notebook(directory, "02_b", parameters())
    settings(directory)
    return tmp_path


def settings(directory: Path, quick: str = "") -> None:
    write_settings(
        directory,
        '[01_a.records]\n"before/val_utilization" = {}\n"after/val_utilization" = { min = 0.65 }\n',
        quick=quick,
        full="",
    )


def test_run_prints_the_table_and_ends_with_the_path_of_the_report(here, capsys):
    assert cli.main(["run", "--profile", "quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Validation utilization  10.0 %  90.0 %  +80 points" in lines
    assert lines[-1] == str(Path("build/report/index.html")) and Path(lines[-1]).is_file()


@pytest.mark.parametrize(
    ("quick", "ran", "checked"),
    [("", 0, 0), ("[01_a]\nx = 0.2", 0, 1), ("[01_a]\nfail = true", 2, 2), ("[01_a]\ny = 1", 2, 2)],
)
def test_exit_statuses(here, quick, ran, checked):
    settings(here / "notebooks", quick)
    assert cli.main(["run", "--profile", "quick"]) == ran
    assert cli.main(["check", "--profile", "quick"]) == checked


def test_check_prints_the_gates_and_leaves_the_report_of_run_alone(here, capsys):
    assert cli.main(["check", "--profile", "quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("after/val_utilization" in line and line.endswith("pass") for line in lines)
    assert lines[-1] == str(Path("build/check/report/index.html")) and Path(lines[-1]).is_file()
    assert not Path("build/report").exists()


def test_a_failed_notebook_is_told_on_stderr(here, capsys):
    settings(here / "notebooks", "[01_a]\nfail = true")
    cli.main(["run", "--profile", "quick"])
    assert "FAILED 01_a\n  AssertionError: asked to" in capsys.readouterr().err


def test_the_full_profile_is_the_default(here, capsys):
    settings(here / "notebooks", "[01_a]\nfail = true")
    assert cli.main(["run"]) == 0


@pytest.mark.parametrize("name", ["02", "02_b", "notebooks/02_b.ipynb"])
def test_notebooks_are_chosen_by_number_name_or_path(here, name):
    assert cli.main(["run", name, "--profile", "quick", "--out", "elsewhere"]) == 0
    assert [path.stem for path in Path("elsewhere/notebooks").glob("*.ipynb")] == ["02_b"]


def test_an_unknown_notebook_names_what_there_is(here, capsys):
    assert cli.main(["run", "03", "--profile", "quick"]) == 2
    assert capsys.readouterr().err == ("error: there is no notebook `03`; available: 01_a, 02_b\n")


def test_every_problem_gets_its_line(here, capsys):
    settings(here / "notebooks", "[01_a]\nxx = 1\n[03_c]\nz = 1")
    assert cli.main(["run", "--profile", "quick"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("error: profile quick: ") for line in lines)


def test_a_profile_that_is_not_there_ends_with_2(here, capsys):
    assert cli.main(["run", "--profile", "quik"]) == 2
    assert "there is no profile `quik` - did you mean `quick`?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["runn"], ["run", "--outt", "x"]])
def test_bad_flags_end_with_2(here, arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2


def test_an_unforeseen_error_is_not_taken_for_a_red_gate(here, monkeypatch, capsys):
    monkeypatch.setattr(report, "write", lambda *_, **__: 1 / 0)
    assert cli.main(["check", "--profile", "quick"]) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_long_flags_take_underscores_and_hyphens_alike():
    app = tyro.extras.SubcommandApp()

    @app.command
    def train(dead_code_threshold: float = 0.0) -> float:
        return dead_code_threshold

    @app.command
    def other() -> None:
        pass

    for flag in ("--dead_code_threshold", "--dead-code-threshold"):
        assert app.cli(args=["train", flag, "1.5"]) == 1.5


def imported(*arguments: str) -> set[str]:
    """What the command has imported by its end."""
    code = (
        "import sys; from vqlib import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())


def test_help_imports_nothing_heavy():
    heavy = {"papermill", "nbconvert", "nbformat", "jupyter_client", "pandas", "matplotlib"}
    assert not heavy & imported("--help") and heavy & imported("check", "not_there.ipynb")


def test_who_checks_notebooks_does_not_wait_for_torch():
    assert "torch" not in imported("check", "not_there.ipynb")
