"""Notebooks 01 and 04 on a folder of somebody's own pictures."""

from pathlib import Path

import pytest
import skimage
from PIL import Image

from tests import ROOT
from vqlib.suite import executing, lineup, records
from vqlib.suite.kernels import Kernels
from vqlib.training import data

# no scene of the built-in photographs
OTHERS = ("brick", "camera", "coins", "grass", "gravel", "moon", "page", "microaneurysms")
SIDE = 56
PHOTOGRAPHS_ALONE = {"before/downstream_accuracy", "after/downstream_accuracy"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Crops of pictures that are not ours, as PNG files."""
    assert not {entry["name"] for entry in data.manifest()["picture"]} & set(OTHERS)
    made = tmp_path_factory.mktemp("own")
    for name in OTHERS:
        with Image.open(Path(skimage.__file__).parent / "data" / f"{name}.png") as whole:
            for top in range(0, whole.height - SIDE + 1, SIDE):
                for left in range(0, whole.width - SIDE + 1, SIDE):
                    crop = whole.crop((left, top, left + SIDE, top + SIDE))
                    crop.save(made / f"{name}-{top}-{left}.png")
    return made


@pytest.mark.parametrize(
    ("stem", "parameters", "left_out"),
    [
        ("01_reproduce_collapse", {"steps": 220}, set()),
        ("04_compare_before_after", {"steps": 220, "cooldown_steps": 0}, PHOTOGRAPHS_ALONE),
    ],
)
def test_the_notebook_runs_on_a_folder(folder, tmp_path, stem, parameters, left_out):
    parameters = {"seeds": 1, "dataset_dir": str(folder)} | parameters
    plan = executing.Plan(stem, ROOT / "notebooks" / f"{stem}.ipynb", parameters)
    done = executing.execute(plan, tmp_path / "done.ipynb", Kernels(tmp_path), timeout=300)
    assert done.error is None, done.error
    values = records.collect(done.notebook)
    expected = lineup.load(None, "quick", ROOT / "notebooks").expected
    assert expected.mismatches(stem, values) == []
    assert not left_out & set(values)
    said = str([cell.get("outputs") for cell in done.notebook.cells])
    if left_out:
        collapsed = values["before/val_utilization"]
        assert values["after/val_utilization"] > collapsed + 0.2  # the cure works there too
        assert "so this part is left out" in said
    else:
        collapsed = values["baseline/val_utilization"]
        assert f"{len(data.load(dataset_dir=folder).train):,} to train on" in said
    assert collapsed < 0.5
