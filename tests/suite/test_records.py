"""vqlib.records: what may leave a notebook, and what is read back."""

import subprocess
import sys

import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from vqlib.suite.records import MIME, collect, record


class Scalar:
    """Has what a torch 0-d tensor has; the real one is tested where torch is."""

    shape = ()

    def __init__(self, value):
        self.value = value

    def item(self):
        return self.value


@pytest.fixture
def displayed(monkeypatch):
    import IPython

    made = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr(IPython.display, "display", lambda data, raw: made.append(data))
    return made


def notebook(*payloads):
    outputs = [new_output("display_data", {MIME: payload}) for payload in payloads]
    return new_notebook(cells=[new_code_cell(outputs=outputs)])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3),
        (0.5, 0.5),
        (True, True),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.array(2.5), 2.5),
        (Scalar(0.25), 0.25),
    ],
)
def test_a_number_leaves_with_its_plain_type(displayed, value, expected):
    record("a/b", value)
    (data,) = displayed
    assert data[MIME] == {"name": "a/b", "value": expected}
    assert type(data[MIME]["value"]) is type(expected)
    assert data["text/plain"] == f"record a/b = {expected}"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (float("nan"), "finite"),
        (float("inf"), "finite"),
        (np.float64("-inf"), "finite"),
        ("0.5", "got str"),
        (None, "got NoneType"),
        (1j, "got complex"),
        (np.ones(1), r"shape \(1,\)"),
        ([1.0], "got list"),
    ],
)
def test_anything_else_is_refused_outside_ipython_too(value, says):
    with pytest.raises(ValueError, match=f"`x`.*{says}"):
        record("x", value)


@pytest.mark.parametrize("name", ["", "  ", " x", 3, None])
def test_a_name_is_required(name):
    with pytest.raises(ValueError, match="name"):
        record(name, 1.0)


def test_outside_ipython_nothing_is_shown_and_nothing_heavy_imported():
    code = (
        "import sys; before = set(sys.modules); import importlib.util as u; "
        "s = u.spec_from_file_location('records', sys.argv[1]); m = u.module_from_spec(s); "
        "s.loader.exec_module(m); m.record('x', 1.0); "
        "print(sorted({n.split('.')[0] for n in set(sys.modules) - before}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, sys.modules["vqlib.suite.records"].__file__],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "record x" not in done.stdout
    for heavy in ("IPython", "torch", "numpy", "nbformat", "papermill"):
        assert heavy not in done.stdout


def test_collect_keeps_the_order_and_allows_a_repeated_value():
    one, two = {"name": "b", "value": 1.0}, {"name": "a", "value": 2}
    assert list(collect(notebook(one, two, one)).items()) == [("b", 1.0), ("a", 2)]


def test_one_name_with_two_values_is_an_error():
    with pytest.raises(ValueError, match=r"`b` was made twice.*1, then 2"):
        collect(notebook({"name": "b", "value": 1}, {"name": "b", "value": 2}))


@pytest.mark.parametrize("payload", [{"name": "x"}, {"name": "x", "value": "1"}, [1]])
def test_a_record_made_by_hand_is_checked(payload):
    with pytest.raises(ValueError):
        collect(notebook(payload))
