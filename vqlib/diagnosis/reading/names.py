"""What people call the columns of a log: one table of synonyms, and how a name is taken apart."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from vqlib.diagnosis.logs import COLUMNS, KNOWN

SYNONYMS: dict[str, tuple[str, ...]] = {
    "step": (
        "step",
        "steps",
        "global step",
        "iteration",
        "iterations",
        "iter",
        "iters",
        "itr",
        "it",
        "n iter",
        "num iter",
        "update",
        "updates",
        "num updates",
        "num steps",
        "batch idx",
        "global iter",
        "total steps",
        "timestep",
    ),
    "epoch": ("epoch", "epochs", "ep", "current epoch"),
    "split": ("split", "mode", "phase", "stage", "subset"),
    "used_codes": (
        "used codes",
        "used code",
        "codes used",
        "code used",
        "used",
        "n used",
        "num used",
        "num used codes",
        "used entries",
        "used count",
        "used codebook",
        "codebook used",
        "active codes",
        "active code",
        "codes active",
        "active",
        "n active",
        "num active",
        "num active codes",
        "active count",
        "active entries",
        "active codebook entries",
        "unique codes",
        "unique code",
        "unique indices",
        "unique tokens",
        "unique",
        "n unique",
        "num unique",
        "num unique codes",
        "unique count",
        "distinct codes",
        "distinct",
        "alive codes",
        "live codes",
        "alive",
        "codes in use",
        "codes hit",
        "n codes used",
        "num codes used",
        "used clusters",
        "active clusters",
        "codewords used",
        "used codewords",
        "active codewords",
        "codebook active",
        "unique codes used",
        "num unique indices",
        "n unique codes",
    ),
    "unused_codes": (
        "unused codes",
        "unused code",
        "unused",
        "n unused",
        "num unused",
        "num unused codes",
        "unused entries",
        "unused count",
        "dead codes",
        "dead code",
        "dead",
        "n dead",
        "num dead",
        "num dead codes",
        "dead count",
        "dead code count",
        "dead entries",
        "inactive codes",
        "inactive",
        "num inactive",
        "zero codes",
        "dead codewords",
        "unused codewords",
        "zero usage",
        "zero usage codes",
        "codes unused",
        "codes dead",
        "unused codebook",
        "dead clusters",
        "never used",
    ),
    "utilization": (
        "utilization",
        "utilisation",
        "util",
        "codebook utilization",
        "codebook utilisation",
        "codebook util",
        "code utilization",
        "code util",
        "usage",
        "codebook usage",
        "code usage",
        "usage ratio",
        "usage rate",
        "usage fraction",
        "utilization rate",
        "utilization ratio",
        "active ratio",
        "active fraction",
        "active rate",
        "active share",
        "active codes ratio",
        "active codes fraction",
        "used ratio",
        "used fraction",
        "used share",
        "used codes ratio",
        "fraction used",
        "fraction active",
        "share used",
        "coverage",
        "codebook coverage",
        "code coverage",
        "vocab usage",
        "vocab utilization",
        "codebook use",
        "cluster usage",
        "cluster use",
        "codebook hit rate",
        "codebook usage ratio",
        "usage share",
        "mean usage",
        "avg usage",
        "codebook usage rate",
        "unique ratio",
        "unique fraction",
    ),
    "unused_share": (
        "dead ratio",
        "dead fraction",
        "dead share",
        "dead rate",
        "dead code ratio",
        "dead code fraction",
        "dead codes ratio",
        "dead codes fraction",
        "unused ratio",
        "unused fraction",
        "unused share",
        "unused code ratio",
        "unused codes ratio",
        "inactive ratio",
        "inactive fraction",
        "dead code rate",
        "fraction dead",
    ),
    "perplexity": (
        "perplexity",
        "ppl",
        "perp",
        "codebook perplexity",
        "code perplexity",
        "perplexity code",
        "codebook ppl",
        "avg perplexity",
        "average perplexity",
        "mean perplexity",
        "token perplexity",
        "cluster perplexity",
        "codes perplexity",
        "codebook perp",
        "index perplexity",
    ),
    "entropy": (
        "entropy",
        "codebook entropy",
        "code entropy",
        "usage entropy",
        "index entropy",
        "codes entropy",
        "token entropy",
        "codebook usage entropy",
    ),
    "resets": (
        "resets",
        "reset",
        "n resets",
        "num resets",
        "codes reset",
        "reset codes",
        "num reset",
        "replaced",
        "n replaced",
        "num replaced",
        "replaced codes",
        "codes replaced",
        "replacements",
        "reinit",
        "reinits",
        "n reinit",
        "reinitialized",
        "restarted",
        "restarts",
        "codes restarted",
        "num restarts",
        "expired",
        "expired codes",
        "num expired",
        "revived",
        "revived codes",
        "dead codes replaced",
        "dead codes reset",
        "dead code resets",
        "codebook resets",
        "code resets",
        "replaced dead codes",
        "resampled",
        "codes resampled",
    ),
    "recon_loss": (
        "recon loss",
        "rec loss",
        "reconstruction loss",
        "reconstruct loss",
        "recon error",
        "rec error",
        "reconstruction error",
        "loss recon",
        "loss rec",
        "loss reconstruction",
        "recon",
        "reconstruction",
        "reconst loss",
        "recon mse",
        "rec mse",
        "reconstruction mse",
        "mse",
        "mse loss",
        "l2 loss",
        "recons loss",
    ),
    "commit_loss": (
        "commit loss",
        "commitment loss",
        "commitment",
        "loss commit",
        "loss commitment",
        "vq loss",
        "quant loss",
        "quantization loss",
        "quantizer loss",
        "loss vq",
        "commit",
        "loss quant",
        "latent loss",
        "vq commit loss",
    ),
    "lr": ("lr", "learning rate"),
    "codebook_size": (
        "codebook size",
        "num embeddings",
        "n embeddings",
        "n embed",
        "num codes",
        "n codes",
        "num code",
        "codebook entries",
        "codebook dim size",
    ),
    "dead_code_threshold": ("dead code threshold", "threshold ema dead code"),
    "decay": ("decay", "ema decay"),
    "tokens_per_step": ("tokens per step",),
    "window_tokens": ("window tokens",),
}
"""Every quantity a log may tell, and the words people write for it. Case, ``_ - . /`` and
camelCase make no difference; words for the split, the level and the module are set aside first."""

USE = (
    "used_codes",
    "unused_codes",
    "utilization",
    "utilization_percent",
    "unused_share",
    "perplexity",
    "entropy",
    "entropy_nats",
    "entropy_bits",
)
"""Quantities that tell the use of a codebook."""
PER_CENT = {"percent", "percentage", "pct", "perc", "%"}
TRAIN = {"train", "training", "trn", "tr"}
VAL = {"val", "valid", "validation", "eval", "evaluation", "test", "testing", "dev", "heldout"}
SET_ASIDE = {
    "vq",
    "vqvae",
    "vae",
    "rvq",
    "quantizer",
    "quantize",
    "quantization",
    "quant",
    "model",
    "metrics",
    "metric",
    "stats",
    "losses",
    "tokenizer",
    "bottleneck",
    "ema",
    "log",
    "monitor",
    "scalar",
    "scalars",
    "summary",
    "total",
    "batch",
    "running",
    "info",
}
LEVEL_WORDS = {
    "level",
    "layer",
    "stage",
    "codebook",
    "book",
    "quantizer",
    "quantize",
    "q",
    "vq",
    "rvq",
    "cb",
    "head",
    "group",
    "depth",
    "l",
}
SHORT = {"u": "utilization", "p": "perplexity"}  # with a level's number behind: u0, u1, ...
_WORDS = {phrase: quantity for quantity, phrases in SYNONYMS.items() for phrase in phrases}
EXACT = {name: name for name in (*COLUMNS, *KNOWN, "unused_codes", "entropy", "epoch")} | {
    "utilization_percent": "utilization_percent",
    "unused_share": "unused_share",
    "entropy_nats": "entropy_nats",
    "entropy_bits": "entropy_bits",
}


class Meaning(NamedTuple):
    """What a column's name says."""

    quantity: str  #: a key of `SYNONYMS`, a column of the history, or ...
    split: str | None = None  #: "train", "val"; None: the name does not say
    level: str | None = None  #: of several codebooks, e.g. "0"
    per_cent: bool = False
    window: str | None = None  #: Lightning's "step" or "epoch" behind a name


