"""Exercises: every solution in a notebook passes its check, every stub and every slip fails it."""

import ast
import re

import nbformat
import pytest
import torch

from tests import NOTEBOOKS
from vqlib import lessons
from vqlib.lessons import exercises
from vqlib.lessons.checking import Exercise

SUITE = {name: getattr(exercises, name) for name in exercises.__all__}
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def tagged(cell, tag):
    return tag in cell.metadata.get("tags", ())


def parts(path):
    """(stub, check, solution) sources of each exercise of a notebook, found by its tags."""
    cells = nbformat.read(path, as_version=4).cells
    for place, cell in enumerate(cells):
        if tagged(cell, "exercise"):
            later = iter(cells[place + 1 :])
            check = next(c for c in later if tagged(c, "check"))
            solution = next(c for c in later if tagged(c, "solution"))
            yield cell.source, check.source, "\n".join(CODE.findall(solution.source))


EXERCISES = [
    pytest.param(path, *found, id=f"{path.stem}-{number}")
    for path in NOTEBOOKS
    for number, found in enumerate(parts(path), start=1)
]


@pytest.fixture
def said(monkeypatch):
    texts = []
    monkeypatch.setattr(lessons, "say", texts.append)
    return texts


@pytest.fixture(scope="module")
def opened():
    """{notebook: what its cells define up to the first section}: parameters, imports, style."""
    found = {}
    for path in dict.fromkeys(parameters.values[0] for parameters in EXERCISES):
        found[path] = {}
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown" and "\n## " in f"\n{cell.source}":
                break
            if cell.cell_type == "code":
                exec(cell.source, found[path])
    return found


def verdict(names, answer, check):
    """What the last expression of the check cell gives, after the answer's cell."""
    names = dict(names)
    exec(answer, names)
    *before, last = ast.parse(check).body
    exec(compile(ast.Module(before, []), "check", "exec"), names)
    return eval(compile(ast.Expression(last.value), "check", "eval"), names)


@pytest.mark.parametrize(("path", "stub", "check", "solution"), EXERCISES)
def test_the_stub_runs_and_is_told_what_is_off(path, stub, check, solution, opened, said):
    assert verdict(opened[path], stub, check) is False
    assert said[-1].startswith("✗") and "raises" not in said[-1]
    slips = [sentence for exercise in SUITE.values() for sentence in exercise.slips]
    assert any(sentence in said[-1] for sentence in slips), said[-1]


@pytest.mark.parametrize(("path", "stub", "check", "solution"), EXERCISES)
def test_the_solution_passes(path, stub, check, solution, opened, said):
    assert solution
    assert verdict(opened[path], solution, check) is True, said[-1]


@pytest.mark.parametrize(("path", "stub", "check", "solution"), EXERCISES)
def test_an_answer_of_another_kind_is_no_crash(path, stub, check, solution, opened, said):
    name = re.search(r"check\((\w+)\)", check)[1]
    assert verdict(opened[path], f"{name} = 'forty-two'", check) is False
    assert "Expected a" in said[-1]


def test_every_exercise_is_asked_in_one_notebook():
    asked = re.findall(r"exercises\.([A-Z]+)\.check\(", "\n".join(p.values[2] for p in EXERCISES))
    assert sorted(asked) == sorted(SUITE)


@pytest.mark.parametrize("name", SUITE)
def test_each_slip_is_wrong_and_recognised(name, said):
    exercise = SUITE[name]
    assert exercise.check(exercise.answer)
    for sentence, slip in exercise.slips.items():
        assert not exercise.check(slip), sentence
        assert sentence in said[-1]


def doubled(x):
    return 2 * x


@pytest.fixture
def exercise():
    return Exercise(
        "Twice",
        doubled,
        {"Squared.": lambda x: x**2},
        cases=[lessons.checking.Case("two", (2.0,)), lessons.checking.Case("three", (3.0,))],
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: x + x, "Right on all 2 inputs"),
        (lambda x: x**2, "Squared."),  # right on one input, a known slip on the other
        (lambda x: x + 7, "On two it gives `9`; right is `4`. (2 of 2 inputs are wrong.)"),
        (lambda x: None, "it gives `None`"),
        (lambda x: 1 / 0, "raises `ZeroDivisionError"),
        (lambda: 4, "raises `TypeError"),
        (4.0, "Expected a function"),
    ],
)
def test_what_is_off_is_said(exercise, said, answer, words):
    assert exercise.check(answer) is words.startswith("Right")
    assert words in said[-1]


def test_of_a_long_result_the_wrong_row_is_shown(said):
    def both(x):
        return x, torch.eye(9)

    def one_wrong(x):
        return x, torch.eye(9).index_fill(0, torch.tensor([4]), 0.0)

    exercise = Exercise("Both", both, {}, cases=[lessons.checking.Case("one", (torch.ones(3),))])
    assert not exercise.check(one_wrong)
    assert " in part 2, row 4; right is `(0, 0, 0, 0, 1, 0, 0, 0, 0)`" in said[-1]
    assert not exercise.check(lambda x: (x, "eye"))
    assert "'eye'" in said[-1]


def test_a_number_is_told_its_side_where_no_slip_fits(said):
    number = Exercise("Half", 0.5, {"Upside down.": 2.0}, tolerance=0.01)
    assert [number.check(x) for x in (0.505, 0.7, 2.0, None)] == [True, False, False, False]
    assert "too high" in said[1] and "Upside down." in said[2] and "Upside" not in said[1]


def test_cases_go_with_functions_only():
    with pytest.raises(ValueError, match="cases"):
        Exercise("Half", 0.5, {}, cases=[lessons.checking.Case("two", (2.0,))])
    with pytest.raises(ValueError, match="cases"):
        Exercise("Twice", doubled, {})
