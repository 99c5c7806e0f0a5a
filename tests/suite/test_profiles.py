"""vqlib.suite.profiles: each strict rule, with its right and its wrong case."""

import pytest

from tests.suite.tiny_suite import parameters, write_notebook, write_settings
from vqlib.suite import profiles
from vqlib.suite.errors import SuiteError

DECLARED = {
    "01_a": {"steps": 100, "lr": 1e-3, "arm": "baseline", "seed": 0, "sizes": (1, 2)},
    "02_b": {"seed": 0, "note": None, "fast": True},
}


def resolve(tables, **options):
    return profiles.resolve(tables, DECLARED, source="profile quick", **options)


def problems(call, *arguments, **options):
    with pytest.raises(SuiteError) as caught:
        call(*arguments, **options)
    return caught.value.problems


def test_the_parameters_cell_is_read(tmp_path):
    source = "a = 3  # comment\nb: float = -1e-3\nc = ['x', (1, None)]\nd = {'k': True}"
    path = write_notebook(tmp_path, "01_a", "z = 1", parameters(source))
    assert profiles.declared(path) == {"a": 3, "b": -1e-3, "c": ["x", (1, None)], "d": {"k": True}}


def test_an_empty_parameters_cell_declares_nothing(tmp_path):
    assert profiles.declared(write_notebook(tmp_path, "01_a", parameters("# none"))) == {}


@pytest.mark.parametrize("count", [0, 2])
def test_exactly_one_cell_carries_the_tag(tmp_path, count):
    path = write_notebook(tmp_path, "01_a", *(parameters("a = 1") for _ in range(count)))
    (problem,) = problems(profiles.declared, path)
    assert (
        problem == f"01_a.ipynb: expected exactly one code cell tagged `parameters`, found {count}"
    )


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("steps = 10\ntotal = steps * 2", "line 2, `total = steps * 2`: `total` must be a literal"),
        ("a = int('3')", "`a` must be a literal"),
        ("import os", "line 1, `import os`: expected only lines like `name = 3`"),
        ("a = 1\na = 2", "line 2, `a = 2`: `a` is assigned twice"),
        ("a = b = 1", "line 1, `a = b = 1"),
        ("a, b = 1, 2", "line 1, `a, b = "),
        ("a: int", "line 1, `a: int"),
        ("a += 1", "line 1, `a += 1"),
        ("if True:\n    a = 1", "line 1, `if True:"),
        ("'a docstring'", "line 1, `'a docstring'"),
        ("a = 1\n%matplotlib inline", "line 2 is not Python"),
    ],
)
def test_anything_but_literals_is_named_with_its_line(tmp_path, source, says):
    (problem,) = problems(profiles.declared, write_notebook(tmp_path, "01_a", parameters(source)))
    assert problem.startswith("01_a.ipynb: the cell tagged `parameters`") and says in problem


def test_every_fault_of_the_cell_is_listed(tmp_path):
    path = write_notebook(tmp_path, "01_a", parameters("import os\na = f()\nb = 1"))
    assert len(problems(profiles.declared, path)) == 2


def test_an_unreadable_notebook_is_named(tmp_path):
    (tmp_path / "01_a.ipynb").write_text("{", encoding="utf-8")
    assert (
        "01_a.ipynb: not a readable notebook"
        in problems(profiles.declared, tmp_path / "01_a.ipynb")[0]
    )


def test_common_applies_where_declared_and_the_own_table_wins():
    tables = {"01_a": {"seed": 5}, "common": {"seed": 1, "fast": False}}
    assert resolve(tables) == {"01_a": {"seed": 5}, "02_b": {"seed": 1, "fast": False}}


def test_a_misspelt_parameter_is_named_with_the_near_name():
    assert problems(resolve, {"01_a": {"stpes": 10}}) == [
        "profile quick: 01_a declares no parameter `stpes` - did you mean `steps`?"
    ]


def test_an_unknown_parameter_lists_what_there_is():
    (problem,) = problems(resolve, {"02_b": {"xyz": 10}})
    assert "`xyz` (known: `fast`, `note`, `seed`)" in problem


def test_a_common_parameter_that_nobody_declares_is_an_error():
    assert problems(resolve, {"common": {"sed": 1}}) == [
        "profile quick: `sed` is set, but no notebook declares it - did you mean `seed`?"
    ]


def test_a_table_for_no_notebook_is_an_error():
    assert problems(resolve, {"01_aa": {}}) == [
        "profile quick: there is no notebook `01_aa` - did you mean `01_a`?"
    ]


@pytest.mark.parametrize(
    ("notebook", "name", "value"),
    [("01_a", "lr", 1), ("02_b", "note", "x"), ("02_b", "note", 3), ("01_a", "sizes", [3, 4])],
)
def test_values_that_fit_the_default(notebook, name, value):
    assert resolve({notebook: {name: value}})[notebook] == {name: value}


@pytest.mark.parametrize(
    ("notebook", "name", "value", "says"),
    [
        ("01_a", "steps", "10", "is a str; expected an int, like its default 100"),
        ("01_a", "steps", 10.5, "is a float; expected an int"),
        ("01_a", "steps", True, "is a bool; expected an int"),
        ("01_a", "arm", 3, "is an int; expected a str"),
        ("02_b", "fast", 1, "is an int; expected a bool"),
    ],
)
def test_a_value_of_another_type_is_an_error(notebook, name, value, says):
    (problem,) = problems(resolve, {notebook: {name: value}})
    assert f"profile quick: {notebook}: `{name}` = {value!r} {says}" in problem


def test_a_date_is_no_literal(tmp_path):
    directory = write_settings(tmp_path, quick="[02_b]\nnote = [2020-01-01]")
    assert "is a list" in problems(resolve, profiles.load(directory, "quick"))[0]


def test_all_problems_come_at_once_but_not_those_of_notebooks_left_out():
    tables = {"01_a": {"x": 1, "steps": "a"}, "02_b": {"y": 1}}
    assert len(problems(resolve, tables)) == 3
    assert len(problems(resolve, tables, selected={"01_a"})) == 2


def test_profiles_are_found_by_name(tmp_path):
    directory = write_settings(tmp_path, quick="[common]\na = 1", full="")
    assert profiles.available(directory) == ["full", "quick"]
    assert profiles.load(directory, "quick") == {"common": {"a": 1}}
    assert problems(profiles.load, directory, "quik") == [
        "there is no profile `quik` - did you mean `quick`?"
    ]


@pytest.mark.parametrize(
    ("text", "says"), [("seed = 1", "`seed` is outside a table"), ("a =", "not valid TOML")]
)
def test_a_malformed_profile(tmp_path, text, says):
    assert says in problems(profiles.load, write_settings(tmp_path, quick=text), "quick")[0]
