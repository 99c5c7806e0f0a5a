"""Run folders of other trainers and trackers, written by their own packages where they have one."""

import json
import sys

import pandas as pd
import pytest

from vqlib.diagnosis import HistoryError
from vqlib.diagnosis.sources import read_all


def only(folder, **given):
    (log,) = read_all(folder, **given).values()
    return log


def utilization(log, split="train") -> list[float]:
    return log.rows("utilization", split)["utilization"].round(4).tolist()


def test_tensorboard_with_a_folder_for_each_split(tmp_path):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    for split, values in (("train", (0.9, 0.8)), ("val", (0.5, 0.4))):
        with SummaryWriter(str(tmp_path / split)) as writer:
            for step, value in enumerate(values, start=1):
                writer.add_scalar("codebook/usage", value, step)
                writer.add_scalar("loss", 1.0, step)
    log = only(tmp_path)
    assert utilization(log) == [0.9, 0.8] and utilization(log, "val") == [0.5, 0.4]
    assert log.rows("utilization")["step"].tolist() == [1, 2]


def test_a_run_of_wandb(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(
        project="x", dir=tmp_path, mode="offline", config={"codebook_size": 64, "decay": 0.9}
    ) as run:
        for step in range(300):  # more than one block of its file
            run.log({"train/codebook_usage": 0.5, "train/note": "x" * 200, "loss": 1.0}, step=step)
    wandb.teardown()  # its service writes the last records when it ends
    log = only(tmp_path / "wandb")
    assert len(utilization(log)) == 300 and set(utilization(log)) == {0.5}
    assert (log.settings.codebook_size, log.settings.decay) == (64, 0.9)


def test_a_run_of_mlflow(tmp_path):
    run = tmp_path / "0" / "abc"
    (run / "metrics" / "val").mkdir(parents=True)
    (run / "params").mkdir()
    (run / "metrics" / "codebook_usage").write_text("1700000000 0.5 1\n1700000001 0.4 2\n")
    (run / "metrics" / "val" / "codebook_usage").write_text("1700000001 0.3 2\n")
    (run / "params" / "codebook_size").write_text("64")
    log = only(tmp_path)
    assert utilization(log) == [0.5, 0.4] and utilization(log, "val") == [0.3]
    assert log.settings.codebook_size == 64


def test_the_last_checkpoint_of_hugging_face(tmp_path):
    for step in (500, 1500, 1000):
        place = tmp_path / f"checkpoint-{step}"
        place.mkdir()
        rows = [{"step": s, "codebook_usage": s / 10_000} for s in range(500, step + 1, 500)]
        (place / "trainer_state.json").write_text(json.dumps({"log_history": rows}))
    assert utilization(only(tmp_path)) == [0.05, 0.1, 0.15]


def test_the_newest_version_of_lightning(tmp_path):
    for version in (2, 10):
        place = tmp_path / "lightning_logs" / f"version_{version}"
        place.mkdir(parents=True)
        table = pd.DataFrame({"step": [1], "train/usage": [version / 100]})
        table.to_csv(place / "metrics.csv", index=False)
    assert utilization(only(tmp_path)) == [0.1]


def test_one_log_in_a_folder(tmp_path):
    (tmp_path / "args.json").write_text("{}")
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    (tmp_path / "log.txt").write_text(json.dumps({"epoch": 0, "codebook_usage": 0.5}) + "\n")
    assert utilization(only(tmp_path)) == [0.5]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(HistoryError, match=r"holds no history\.csv, and no other log"):
        read_all(tmp_path)


@pytest.mark.parametrize(
    ("file", "package"), [("events.out.tfevents.1", "tensorboard"), ("run-1.wandb", "wandb")]
)
def test_a_missing_reader_is_named_with_its_install_line(file, package, tmp_path, monkeypatch):
    (tmp_path / file).write_bytes(b"")
    for name in [n for n in sys.modules if n.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(HistoryError, match=rf"{package}.* pip install 'vqlib\[logs\]'"):
        read_all(tmp_path)


def test_a_missing_pyarrow_is_named_with_its_install_line(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1....PAR1")
    monkeypatch.setattr(pd, "read_parquet", lambda *_: (_ for _ in ()).throw(ImportError("no")))
    with pytest.raises(HistoryError, match=r"pyarrow.* pip install 'vqlib\[logs\]'"):
        read_all(tmp_path / "a.parquet")


def test_reading_a_folder_changes_nothing_in_it(tmp_path):
    (tmp_path / "a.csv").write_text("step,usage\n1,0.5\n")
    before = sorted(p.name for p in tmp_path.iterdir())
    read_all(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
