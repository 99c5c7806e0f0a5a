"""vqlib.suite.cellcode: what counts as a read of a parameter, and what does not."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests import NOTEBOOKS
from tests.suite.tiny_suite import parameters
from vqlib.suite import profiles
from vqlib.suite.cellcode import read_too_early, unread

DEEP = """\
def outer():
    def inner(k=2):
        return [k * n for _ in range(3)]
    return inner
"""
LOCAL = """\
def f(n):
    return n + 1
f(3), [n for n in range(3)], (lambda n: n)(1)
class A:
    n = 1
    m = n
"""


def notebook(*after, before=(), declared="n = 1"):
    cells = [*map(new_code_cell, before), parameters(declared), new_markdown_cell("n")]
    return new_notebook(cells=[*cells, *map(new_code_cell, after)])


@pytest.mark.parametrize(
    "source",
    [
        "print(n)",
        "f'{n:.2f} and {n!r}'",
        "f'{1:{n}}'",
        "x = dict(n=n)",
        DEEP,
        "n += 1",
        "def f(k=n): pass",
        "class A:\n    size = n",
        "if False:\n    n = 2\nprint(n)",
        "n = n * 2",
        "for n in range(n): pass",
        "%timeit f(n)",
        "%%time\nprint(n)",
        "%%bash\necho $n",
        "!echo {n}",
        "files = !ls $n",
        "table.query('x > @n')",
        "this is not python, n",
        "x = 1\nn: int\nprint(n)",
    ],
)
def test_a_read(source):
    assert unread(notebook("import os", source), ["n"]) == []


@pytest.mark.parametrize(
    "source",
    [
        "x = 1",
        "x.n, f(n=1), 'n', '''n'''",
        "# n",
        "n = 2\nprint(n)",
        "n: int = 2\nprint(n)",
        "import numpy as n\nprint(n)",
        "def n(): pass\nn()",
        "x, n = 1, 2\nprint(n)",
        LOCAL,
        "%timeit f(nn)",
        "%matplotlib inline",
        "table.query('x > @nn')",
        "vars(x), dir(x)",
    ],
)
def test_no_read(source):
    assert unread(notebook("import os", source), ["n"]) == ["n"]


@pytest.mark.parametrize(
    "source",
    [
        "globals()['n']",
        "def f():\n    return locals()",
        "eval('n')",
        "exec('print(n)')",
        "vars()['n']",
        "import __main__",
        "%run -i other.py",
        "%time globals()",
    ],
)
def test_code_that_looks_names_up_may_read_any(source):
    assert unread(notebook(source, declared="n = 1\nm = 2"), ["n", "m"]) == []
    assert unread(notebook("%run other.py"), ["n"]) == ["n"]


def test_only_code_after_the_parameters_counts_or_what_it_calls():
    assert unread(notebook(before=["n = 0", "print(n)"]), ["n"]) == ["n"]
    assert unread(notebook(declared="n = 1\nm = n + 1"), ["n"]) == ["n"]
    assert unread(notebook("f()", before=["def f():\n    return n"]), ["n"]) == []
    assert unread(notebook("f()", before=["def f(n):\n    return n"]), ["n"]) == ["n"]


def test_a_line_of_the_parameters_cell_that_reads_comes_too_early():
    cell = "n = 1\nk = 2\nhalf = (n /\n  2)\ndef f():\n    return k"
    assert read_too_early(notebook(declared=cell), ["n", "k"]) == {"n": "half = n / 2"}
    assert read_too_early(notebook("print(n)"), ["n"]) == {}


def test_an_earlier_injection_counts_as_none():
    injected = new_code_cell("n = 3\nprint(n)", metadata={"tags": ["injected-parameters"]})
    given = notebook("print(n)")
    given.cells.insert(2, injected)
    assert unread(given, ["n"]) == []
    del given.cells[-1]
    assert unread(given, ["n"]) == ["n"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_suites_own_notebooks_read_all_that_they_declare(path):
    assert unread(nbformat.read(path, as_version=4), profiles.declared(path)) == []
