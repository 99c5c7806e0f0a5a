"""Notebooks executed again and again: on fresh seeds, on kinds of machine, with planted faults.

What was executed is kept, so the same call again does only what is missing or has failed. A kept
execution counts only if the notebook's code, its parameters, vqlib's code, the packages and the
kind of machine are the same. (Data that changed meanwhile are not noticed: take another folder.)
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch

from vqlib.quantization.names import near
from vqlib.quantization.ranges import whole
from vqlib.suite import profiles, versions
from vqlib.suite.errors import SuiteError
from vqlib.suite.executing import Plan
from vqlib.suite.kernels import UNDRAWN
from vqlib.suite.lineup import Lineup, check_reads
from vqlib.suite.records import Number
from vqlib.suite.results import Result
from vqlib.suite.run import TIMEOUT, execute_plans, scratch_in
from vqlib.training import places
from vqlib.training.files import read_json, write_text

NATIVE = "native"
CAPABILITIES = ("default", "avx2", "avx512")  # each can do what those before it can
SEED, SEEDS = ("first_seed", "seed"), "seeds"  # parameters of a notebook; it has one of the first
NOT_IN_NOTEBOOKS = ("suite", "cli")  # parts of vqlib that change no recorded number


@dataclass(frozen=True)
class Kind:
    """A kind of machine that this one can stand in for.

    Attributes:
        capability: the instructions that torch's own kernels use, $ATEN_CPU_CAPABILITY; "native":
            the best there are.
        threads: how many of torch's threads a notebook has; a training may ask for its own.
    """

    capability: str
    threads: int

    @classmethod
    def of(cls, text: str) -> Kind:
        """The kind called "avx2:1". Raises SuiteError for anything else, and for what this machine
        cannot do."""
        capability, _, threads = text.partition(":")
        if capability not in (NATIVE, *CAPABILITIES):
            raise SuiteError(
                f"kinds: expected CAPABILITY:THREADS like avx2:1, got {text!r}"
                + near(capability, (NATIVE, *CAPABILITIES))
            )
        best = torch.backends.cpu.get_cpu_capability().lower()
        able = CAPABILITIES[: CAPABILITIES.index(best) + 1 if best in CAPABILITIES else 1]
        if capability not in (NATIVE, *able):
            raise SuiteError(
                f"kinds: this machine cannot do {capability}; expected one it can: "
                f"{', '.join((NATIVE, *able))}"
            )
        if not re.fullmatch(r"[1-9]\d{0,2}", threads):
            raise SuiteError(f"kinds: expected a number of threads in {text!r}, like avx2:1")
        return cls(capability, int(threads))

    def __str__(self) -> str:
        return f"{self.capability}:{self.threads}"

    @property
    def folder(self) -> str:
        """The name of a folder for it."""
        return f"{self.capability}-{self.threads}"

    def environ(self, cache: Path) -> dict[str, str]:
        """What it adds to the environment of a kernel. Each kind has a cache of runs of its own."""
        own = UNDRAWN | {"VQLIB_CACHE": str(cache.resolve() / self.folder)}
        own |= {f"{lib}_NUM_THREADS": str(self.threads) for lib in ("OMP", "MKL", "OPENBLAS")}
        if self.capability != NATIVE:
            own["ATEN_CPU_CAPABILITY"] = self.capability
        return own


@dataclass(frozen=True)
class Repeat:
    """One execution: which notebook, on which kind, from which seed on, with which fault."""

    notebook: str
    kind: Kind
    seed: int
    fault: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)  #: beside the profile's

    @property
    def name(self) -> str:
        """What it is called in the output."""
        fault = f"--{self.fault}" if self.fault else ""
        return f"{self.notebook}--{self.kind.folder}--{self.seed}{fault}"


@dataclass(frozen=True)
class Outcome:
    """What became of a `Repeat`; `error` is None if all went well."""

    repeat: Repeat
    parameters: dict[str, object]
    records: dict[str, Number]
    error: str | None
    seconds: float

    def __str__(self) -> str:
        what = (self.error or "ran").splitlines()[0]
        given = ", ".join(f"{name} = {value!r}" for name, value in self.parameters.items())
        return f"{self.repeat.notebook} on {self.repeat.kind} ({given}): {what}"


def plan(
    suite: Lineup,
    kinds: Sequence[str],
    first: int,
    times: int,
    faults: Mapping[str, Mapping[str, object]] | None = None,
) -> list[Repeat]:
    """`times` executions of each selected notebook on each kind, from the seed `first` on.

    An execution has as many seeds as its notebook's parameter ``seeds`` says, and none is used
    twice. With `faults`, {name: parameters}, each is planted in each notebook that declares those
    parameters, and only that is executed. The notebooks are in the outermost loop.

    Raises SuiteError for a kind that there is not, a notebook without ``first_seed`` (or ``seed``,
    if it takes one), or a fault that no notebook declares the parameters of.
    """
    whole("seeds", times, 1)
    whole("first", first, 0)
    machines = list(dict.fromkeys(map(Kind.of, kinds)))
    if not machines:
        raise SuiteError("kinds: expected at least one, like avx2:1")
    declared = {name: profiles.declared_loosely(suite.sources[name]) for name in suite.selected}
    problems = [
        f"{name} declares no parameter {' or '.join(SEED)}; expected one that says which seeds"
        for name, names in declared.items()
        if not _seed_of(names)
    ]
    planted: Mapping[str, Mapping[str, object]] = {"": {}} if faults is None else faults
    problems += [
        f"no notebook declares {', '.join(given)}, which plants the fault {fault}"
        for fault, given in planted.items()
        if not any(given.keys() <= names.keys() for names in declared.values())
    ]
    if problems:
        raise SuiteError(problems)
    seeded = {suite.sources[name]: {_seed_of(names): first} for name, names in declared.items()}
    check_reads(seeded, "seeds")
    stride = seeds_of_one(suite)
    return [
        Repeat(name, kind, seed, fault, {**given, _seed_of(names): seed})
        for name, names in declared.items()
        for seed in range(first, first + times * stride, stride)
        for kind in machines
        for fault, given in planted.items()
        if given.keys() <= names.keys()
    ]


def plantable(
    suite: Lineup, faults: Mapping[str, Mapping[str, object]]
) -> dict[str, Mapping[str, object]]:
    """Those of `faults`, {name: parameters}, that some selected notebook can have."""
    declared = [profiles.declared_loosely(suite.sources[name]).keys() for name in suite.selected]
    return {n: given for n, given in faults.items() if any(given.keys() <= d for d in declared)}


def _seed_of(names: Iterable[str]) -> str:
    """The parameter that says which seed is the first; empty if there is none."""
    return next((name for name in SEED if name in names), "")


def seeds_of_one(suite: Lineup) -> int:
    """How many seeds one execution takes: the most that a selected notebook does."""
    found = [1]
    for name in suite.selected:
        known = profiles.declared_loosely(suite.sources[name]) | suite.values[name]
        seeds = known.get(SEEDS, 1)
        found += [seeds] if isinstance(seeds, int) else []
    return max(found)


def seeds_of(suite: Lineup, first: int, times: int) -> range:
    """All seeds of `times` executions."""
    return range(first, first + times * seeds_of_one(suite))


def execute(
    suite: Lineup,
    repeats: Sequence[Repeat],
    out: Path,
    *,
    jobs: int = 1,
    progress: bool = True,
    timeout: float = TIMEOUT,
) -> list[Outcome]:
    """Execute what is not yet kept in `out`, each in a kernel with its kind's environment.

    One that fails carries `Outcome.error`, and the others go on. Raises SuiteError if `out` is in
    use; KeyboardInterrupt after the kernels are stopped, with what is done kept.
    """
    plans = {repeat.name: _plan(suite, repeat, out / "cache") for repeat in repeats}
    files = {
        r.name: out / "executions" / r.kind.folder / suite.profile / f"{r.name}.json"
        for r in repeats
    }
    keys = {r.name: _key(plans[r.name], r.kind) for r in repeats}
    done = {r.name: _kept(r, plans[r.name], files[r.name], keys[r.name]) for r in repeats}
    missing = [plans[name] for name, outcome in done.items() if outcome is None]
    by_name = {repeat.name: repeat for repeat in repeats}

    def tell(result: Result) -> None:
        name = result.notebook
        found = {"records": result.records, "error": result.error, "seconds": result.seconds}
        done[name] = Outcome(by_name[name], dict(plans[name].parameters), **found)
        result.executed.unlink(missing_ok=True)
        if result.error is None:  # what failed is tried again
            write_text(files[name], json.dumps({"key": keys[name], **found}) + "\n")

    with scratch_in(out, {}) as scratch:
        execute_plans(suite, missing, scratch, jobs, progress, timeout, tell=tell)
    return [outcome for outcome in done.values() if outcome is not None]


def _plan(suite: Lineup, repeat: Repeat, cache: Path) -> Plan:
    values = {**suite.values[repeat.notebook], **repeat.parameters}
    return suite.plan(repeat.name, repeat.notebook, values, repeat.kind.environ(cache))


def _kept(repeat: Repeat, plan: Plan, file: Path, key: str) -> Outcome | None:
    try:
        said = read_json(file)
        if said["key"] != key:
            return None
        found = {name: said[name] for name in ("records", "error", "seconds")}
    except (OSError, ValueError, KeyError):
        return None
    return Outcome(repeat, dict(plan.parameters), **found)


def _key(plan: Plan, kind: Kind) -> str:
    """Hex digest of what decides the numbers that an execution records."""
    cells = [c.source for c in profiles.read(plan.source).cells if c.cell_type == "code"]
    packages = versions.depended_on(plan.source)
    parts = [cells, dict(plan.parameters), str(kind), code_checksum(), packages]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


@cache
def code_checksum() -> str:
    """Of every file of vqlib that may change what a notebook records."""
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in _code())).hexdigest()[:12]


def _code() -> Iterator[Path]:
    for path in sorted(places.PACKAGE.rglob("*.py")):
        if path.relative_to(places.PACKAGE).parts[0] not in NOT_IN_NOTEBOOKS:
            yield path
