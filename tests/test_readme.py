"""What the README shows works as it stands there."""

import re
import shlex
import tomllib
from pathlib import Path

from tests import ROOT
from tests.test_layers import ROOMS
from vqlib import cli
from vqlib.lessons import tables, trials
from vqlib.training import sweepfile
from vqlib.training.experiments import interval

README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_example_runs(capsys):
    (block,) = [text for text in PYTHON if "vqlib.diagnose" in text]
    assert len(block.strip().splitlines()) <= 11  # ten lines and a blank one
    exec(block, {})
    out = capsys.readouterr().out
    assert "watched" not in out and "not found: codebook-collapse" in out


def test_the_playground_example_runs(capsys):
    (block,) = [text for text in PYTHON if "Playground" in text]
    exec(block, {})
    assert "after 101 steps" in capsys.readouterr().out


def test_its_train_commands_are_understood(capsys):
    commands = re.findall(r"^vqlib (train .*)$", README, flags=re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        # the folder is the reader's; all else must be accepted
        assert cli.main(shlex.split(command)) == 2
        assert "/path/to/data' does not exist" in capsys.readouterr().err


def test_its_twenty_seeds_are_those_of_the_kept_trial():
    table = trials.read("before_after")
    use = 100 * table.groupby("arm")["utilization"].mean()
    assert f"from {use['baseline']:.0f} % to {use['reset']:.0f} %" in " ".join(README.split())
    mean, low, high = interval(tables.error_ratios(table))
    assert f"by {mean:.3f} (95 % interval {low:.3f} to {high:.3f})" in " ".join(README.split())
    assert f"a gain of {100 * (1 - mean):.0f} %" in README and high < 1
    assert table["seed"].nunique() == 20


def test_its_sweep_is_understood():
    (text,) = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    sweep = sweepfile.plan(tomllib.loads(text))
    assert sweep.runs == 20 and f"the {sweep.runs} runs" in README
    assert next(iter(sweep.arms)) == sweep.reference == "off, decay 0.9"


def test_its_diagnose_command_is_understood(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"^vqlib (diagnose .*)$", README, flags=re.MULTILINE)
    Path("history.csv").write_text("step,split,used_codes\n1,train,500\n")
    assert cli.main(shlex.split(command)) == 0
    assert "history.csv: healthy" in capsys.readouterr().out


def test_its_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE) or target == "PYTHON", target


def test_the_architecture_names_every_room_once():
    rows = re.findall(r"^\| `(\w+)` \|", README.split("## Architecture")[1], flags=re.MULTILINE)
    assert rows[0] == "cli" and rows[-1] == "quantization" and sorted(rows) == sorted(ROOMS)
