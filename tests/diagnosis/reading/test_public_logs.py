"""Logs as public trainers and trackers write them, and logs in which a hasty reader guesses wrong.

Each is rewritten in few lines after the code or the thread that is named; the numbers are made up.
"""
# ruff: noqa: E501 - a log's line stands on one line

import json
import time

import pytest

from vqlib import cli
from vqlib.diagnosis import HistoryError
from vqlib.diagnosis.sources import read_all

# facebookresearch/fairseq #3109: hydra's lines, two groups of 320 codes summed
FAIRSEQ = """\
[2021-01-05 18:20:12,269][train_inner][INFO] - {"epoch": 1, "update": 0.2, "prob_perplexity": "639.9", "code_perplexity": "353.2", "num_updates": "200"}
[2021-01-05 18:21:12,269][train_inner][INFO] - {"epoch": 1, "update": 0.4, "prob_perplexity": "639.9", "code_perplexity": "350.1", "num_updates": "400"}
[2021-01-05 18:21:30,269][valid][INFO] - {"epoch": 1, "valid_code_perplexity": "37.6", "valid_num_updates": "400"}
"""
# facebookresearch/AudioDec #8: a bar before the lines, a full stop behind each number
AUDIODEC = """\
[train]:   0%|▏      | 497/200000 [00:20<1:38:37, 33.71it/s]2023-06-28 10:55:22,886 (trainerGAN:333) INFO: (Steps: 500) train/train/ppl_0 = 90.1403.
2023-06-28 10:55:22,887 (trainerGAN:333) INFO: (Steps: 500) train/train/ppl_1 = 31.8954.
"""
# Mael-zys/T2M-GPT: a warm-up with a counter of its own, and full stops behind names
T2M = "".join(
    f"2023-02-01 10:00:00,123 INFO {stage}. Iter {i} : \t Commit. 0.12 \t PPL. {ppl + i / 100:.2f} \t Recons.  0.3\n"
    for stage, ppl, steps in (("Warmup", 10, (200, 400, 600)), ("Train", 300, (200, 400, 600, 800)))
    for i in steps
)
# Wendison/VQMIVC #16 spells it so
VQMIVC = (
    "epoch:506, global step:201, recon loss:3.6, vq loss:0.0, perpexlity:1.000, used time:0.4s\n"
)
# FoundationVision/LlamaGen: the step is printed after what belongs to it
LLAMAGEN = "".join(
    f"[\x1b[34m2024-06-10 12:00:00\x1b[0m] (Generator) rec_loss: 0.01, codebook_usage: {u}, disc_weight: 0.0\n"
    f"[\x1b[34m2024-06-10 12:00:00\x1b[0m] (step={step:07d}) Train Loss: 1.23, Train Steps/Sec: 3.21\n"
    for step, u in ((100, 0.3), (200, 0.4))
)
# the same order in a print of one's own
STEP_LAST = "used codes 97/128\nstep 10 done in 3 s\nused codes 96/128\nstep 20 done in 3 s\n"
# google/CommonLoopUtils, as MaskGIT and others use it: the step in brackets
CLU = "".join(
    f"I1126 12:00:01.000000 140 logging_writer.py:48] [{s}] codebook_usage={u}, loss=0.1\n"
    for s, u in ((100, 0.5), (200, 0.4))
)
# google-deepmind/sonnet, vqvae_example: the step first, without a name
SONNET = "100 train loss: 0.12 perplexity: 23.000\n200 train loss: 0.11 perplexity: 24.000\n"
# open-mmlab/mmengine: console, and vis_data/scalars.json with an epoch's number as val's step
MMENGINE = """\
mmengine - INFO - Epoch(train)  [1][ 50/100]  lr: 1.0e-03  loss: 0.5  codebook_usage: 0.6
mmengine - INFO - Epoch(train)  [1][100/100]  lr: 1.0e-03  loss: 0.5  codebook_usage: 0.7
mmengine - INFO - Epoch(val) [1][20/20]    codebook_usage: 0.3  time: 0.02
mmengine - INFO - Epoch(train)  [2][ 50/100]  lr: 1.0e-03  loss: 0.5  codebook_usage: 0.8
"""
MM_SCALARS = "\n".join(
    json.dumps(row)
    for row in (
        {"lr": 1e-3, "codebook_usage": 0.6, "epoch": 1, "iter": 50, "step": 50},
        {"lr": 1e-3, "codebook_usage": 0.7, "epoch": 1, "iter": 100, "step": 100},
        {"codebook_usage": 0.3, "time": 0.02, "step": 1},
        {"lr": 1e-3, "codebook_usage": 0.8, "epoch": 2, "iter": 150, "step": 150},
    )
)
# tables drawn by rich, and by stable-baselines3's and alike loggers
RICH = "Epoch 1\n┃ Metric         ┃ Value  ┃\n│ Perplexity     │ 30.00  │\n│ Codebook usage │ 12.5%  │\nEpoch 2\n│ Perplexity     │ 31.00  │\n│ Codebook usage │ 25.0%  │\n"
BASELINES = "| step        | 100      |\n| train/usage | 0.5      |\n----------\n| step        | 200      |\n| train/usage | 0.4      |\n"
MARKDOWN = (
    "| epoch | perplexity | usage |\n|---|:---:|---:|\n| 1 | 33.0 | 12.5% |\n| 2 | 34.0 | 25% |\n"
)
# a label before each codebook's figures, in one line or in one line each
HEADS = "step 10/60 loss=1.5 val_pair=0.5\n  VQ: h0:util=1.00,ppl=20 h1:util=0.50,ppl=9 | stab h0:chg=0.1\n"
LABELS = "Epoch 1\n  Codebook 0: usage 50.0%\n  Codebook 1: usage 30.0%\nEpoch 2\n  Codebook 0: usage 40.0%\n  Codebook 1: usage 20.0%\n"
ONE_LINE = "it 5: Level 0 used 97/128, ppl 40.1 | Level 1 used 12/128, ppl 3.2\n"
BOTH_SPLITS = "Epoch 1 | Train Loss 0.5 PPL 33 | Val Loss 0.6 PPL 23\nEpoch 2 | Train Loss 0.4 PPL 34 | Val Loss 0.5 PPL 24\n"
VAL_LOSS_BESIDE = "Epoch 1 | Train Loss: 0.5 | Val Loss: 0.6 | Perplexity: 33\n"
ACTIVE_DEAD = "Epoch 1/50\nActive codes: 100, Dead codes: 28, Perplexity: 60.0\nMax usage fraction: 12.34%, Min usage fraction: 0.00%\n"
PER_SIZE = "epoch 1  mean L1: 0.0123\nperplexity:     45.2 / 512\ndead codes:     400 / 512\n"
RESOURCES = "step 1 GPU usage: 90% codebook usage: 0.5\nstep 2 GPU usage: 91% codebook usage: 0.4\n"

