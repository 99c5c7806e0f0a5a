"""The bench: copies of the quantizer under examination, inputs to feed it, and what is seen."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqlib.diagnosis.findings import Evidence, Finding
from vqlib.watching.adapters import Adapter
from vqlib.watching.libraries import copied
from vqlib.watching.matching import row_indices
from vqlib.watching.reading import Reader, WrongAdapter

WORLD = 2  # processes of the question whether ranks agree
BALL = 0.1  # radius of a cluster of inputs, over their norm
TURNED = 0.99  # a code whose direction's cosine with before is below this was put elsewhere
SHIFTED = 1e-3  # a code that moved by more than this share of its norm did not stay
LANDED = 1e-5  # distance of two unit vectors that counts as none
FEW = 1024  # tokens of a step that no codebook makes slow
STARVING = 256  # tokens of a step that only lets codes starve
CHEAP, LARGEST = 2**22, 2**27  # tokens x codes of a step: if there are many of it, and if one


class Rejected(ValueError):
    """A layer did not take tokens of some number."""


class NotFinite(Exception):
    """A layer gave NaN or infinity for tokens that are finite; ``finding`` says what."""

    def __init__(self, finding: Finding):
        super().__init__(finding.cause)
        self.finding = finding


def finite(what: str, values: Tensor, window: str) -> None:
    """Raises `NotFinite` if one of ``values`` is not."""
    odd = int((~values.isfinite()).sum())
    if odd:
        counted = Evidence(
            f"numbers of the {what} that are not finite", odd, f"of {values.numel()}", window
        )
        raise NotFinite(
            Finding(
                "unstable-training",
                "critical",
                (counted,),
                f"The {what} is NaN or infinite for finite tokens with features of order 1.",
                "Look for a division by a count or a norm of 0. If the layer is right, check what "
                f"the adapter gives as its {what}.",
            )
        )


@dataclass(frozen=True)
class Seen:
    """One forward pass: which code each token took, and how the first codebook changed."""

    z: Tensor  #: (N, dim), the tokens
    indices: Tensor  #: (N,) int64
    before: Tensor  #: (K, D)
    after: Tensor  #: (K, D)
    counts: Tensor | None  #: (K,) afterwards
    announced: Tensor  #: (n,) int64, codes that the layer says it reset
    output: Any = field(repr=False)

    @cached_property
    def hits(self) -> Tensor:
        """(K,) int64."""
        return torch.bincount(self.indices[self.indices >= 0], minlength=len(self.after))

    @cached_property
    def put_elsewhere(self) -> Tensor:
        """(K,) bool: the code did not follow its inputs, it was put somewhere else.

        Without a hit: it points elsewhere, or onto an input. (An average without new inputs
        shrinks or grows a code and does not turn it.) With hits: both.
        """
        before, after = self._directions
        turned = (before * after).sum(dim=-1) < TURNED
        turned &= (self.after != self.before).any(dim=-1)
        hit = self.hits > 0
        doubtful = (hit & turned) | (~hit & ~turned & self.shifted)
        if self.z.shape[-1] != self.after.shape[-1]:
            return turned & ~hit
        rows = doubtful.nonzero().flatten()
        landed = torch.zeros_like(turned)
        landed[rows] = _landed(self.after[rows], self.z)
        return torch.where(hit, turned & landed, turned | landed)

    @cached_property
    def shifted(self) -> Tensor:
        """(K,) bool: the code points another way than before, if only by little."""
        before, after = self._directions
        return (after - before).norm(dim=-1) > SHIFTED

    @cached_property
    def _directions(self) -> tuple[Tensor, Tensor]:
        return F.normalize(self.before, dim=-1), F.normalize(self.after, dim=-1)

    @property
    def reset(self) -> Tensor:
        """(K,) bool: put elsewhere, or said to be reset."""
        said = torch.zeros(len(self.after), dtype=torch.bool)
        said[self.announced] = True
        return said | self.put_elsewhere


def _landed(codes: Tensor, z: Tensor) -> Tensor:
    """(n,) bool: which of ``codes`` (n, D) have the direction of one of ``z`` (N, D)."""
    # in double precision, or a product could not tell so small a distance from none
    codes, z = F.normalize(codes.double(), dim=-1), F.normalize(z.double(), dim=-1)
    parts = codes.split(max(1, CHEAP // len(z)))
    nearest = [(part @ z.T).amax(dim=-1) for part in parts]
    return 2 - 2 * torch.cat(nearest) < LANDED**2 if nearest else codes.new_zeros(0).bool()


class Bench:
    """Holds the subject as it was given; every experiment works on a copy.

    Args:
        pristine: the module. adapter: how to read it. dim: of the tokens it takes.
        fresh: whether it has seen no training batch yet; None if that cannot be seen.
        tokens: a step's tokens N; None: a few for each code. seed: of inputs and draws.
    """

    def __init__(
        self,
        pristine: nn.Module,
        adapter: Adapter,
        dim: int | None,
        fresh: bool | None,
        tokens: int | None,
        seed: int,
    ):
        self.pristine, self.adapter, self.seed = pristine, adapter, seed
        self.reader = Reader(adapter, pristine)
        self.settings, self.codes = self.reader.settings, self.reader.codes
        book = self.book(pristine)
        self.codebooks = len(self.reader.sizes)
        self.dim = dim or self.settings.get("dim") or (None if book is None else book.shape[-1])
        self.tokens_given = tokens is not None
        share = 4 if (self.codes or 0) <= 256 else 2
        self.tokens = tokens or max(32, share * (self.codes or 64))
        self.device = next(
            (t.device for t in itertools.chain(pristine.parameters(), pristine.buffers())),
            torch.device("cpu"),
        )
        counts = self.counts(pristine)
        if fresh is None and counts is not None:
            fresh = bool((counts == counts[0]).all())
        self.fresh = fresh
        self.generator = torch.Generator().manual_seed(seed)
        self.transformed = False  # until `compare` sees it

    @property
    def decay(self) -> float | None:
        return self.settings.get("decay")

    def threshold(self, tokens: int) -> float | None:
        """Hits a step of ``tokens`` below which a code is dead; None: the layer does not say."""
        value = self.settings.get("dead_code_threshold")
        if value is None:
            return None
        return value * tokens / self.codes if self.settings.get("reset_relative") else value

    @property
    def every(self) -> int:
        """Steps between two checks for dead codes."""
        return self.settings.get("reset_interval") or 1

    @property
    def crowd(self) -> int:
        """Tokens in one place, more than there are codes: donors enough for all dead ones."""
        return max(256, (self.codes or 0) * 9 // 8)

    @property
    def starving(self) -> int:
        """Tokens in one place, enough to see codes without a hit starve and be reset."""
        return self.crowd if self.crowd <= FEW else STARVING

    @property
    def few(self) -> int:
        """The tokens of a step, or fewer, for what does not depend on their number."""
        return min(self.tokens, max(STARVING, CHEAP // (self.codes or 1)))

    @property
    def affordable(self) -> int:
        """The tokens of a step, or as many as can be compared with so many codes."""
        return min(self.tokens, max(self.few, LARGEST // (self.codes or 1)))

    @property
    def visitable(self) -> bool:
        """Whether a code's own row can be fed as a token: nothing is projected in between."""
        return self.book(self.pristine).shape[-1] == self.dim and not self.transformed

    @property
    def patience(self) -> int:
        """Steps in which a reset code that has no hits should be reset again."""
        return 60 + 2 * self.every

    def check(self) -> None:
        """One pass in evaluation mode, so that what does not fit is said before any experiment.

        Raises ValueError, or TypeError as `Reader` does.
        """
        if self.dim is None:
            raise ValueError("the dimension of a token cannot be read from the layer: give dim=")
        z = self.broad(self.few)
        module = self.copy().eval()
        output = self.call(module, z, untrained=True)
        quantized = self.reader.quantized(output, z)
        self._check_indices(quantized, output, module, z)

    def _check_indices(self, quantized: Tensor, output: Any, module: nn.Module, z: Tensor) -> None:
        """Raises WrongAdapter if the output is made of other rows than its indices name.

        Nothing is said of outputs that are no rows, such as sums over levels.
        """
        book = self.book(module)
        if self.codebooks != 1 or book is None or book.shape[1] != z.shape[1]:
            return
        rows = row_indices(quantized, book)
        if rows is None or not bool((book != book[0]).any()):  # no codes yet, for example
            return
        try:
            said = self.indices(module, output, z)
        except WrongAdapter:  # there may be indices in training mode only
            return
        other = (said >= 0) & (book[said] != book[rows]).any(dim=-1)
        if bool(other.any()):
            first = int(other.nonzero()[0])
            raise self.reader.wrong(
                "indices",
                f"the codes that its output is made of (token {first} is row {int(rows[first])} of "
                "the codebook; whole numbers above 256 that pass through bfloat16, or above 2,048 "
                "through float16, are rounded)",
                int(said[first]),
            )

    # --- reading ---

    def book(self, module: nn.Module) -> Tensor | None:
        """A copy of the first codebook (K, D) on the CPU."""
        return _first(self.reader.books(module))

    def counts(self, module: nn.Module) -> Tensor | None:
        return _first(self.reader.counts(module))

    def indices(self, module: nn.Module, output: Any, z: Tensor) -> Tensor:
        return self.reader.indices(module, output, z)

    # --- doing ---

    def copy(self, module: nn.Module | None = None) -> nn.Module:
        """A copy, by default of the subject as it was given."""
        return copied(self.pristine if module is None else module)

    @torch.no_grad()
    def call(self, module: nn.Module, z: Tensor, *, untrained: bool = False) -> Any:
        """The output for tokens z (N, dim).

        Raises Rejected if the layer does not take them, and `NotFinite` for what it gives;
        not for an evaluation of an ``untrained`` layer, which may have no codes yet.
        """
        mode = "training" if module.training else "evaluation"
        try:
            with warnings.catch_warnings():
                if len(z) < self.tokens:  # a layer may warn of a batch so small: it is our choice
                    warnings.simplefilter("ignore")
                output = self.adapter.call(module, z.to(self.device))
        except Exception as error:  # a layer may raise anything
            raise Rejected(
                f"the layer, called in {mode} mode through its adapter, rejects tokens of shape "
                f"{tuple(z.shape)}: {error}; check the adapter's call, and dim="
            ) from error
        if not untrained:
            window = f"one pass of {len(z)} tokens in {mode} mode"
            finite("output", self.reader.quantized(output, z), window)
            if module.training:
                finite("loss", torch.tensor(self.reader.loss(output) or 0.0), window)
        return output

    def step(self, module: nn.Module, z: Tensor) -> Seen:
        """A forward pass in training mode. Needs a codebook. Raises as `call` does."""
        module.train()
        before = self.book(module)
        output = self.call(module, z)
        after = self.book(module)
        if before.isfinite().all():  # else it may have had no codes yet
            finite("codebook", after, f"after one training step of {len(z)} tokens")
        return Seen(
            z,
            self.indices(module, output, z),
            before,
            after,
            self.counts(module),
            self.reader.resets(module),
            output,
        )

    def compare(self, seen: Seen) -> None:
        """Notes whether tokens get something other than their codes' rows, as they are or as
        unit vectors: then places of rows and of tokens cannot be compared."""
        whole = self.codebooks == 1 and len(seen.indices) == len(seen.z)
        if whole and seen.before.shape[-1] == self.dim and bool((seen.indices >= 0).all()):
            rows, given = seen.before[seen.indices], self.reader.quantized(seen.output, seen.z)
            self.transformed = all(
                float(((given - r).norm(dim=-1) / r.norm(dim=-1)).median()) > BALL
                for r in (rows, F.normalize(rows, dim=-1))
            )

    def starving_step(self, module: nn.Module, place: Tensor) -> tuple[Seen, nn.Module, nn.Module]:
        """A step on tokens in one place, and the module before and after it.

        If so many codes are reset that some may lack a donor, the step is taken again with
        tokens enough for all. Not if the threshold follows the number of tokens.
        """
        after = self.copy(module)
        seen = self.step(after, self.ball(place, self.starving))
        short = self.starving < self.crowd and 2 * int(seen.reset.sum()) > self.starving
        if short and not self.settings.get("reset_relative"):
            after = self.copy(module)
            seen = self.step(after, self.ball(place, self.crowd))
        return seen, module, after

    # --- inputs: norm sqrt(dim), as outputs of an encoder have whose features are of order 1 ---

    def broad(self, tokens: int | None = None) -> Tensor:
        """(N, dim) tokens in all directions."""
        return self._scaled(self._noise(tokens or self.tokens))

    def direction(self) -> Tensor:
        """(dim,) a unit vector."""
        return F.normalize(self._noise(1)[0], dim=0)

    def ball(self, centre: Tensor, tokens: int, radius: float = BALL) -> Tensor:
        """(N, dim) different tokens close to one direction."""
        return self._scaled(centre + radius * F.normalize(self._noise(tokens), dim=-1))

    def between(self, z: Tensor, tokens: int) -> Tensor:
        """(N, dim) different tokens, each between two of ``z`` (n, dim), as a cell is convex.

        Of one token nothing is between: it comes back alone.
        """
        if len(z) < 2:
            return z
        left = torch.randint(len(z), (tokens,), generator=self.generator)
        apart = torch.randint(1, len(z), (tokens,), generator=self.generator)
        share = torch.rand(tokens, 1, generator=self.generator)
        return self._scaled(z[left].lerp(z[(left + apart) % len(z)], share))

    def _noise(self, tokens: int) -> Tensor:
        return torch.randn(tokens, self.dim, generator=self.generator)

    def _scaled(self, z: Tensor) -> Tensor:
        return F.normalize(z, dim=-1) * self.dim**0.5


