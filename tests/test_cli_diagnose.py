"""vqlib diagnose: exit status 0, 1 or 2, and one clear line for a file that cannot be used."""

import json

import pandas as pd
import pytest

from tests.diagnosis.histories import healthy, using
from vqlib import cli
from vqlib.diagnosis import selftest

ARGUMENTS = ["--codebook_size", "512", "--tokens-per-step", "6272"]


@pytest.fixture
def written(tmp_path):
    def write(table):
        path = tmp_path / "history.csv"
        table.to_csv(path, index=False)
        return str(path)

    return write


def test_healthy_is_0_and_critical_is_1(written, capsys):
    assert cli.main(["diagnose", written(healthy()), *ARGUMENTS]) == 0
    assert "history.csv: healthy" in capsys.readouterr().out
    assert cli.main(["diagnose", written(using(30)), *ARGUMENTS]) == 1
    assert "CRITICAL codebook-collapse" in capsys.readouterr().out


def test_arguments_reach_the_rules(written, capsys):
    arguments = [*ARGUMENTS, "--dead_code_threshold", "20", "--decay", "0.9"]
    assert cli.main(["diagnose", written(healthy()), *arguments]) == 1
    assert "20 is 1.6 x the uniform share" in capsys.readouterr().out


def test_json_is_json(written, capsys):
    assert cli.main(["diagnose", written(using(30)), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["verdict"] == "critical"


def test_html_is_written_and_never_overwrites(written, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert cli.main(["diagnose", written(healthy()), "--html", str(page)]) == 0
    assert "healthy" in page.read_text()
    page.write_text("mine")
    assert cli.main(["diagnose", written(healthy()), "--html", str(page)]) == 2
    assert page.read_text() == "mine"


GARBAGE = {
    "empty": (b"", "is empty"),
    "text": (b"hello world, this is text\n", "names no use of a codebook"),
    "binary": (bytes(range(256)) * 4, "cannot be read"),
    "wrong columns": (b"a,b\n1,2\n", "its columns are a, b"),
    "no rows": (b"step,split,used_codes\n", "has no rows"),
    "nan": (b"step,split,used_codes\n1,train,nan\n", "no number in `used_codes`"),
    "negative": (b"step,split,used_codes\n1,train,-3\n", "row 1, column `used_codes`"),
    "above K": (b"step,split,used_codes\n1,train,600\n", "at most the codebook's 512 codes"),
    "ragged": (b"step,split,used_codes\n1,train,3\n1,train,3,4,5\n", "cannot be read"),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_gives_one_clear_line_and_2(kind, tmp_path, capsys):
    content, expected = GARBAGE[kind]
    path = tmp_path / "history.csv"
    path.write_bytes(content)
    assert cli.main(["diagnose", str(path), *ARGUMENTS]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {path}") and expected in captured.err
    assert captured.err.count("\n") == 1


def test_no_such_file(tmp_path, capsys):
    assert cli.main(["diagnose", str(tmp_path / "none.csv")]) == 2
    assert "there is no such file" in capsys.readouterr().err


def test_selftest_fails_where_the_diagnosis_does(monkeypatch, capsys):
    table = pd.DataFrame(
        {
            "runs": [2],
            "by": "history",
            "must find": "cold-start",
            "found": [0.5],
            "cold-start": [0.5],
        },
        index=["cold-start"],
    )
    monkeypatch.setattr(selftest, "examinations", lambda runs, progress: {"runs": runs})
    monkeypatch.setattr(selftest, "confusion", lambda found: table.assign(runs=found["runs"]))
    assert cli.main(["selftest", "--runs", "3"]) == 1
    assert "cold-start found in 50% of 3" in capsys.readouterr().out
    table["found"] = 1.0
    assert cli.main(["selftest"]) == 0
    assert "the diagnosis passes" in capsys.readouterr().out
    assert cli.main(["selftest", "--runs", "0"]) == 2