# exports of trackers: a row a metric
MELTED = "step,tag,value\n1,train/codebook_usage,0.5\n1,train/loss,2\n2,train/codebook_usage,0.4\n2,val/codebook_usage,0.1\n"
MLFLOW = "Run,Metric,Step,Timestamp,Value\nabc,codebook_usage,1,17,0.5\nabc,loss,1,17,3\nabc,codebook_usage,2,18,0.4\n"
COMET = json.dumps(
    [
        {
            "metricName": name,
            "metricValue": value,
            "step": step,
            "epoch": None,
            "runContext": context,
        }
        for step, name, value, context in (
            (1, "codebook_usage", "0.5", "train"),
            (1, "loss", "2.0", "train"),
            (2, "codebook_usage", "0.4", "train"),
            (2, "codebook_usage", "0.1", "validate"),
        )
    ]
)
CLEARML = json.dumps(
    {
        "train": {"codebook_usage": {"name": "codebook_usage", "x": [1, 2], "y": [0.5, 0.4]}},
        "val": {"codebook_usage": {"name": "codebook_usage", "x": [2], "y": [0.1]}},
        ":monitor:gpu": {"gpu_0_utilization": {"name": "gpu", "x": [1], "y": [99.0]}},
    }
)
NEPTUNE = "index,value,timestamp\n1,0.5,1700\n2,0.4,1701\n"

