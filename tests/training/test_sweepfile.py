"""The file of a sweep: what it asks for, what is refused, and the folder that is written to."""

import tomllib
from dataclasses import replace

import pytest

from vqlib import TrainConfig
from vqlib.training import sweepfile
from vqlib.training.sweepfile import SweepProblems, claimed, plan

ONE_THREAD = TrainConfig(threads=1)


def read(text: str) -> sweepfile.Sweep:
    return plan(tomllib.loads(text))


def claim(folder, sweep) -> None:
    with claimed(folder, sweep):
        pass


def test_the_example_in_the_modules_docstring():
    example = "\n".join(line[4:] for line in sweepfile.__doc__.splitlines() if line[:4] == "    ")
    sweep = read(example)
    assert len(sweep.arms) == 8 and sweep.seeds == [0, 1, 2, 3, 4] and sweep.runs == 40
    changes = {"dataset": "digits", "steps": 200, "decay": 0.75, "beta": 0.1}
    assert sweep.arms["reset, decay 0.75, beta 0.1"] == replace(ONE_THREAD, **changes)


def test_the_example_s_reference_is_an_arm():
    assert read("[arms.a]\n[arms.b]").reference == "a"
    assert read('reference = "b"\n[arms.a]\n[arms.b]').reference == "b"


def test_arms_alone_and_a_grid_alone():
    assert read("[arms.a]\ndecay = 0.5").arms == {"a": replace(ONE_THREAD, decay=0.5)}
    sweep = read("seeds = [7, 3]\n[grid]\nkmeans_init = [true, false]\ndecay = [0.5]")
    assert list(sweep.arms) == ["kmeans_init True, decay 0.5", "kmeans_init False, decay 0.5"]
    assert sweep.seeds == [7, 3]
    assert read("[base]\nthreads = 2\n[arms.a]").arms["a"].threads == 2


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("sedes = 3\n[arms.a]", "unknown key `sedes` - did you mean `seeds`?"),
        ("[base]\ndecya = 1.0\n[arms.a]", "[base] there is no setting `decya` - did you mean `d"),
        ("[arms.a]\nbatchsize = 3", "[arms.a] there is no setting `batchsize` - did you mean `ba"),
        ("[grid]\ndeacy = [1]", "[grid] there is no setting `deacy` - did you mean `decay`?"),
        ("[base]\nseed = 1\n[arms.a]", "[base] `seed`: a sweep's seeds are given by `seeds`"),
        ("[grid]\nseed = [1]", "[grid] `seed`: a sweep's seeds"),
        ("[arms.a]\ndecay = 0.5\n[grid]\ndecay = [0.5]", "`decay` is in [arms.a] and in [grid]"),
        ("[grid]\ndecay = 0.5", "[grid] `decay`: expected a list of values, got 0.5"),
        ("[grid]\ndecay = []", "[grid] `decay`: expected a list of values, got []"),
        ("[grid]\ndecay = [0.5, 0.5]", "holds a value twice"),
        ("", "no arms: expected [arms.NAME] tables, a [grid], or both"),
        ("base = 3\n[arms.a]", "`base`: expected a table, got 3"),
        ("arms = ['baseline']", "`arms`: expected a table, got ['baseline']"),
        ("arms.a = 3", "`arms.a`: expected a table, got 3"),
        ("seeds = 0\n[arms.a]", "expected a number of seeds or a list of seeds, got 0"),
        ("seeds = true\n[arms.a]", "got True"),
        ("seeds = [1, 1]\n[arms.a]", "got [1, 1]"),
        ("seeds = [-1]\n[arms.a]", "got [-1]"),
        ("seeds = 'all'\n[arms.a]", "got 'all'"),
        ("[arms.a]\ndecay = 2.0", "arm `a`: decay must be a number from 0 to 1, got 2.0"),
        ("[arms.a]\ndecay = '0.9'", "arm `a`: decay must be a number"),
        ("[arms.a]\ndataset_dir = 5", "arm `a`: dataset_dir must be a text, got 5"),
        ("[arms.a]\nvariant = 2000-01-01", "arm `a`: variant must be a text"),
        ("[arms.a]\nvariant = 'nonsense'", "arm `a`: "),
        ("reference = 'baselin'\n[arms.baseline]", "no arm `baselin` - did you mean `baseline`?"),
    ],
)
def test_what_cannot_be_is_refused(text, wrong):
    with pytest.raises(SweepProblems) as caught:
        read(text)
    assert any(wrong in problem for problem in caught.value.problems), caught.value.problems


def test_all_problems_are_told_at_once():
    with pytest.raises(SweepProblems) as caught:
        read("sedes = 1\n[base]\ndecya = 1\n[arms.a]\nseed = 1\n[grid]\nbeta = 1")
    assert len(caught.value.problems) == 4


# --- the folder ---


def test_the_same_sweep_goes_on_in_its_folder_and_no_other(tmp_path):
    one, two = read("[arms.a]"), read("[arms.a]\ndecay = 0.5")
    claim(tmp_path / "out", one)
    (tmp_path / "out" / "table.csv").write_text("mine")
    claim(tmp_path / "out", one)
    with pytest.raises(FileExistsError, match="holds another sweep and is not overwritten"):
        claim(tmp_path / "out", two)
    assert (tmp_path / "out" / "table.csv").read_text() == "mine"


@pytest.mark.parametrize("name", ["notes.txt", "sweep.json"])
def test_a_folder_with_anything_else_is_refused(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match="not overwritten"):
        claim(tmp_path, read("[arms.a]"))
    assert (tmp_path / name).read_text() == "mine"
    with pytest.raises(FileExistsError, match="is a file"):
        claim(tmp_path / name, read("[arms.a]"))


def test_what_a_killed_claim_leaves_is_no_hindrance(tmp_path):
    (tmp_path / ".sweep.json.x1").write_text('{"ar')
    claim(tmp_path, read("[arms.a]"))
