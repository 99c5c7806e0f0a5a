"""The audit of the field: the recorded table, the command, and what the installed packages do."""

import dataclasses
import re

import pandas as pd
import pytest

from tests import ROOT
from vqlib import cli
from vqlib.diagnosis import field
from vqlib.diagnosis.findings import FIRED

TABLE = field.recorded()
PRESENT = [layer for layer in field.LAYERS if field.installed(layer.package)]


def split(answer):
    return tuple(answer.split(": ", 1))


def test_the_table_is_dated_and_has_one_row_a_layer():
    assert list(TABLE.columns) == list(field.COLUMNS)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", date) for date in TABLE["date"])
    assert (TABLE[["command", "python", "torch", "version"]] != "").all(axis=None)
    rows = list(TABLE[["package", "layer"]].itertuples(index=False, name=None))
    assert rows == [(layer.package, layer.name) for layer in field.LAYERS]
    assert dict(TABLE[["package", "version"]].itertuples(index=False)) == field.READ


@pytest.mark.parametrize("question", field.QUESTIONS)
def test_what_was_found_has_a_source(question):
    for row in TABLE.to_dict("records"):
        severity, words = split(row[question])
        assert severity in field.SYMBOLS and words
        assert "Error" not in words and "not confirmed" not in words
        if severity in FIRED:
            assert re.match(r"\S+\.py: \w+", row[f"{question}_source"]), row["layer"]


@pytest.fixture(scope="module")
def live():
    return field.audit_field(PRESENT, ranks=False)


def test_the_table_claims_nothing_that_the_installed_layers_do_not_show(live):
    assert len(live) == len(PRESENT) > 0
    assert field.differences(TABLE, live) == []
    asked = live[["reset", "evaluation", "start"]]
    assert not asked.apply(lambda answers: answers.str.startswith("unknown")).any(axis=None)


def test_a_claim_that_is_not_true_is_a_difference(live):
    false = TABLE.copy()
    false.loc[false["layer"] == "VectorQuantize", "reset"] = "critical: overwritten"
    (line,) = field.differences(false, live)
    assert "VectorQuantize, reset: 'critical: overwritten'" in line


def test_what_is_not_confirmed_is_not_shown():
    affine = next(layer for layer in PRESENT if "affine" in layer.name)
    bare = dataclasses.replace(affine, source={})
    row = field.audit_field([bare], ranks=False).iloc[0]
    assert split(row["evaluation"])[0] == "unknown" and "not confirmed" in row["evaluation"]


def test_a_layer_that_cannot_be_built_is_unknown_with_the_reason():
    def broken():
        raise ImportError("it has moved")

    row = field.audit_field([dataclasses.replace(PRESENT[0], make=broken)], ranks=False).iloc[0]
    assert row["reset"] == "unknown: ImportError: it has moved"


def test_the_command_writes_the_table_and_overwrites_nothing(tmp_path, capsys):
    out = tmp_path / "field.csv"
    arguments = ["field", "--packages", "diffusers", "--no-ranks", "--out", str(out)]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "diffusers" in printed and "VectorQuantizer of VQModel" in printed and "torch" in printed
    for package, line in field.missing().items():
        assert f"not installed: {package} ({line})" in printed
    written = pd.read_csv(out, keep_default_na=False)
    assert written["package"].tolist() == ["diffusers"]
    assert cli.main(arguments) == 2 and "exists" in capsys.readouterr().err
    assert cli.main(["field", "--packages", "diffuser"]) == 2
    assert "expected some of" in capsys.readouterr().err


def test_the_page_escapes_and_names_severities():
    odd = TABLE.head(1).assign(layer="<b>", reset="critical: <i>")
    page = field.html(odd)
    assert "<b>&" not in page and "&lt;b&gt;" in page and "&lt;i&gt;" in page
    assert 'aria-label="critical"' in page


def test_the_recorded_table_is_in_the_repository():
    assert field.RECORDED == ROOT / "data" / "field.csv"
