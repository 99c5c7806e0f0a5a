"""Notebooks outside the suite: any path, gates and values in files of their own."""

import json
import re
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import nbformat
import pytest

from tests.suite.tiny_suite import RECORD, execute_here, parameters, write_notebook
from vqlib import cli, suite
from vqlib.cli import notebooks
from vqlib.suite import executing, foreign, gatefile, report
from vqlib.suite.costs import Cost
from vqlib.suite.errors import SuiteError
from vqlib.suite.expecting import text

CHURN = ["record('churn/auc', 0.8 * factor)", "record('rows', 120)", "record('sorted', True)"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A notebook in a folder of its own, executed in this process."""
    monkeypatch.setattr(executing, "execute", execute_here)
    monkeypatch.chdir(tmp_path)
    cell = parameters("import math\nfactor = 1.0\ntwo = 2\nhalf = two / 4\nidle = 3")
    write_notebook(tmp_path / "deep" / "er", "my churn", cell, *CHURN, title="Who leaves?")
    return tmp_path


NOTEBOOK = "deep/er/my churn.ipynb"
EXPECTED = """
["my churn".records]
"churn/auc" = { min = 0.7 }
"rows" = { mine = { equals = 120, tolerance = 0 } }
"sorted" = {}
["my churn".claims]
"One can tell who leaves" = ["churn/auc"]
"""


def problems(call, *arguments, **options):
    with pytest.raises(SuiteError) as caught:
        call(*arguments, **options)
    return caught.value.problems


def check(*arguments: str) -> int:
    return cli.main(["check", NOTEBOOK, "--out", "out", *arguments])


def test_gates_and_values_of_any_name_in_any_folder(here, capsys):
    Path("gates.toml").write_text(EXPECTED, encoding="utf-8")
    Path("mine.toml").write_text('["my churn"]\nfactor = 0.5\n', encoding="utf-8")
    given = ("--expected", "gates.toml")
    assert check(*given) == 0
    assert "rows" not in capsys.readouterr().out  # it is gated in the profile `mine` only
    assert check(*given, "--profile", "mine.toml") == 1
    said = capsys.readouterr().out
    assert "my churn: churn/auc guards the claim: One can tell who leaves" in said
    assert check(*given, "--profile", "mine.toml", "--set", "factor=1") == 0  # --set wins
    assert "rows" in capsys.readouterr().out


def test_expected_toml_beside_the_notebook_is_the_default(here):
    assert check() == 2
    Path("deep/er/expected.toml").write_text(EXPECTED.replace("mine", "default"), encoding="utf-8")
    assert check() == 0


def test_without_gates_it_is_said_how_to_get_some(here, capsys):
    assert check() == 2
    assert capsys.readouterr().err == (
        "error: deep/er/expected.toml is not there; expected a file of gates, as "
        f"`vqlib expect {NOTEBOOK}` writes it\n"
    )


def test_the_report_is_the_notebooks_own(here):
    Path("deep/er/expected.toml").write_text(EXPECTED, encoding="utf-8")
    assert cli.main(["check", NOTEBOOK, "--out", "out", "--expected", "deep/er/expected.toml"]) == 2
    # `mine` is a profile only where there is such a file
    Path("deep/er/mine.toml").write_text("", encoding="utf-8")
    assert check() == 0
    front = Path("out/report/index.html").read_text(encoding="utf-8")
    assert "<h1>Who leaves?</h1>" in front and "Codebook" not in front
    about = json.loads(Path("out/report/results.json").read_text(encoding="utf-8"))["provenance"]
    assert about["Profile"] == "default" and "PyTorch" not in about


def test_what_a_notebook_imports_is_its_provenance(here):
    path = write_notebook(here, "uses", "import sklearn.svm\nfrom nbformat import v4\nimport os")
    about = report.provenance("default", sources=[path])
    assert about["scikit-learn"] and about["nbformat"] and "os" not in about


@pytest.mark.parametrize(
    ("bound", "says"),
    [
        ("idle=4", "`idle` is set, but nothing after the parameters cell reads it"),
        ("facto=4", "`facto` is set, but no notebook declares it - did you mean `factor`?"),
        ("factor=big", "`factor` = 'big' is a str; expected a float"),
        ("factor", "--set: expected NAME=VALUE, got 'factor'"),
        ("half=3", "`half` is set, but nothing"),  # computed: any value would fit
        ("two=3", "`two` is set, but `half = two / 4` in the parameters cell has read it before"),
    ],
)
def test_a_parameter_that_cannot_act_is_refused_by_name(here, bound, says, capsys):
    Path("deep/er/expected.toml").write_text('["my churn".records]\n', encoding="utf-8")
    assert check("--set", bound) == 2
    assert says in capsys.readouterr().err and not Path("out").exists()


def test_the_values_of_set_are_those_of_a_profile():
    pairs = ["a=1", "b=0.5", "c=true", "d=[1, 2]", "e='1'", "f=two words", "g=x=y"]
    assert notebooks._bound(pairs) == {
        "a": 1,
        "b": 0.5,
        "c": True,
        "d": [1, 2],
        "e": "1",
        "f": "two words",
        "g": "x=y",
    }


CONTROL = """
["my churn".controls.{name}]
parameters = {{ factor = {factor} }}
must_fail = ["churn/auc"]
"""


@pytest.mark.parametrize(
    ("factor", "status", "says"),
    [
        (0.5, 0, "each planted fault turned its gates red"),
        (0.9, 1, "the fault mild should turn churn/auc red: 0.72 still passes ≥ 0.7"),
    ],
)
def test_planted_faults_are_planted_on_request(here, factor, status, says, capsys):
    gates = EXPECTED.replace("mine", "default") + CONTROL.format(name="mild", factor=factor)
    Path("deep/er/expected.toml").write_text(gates, encoding="utf-8")
    assert check() == 0
    assert check("--controls", "--set", "factor=1.1") == status
    assert says in capsys.readouterr().out
    assert check("--controls", "--set", "factor=0.1") == 1


def test_a_name_that_is_no_plain_address_has_links_that_work(here):
    write_notebook(here, "50% #2?", "record('a', 1)")
    Path("expected.toml").write_text('["50% #2?".records]\na = {max = 1}\n', encoding="utf-8")
    assert cli.main(["check", "50% #2?.ipynb", "--out", "out"]) == 0
    front = Path("out/report/index.html").read_text(encoding="utf-8")
    links = {link.partition("#")[0] for link in re.findall(r'href="(notebooks/[^"]*)"', front)}
    assert [unquote(link) for link in links] == ["notebooks/50% #2?.html"]


def test_a_notebook_without_parameters_or_profiles_beside_it(here):
    write_notebook(here, "plain", "record('a', 1)")
    Path("expected.toml").write_text('[plain.records]\n"a" = { max = 1 }\n', encoding="utf-8")
    assert cli.main(["check", "plain.ipynb"]) == 0
    assert cli.main(["check", "plain.ipynb", "--set", "x=1"]) == 2


def test_neighbours_may_have_tables_and_be_broken(here):
    write_notebook(here, "a", "record('a', 1)")
    (here / "b.ipynb").write_text("{", encoding="utf-8")
    Path("expected.toml").write_text("[a.records]\na = {}\n[b.records]\n", encoding="utf-8")
    assert cli.main(["check", "a.ipynb"]) == 0
    Path("expected.toml").write_text("[a.records]\na = {}\n[c.records]\n", encoding="utf-8")
    assert cli.main(["check", "a.ipynb"]) == 2


def test_what_is_no_notebook_of_python_is_named(here, tmp_path):
    julia = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"language": "julia", "name": "j", "display_name": "J"}}
    )
    nbformat.write(julia, here / "other.ipynb")
    (here / "broken.ipynb").write_text("[]", encoding="utf-8")
    found = problems(
        foreign.load, [Path("other.ipynb"), Path("broken.ipynb"), Path("no.ipynb")], None
    )
    assert found[0] == "other.ipynb: a notebook in julia; expected one in Python"
    assert found[1].startswith("broken.ipynb: not a readable notebook")
    assert found[2] == "no.ipynb: there is no such file"


def test_two_notebooks_of_one_name_are_refused(here):
    for folder in "ab":
        write_notebook(here / folder, "same", "1")
    (problem,) = problems(foreign.load, [Path("a/same.ipynb"), Path("b/same.ipynb")], None)
    assert "a/same.ipynb have the same name" in problem
    (problem,) = problems(foreign.expected_beside, [Path("a/same.ipynb"), Path("b/x.ipynb")])
    assert problem.startswith("the notebooks lie in a, b; expected --expected FILE")


def test_a_suites_notebook_by_its_path_is_still_the_suites(here, capsys):
    assert cli.main(["check", "deep/er/../../deep/er/my churn.ipynb"]) == 2
    assert "is not there; expected a file of gates" in capsys.readouterr().err
    directory = here / "notebooks"
    write_notebook(directory, "01_a", parameters())
    (directory / "profiles").mkdir()
    (directory / "profiles" / "quick.toml").touch()
    assert cli.main(["check", "notebooks/01_a.ipynb", "--profile", "quik"]) == 2
    assert "there is no profile `quik`" in capsys.readouterr().err


def test_expect_writes_gates_that_this_run_passes_and_never_overwrites(here, capsys):
    assert cli.main(["expect", NOTEBOOK]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "bands from one run are a guess" in said[1] and said[-1] == "deep/er/expected.toml"
    written = Path("deep/er/expected.toml").read_text(encoding="utf-8")
    assert '"churn/auc" = { equals = 0.8, tolerance = 0.08 }' in written
    assert '"rows" = { equals = 120, tolerance = 0 }' in written
    assert '"sorted" = { equals = true }' in written
    assert "memory_mb = 200  # measured: 50" in written and "What a person has to decide" in written
    assert check() == 0
    assert check("--set", "factor=0.9") == 0 and check("--set", "factor=0.8") == 1
    assert cli.main(["expect", NOTEBOOK]) == 2
    assert "exists; expected a name that is not taken" in capsys.readouterr().err
    assert Path("deep/er/expected.toml").read_text(encoding="utf-8") == written


@pytest.mark.parametrize(
    ("cell", "says"),
    [("1 / 0", "ZeroDivisionError"), ("1", "bad recorded no number; expected vqlib.record(NAME")],
)
def test_expect_writes_nothing_of_a_notebook_that_fails_or_is_silent(here, cell, says, capsys):
    write_notebook(here, "bad", cell)
    assert cli.main(["expect", "bad.ipynb", "--out", "new.toml"]) == 2
    assert says in capsys.readouterr().err and not Path("new.toml").exists()


def test_any_name_and_number_survives_in_the_file(tmp_path):
    values = {'a "b"\\c': 0.0, "ü/\x7f": -3.25e-9, "n": 10**12, "e": 1.5e300, "no": False}
    name = "01 x.y"
    cost = Cost(1234.5, 987.0, 3.21)
    result = suite.Result(name, "default", {}, values, cost, Path("x"))
    (tmp_path / "expected.toml").write_text(text([result]), encoding="utf-8")
    found = gatefile.read(tmp_path / "expected.toml", [name], ["default"])
    verdicts = found.judge(name, "default", values, cost.named())
    assert len(verdicts) == len(values) + 3 and all(v.passed for v in verdicts), verdicts


def test_a_foreign_notebook_in_a_real_kernel(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    light = "import sys\nrecord('torch', 'torch' in sys.modules)"
    cells = ["print(__import__('os').getcwd())", RECORD, light, "record('x', 2 * x)"]
    write_notebook(tmp_path / "one" / "two", "any", parameters("x = 1"), *cells)
    assert cli.main(["expect", "one/two/any.ipynb", "--out", "e.toml", "--set", "x=3"]) == 0
    assert '"torch" = { equals = false }' in Path("e.toml").read_text(encoding="utf-8")
    arguments = ["check", "one/two/any.ipynb", "--expected", "e.toml"]
    assert cli.main([*arguments, "--set", "x=3"]) == 0 and cli.main(arguments) == 1
    ran = Path("build/check/notebooks/any.ipynb").read_text(encoding="utf-8")
    assert str(tmp_path) not in ran and '".\\n"' in ran  # its own folder reads `.`
    root = ElementTree.parse("build/check/report/junit.xml").getroot()
    assert root.get("failures") == "1"
