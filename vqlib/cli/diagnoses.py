"""Commands that diagnose: a log, the layers of known packages, and the diagnosis itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from vqlib.cli.common import complain, split_pairs
from vqlib.quantization.ranges import SettingsError, whole


def diagnose(
    history: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")],
    codebook_size: int | None = None,
    tokens_per_step: float | None = None,
    dead_code_threshold: float | None = None,
    decay: float | None = None,
    reset_interval: float | None = None,
    dim: float | None = None,
    map: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    json: bool = False,
    html: Path | None = None,
) -> int:
    """Say what is wrong with a codebook, why, and what to do, from its history.

    Exit status 0 if nothing is critical, 1 if something is, 2 if the file cannot be used.

    Args:
        history: A log (CSV, JSON, JSON lines, Parquet, what a training printed; gzip of each) or
            the folder of a run (ours, Hugging Face, Lightning, TensorBoard, W&B, MLflow).
        codebook_size: K, the number of codes.
        tokens_per_step: N, the number of tokens quantized in a training step.
        dead_code_threshold: A code with fewer hits a step than this is reset; 0: no reset.
        decay: Decay of the moving average of counts.
        reset_interval: Steps between resets.
        dim: D, the dimension of a code.
        map: QUANTITY=COLUMN for a column whose name is not understood, for example
            --map used_codes=n_hit. Can be given several times.
        json: Print JSON instead of text.
        html: Also write the answers to this HTML file. An existing file is not overwritten.
    """
    from vqlib import diagnosis
    from vqlib.diagnosis import findings

    try:
        found = diagnosis.diagnose(
            history,
            codebook_size=codebook_size,
            tokens_per_step=tokens_per_step,
            dead_code_threshold=dead_code_threshold,
            decay=decay,
            reset_interval=reset_interval,
            dim=dim,
            map=_mapped(map),
        )
        if html is not None:
            with open(html, "x", encoding="utf-8") as file:
                file.write(f"{findings.page(found)}\n")
    except (diagnosis.HistoryError, OSError) as error:
        complain(error)
        return 2
    print(found.to_json() if json else found)
    return int(found.verdict == "critical")


def field(out: Path | None = None, packages: tuple[str, ...] = (), ranks: bool = True) -> int:
    """Audit the quantizer layers of known packages, as far as these are installed.

    Exit status 0 however the layers do.

    Args:
        out: Also write the table to this CSV file. An existing file is not overwritten.
        packages: Only the layers of these. Default: all that are installed.
        ranks: Also run each layer in two processes; takes most of the time.
    """
    from vqlib.diagnosis import field as fields

    unknown = set(packages) - {layer.package for layer in fields.LAYERS}
    if unknown:
        known = ", ".join(dict.fromkeys(layer.package for layer in fields.LAYERS))
        raise SettingsError(f"packages: got {', '.join(sorted(unknown))}; expected some of {known}")
    if out is not None and out.exists():
        raise SettingsError(f"out: {out} exists; expected the name of a new file")
    table = fields.audit_field(
        [layer for layer in fields.LAYERS if not packages or layer.package in packages],
        ranks=ranks,
        command=fields.command_line(),
        told=lambda line: print(f"audits {line}", file=sys.stderr),
    )
    if out is not None:
        fields.write(table, out)
    print(fields.text(table) or "none of the packages is installed")
    print(f"\n{time.strftime('%Y-%m-%d')}, {fields.environment()}")
    for package, line in fields.missing().items():
        print(f"not installed: {package} ({line})")
    return 0


def selftest(runs: int = 20) -> int:
    """Test the diagnosis on healthy runs and on planted faults, and print how often it is right.

    Exit status 1 if a healthy run gets a critical finding, or if a fault is found in fewer than
    95 % of its runs.

    Args:
        runs: Number of runs of each planted fault. They are kept in the cache.
    """
    from vqlib.diagnosis import selftest

    found = selftest.examinations(whole("runs", runs), progress=True)
    table = selftest.confusion(found)
    print(selftest.confusion_text(table))
    problems = selftest.failures(table)
    print("\n".join(["", *problems] if problems else ["", "the diagnosis passes"]))
    return int(bool(problems))


def _mapped(pairs: Sequence[str]) -> dict[str, str]:
    """{quantity: column} of "quantity=column". Raises SettingsError for anything else."""
    return split_pairs(pairs, "--map: expected QUANTITY=COLUMN")
