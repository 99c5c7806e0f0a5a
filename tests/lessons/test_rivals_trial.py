"""The trial of rivals: every remedy is there once, and the kept table is of these remedies."""

import numpy as np
import pytest

from vqlib.lessons import beds, trials
from vqlib.lessons.remedies import BED, REMEDIES
from vqlib.lessons.trials import rivals
from vqlib.quantization.rivals import RIVALS


def test_every_rival_of_the_quantizers_is_a_remedy():
    variants = {r.settings.get("variant") for r in REMEDIES.values()}
    assert set(RIVALS) <= variants


def test_a_remedy_changes_the_bed_in_its_settings_alone():
    for remedy in REMEDIES.values():
        config = remedy.config(seed=4)
        changed = {n for n in config.to_dict() if getattr(config, n) != getattr(BED, n)}
        assert changed == {"seed"} | set(remedy.settings)


def test_a_row_for_each_bed_remedy_and_seed(monkeypatch, tmp_path):
    monkeypatch.setenv("VQLIB_CACHE", str(tmp_path))
    monkeypatch.setenv("VQLIB_JOBS", "1")
    names = ["baseline", "rotation trick"]
    table = rivals.measured(names, range(2), steps=4, cooldown_steps=1, batch_size=2)
    found = list(table[["bed", "arm", "seed"]].itertuples(index=False, name=None))
    assert found == [
        ("model", "baseline", 0),
        ("model", "baseline", 1),
        ("model", "rotation trick", 0),
        ("model", "rotation trick", 1),
        ("latents", "baseline", 0),
        ("latents", "baseline", 1),
    ]
    assert not table["problem"].any()
    assert np.isfinite(table[list(beds.COLUMNS)].to_numpy(dtype=float)).all()


@pytest.fixture
def kept():
    return trials.read("rivals")


def test_the_kept_table_is_whole(kept):
    wanted = {(b, n, s) for b in beds.BEDS for n in beds.arms(b, REMEDIES) for s in rivals.SEEDS}
    found = list(kept[["bed", "arm", "seed"]].itertuples(index=False, name=None))
    assert set(found) == wanted and len(found) == len(wanted)
    assert np.isfinite(kept[list(beds.COLUMNS)].to_numpy(dtype=float)).all()
    assert kept["utilization"].between(0, 1).all() and (kept["error"] > 0).all()