# TencentARC/VQFR #3, by BasicSR's logger: commas between thousands
BASICSR = "".join(
    f"INFO: [train..][epoch:  {i}, iter:  {28 + i},500, lr:(1.000e-04,1.000e-04,)] [eta: 7 days, 21:16:33] l_rec: 7.4e-03 codebook_usage: 3.{i}e-01 \n"
    for i in (0, 1)
)
# lucidrains/vector-quantize-pytorch #69: the step is an epoch's last, each time
LAST_STEPS = "".join(f"epoch: {e}   step: 221   loss: 5.1 perplexity: {40 - e}.5\n" for e in (1, 2))
TENSORS = "step 1 perplexity: tensor(31.5, device='cuda:0', grad_fn=<ExpBackward0>)\nstep 2 perplexity: tensor(32.5)\n"
NUMPY = "{'step': 1, 'codebook_usage': np.float64(0.5)}\n{'step': 2, 'codebook_usage': np.float64(0.4)}\n"
LAYERS = "Epoch 1\n  Layer 0: 250/256 codes used (97.7%), perplexity: 201.3\n  Layer 1: 25/256 codes used (9.8%), perplexity: 12.1\n"
POINTS = json.dumps({"codebook_usage": [{"step": 1, "value": 0.5}, {"step": 2, "value": 0.4}]})


def printed(line: str) -> str:
    """A log of this line, with 20 dead codes moved and 97 codes in use."""
    return "".join(f"step {step} {line.format(n=20, u=97)}\n" for step in (1, 2))


YAML = "".join(
    f"- epoch: {e}\n  train:\n    usage: {t}\n  val:\n    usage: {v}\n"
    for e, t, v in ((1, 0.9, 0.5), (2, 0.8, 0.4))
)
RULED = "".join(
    f"=== Training ===\nepoch {e} usage {t}\n=== Validation ===\nepoch {e} usage {v}\n"
    for e, t, v in ((1, 0.9, 0.5), (2, 0.8, 0.4))
)
NOW_AND_THEN = "".join(
    f"epoch {e} usage {t}\nValidating...\n usage {v}\n"
    for e, t, v in ((1, 0.9, 0.5), (2, 0.8, 0.4))
)
TRAINING_ONCE = "Training\n" + NOW_AND_THEN.replace("Validating...", "Validation")
PARTS = "Training\nepoch 1 usage 0.9\nepoch 2 usage 0.8\nValidation\nepoch 1 usage 0.5\nepoch 2 usage 0.4\n"
CHECKED_FIRST = "Evaluating\nusage 0.1\nstep 1 usage 0.9\nstep 2 usage 0.8\n"