@contextmanager
def own_randomness(seed: int, device: torch.device):
    """torch's generators are seeded inside the block, and afterwards as they were."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        reseed(seed, device)
        yield


def reseed(seed: int, device: torch.device) -> None:
    """Seeds the generators that `own_randomness` gives back, and no other device's."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def made(subject: nn.Module | Callable[[], nn.Module], seed: int) -> tuple[nn.Module, bool | None]:
    """A module of our own from ``subject``, and whether it is known to be fresh.

    Raises TypeError if the subject is neither a module nor a function that makes one, or is a
    module that cannot be copied; ValueError if it is on the meta device.
    """
    if isinstance(subject, nn.Module):
        try:
            return copied(_with_values(subject)), None
        except (TypeError, RuntimeError) as error:
            raise TypeError(
                f"{type(subject).__name__} cannot be copied ({error}); give a function without "
                "arguments that makes one"
            ) from error
    wanted = "expected a module, or a function without arguments that makes one"
    if not callable(subject):
        raise TypeError(f"{wanted}; got {subject!r}")
    with own_randomness(seed, torch.device("cpu")):
        module = subject()
    if not isinstance(module, nn.Module):
        raise TypeError(f"{wanted}; this one made {module!r}")
    return _with_values(module), True


def state_of(module: nn.Module) -> dict[str, Tensor | int | float | bool | str]:
    """Copies of all tensors and plain values that a module and its parts hold, by name."""
    state = {}
    for path, part in module.named_modules():
        values = dict(part._parameters) | dict(part._buffers) | vars(part)
        for key, value in values.items():
            name = f"{path}.{key}" if path else key
            if isinstance(value, Tensor):
                state[name] = value.detach().clone()
            elif isinstance(value, torch.Generator):
                state[name] = value.get_state().clone()
            elif isinstance(value, int | float | bool | str) and key != "training":
                state[name] = value
    return state


def _with_values(module: nn.Module) -> nn.Module:
    tensors = itertools.chain(module.named_parameters(), module.named_buffers())
    empty = next((name for name, tensor in tensors if tensor.is_meta), None)
    if empty is not None:
        raise ValueError(
            f"{type(module).__name__} is on the meta device: its {empty} holds no values; expected "
            "a module on the CPU or an accelerator"
        )
    return module


def _first(values: list[Tensor]) -> Tensor | None:
    """A copy on the CPU of the first codebook's tensor."""
    return values[0].detach().to("cpu", torch.float32, copy=True) if values else None
