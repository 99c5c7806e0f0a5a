"""What the commands print: a run, and the diagnosis on trial, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqlib.suite import tables

if TYPE_CHECKING:
    import pandas as pd

    from vqlib.runs import Run


def training(run: Run) -> str:
    """A finished run: its last rows, and what was reset."""
    last = {name: run.split(name).tail(1).to_dict("records") for name in ("train", "val")}
    rows = [
        (label, *(tables.value_text(column, row[0][column] if row else None)
                  for row in last.values()))
        for label, column in (
            ("Utilization", "utilization"), ("  uniform use would show", "uniform_utilization"),
            ("Perplexity", "perplexity"), ("Top code ratio", "top_code_ratio"),
            ("Reconstruction MSE", "recon_loss"), ("Tokens counted", "window_tokens"),
        )
    ]  # fmt: skip
    s = run.summary
    lines = [
        f"{s['steps']} steps on {s['data']} in {s['seconds']:.0f} s ({s['device']}, "
        f"{s['threads']} thread(s)), {run.config.codebook_size} codes",
        "",
        tables.text_table(("", "training", "validation"), rows, right=(1, 2)),
        "",
        _resets(run),
    ]
    if s["skipped_pictures"]:
        lines.append(f"{s['skipped_pictures']} pictures could not be read and were skipped")
    return "\n".join(lines)


def _resets(run: Run) -> str:
    threshold, total = run.config.dead_code_threshold, run.summary["total_resets"]
    if threshold == 0:
        return "No resets: dead_code_threshold 0 turns them off"
    dead = f"cluster_size < {threshold:g}" + (" x N/K" if run.config.reset_relative else "")
    return f"{total} resets of dead codes ({dead})" if total else f"No resets: never {dead}"


def confusion(table: pd.DataFrame) -> str:
    """A row a planted fault: how often its finding fired, and what else did.

    ``table``: from `trials.confusion`.
    """
    findings = table.columns[table.columns.get_loc("found") + 1 :]
    rows = []
    for name, row in table.iterrows():
        others = [f"{f} {row[f]:.0%}" for f in findings if row[f] > 0 and f != row["must find"]]
        rows.append((name, row["by"], str(row["runs"]), row["must find"], f"{row['found']:.0%}",
                     ", ".join(others)))  # fmt: skip
    header = ("planted", "by", "runs", "must find", "found", "what else fired")
    return tables.text_table(header, rows, right=(2, 4))