@lru_cache(maxsize=4096)
def meaning(name: str) -> Meaning | None:
    """What ``name`` means; None: nothing that is known."""
    name = name.strip()
    if len(name) > 200:
        return None
    if name in EXACT:
        return Meaning(EXACT[name])
    words = _words(name)
    per_cent = bool(PER_CENT & set(words))
    words = [w for w in words if w not in PER_CENT]
    window = None
    if len(words) > 1 and words[-1] in ("step", "epoch") and _is_known(words[:-1]):
        window = words.pop()
    split = next((s for s, known in (("val", VAL), ("train", TRAIN)) if known & set(words)), None)
    words = [w for w in words if w not in TRAIN | VAL] or words
    quantity, level = _quantity(words)
    return quantity and Meaning(quantity, split, level, per_cent, window)


def suffix_meaning(words: list[str]) -> tuple[Meaning, str] | None:
    """The meaning of the longest tail of ``words`` that has one, and that tail."""
    for start in range(len(words)):
        tail = " ".join(words[start:])
        if found := meaning(tail):
            return found, tail
    return None


def _words(name: str) -> list[str]:
    """Its words in lower case: "runA - train/codebookUsage_0" -> train codebook usage 0."""
    name = name.rpartition(" - ")[2]  # W&B's "run - metric"
    name = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).replace("%", " % ")
    name = re.sub(r"([A-Za-z])(\d)", r"\1 \2", re.sub(r"[\[\](){}_\-./:|,]+", " ", name))
    return name.lower().split()


def _is_known(words: list[str]) -> bool:
    words = [w for w in words if w not in TRAIN | VAL]
    return bool(words) and _quantity(words)[0] is not None


def _quantity(words: list[str]) -> tuple[str | None, str | None]:
    """(quantity, level) of a name without its split."""
    for rest, level in _without_level(words):
        for candidate in (rest, [w for w in rest if w not in SET_ASIDE]):
            if (found := _WORDS.get(" ".join(candidate))) is not None:
                return found, level
        if level is not None and len(rest) == 1 and rest[0] in SHORT:
            return SHORT[rest[0]], level
    return None, None


def _without_level(words: list[str]):
    """The words as they are, then without a level's number, and without its word too."""
    yield words, None
    for place, word in enumerate(words):
        if not word.isdigit() or len(word) > 3:
            continue
        yield [*words[:place], *words[place + 1 :]], word
        if place and words[place - 1] in LEVEL_WORDS:
            yield [*words[: place - 1], *words[place + 1 :]], word
