"""Histories from anywhere: what is read, what is refused, and that the message names the place."""

import json
import os
import re
import threading

import numpy as np
import pandas as pd
import pytest

import vqlib
from tests.diagnosis.histories import SETTINGS, K, changed, healthy
from vqlib import TrainConfig, diagnose
from vqlib.diagnosis import HistoryError
from vqlib.diagnosis.sources import read

SMALL = pd.DataFrame({"step": [1, 2, 3], "split": "train", "used_codes": [5, 6, 7]})


def refused(table, **given) -> str:
    with pytest.raises(HistoryError) as caught:
        read(table, **given)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl"])
def test_files_of_each_kind_say_the_same(tmp_path, suffix):
    path, table = tmp_path / f"history.{suffix}", healthy()
    write = {
        "csv": lambda: table.to_csv(path, index=False, sep=";"),
        "tsv": lambda: table.to_csv(path, index=False, sep="\t"),
        "json": lambda: table.to_json(path, orient="records"),
        "jsonl": lambda: table.to_json(path, orient="records", lines=True),
    }
    write[suffix]()
    from_file, from_table = diagnose(path, **SETTINGS), diagnose(table, **SETTINGS)
    assert [(a.id, a.severity) for a in from_file.answers] == [
        (a.id, a.severity) for a in from_table.answers
    ]


def test_a_run_its_folder_and_its_table_agree(tmp_path):
    config = TrainConfig(
        dataset="digits",
        image_size=8,
        steps=30,
        val_every=10,
        codebook_size=32,
        dim=4,
        width=8,
        batch_size=16,
        device="cpu",
        dead_code_threshold=0.5,
        reset_relative=True,
    )
    run = vqlib.train(config, tmp_path / "run", progress=False)
    whole, folder = read(run), read(tmp_path / "run")
    assert whole.settings == folder.settings
    assert whole.settings.codebook_size == 32
    share = run.summary["tokens_per_step"] / 32
    assert whole.settings.share == share
    assert whole.settings.dead_code_threshold == 0.5 * share  # relative, now in hits
    assert diagnose(run).to_dict()["answers"] == diagnose(tmp_path / "run").to_dict()["answers"]


def test_rows_may_come_in_any_order_and_a_resumed_step_twice():
    table = pd.DataFrame({"step": [3, 1, 2, 3], "split": "train", "used_codes": [1, 5, 6, 7]})
    assert read(table).table["used_codes"].tolist() == [5, 6, 7]


def test_splits_have_many_names():
    table = SMALL.assign(split=["Training", "validation ", "eval"])
    assert read(table).table["split"].tolist() == ["train", "val", "val"]


def test_k_comes_from_argument_column_or_both_columns():
    assert read(SMALL, codebook_size=9).settings.codebook_size == 9
    assert read(SMALL.assign(codebook_size=10)).settings.codebook_size == 10
    assert read(SMALL.assign(codebook_size=10), codebook_size=9).settings.codebook_size == 9
    assert read(healthy()).settings.codebook_size == K
    assert read(SMALL).settings.codebook_size is None


def test_used_codes_or_utilization_alone_will_do():
    by_codes = read(SMALL, codebook_size=10).table
    by_share = read(
        SMALL.drop(columns="used_codes").assign(utilization=[0.5, 0.6, 0.7]), codebook_size=10
    ).table
    assert by_codes["utilization"].tolist() == [0.5, 0.6, 0.7]
    assert by_share["used_codes"].tolist() == [5, 6, 7]


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("used_codes", -4, "row 2, column `used_codes`: expected at least 0, found -4"),
        ("used_codes", "many", "row 2, column `used_codes`: expected a number, found 'many'"),
        ("used_codes", 40, "row 2, column `used_codes`: expected at most the codebook's 32 codes"),
        ("used_codes", float("inf"), "row 2, column `used_codes`: expected a finite number"),
        ("utilization", 55, "expected between 0 and 1 (a share, not per cent), found 55"),
        ("step", -1, "row 2, column `step`: expected at least 0, found -1"),
        ("split", "foo", 'row 2, column `split`: expected "train" or "val", found \'foo\''),
        ("resets", -1, "row 2, column `resets`: expected at least 0"),
        ("perplexity", "x", "row 2, column `perplexity`: expected a number, found 'x'"),
        ("decay", 1.5, "row 2, column `decay`: expected between 0 and 1"),
    ],
)
def test_a_bad_cell_is_named_by_row_and_column(column, value, expected):
    table = SMALL.assign(utilization=0.2, resets=0, perplexity=3.0, decay=0.9).astype(object)
    if column == "used_codes":
        table = table.drop(columns="utilization")
    table.loc[1, column] = value
    assert expected in refused(table, codebook_size=32)


def test_rows_are_named_as_they_stand_in_the_file():
    table = SMALL.iloc[::-1].reset_index(drop=True).assign(used_codes=[5, 99, 5])
    assert "row 2" in refused(table, codebook_size=32)


