"""Histories made to order: a healthy one, whose columns a test then changes."""

import numpy as np
import pandas as pd

K, N = 512, 6272
SETTINGS = {
    "codebook_size": K,
    "tokens_per_step": N,
    "dead_code_threshold": 1.0,
    "decay": 0.9,
    "dim": 64,
}


def healthy(steps: int = 200, val_every: int = 50, every: int = 1) -> pd.DataFrame:
    """Rows of a run that uses 480 of 512 codes and resets ever fewer."""
    at = np.arange(every, steps + 1, every)
    train = pd.DataFrame(
        {
            "step": at,
            "split": "train",
            "used_codes": 480,
            "utilization": 480 / K,
            "perplexity": 360.0,
            "top_code_ratio": 4.0,
            "window_tokens": N,
            "resets": np.maximum(0, 20 - at // 5),
            "re_resets": 0,
            "survived": 0.9,
            "encoder_similarity": 0.5,
            "encoder_std": 0.1,
            "drift": 0.05,
            "cosine_error": 0.003,
            "recon_loss": 0.02 + 0.1 * np.exp(-at / 30),
            "commit_loss": 5e-5,
            "lr": 1e-3,
            "encoder_rank": 12.0,
            "commit_gradient_ratio": 0.05,
        }
    )
    at = np.arange(val_every, steps + 1, val_every)
    val = pd.DataFrame(
        {
            "step": at,
            "split": "val",
            "used_codes": 470,
            "utilization": 470 / K,
            "perplexity": 350.0,
            "top_code_ratio": 5.0,
            "window_tokens": 30_000,
            "duplicates": 3,
            "longest_code": 1.0,
            "eval_change": 0.0,
            "recon_loss": 0.03,
            "encoder_rank": 14.0,
            "code_rank": 10.0,
        }
    )
    return pd.concat([train, val], ignore_index=True)


def changed(table: pd.DataFrame, split: str | None = None, **columns) -> pd.DataFrame:
    """The table with these columns set, in one split or both; None removes a column."""
    table = table.copy()
    for column, value in columns.items():
        if value is None:
            table = table.drop(columns=column)
        elif split is None:
            table[column] = value
        else:
            table.loc[table["split"] == split, column] = value
    return table


def using(codes, table: pd.DataFrame | None = None, split: str | None = None) -> pd.DataFrame:
    """So many codes in use."""
    table = healthy() if table is None else table
    return changed(table, split, used_codes=codes, utilization=np.asarray(codes) / K)
