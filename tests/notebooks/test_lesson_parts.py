"""What a teacher needs stands in every lesson, from predictions to questions."""

import ast
import re

import nbformat
import pytest

from tests import NOTEBOOKS as LESSONS

PLAYGROUND = "07_playground"  # is a demonstration as a whole; tests/playground holds its parts
COMPUTES = re.compile(
    r"experiments\.compare\(|rivals\.measured\(|vqlib\.audit\(|examinations\(|\[train\(|\.train\(\w"
)
NAMES = re.compile(r"(\w+)\.check\((\w+)\)")


@pytest.fixture(params=LESSONS, ids=lambda path: path.stem)
def cells(request):
    return nbformat.read(request.param, as_version=4).cells


def places(cells, tag):
    return [place for place, cell in enumerate(cells) if tag in cell.metadata.get("tags", ())]


def follows(cells, place, tag, kind):
    """The next cell of that tag, before the next exercise."""
    for cell in cells[place + 1 :]:
        tags = cell.metadata.get("tags", ())
        if tag in tags:
            assert cell.cell_type == kind
            return cell
        if "exercise" in tags:
            break
    pytest.fail(f"cell {cells[place].id} has no {tag}")


def test_goals_are_several(cells):
    goals = cells[0].source.split("**You will learn**")[1].split("**Cost.**")[0]
    assert goals.count("\n- ") >= 3
    assert "(exercise" in goals  # some of them can be checked


def test_each_experiment_is_predicted_first(cells):
    experiments = places(cells, "experiment")
    assert experiments
    for before, place in zip([0, *experiments], experiments, strict=False):
        texts = [c.source for c in cells[before:place] if c.cell_type == "markdown"]
        assert "**Predict first.**" in "\n".join(texts), cells[place].id


def test_no_experiment_is_left_without_its_tag(cells):
    ran = [c for c in cells if c.cell_type == "code" and COMPUTES.search(c.source)]
    assert ran
    for cell in ran:
        assert "experiment" in cell.metadata.get("tags", ()), cell.id


def test_at_least_two_exercises_with_all_their_parts(cells):
    exercises = places(cells, "exercise")
    assert len(exercises) >= 2
    text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    assert len(re.findall(r"^### Exercise \d+:", text, re.MULTILINE)) == len(exercises)
    for place in exercises:
        assert "replace" in cells[place].source or "Fix" in cells[place - 1].source
        follows(cells, place, "check", "code")
        for tag in ("hint", "solution"):
            folded = follows(cells, place, tag, "markdown").source
            assert folded.startswith("<details><summary>") and folded.endswith("</details>")


def test_one_exercise_is_a_few_lines_of_code(cells):
    stubs = [ast.parse(cells[place].source).body[-1] for place in places(cells, "exercise")]
    assert any(isinstance(stub, ast.FunctionDef) for stub in stubs)


def test_a_check_asks_what_its_stub_defines(cells):
    for place in places(cells, "exercise"):
        _, name = NAMES.search(follows(cells, place, "check", "code").source).groups()
        scope = {}
        exec(cells[place].source, scope)
        assert name in scope


def test_questions_to_think_about(cells):
    text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    assert text.count("**Think!**") >= 2


def test_a_demonstration_and_the_same_as_a_still_figure(cells):
    demos, stills = places(cells, "demo"), places(cells, "still")
    assert demos and stills
    for place in demos:
        assert "**Predict first.**" in cells[place - 1].source
    for place in stills:
        assert ".figure()" in cells[place].source and cells[place].metadata.get("alt")


@pytest.mark.parametrize("path", [p for p in LESSONS if p.stem != PLAYGROUND], ids=lambda p: p.stem)
def test_the_demonstration_has_a_target_and_runs_without_a_reader(path):
    cells = nbformat.read(path, as_version=4).cells
    (place,), (still,) = places(cells, "demo"), places(cells, "still")
    assert still == place + 1
    assert "demos." in cells[place].source and "Reach the target" in cells[place - 1].source
    assert "demo.set(" in cells[still].source and "demo.summary()" in cells[still].source
    assert cells[still + 1].source.startswith("**Think!**")