K = {"codebook_size": 512}
# name: (file, content, arguments, codebook, split, column, [(step, value), ...])
UNDERSTOOD = {
    "fairseq": ("hydra_train.log", FAIRSEQ, {"codebook_size": 640}, "", "train", "perplexity", [(200, 353.2), (400, 350.1)]),
    "fairseq's valid": ("hydra_train.log", FAIRSEQ, {"codebook_size": 640}, "", "val", "perplexity", [(400, 37.6)]),
    "AudioDec": ("log.txt", AUDIODEC, K, "1", "train", "perplexity", [(500, 31.8954)]),
    "T2M-GPT": ("run.log", T2M, K, "", "train", "perplexity", [(200, 302), (400, 304), (600, 306), (800, 308)]),
    "VQMIVC": ("a.log", VQMIVC, K, "", "train", "perplexity", [(201, 1)]),
    "LlamaGen": ("log.txt", LLAMAGEN, {}, "", "train", "utilization", [(100, 0.3), (200, 0.4)]),
    "the step comes last": ("a.log", STEP_LAST, {}, "", "train", "used_codes", [(10, 97), (20, 96)]),
    "clu": ("a.log", CLU, {}, "", "train", "utilization", [(100, 0.5), (200, 0.4)]),
    "sonnet": ("a.log", SONNET, K, "", "train", "perplexity", [(100, 23), (200, 24)]),
    "MMEngine": ("a.log", MMENGINE, {}, "", "train", "utilization", [(151, 0.6), (201, 0.7), (252, 0.8)]),
    "MMEngine's val": ("a.log", MMENGINE, {}, "", "val", "utilization", [(201, 0.3)]),
    "MMEngine's scalars": ("scalars.json", MM_SCALARS, {}, "", "train", "utilization", [(50, 0.6), (100, 0.7), (150, 0.8)]),
    "MMEngine's scalars, val": ("scalars.json", MM_SCALARS, {}, "", "val", "utilization", [(100, 0.3)]),
    "rich": ("a.log", RICH, K, "", "train", "utilization", [(1, 0.125), (2, 0.25)]),
    "stable-baselines' table": ("a.log", BASELINES, {}, "", "train", "utilization", [(100, 0.5), (200, 0.4)]),
    "markdown": ("a.md", MARKDOWN, K, "", "train", "utilization", [(1, 0.125), (2, 0.25)]),
    "heads in a line": ("a.log", HEADS, {}, "1", "train", "utilization", [(10, 0.5)]),
    "heads' perplexity": ("a.log", HEADS, {"codebook_size": 64}, "1", "train", "perplexity", [(10, 9)]),
    "a line a codebook": ("a.log", LABELS, {}, "1", "train", "utilization", [(1, 0.3), (2, 0.2)]),
    "levels in a line": ("a.log", ONE_LINE, {}, "1", "train", "used_codes", [(5, 12)]),
    "both splits in a line": ("a.log", BOTH_SPLITS, K, "", "train", "perplexity", [(1, 33), (2, 34)]),
    "both splits, val": ("a.log", BOTH_SPLITS, K, "", "val", "perplexity", [(1, 23), (2, 24)]),
    "a validation loss beside it": ("a.log", VAL_LOSS_BESIDE, K, "", "train", "perplexity", [(1, 33)]),
    "extremes are no usage": ("a.log", ACTIVE_DEAD, {}, "", "train", "utilization", [(1, 0.78125)]),
    "perplexity of K": ("a.log", PER_SIZE, {}, "", "train", "perplexity", [(1, 45.2)]),
    "a GPU's usage beside it": ("a.log", RESOURCES, {}, "", "train", "utilization", [(1, 0.5), (2, 0.4)]),
    "melted": ("scalars.csv", MELTED, {}, "", "train", "utilization", [(1, 0.5), (2, 0.4)]),
    "melted, val": ("scalars.csv", MELTED, {}, "", "val", "utilization", [(2, 0.1)]),
    "MLflow's download": ("metrics.csv", MLFLOW, {}, "", "train", "utilization", [(1, 0.5), (2, 0.4)]),
    "Comet": ("metrics.json", COMET, {}, "", "train", "utilization", [(1, 0.5), (2, 0.4)]),
    "Comet's validate": ("metrics.json", COMET, {}, "", "val", "utilization", [(2, 0.1)]),
    "ClearML": ("scalars.json", CLEARML, {}, "", "train", "utilization", [(1, 0.5), (2, 0.4)]),
    "ClearML, val": ("scalars.json", CLEARML, {}, "", "val", "utilization", [(2, 0.1)]),
    "Neptune": ("metrics_val_codebook_usage.csv", NEPTUNE, {}, "", "val", "utilization", [(1, 0.5), (2, 0.4)]),
    "decimal commas": ("a.csv", "step;usage;ppl\n1;0,25;1,250\n2;0,5;1,5\n", {}, "", "train", "perplexity", [(1, 1.25), (2, 1.5)]),
    "three decimals behind a comma": ("a.tsv", "step\tusage\n1\t0,125\n2\t0,25\n", {}, "", "train", "utilization", [(1, 0.125), (2, 0.25)]),
    "UTF-16 without a mark": ("a.log", "step 1 usage: 0.5\n".encode("utf-16-le"), {}, "", "train", "utilization", [(1, 0.5)]),
    "two runs in a file": ("a.csv", "step,usage\n" + "".join(f"{s},0.9\n" for s in range(0, 500, 100)) + "0,0.2\n100,0.1\n", {}, "", "train", "utilization", [(0, 0.2), (100, 0.1)]),
    "steps downwards": ("a.csv", "step,usage\n400,0.4\n300,0.3\n200,0.2\n", {}, "", "train", "utilization", [(200, 0.2), (300, 0.3), (400, 0.4)]),
    "ranks": ("slurm.out", "".join(f"[rank{r}]: step {s} usage: {0.1 + 0.4 * r}\n" for s in (1, 2) for r in (1, 0)), {}, "", "train", "utilization", [(1, 0.1), (2, 0.1)]),
    "tasks of srun": ("slurm.out", "".join(f"{r}: step {s} usage: {0.1 + 0.4 * r}\n" for s in (1, 2, 3) for r in (0, 1)), {}, "", "train", "utilization", [(1, 0.1), (2, 0.1), (3, 0.1)]),
    "epochs before a colon": ("a.log", "1: usage: 0.5\n2: usage: 0.4\n3: usage: 0.3\n", {}, "", "train", "utilization", [(1, 0.5), (2, 0.4), (3, 0.3)]),
    "BasicSR": ("a.log", BASICSR, {}, "", "train", "utilization", [(28500, 0.3), (29500, 0.31)]),
    "thousands in words": ("a.log", "After 1,000 steps: 97 of 128 codes used\n", {}, "", "train", "used_codes", [(1000, 97)]),
    "one step in all epochs": ("a.log", LAST_STEPS, K, "", "train", "perplexity", [(443, 39.5), (665, 38.5)]),
    "tensors": ("a.log", TENSORS, K, "", "train", "perplexity", [(1, 31.5), (2, 32.5)]),
    "numpy's numbers": ("a.log", NUMPY, {}, "", "train", "utilization", [(1, 0.5), (2, 0.4)]),
    "per cent of codes": ("a.log", "Epoch 3: 45.3% of codes used\n", {}, "", "train", "utilization", [(3, 0.453)]),
    "layers with fractions": ("a.log", LAYERS, {}, "1", "train", "used_codes", [(1, 25)]),
    "a row per level": ("a.log", "step 5 util per level: 0.9 0.5\n", {}, "1", "train", "utilization", [(5, 0.5)]),
    "Excel's first line": ("a.csv", "sep=;\nstep;usage\n1;0,5\n2;0,25\n", {}, "", "train", "utilization", [(1, 0.5), (2, 0.25)]),
    "points": ("m.json", POINTS, {}, "", "train", "utilization", [(1, 0.5), (2, 0.4)]),
    "torchrun": ("a.log", "".join(f"[default{r}]:step {s} usage {0.1 + 0.4 * r}\n" for s in (1, 2) for r in (0, 1)), {}, "", "train", "utilization", [(1, 0.1), (2, 0.1)]),
    "stages of a training": ("a.log", "Stage 1: epoch 1 usage 0.5\nStage 2: epoch 2 usage 0.9\n", {}, "", "train", "utilization", [(1, 0.5), (2, 0.9)]),
    "hits of each code": ("a.jsonl", '{"step": 1, "code_usage": [5, 0, 0, 5]}\n{"step": 2, "code_usage": [8, 0, 0, 2]}\n', {"codebook_size": 4}, "", "train", "used_codes", [(1, 2), (2, 2)]),
    "shares of each code": ("a.jsonl", '{"step": 1, "usage": [0.5, 0.5, 0, 0]}\n{"step": 2, "usage": [0.5, 0.5, 0, 0]}\n', {}, "", "train", "perplexity", [(1, 2), (2, 2)]),
    "headings of YAML": ("a.yaml", YAML, {}, "", "train", "utilization", [(1, 0.9), (2, 0.8)]),
    "headings of YAML, val": ("a.yaml", YAML, {}, "", "val", "utilization", [(1, 0.5), (2, 0.4)]),
    "headings with rules": ("a.log", RULED, {}, "", "train", "utilization", [(1, 0.9), (2, 0.8)]),
    "headings with rules, val": ("a.log", RULED, {}, "", "val", "utilization", [(1, 0.5), (2, 0.4)]),
    "a heading of validation alone": ("a.log", NOW_AND_THEN, {}, "", "train", "utilization", [(1, 0.9), (2, 0.8)]),
    "a heading of validation alone, val": ("a.log", NOW_AND_THEN, {}, "", "val", "utilization", [(1, 0.5), (2, 0.4)]),
    "a heading of training once": ("a.log", TRAINING_ONCE, {}, "", "train", "utilization", [(1, 0.9), (2, 0.8)]),
    "a heading of training once, val": ("a.log", TRAINING_ONCE, {}, "", "val", "utilization", [(1, 0.5), (2, 0.4)]),
    "two parts": ("a.log", PARTS, {}, "", "train", "utilization", [(1, 0.9), (2, 0.8)]),
    "two parts, val": ("a.log", PARTS, {}, "", "val", "utilization", [(1, 0.5), (2, 0.4)]),
    "a check before the first step": ("a.log", CHECKED_FIRST, {}, "", "train", "utilization", [(1, 0.9), (2, 0.8)]),
    "four codebooks": ("a.jsonl", '{"step": 1, "usage": [0.9, 0.5, 0.4, 0.3]}\n{"step": 2, "usage": [0.9, 0.5, 0.4, 0.2]}\n', {"codebook_size": 64}, "3", "train", "utilization", [(1, 0.3), (2, 0.2)]),
}  # fmt: skip