def test_without_a_step_rows_count_and_without_a_split_all_are_of_training():
    found = read(SMALL[["used_codes"]], codebook_size=10)
    assert found.table["step"].tolist() == [1, 2, 3] and set(found.table["split"]) == {"train"}
    assert found.understood[0] == "step <- the rows, in their order"


def test_cells_that_are_empty_are_left_out():
    table = SMALL.assign(used_codes=[5, np.nan, 7])
    assert read(table, codebook_size=10).table["used_codes"].dropna().tolist() == [5, 7]
    with pytest.raises(HistoryError, match="there is no number in `used_codes`"):
        read(SMALL.assign(used_codes=np.nan), codebook_size=10)


def test_a_misspelt_column_is_guessed():
    message = refused(SMALL.rename(columns={"used_codes": "usedcodes"}))
    assert "did you mean `usedcodes`" in message


def test_several_histories_in_one_table_are_refused():
    assert "column `seed` has 2 values" in refused(SMALL.assign(seed=[0, 1, 1]))


@pytest.mark.parametrize("name", ["codebook_size", "tokens_per_step", "decay"])
@pytest.mark.parametrize("value", [-1, "x", True, float("nan")])
def test_arguments_are_checked(name, value):
    assert re.match(f"{name} must be a number from", refused(SMALL, **{name: value}))


def test_no_rows():
    assert refused(SMALL.head(0)).endswith("has no rows")


def test_what_is_no_history_at_all():
    assert "expected a Run, a history table, a path or a watcher, got int" in refused(7)


def test_a_folder_without_a_history(tmp_path):
    assert refused(tmp_path).startswith(f"{tmp_path} holds no history.csv")


def test_settings_in_a_run_folder_that_cannot_be_read_are_only_missing(tmp_path):
    changed(healthy(), utilization=None).to_csv(tmp_path / "history.csv", index=False)
    (tmp_path / "config.json").write_text(json.dumps({})[:-1])
    assert read(tmp_path).settings.codebook_size is None


def test_a_restart_puts_aside_what_stood_there_before():
    first = pd.DataFrame({"step": range(100), "split": "train", "used_codes": 480})
    again = first.head(50).assign(used_codes=9)
    log = read(pd.concat([first, again]), codebook_size=512)
    assert len(log.table) == 50 and set(log.table["used_codes"]) == {9}
    resumed = pd.concat([first.head(60), first.iloc[50:].assign(used_codes=470)])
    assert read(resumed, codebook_size=512).table["used_codes"].tolist() == [480] * 50 + [470] * 50


def test_shuffled_rows_are_only_in_another_order():
    table = healthy().sample(frac=1, random_state=0)
    assert read(table).table["step"].tolist() == sorted(healthy()["step"])


def test_columns_that_contradict_each_other_are_refused():
    message = refused(SMALL.assign(utilization=0.9), codebook_size=512)
    assert "row 1, column `utilization`: expected used_codes / 512" in message


@pytest.mark.parametrize("column", ["step", "split", "used_codes"])
def test_a_column_that_stands_twice_is_refused(column):
    table = pd.concat([SMALL, SMALL[[column]]], axis=1)
    assert refused(table) == f"history has two columns `{column}`"


def test_dates_and_truth_values_are_no_numbers():
    dates = pd.date_range("2026-01-01", periods=3)
    assert "column `step`: expected a number" in refused(SMALL.assign(step=dates))
    assert "column `used_codes`: expected a number" in refused(SMALL.assign(used_codes=True))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x1f\x8b123", "compressed (gzip)"),
        (b"PAR1abc", "a Parquet file"),
        (b"PK\x03\x04x", "an archive"),
        (b"\xff\xfes\x00", "names no use of a codebook"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, content, words):
    path = tmp_path / "history.csv"
    path.write_bytes(content)
    assert words in refused(path)


def test_a_pipe_can_be_read(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    text = SMALL.to_csv(index=False)
    writer = threading.Thread(target=path.write_text, args=(text,))
    writer.start()
    assert read(path).table["used_codes"].tolist() == [5, 6, 7]
    writer.join()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[]", None),
        ("null", None),
        ('{"codebook_size": 0}', "codebook_size must be a number"),
        ('{"codebook_size": 512, "tokens_per_step": 0}', "tokens_per_step must be a number"),
        ('{"decay": "x"}', "decay must be a number"),
        ('{"reset_relative": true, "dead_code_threshold": 0.1}', None),
    ],
)
def test_settings_of_a_folder_are_checked_like_arguments(tmp_path, config, words):
    SMALL.to_csv(tmp_path / "history.csv", index=False)
    (tmp_path / "config.json").write_text(config)
    if words:
        assert words in refused(tmp_path)
    else:
        assert read(tmp_path).settings.dead_code_threshold is None
