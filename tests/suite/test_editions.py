"""The student's and the instructor's notebooks, and whose files are never overwritten."""

import os
from pathlib import Path

import nbformat
import pytest

from tests import NOTEBOOKS
from vqlib import cli
from vqlib.suite import editions
from vqlib.suite.errors import SuiteError


def tags(cell):
    return cell.metadata.get("tags", ())


def tagged(notebook, tag):
    return [c for c in notebook.cells if tag in tags(c)]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_the_students_lacks_the_solutions_and_nothing_else(notebook):
    student = editions.edition(notebook, "student")
    rest = [c for c in notebook.cells if "solution" not in tags(c)]
    assert student.cells == rest
    assert len(student.cells) + len(tagged(notebook, "solution")) == len(notebook.cells)


def test_the_instructors_has_each_solution_in_its_stubs_place(notebook):
    instructor = editions.edition(notebook, "instructor")
    assert [c.id for c in instructor.cells] == [c.id for c in notebook.cells]
    solved = zip(tagged(instructor, "exercise"), tagged(notebook, "solution"), strict=True)
    for cell, solution in solved:
        assert cell.source and f"```python\n{cell.source}\n```" in solution.source
    for cell in tagged(instructor, "solution"):
        assert "<details>" not in cell.source and "```" not in cell.source
        assert cell.source.startswith("**Solution.** ")
        assert len(cell.source) > len("**Solution.** ") + 20
    kept = [c for c in instructor.cells if not {"exercise", "solution"} & set(tags(c))]
    assert kept == [c for c in notebook.cells if not {"exercise", "solution"} & set(tags(c))]


def test_no_stub_is_left_in_the_instructors(notebook):
    instructor = editions.edition(notebook, "instructor")
    stubs = {c.source for c in tagged(notebook, "exercise")}
    assert not stubs & {c.source for c in instructor.cells}


def test_one_command_writes_both(tmp_path, capsys):
    places = {kind: tmp_path / kind for kind in ("student", "instructor")}
    given = [word for kind, path in places.items() for word in (f"--{kind}", str(path))]
    assert cli.main(["lessons", *given]) == 0
    told = capsys.readouterr().out
    for kind, path in places.items():
        assert [p.name for p in sorted(path.glob("*.ipynb"))] == [p.name for p in NOTEBOOKS]
        for file in path.glob("*.ipynb"):
            written = nbformat.read(file, as_version=4)
            nbformat.validate(written)
            assert written.metadata[editions.MARK]["edition"] == kind
        assert f"{len(NOTEBOOKS)} notebooks for the {kind}: {path}" in told
    assert cli.main(["lessons", *given]) == 0  # what it made, it may make again


def test_without_a_folder_it_says_what_to_give(capsys):
    assert cli.main(["lessons"]) == 2
    assert "--student" in capsys.readouterr().err


@pytest.fixture
def made(tmp_path):
    editions.write(NOTEBOOKS, "student", tmp_path / "class")
    return tmp_path / "class"


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_text("my notes"), "not a notebook"),
        (lambda path: path.write_bytes(NOTEBOOKS[-1].read_bytes()), "not made by"),
        (lambda path: answer(path), "edited after"),
    ],
)
def test_nobodys_work_is_overwritten(made, spoil, said):
    spoil(made / NOTEBOOKS[-1].name)
    before = contents(made)
    with pytest.raises(SuiteError, match=said) as refused:
        editions.write(NOTEBOOKS, "student", made)
    assert "expected" in str(refused.value) and NOTEBOOKS[-1].name in str(refused.value)
    assert contents(made) == before


def test_solutions_do_not_replace_the_students_notebooks(made, capsys):
    before = contents(made)
    with pytest.raises(SuiteError, match="is of the student's edition") as refused:
        editions.write(NOTEBOOKS, "instructor", made)
    assert "lessons --instructor" in str(refused.value)
    assert contents(made) == before
    assert cli.main(["lessons", "--student", str(made), "--instructor", str(made)]) == 2
    assert contents(made) == before


def test_what_a_kill_leaves_does_not_block_the_retry(made, monkeypatch):
    before = contents(made)

    def dies(source, target):
        raise SystemExit(9)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(os, "replace", dies)
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # nothing is tidied up by SIGKILL
        editions.write(NOTEBOOKS, "student", made)
    assert len(contents(made)) == len(before) + 1
    editions.write(NOTEBOOKS, "student", made)
    assert contents(made) == before


def answer(path):
    """As a student who answers an exercise and saves."""
    notebook = nbformat.read(path, as_version=4)
    tagged(notebook, "exercise")[0].source = "your_answer = 42"
    nbformat.write(notebook, path)


def test_a_notebook_that_was_only_run_is_replaced(made):
    path = made / NOTEBOOKS[0].name
    notebook = nbformat.read(path, as_version=4)
    cell = next(c for c in notebook.cells if c.cell_type == "code")
    cell.outputs = [nbformat.v4.new_output("stream", text="a trace of a run")]
    nbformat.write(notebook, path)
    editions.write(NOTEBOOKS, "student", made)
    assert "a trace of a run" not in path.read_text()


def test_the_suites_own_notebooks_are_safe():
    with pytest.raises(SuiteError, match="not made by"):
        editions.write(NOTEBOOKS, "student", NOTEBOOKS[0].parent)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "class").write_text("")
    with pytest.raises(SuiteError, match="is a file"):
        editions.write(NOTEBOOKS, "student", tmp_path / "class")


def test_an_unknown_edition_and_a_stray_solution_are_refused():
    stray = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("x")])
    stray.cells[0].metadata["tags"] = ["solution"]
    with pytest.raises(SuiteError, match="teacher"):
        editions.edition(stray, "teacher")
    with pytest.raises(SuiteError, match="without an exercise"):
        editions.edition(stray, "instructor")