def written(folder, file: str, content):
    path = folder / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "line",
    [
        "replaced {n} dead codes, {u} codes alive",
        "Resetting {n} dead codes, used codes {u}",
        "{n} dead codes reset, used codes {u}",
        "{n} dead codes were replaced. used codes {u}",
        "replaced dead codes: {n}, used codes {u}",
        "reset codes: {n} used codes: {u}",
        "restarted {n} codes, used codes: {u}",
        "Re-initialized {n} dead codes; used codes: {u}",
        "random restart of {n} codes, used codes {u}",
        "dead code reset: {n} codes, used codes {u}",
    ],
)
def test_dead_codes_that_were_moved_are_resets(line, tmp_path):
    (log,) = read_all(written(tmp_path, "a.log", printed(line)), **K).values()
    train = log.split("train")
    assert list(train["resets"]) == [20, 20] and list(train["used_codes"]) == [97, 97]


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_it_is_understood(name, tmp_path):
    file, content, given, codebook, split, column, points = UNDERSTOOD[name]
    log = read_all(written(tmp_path, file, content), **given)[codebook]
    rows = log.rows(column, split)
    assert list(zip(rows["step"], rows[column].round(6), strict=True)) == points


NAMED = "Epoch 1\n  Pose codebook utilization: 50%\n  Face codebook utilization: 3%\n"
# name: (file, content, arguments, what the message holds)
REFUSED = {
    "a sum over groups": ("a.log", FAIRSEQ, {"codebook_size": 320}, "a perplexity of 353.2 is more than the codebook's 320 codes"),
    "codebooks with names": ("a.log", NAMED, {}, '--map "utilization_0=Face codebook utilization"'),
    "several in a line": ("a.log", "step 1 usage 0.9 usage 0.3\n", {}, "tells `usage` 2 times in one line (0.3, 0.9)"),
    "memory": ("a.log", "step 1 loss: 0.5 memory usage: 0.9\n", {}, "names no use of a codebook"),
    "a GPU": ("a.log", "step 1: GPU usage: 90% RAM usage 12%\n", {}, "names no use of a codebook"),
    "a GPU with a number": ("a.log", "step 1: GPU 0 usage: 0.9 GPU 1 usage: 0.8\n", {}, "names no use of a codebook"),
    "the top's share": ("a.log", "step 1 top 10 usage: 0.9\n", {}, "names no use of a codebook"),
    "a tensor cut short": ("a.log", "Epoch 1 codebook usage: tensor([ 48,   0,  ...,   3,   7])\n", {}, "names no use of a codebook"),
    "a language model's": ("a.log", "step 1 loss: 0.5 text perplexity: 30.1\n", K, "names no use of a codebook"),
    "Jukebox' short names": ("a.log", "5/90 [00:01<00:09, l=0.05, e=7.1, u=2000, uc=1900, dk=0.001]\n", {"codebook_size": 2048}, "it prints l, e, u, uc, dk. If one is, say which: --map \"used_codes=NAME\""),
    "items that collide": ("a.log", "epoch 1 evaluating [time: 0.5s, collision_rate: 0.91]\n", {}, "it prints time, collision_rate"),
    "three columns drawn": ("a.log", "│ metric │ train │ val │\n│ usage │ 0.5 │ 0.3 │\n", {}, "names no use of a codebook"),
    "ranks in a table": ("a.csv", "step,rank,usage\n1,0,0.5\n1,1,0.1\n", {}, "column `rank` has 2 values"),
    "runs in an export": ("a.csv", "run,metric,step,value\na,usage,1,0.5\nb,usage,1,0.1\n", {}, "column `run` has 2 values"),
    "a normalised perplexity": ("a.log", "step 1 codebook_perplexity: 0.83\n", K, "no column on the use of a codebook"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name, tmp_path):
    file, content, given, words = REFUSED[name]
    with pytest.raises(HistoryError) as refused:
        read_all(written(tmp_path, file, content), **given)
    assert words in str(refused.value)


def test_a_map_reads_any_name_that_was_printed(tmp_path):
    path = written(tmp_path, "a.log", REFUSED["Jukebox' short names"][1].replace("uc", "u c"))
    (log,) = read_all(path, map={"used_codes": "u c"}, codebook_size=2048).values()
    assert log.rows("used_codes")[["step", "used_codes"]].to_numpy().tolist() == [[5, 1900]]


def test_a_map_tells_codebooks_apart_by_their_names(tmp_path):
    chosen = {
        "utilization_0": "Pose codebook utilization",
        "utilization_1": "Face codebook utilization",
    }
    logs = read_all(written(tmp_path, "a.log", NAMED), map=chosen)
    assert [log.rows("utilization")["utilization"].tolist() for log in logs.values()] == [
        [0.5],
        [0.03],
    ]


def test_what_was_left_out_is_said(tmp_path, capsys):
    for name, words in (
        ("two runs in a file", "5 rows of a run begun again"),
        ("ranks", "rank 0 alone"),
    ):
        file, content, *_ = UNDERSTOOD[name]
        cli.main(["diagnose", str(written(tmp_path, file, content))])
        assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    "line", ["x" * 9_999, "x1" * 4_999, "1" * 9_999, "a b " * 2_400, "x" * 10**6]
)
def test_a_line_of_data_does_not_hold_up_the_reading(line, tmp_path):
    began = time.monotonic()
    (log,) = read_all(written(tmp_path, "a.log", f"{line}\nstep 1 usage 0.5\n")).values()
    assert len(log.table) == 1 and time.monotonic() - began < 3
