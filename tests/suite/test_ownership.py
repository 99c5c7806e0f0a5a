"""A run replaces what a run wrote, and nothing of anybody else's."""

import os
from pathlib import Path

import pytest

from tests.suite.tiny_suite import execute_here, parameters, write_notebook, write_settings
from vqlib import cli
from vqlib.suite import executing, ownership
from vqlib.training import locks


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setattr(executing, "execute", execute_here)
    write_notebook(tmp_path / "notebooks", "01_a", parameters("x = 1"))
    write_settings(tmp_path / "notebooks", full="")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everything(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def refused(capsys, *arguments) -> str:
    """The one line that is printed; nothing may change."""
    capsys.readouterr()
    before = everything(Path())
    for command in ("run", "check"):
        assert cli.main([command, *arguments]) == 2
    assert everything(Path()) == before
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0] == lines[1]
    return lines[0]


@pytest.mark.parametrize("out", ["--out=.", "--out=", "--out=notebooks/.."])
def test_the_source_notebooks_are_not_overwritten(here, out, capsys, monkeypatch):
    monkeypatch.setattr(executing, "execute", lambda *_, **__: pytest.fail("work was begun"))
    assert "01_a.ipynb was not written by vqlib" in refused(capsys, out)


@pytest.mark.parametrize("place", ["report", "report.previous"])
def test_a_persons_report_is_neither_moved_nor_deleted(here, place, capsys):
    (here / "mine" / place).mkdir(parents=True)
    (here / "mine" / place / "thesis.tex").write_text("mine")
    assert f"mine/{place}/thesis.tex was not written by vqlib" in refused(capsys, "--out=mine")


@pytest.mark.parametrize(
    "name", ["report/index.html", "notebooks/01_a.ipynb", "report/notes.txt", "report/a/b"]
)
def test_what_was_edited_or_added_since_is_kept(here, name, capsys):
    for _ in range(2):  # what we wrote ourselves is replaced
        assert cli.main(["run", "--out=out"]) == 0
    (here / "out" / name).parent.mkdir(exist_ok=True)
    (here / "out" / name).write_text("mine")
    assert f"out/{name} was not written by vqlib, or was changed" in refused(capsys, "--out=out")


def test_files_beside_ours_do_not_matter(here):
    for place in ("out/notebooks/mine.ipynb", "out/runs/1/config.json"):
        (here / place).parent.mkdir(parents=True)
        (here / place).write_text("mine")
    for _ in range(2):
        assert cli.main(["run", "--out=out"]) == 0
    assert (here / "out" / "notebooks" / "mine.ipynb").read_text() == "mine"


def test_a_link_or_a_file_in_the_place_of_a_folder(here, capsys):
    (here / "elsewhere").mkdir()
    (here / "out").mkdir()
    (here / "out" / "report").symlink_to(here / "elsewhere")
    assert "out/report was not written by vqlib" in refused(capsys, "--out=out")
    (here / "out" / "report").unlink()
    (here / "out" / "notebooks").write_text("mine")
    assert "out/notebooks was not written by vqlib" in refused(capsys, "--out=out")


def test_what_a_killed_run_has_moved_in_is_still_ours(here, monkeypatch, capsys):
    assert cli.main(["run", "--out=out"]) == 0
    whole, count = os.replace, []

    def dies(source, target):
        count.append(target)
        if str(target).endswith("01_a.ipynb"):
            raise SystemExit(9)
        whole(source, target)

    def changed(plan, path, *arguments, **more):
        execution = execute_here(plan, path, *arguments, **more)
        path.write_text(path.read_text() + "\n\n")  # another result
        return execution

    monkeypatch.setattr(executing, "execute", changed)
    monkeypatch.setattr(os, "replace", dies)  # signed, and not yet moved in
    with pytest.raises(SystemExit):
        cli.main(["run", "--out=out"])
    monkeypatch.setattr(os, "replace", whole)
    for _ in range(2):
        assert cli.main(["run", "--out=out"]) == 0


def test_two_at_once_in_one_folder(here, capsys):
    with locks.alone(here / "out"):
        assert f"out is in use by process {os.getpid()}" in refused(capsys, "--out=out")


def test_what_killed_runs_leave_is_cleared_and_nothing_else(here):
    for name in (".vqlib-run-ab12_xyz", ".run-mine", ".vqlib-run-mine"):
        (here / "out" / name).mkdir(parents=True)
    assert cli.main(["run", "--out=out"]) == 0
    there = {path.name for path in (here / "out").iterdir()}
    assert there == {".run-mine", ".vqlib-run-mine", "notebooks", "report", locks.NAME}


@pytest.mark.parametrize("timeout", ["-1", "0", "nan", "inf"])
def test_a_time_limit_that_is_none_is_refused(here, timeout, capsys):
    assert "timeout must be a number above 0" in refused(capsys, f"--timeout={timeout}")


def test_a_note_of_nonsense_vouches_for_nothing(here, capsys):
    assert cli.main(["run", "--out=out"]) == 0
    for nonsense in ("null", "[]", '{"files": 3}', '{"files": {"01_a.ipynb": 3}}', "[" * 100_000):
        (here / "out" / "notebooks" / ownership.NOTE).write_text(nonsense)
        assert "01_a.ipynb was not written by vqlib" in refused(capsys, "--out=out")
