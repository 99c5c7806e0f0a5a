"""What people call the columns of a log: one table of synonyms, and how a name is taken apart."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from vqlib.diagnosis.logs import COLUMNS, KNOWN

_TABLE = {
    "used_codes": "codes in use, code in use",
    "step": """
        step, steps, global step, iteration, iterations, iter, iters, itr, it, n iter, num iter,
        niter, update, updates, num updates, num steps, batch idx, global iter, total steps,
        timestep
    """,
    "epoch": "epoch, epochs, ep, current epoch",
    "split": "split, mode, phase, stage, subset",
    "recon_loss": """
        recon loss, rec loss, reconstruction loss, reconstruct loss, recon error, rec error,
        reconstruction error, loss recon, loss rec, loss reconstruction, recon, reconstruction,
        reconst loss, recon mse, rec mse, reconstruction mse, mse, mse loss, l2 loss, recons loss
    """,
    "commit_loss": """
        commit loss, commitment loss, commitment, loss commit, loss commitment, vq loss, quant
        loss, quantization loss, quantizer loss, loss vq, commit, loss quant, latent loss, vq
        commit loss
    """,
    "lr": "lr, learning rate",
    "codebook_size": """
        codebook size, num embeddings, n embeddings, n embed, num codes, n codes, num code,
        codebook entries, codebook dim size
    """,
    "dead_code_threshold": "dead code threshold, threshold ema dead code",
    "decay": "decay, ema decay",
    "dim": "codebook dim, code dim",
    "code_rank": "codebook effective rank, code effective rank",
    "encoder_rank": "encoder effective rank",
    "tokens_per_step": "tokens per step",
    "window_tokens": "window tokens",
}
SYNONYMS: dict[str, tuple[str, ...]] = {
    quantity: tuple(phrase.strip() for phrase in phrases.split(","))
    for quantity, phrases in _TABLE.items()
}
"""What people write for a quantity that is no use of codes. Case, ``_ - . /`` and camelCase make
no difference; words for the split, the level and the module are set aside first."""

_KINDS = {
    "code": "code codes codebook codebooks entry entries codeword codewords cluster clusters "
    "embedding embeddings index indices vocab vector vectors cb centroid centroids",
    "token": "token tokens",
    "used": "used active alive live unique distinct",
    "unused": "unused dead inactive zero never",
    "usage": "usage useage utilization utilisation utlization util coverage use",
    "share": "ratio rate fraction frac share proportion",
    "perplexity": "perplexity ppl perp perplexities perpexlity perpexity perplexitiy",
    "entropy": "entropy",
    "bits": "bits bit",
    "nats": "nats nat",
    "reset": "reset resets resetting replace replaced replacing replacement replacements reinit "
    "reinits reinitialized reinitializing restart restarted restarting restarts expired expiring "
    "revive revived reviving resampled resampling reassigned reassigning recycled refreshed",
    "filler": "n num number count counts no nr total of the in mean avg average running batch",
}
KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words.split()}
"""The words of a name on the use of codes, by kind. Only a name made of them alone is understood:
"gpu usage" is not."""

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
MEAN, LEAST, LARGEST = {"mean", "avg", "average"}, {"min", "minimum"}, {"max", "maximum"}
TRAIN = {"train", "training", "trn", "tr"}
VAL = {"val", "valid", "validation", "eval", "evaluation", "test", "testing", "dev", "heldout"}
_ASIDE = {
    "module": "trainer vq vqvae vae rvq quantizer quantize quantization quant model metrics metric "
    "stats losses tokenizer bottleneck ema log monitor scalar scalars summary total batch running "
    "info config cfg args hparams",
    "level": "level layer stage codebook book quantizer quantize q vq rvq cb head h group depth l",
}
SET_ASIDE, LEVEL_WORDS = (frozenset(words.split()) for words in _ASIDE.values())
SHORT = {"u": "utilization", "p": "perplexity"}  # with a level's number behind: u0, u1, ...
_WORDS = {phrase: quantity for quantity, phrases in SYNONYMS.items() for phrase in phrases}
EXACT = {*COLUMNS, *KNOWN, *USE, "epoch"}  # names that need no reading
OWN = re.compile(r"(?:.*[/ ])?vqlib/(?P<level>.+)/(?P<val>val_)?(?P<column>\w+)")
"""Our callbacks' names; what stands before them is their logger's."""


class Meaning(NamedTuple):
    """What a column's name says."""

    quantity: str  #: a key of `SYNONYMS`, or a column of the history
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
        return Meaning(name)
    if own := OWN.fullmatch(name):
        split = "val" if own["val"] else "train"
        return Meaning(own["column"], split, own["level"]) if own["column"] in COLUMNS else None
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


def stands_between(name: str, others: Iterable[str]) -> bool:
    """Whether ``name`` is a mean whose least and largest are among ``others``."""
    words = _words(name)
    rest = [w for w in words if w not in MEAN]
    told = [_words(other) for other in others] if rest != words else []
    return bool(told) and all(
        any(kind & set(other) and [w for w in other if w not in kind] == rest for other in told)
        for kind in (LEAST, LARGEST)
    )


def is_of_codes(name: str) -> bool:
    """Whether the name says that it is on codes, and not on anything that can be used."""
    return any(KIND_OF.get(word) == "code" for word in _words(name))


def tells_resets(word: str) -> bool:
    """Whether it is a word for moving dead codes: "replaced", "Re-initialized"."""
    return KIND_OF.get(word.lower().replace("-", "")) == "reset"


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
            found = _WORDS.get(" ".join(candidate)) or _use(candidate)
            if found is not None:
                return found, level
        if level is not None and len(rest) == 1 and rest[0] in SHORT:
            return SHORT[rest[0]], level
    return None, None


def _use(words: list[str]) -> str | None:
    """The quantity on the use of codes that the kinds of ``words`` make; None: none."""
    kinds = {KIND_OF.get(word) for word in words}
    share = "share" in kinds
    if None in kinds or ("token" in kinds and not kinds & {"perplexity", "entropy", "used"}):
        return None
    if "token" in kinds and "used" in kinds and not {"unique", "distinct"} & set(words):
        return None  # a bill
    if "reset" in kinds:
        return None if share else "resets"
    if "perplexity" in kinds:
        return None if share or "used" in kinds else "perplexity"
    if "entropy" in kinds:
        return next((f"entropy_{unit}" for unit in ("bits", "nats") if unit in kinds), "entropy")
    if "unused" in kinds and (set(words) - {"zero", "never"} or len(kinds) > 1):
        return "unused_share" if share else "unused_codes"
    if "used" in kinds:
        return "utilization" if share or "usage" in kinds else "used_codes"
    if "usage" in kinds and words != ["use"]:
        return "utilization"
    return None


def _without_level(words: list[str]):
    """The words as they are, then without a level's number, and without its word too."""
    yield words, None
    for place, word in enumerate(words):
        if not word.isdigit() or len(word) > 3:
            continue
        yield [*words[:place], *words[place + 1 :]], word
        if place and words[place - 1] in LEVEL_WORDS:
            yield [*words[: place - 1], *words[place + 1 :]], word
