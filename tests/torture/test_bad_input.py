"""What people hand over by mistake: one line that says what, exit status 2, bounded time."""

import errno
import json
import os
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

import vqlib
from tests.suite.tiny_suite import parameters, write_notebook, write_settings
from tests.training.tiny_training import assert_same_run, quiet, tiny
from vqlib import cli, suite
from vqlib.diagnosis import HistoryError
from vqlib.diagnosis.reading import columns, console, files
from vqlib.suite import clients
from vqlib.training import checkpoints, folders
from vqlib.training.store import RunStore

HUGE = "9" * 400  # no float holds it
DEEP = '{"a":' * 50_000 + "1" + "}" * 50_000
TRAIN = ["train", "--no-progress", "--steps", "1", "--batch-size", "2", "--dataset-dir"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(capsys, *command: str) -> str:
    """The one line of a command that is refused."""
    capsys.readouterr()
    assert cli.main([*command]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1 and line[:-1].isprintable(), line
    return line[:-1]


# --- logs ---


@pytest.mark.parametrize(
    ("table", "column"),
    [
        (f"step,used_codes\n1,{HUGE}\n", "used_codes"),
        (f"step,used_codes\n{HUGE},3\n", "step"),
        (f"step,used_codes,codebook_size\n1,2,{HUGE}\n", "codebook_size"),
        (f'[{{"step": {HUGE}, "used_codes": 3}}]', "step"),
    ],
)
def test_a_number_that_no_float_holds_is_shown_in_short(here, capsys, table, column):
    (here / "log").write_text(table)
    line = told(capsys, "diagnose", "log")
    assert f"row 1, column `{column}`: expected a" in line and "9" * 60 + "..." in line
    assert len(line) < 200


def test_tables_without_end_are_refused_at_once(here, capsys, monkeypatch):
    (here / "equal.csv").write_text("\n".join([",".join(["used_codes"] * 100_000)] * 2))
    assert "header of 100,000 columns" in told(capsys, "diagnose", "equal.csv")
    (here / "levels.csv").write_text(
        "\n".join([",".join(f"used_codes_{n}" for n in range(300)), ",".join(["3"] * 300)])
    )
    assert "tells of 300 codebooks" in told(capsys, "diagnose", "levels.csv")
    # each line another name: a table of both would take 298 GiB
    (here / "names.jsonl").write_text("\n".join(f'{{"usage{n}": 1}}' for n in range(20_000)))
    assert f"more than {columns.MOST_COLUMNS:,} names" in told(capsys, "diagnose", "names.jsonl")
    monkeypatch.setattr(console, "MOST_LINES", 1000)
    (here / "printed.log").write_text("loss 3\n" * 1001)
    assert "has 1,001 lines" in told(capsys, "diagnose", "printed.log")


def test_a_pipe_that_nobody_fills_is_given_up_and_another_is_read(here, capsys, monkeypatch):
    os.mkfifo("log")
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    assert "nothing came out of this pipe" in told(capsys, "diagnose", "log")
    monkeypatch.setattr(files, "PATIENCE", 10)
    writer = threading.Thread(target=lambda: (here / "log").write_text("used_codes\n3\n"))
    writer.start()
    assert vqlib.diagnose("log", codebook_size=8)
    writer.join()


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_log(capsys, device):
    assert "it is a device" in told(capsys, "diagnose", device)


def test_escape_codes_in_names_do_not_reach_the_terminal(here, capsys):
    name = "\x1b[31m\x1b]0;owned\x07"
    (here / "log").write_text(f"step,{name}\n1,2\n")
    told(capsys, "diagnose", "log")
    told(capsys, *TRAIN, name)
    told(capsys, "check", name)
    told(capsys, "sweep", name)
    told(capsys, "train", "--no-progress", "--out-dir", "log", "--dataset", name)
    with pytest.raises(HistoryError) as caught:
        vqlib.diagnose(name)
    assert str(caught.value).isprintable()
    (here / name).mkdir()
    (here / name / "a\x1b.png").write_text("")
    with pytest.warns(UserWarning, match="skipped") as warned, pytest.raises(ValueError):
        folders.FolderPictures(here / name, ["a\x1b.png"], 8)[0]
    assert all(str(w.message).isprintable() for w in warned)


# --- pictures and arrays ---


def png_of(width: int, height: int) -> bytes:
    """A small file that says it is large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    row = b"\0" * (1 + (width + 7) // 8)
    data = zlib.compress(row * height, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_by_its_header(tmp_path, monkeypatch):
    (tmp_path / "bomb.png").write_bytes(png_of(12_000, 12_000))
    assert (tmp_path / "bomb.png").stat().st_size < 50_000
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=r"it is 12000 x 12000 pixels; expected at most"):
        folders.decode(tmp_path / "bomb.png", 8)


def test_a_large_photograph_is_still_read(tmp_path):
    Image.new("RGB", (7000, 7000)).save(tmp_path / "photo.jpg")
    assert folders.decode(tmp_path / "photo.jpg", 16).shape == (3, 16, 16)


def test_no_other_decoder_is_started_whatever_a_file_is_called(tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("it was started"))
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    with pytest.raises(OSError, match="cannot identify"):
        folders.decode(tmp_path / "a.png", 8)
    Image.new("RGB", (9, 9)).save(tmp_path / "b.tiff")
    (tmp_path / "b.tiff").rename(tmp_path / "b.png")
    with pytest.raises(OSError, match="cannot identify"):
        folders.decode(tmp_path / "b.png", 8)


def test_pipes_are_no_data(here, capsys):
    for name in ("a.npy", "arms.toml"):
        os.mkfifo(name)
    assert "a.npy is no file" in told(capsys, *TRAIN, "a.npy")
    assert "arms.toml: expected a file" in told(capsys, "sweep", "arms.toml")
    os.mkfifo("a.png")
    with pytest.raises(OSError, match="it is no file"):
        folders.decode(here / "a.png", 8)


def test_an_encrypted_archive(here, capsys):
    np.savez("a.npz", x=np.zeros((4, 8, 8), np.uint8))
    content = bytearray((here / "a.npz").read_bytes())
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(magic) + place] |= 1
    (here / "a.npz").write_bytes(content)
    assert "a.npz cannot be read" in told(capsys, *TRAIN, "a.npz")


def test_more_memory_than_there_is(capsys):
    sizes = ["--codebook-size", str(2**24), "--dim", str(2**16), "--no-kmeans-init"]
    line = told(capsys, "train", "--dataset", "digits", "--steps", "1", *sizes)
    assert "out of memory" in line


# --- folders of runs ---

DAMAGE = ["", "null", "[]", "3", '"text"', DEEP, "[" * 50_000, '{"step": null}', "\0", "\udcff"]


@pytest.mark.parametrize("name", ["config.json", "summary.json", "checkpoint.safetensors"])
def test_one_damaged_run_does_not_hide_the_others(tmp_path, name):
    store = RunStore(tmp_path)
    store.train(store.new("good"), tiny(steps=2))
    quiet(tiny(steps=2), tmp_path / "bad")
    if name.startswith("checkpoint"):
        (tmp_path / "bad" / "summary.json").unlink()
    for text in DAMAGE:
        (tmp_path / "bad" / name).write_text(text, errors="surrogateescape")
        found = {run.name: run.state for run in store.runs()}
        assert found == {"good": "finished", "bad": "unreadable"}
        with pytest.raises((ValueError, OSError)) as caught:
            store.load("bad")
        assert len(str(caught.value)) < 600


def test_odd_things_in_a_store_are_no_runs(tmp_path):
    for name in ("folder", "link", "pipe"):
        (tmp_path / name).mkdir()
    (tmp_path / "folder" / "config.json").mkdir()
    (tmp_path / "link" / "config.json").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe" / "config.json")
    assert RunStore(tmp_path).runs() == []


@pytest.mark.parametrize(
    "changes",
    [{"dataset": 3}, {"dataset_dir": [1]}, {"steps": "9"}, {"decay": None}, {"beta": 1e999}],
)
def test_settings_of_wrong_types_are_named(tmp_path, changes):
    quiet(tiny(steps=1), tmp_path)
    settings = tiny(steps=1).to_dict() | changes
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=rf"config\.json: {next(iter(changes))} must be"):
        quiet(tiny(steps=1), tmp_path, resume=True)


@pytest.mark.parametrize(
    "info", [{}, {"step": "1"}, {"step": None}, {"step": 1, "seconds": "x"}, {"step": [1]}]
)
def test_a_checkpoint_that_says_nonsense(tmp_path, info):
    quiet(tiny(steps=1), tmp_path)
    tensors, before = checkpoints.read_tensors(tmp_path / "checkpoint.safetensors")
    checkpoints.write_tensors(tmp_path / "checkpoint.safetensors", tensors, info)
    with pytest.raises(ValueError, match="holds no training that can be resumed"):
        quiet(tiny(steps=1), tmp_path, resume=True)
    for part in ("model", "optimizer", "recorder"):
        less = {n: t[:0] if t.ndim else t for n, t in tensors.items() if not n.startswith(part)}
        checkpoints.write_tensors(tmp_path / "checkpoint.safetensors", less, before)
        with pytest.raises(ValueError, match="does not fit the settings"):
            quiet(tiny(steps=1), tmp_path, resume=True)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch, capsys):
    out, full = tmp_path / "out", []
    command = ["train", "--no-progress", "--out-dir", str(out)]
    settings = tiny(steps=12).to_dict() | {"checkpoint_every": 4}
    flags = [f"--{n}={v}" for n, v in settings.items() if v != getattr(vqlib.TrainConfig(), n)]
    whole = Path.write_bytes

    def fails(path, content):
        full.append(path)
        if len(full) > 2:
            whole(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, content)

    monkeypatch.setattr(Path, "write_bytes", fails)
    line = told(capsys, *command, *flags)
    assert "checkpoint.safetensors could not be written" in line and "No space left" in line
    assert not list(out.glob(".*.part"))
    monkeypatch.undo()
    assert_same_run(quiet(tiny(steps=12), out, resume=True), quiet(tiny(steps=12)))


# --- the suite ---


def test_settings_nested_too_deep(here, capsys):
    write_notebook(here / "notebooks", "01_a", parameters())
    write_settings(here / "notebooks", "a = " + "[" * 50_000, full="")
    assert "expected.toml: nested too deep" in told(capsys, "check")


def test_a_file_in_the_place_of_the_output(here, capsys):
    write_notebook(here / "notebooks", "01_a", parameters())
    write_settings(here / "notebooks", full="")
    assert "/dev/null is a file; expected a folder" in told(capsys, "run", "--out", "/dev/null")


def test_a_notebook_that_prints_without_end_fails_by_that_name(here, monkeypatch):
    monkeypatch.setattr(clients, "MOST_OUTPUT", 200_000)
    write_notebook(here / "notebooks", "01_a", parameters(), "while True:\n    print('x' * 1000)")
    write_settings(here / "notebooks")
    (result,) = suite.run(None, "quick", here / "out", progress=False, timeout=60)
    assert result.error.startswith("prints more than 200,000 characters") and result.seconds < 40
    assert result.executed.stat().st_size < 400_000
