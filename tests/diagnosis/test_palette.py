"""One palette: no other module makes up a colour, and the browser's two sides have its colours."""

import re

from tests import ROOT
from vqlib.diagnosis import palette
from vqlib.diagnosis.findings import RANK, template

COLOR = r"\"(#[0-9a-fA-F]{3,8})\""


def test_python_takes_its_colours_from_the_palette():
    files = set((ROOT / "vqlib").rglob("*.py")) - {ROOT / "vqlib" / "diagnosis" / "palette.py"}
    made_up = {color for file in files for color in re.findall(COLOR, file.read_text())}
    assert made_up <= {"#ffffff"}


def test_every_severity_has_its_colour_and_templates_can_ask_for_it():
    assert set(palette.SEVERITIES) == set(RANK)
    assert template("card.html.j2").globals["palette"] is palette


def test_the_browser_draws_the_two_codebooks_in_the_same_colours():
    script = (ROOT / "vqlib" / "playground" / "live.js").read_text()
    sides = dict(re.findall(r"(\w): \{ code: \"(#\w+)\"", script))
    assert sides == {"A": palette.BEFORE, "B": palette.AFTER}
