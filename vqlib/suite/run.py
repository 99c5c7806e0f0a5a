"""The suite: run the notebooks, check their records against the gates, write the report.

`vqlib.suite.lineup` says what a folder of notebooks looks like; every mistake in it is found
before the first kernel starts. The output of a run goes into a scratch folder beside the results
and takes their place only when it is complete. What somebody else wrote is never replaced.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

from tqdm.auto import tqdm

from vqlib.quantization.ranges import Range, number
from vqlib.suite import (
    executing,
    foreign,
    lineup,
    ownership,
    profiles,
    records,
    report,
    tables,
    trust,
)
from vqlib.suite.errors import SuiteError
from vqlib.suite.executing import Plan
from vqlib.suite.gates import Control, Expected
from vqlib.suite.kernels import UNDRAWN, Kernels
from vqlib.suite.lineup import Lineup
from vqlib.suite.results import ControlResult, Result
from vqlib.training import locks

GRACE = 5.0  # seconds between asking a kernel to stop and ending it
TIMEOUT = 1800.0
PASSED, GATE_FAILED, COULD_NOT_RUN = 0, 1, 2
PREVIOUS = "report.previous"
SCRATCH = ".vqlib-run-"  # and 8 characters


def run(
    notebooks: Sequence[Path] | None,
    profile: str | Path | None,
    out: Path,
    *,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
    jobs: int = 2,
    progress: bool = True,
    directory: Path | None = None,
    timeout: float = TIMEOUT,
    expected: Path | None = None,
) -> list[Result]:
    """Execute notebooks (None: all), `jobs` at once, and write ``out/report/index.html``.

    With `expected`, a file of gates, the notebooks may lie anywhere, and `profile` is a file or
    None (see `vqlib.suite.foreign`). Else they are the suite's, and `profile` is a name.

    `overrides` has the shape of a profile and wins over it: ``{"common": {...}, stem: {...}}``.
    `timeout` is in seconds for each notebook. Executed notebooks go to ``out/notebooks``. The
    last report in which nothing failed stays beside a new one as ``out/report.previous``. What
    stands there and is not ours, or was edited since, is refused and not overwritten.

    A notebook that fails carries `Result.error` and the others finish; a gate that fails is in
    `Result.gates`. Raises SuiteError, before anything runs, if the notebooks, the profile or
    expected.toml are malformed, or if `out` holds files of somebody else or is in use;
    KeyboardInterrupt after the kernels are stopped.
    """
    suite = load(notebooks, profile, directory, overrides, expected)
    out = Path(out)
    first = None if suite.foreign else not _runs_are_kept()
    plans = suite.plans()
    with scratch_in(out, {"notebooks": plans, "report": None, PREVIOUS: None}) as scratch:
        sources = [suite.sources[name] for name in suite.selected] if suite.foreign else None

        trusted = {} if suite.foreign else _trust(lineup.directory_of(notebooks, directory))
        done: dict[str, Result] = {}

        def show(results: list[Result]) -> None:
            coming = [plan.name for plan in plans if plan.name not in done]
            about = {"profile": suite.profile, "first": first, "sources": sources, **trusted}
            new = report.write(results, scratch / "report", coming=coming, **about)
            ownership.sign_all(new)
            _keep_report(new, out / "report")

        def show_early(result: Result) -> None:
            """Once a comparison is among them; not for the last, which is shown below."""
            done[result.notebook] = result
            so_far = [done[plan.name] for plan in plans if plan.name in done]
            if len(so_far) < len(plans) and tables.pairs(so_far):
                with contextlib.suppress(OSError):  # the last report will say what is wrong
                    show(so_far)

        order = _begun(plans, suite.expected)
        results = execute_plans(
            suite, plans, scratch, jobs, progress, timeout, order=order, tell=show_early
        )
        results = _keep_notebooks(results, out / "notebooks")
        show(results)
    return results


def check(notebooks: Sequence[Path] | None, profile: str, out: Path, **options) -> int:
    """`run`, then print every gate with its value. Options are those of `run`.

    Returns 0 if all gates pass, 1 if one fails, 2 if a notebook could not run.
    Raises SuiteError as `run` does.
    """
    results = run(notebooks, profile, out, **options)
    if any(result.error for result in results):
        print(tables.failures_text(results), file=sys.stderr)
    print(tables.gates_text(results))
    if tables.claims_text(results):
        print(f"\n{tables.claims_text(results)}")
    return status(results, gates=True)


def execute(
    suite: Lineup, *, jobs: int = 1, progress: bool = False, timeout: float = TIMEOUT
) -> list[Result]:
    """Execute what `suite` selects, and keep nothing: `Result.executed` is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="vqlib-") as scratch:
        return execute_plans(suite, suite.plans(), Path(scratch), jobs, progress, timeout)


def status(results: Sequence[Result], *, gates: bool) -> int:
    """The exit status for `results`; a gate counts if `gates` is true.

    One whose band was not measured does not pass.
    """
    if any(result.error for result in results):
        return COULD_NOT_RUN
    good = all(verdict.passed for result in results for verdict in result.gates)
    return PASSED if good or not gates else GATE_FAILED


def run_controls(
    profile: str | Path | None,
    out: Path,
    *,
    notebooks: Sequence[Path] | None = None,
    jobs: int = 2,
    progress: bool = True,
    directory: Path | None = None,
    timeout: float = TIMEOUT,
    expected: Path | None = None,
) -> list[ControlResult]:
    """Execute every planted fault of expected.toml; returns the gates that did not go red.

    A control is left out if none of its gates exists in `profile`. Each is executed until the
    gates that it must turn red have their records, without its figures, and goes to
    ``out/controls``. Takes `expected` and raises as `run` does.
    """
    suite = load(notebooks, profile, directory, None, expected)
    planted = {}
    for control in suite.expected.controls:
        if control.notebook in suite.selected and _guarded(control, suite):
            values = suite.values[control.notebook] | control.parameters
            name = f"{control.notebook}--{control.name}"
            plan = suite.plan(name, control.notebook, values, UNDRAWN)
            planted[name] = control, replace(plan, until=frozenset(_guarded(control, suite)))
    plans = [plan for _, plan in planted.values()]
    with scratch_in(Path(out), {"controls": plans}) as scratch:
        order = _begun(plans, suite.expected)
        results = execute_plans(suite, plans, scratch, jobs, progress, timeout, order=order)
        _keep_notebooks(results, Path(out) / "controls")
    return [
        missed
        for result in results
        for missed in _not_red(planted[result.notebook][0], result, suite)
    ]


def load(
    notebooks: Sequence[Path] | None,
    profile: str | Path | None,
    directory: Path | None = None,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
    expected: Path | None = None,
) -> Lineup:
    """The notebooks, read and checked: the suite's, or with `expected` any. Raises SuiteError."""
    if expected is None:
        return lineup.load(notebooks, profile, directory, overrides)
    return foreign.load(notebooks or (), expected, profile, overrides)


def _guarded(control: Control, suite: Lineup) -> list[str]:
    """The gates of a control that exist in the suite's profile."""
    known = suite.expected.records[control.notebook]
    return [record for record in control.must_fail if suite.profile in known[record]]


def _not_red(control: Control, result: Result, suite: Lineup) -> Iterator[ControlResult]:
    verdicts = {verdict.record: verdict for verdict in result.gates}
    for record in _guarded(control, suite):
        verdict = verdicts[record]
        if result.error:
            reason = f"the notebook failed before the gate could: {result.error.splitlines()[0]}"
        elif verdict.passed is None:
            reason = "its band was not measured, so nothing can turn it red"
        elif verdict.passed:
            reason = f"{tables.exact_text(verdict.value)} still passes {verdict.gate}"
        else:
            continue
        yield ControlResult(control.notebook, control.name, record, reason)


def execute_plans(
    suite: Lineup,
    plans: Sequence[Plan],
    scratch: Path,
    jobs: int,
    progress: bool,
    timeout: float,
    *,
    order: Sequence[Plan] | None = None,
    tell: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Execute `plans` in a pool of threads, each of which drives a kernel of its own.

    They begin in the `order` given. `tell` is called with each result, one at a time, and not
    after an interrupt.
    """
    if jobs < 1:
        raise SuiteError(f"jobs must be at least 1, got {jobs}")
    number("timeout", timeout, Range(0, above=True))
    kernels = Kernels(scratch)
    folder = scratch / "notebooks"
    folder.mkdir()
    telling = threading.Lock()
    bar = tqdm(
        total=sum(plan.cells for plan in plans),
        unit="cell",
        desc="notebooks",
        disable=not progress,
        mininterval=0.2 if sys.stderr.isatty() else 10,
    )

    def one(plan: Plan) -> Result:
        cells = 0

        def on_cell() -> None:
            nonlocal cells
            cells += 1
            bar.update()

        path = folder / f"{plan.name}.ipynb"
        execution = executing.execute(plan, path, kernels, timeout=timeout, on_cell=on_cell)
        bar.update(plan.cells - cells)  # a notebook that failed has nothing more to do
        result = _judge(suite, plan, path, execution)
        with telling:
            if not kernels.stopping.is_set():
                tell(result)
        return result

    with bar, ThreadPoolExecutor(jobs) as pool:
        futures = {plan.name: pool.submit(one, plan) for plan in order or plans}
        try:
            wait(futures.values())
        except BaseException:
            _stop(list(futures.values()), kernels)
            raise
        return [futures[plan.name].result() for plan in plans]


def _begun(plans: Sequence[Plan], expected: Expected) -> list[Plan]:
    """In which order they begin: first what compares before and after, as it is shown early.

    Then the last lessons, which take longest: they leave no core idle at the end.
    """

    def compares(plan: Plan) -> bool:
        made = expected.records.get(plan.source.stem, ())
        return any(name.startswith("before/") for name in made)

    first = [plan for plan in plans if compares(plan)]
    return first + [plan for plan in reversed(plans) if plan not in first]


def _stop(futures: Sequence[Future], kernels: Kernels) -> None:
    for future in futures:
        future.cancel()
    kernels.interrupt()
    try:
        wait(futures, timeout=GRACE)
    finally:
        kernels.kill()


def _judge(suite: Lineup, plan: Plan, path: Path, execution: executing.Execution) -> Result:
    notebook = plan.source.stem
    error, values = execution.error, {}
    try:
        values = records.collect(execution.notebook)
        ended_early = plan.until and plan.until <= values.keys()
        mismatches = [] if ended_early else suite.expected.mismatches(notebook, values)
    except ValueError as problem:
        mismatches = [str(problem)]
    if mismatches and error is None:  # after an error, missing records follow from it
        error = "\n".join(mismatches)
    verdicts = suite.expected.judge(notebook, suite.profile, values, execution.cost.named())
    return Result(
        plan.name,
        suite.profile,
        profiles.declared_loosely(plan.source) | dict(plan.parameters),
        values,
        execution.cost,
        path,
        error,
        tuple(verdicts),
    )


def _trust(directory: Path) -> dict[str, object]:
    """What is known of the suite's own gates, as arguments of `report.write`."""
    expected = directory / foreign.EXPECTED
    known = trust.read(expected)
    about = known.about if known else None
    old = about is not None and about["judged"] != trust.digest(expected, about["notebooks"])
    return {"trust": known, "trust_is_old": old}


def _runs_are_kept() -> bool:
    """Whether trainings of before are in the cache: they make the notebooks' times shorter."""
    from vqlib.training.experiments import cache_dir  # here: it imports torch

    return any(cache_dir().glob("*/summary.json"))


@contextlib.contextmanager
def scratch_in(out: Path, replaced: Mapping[str, Sequence[Plan] | None]) -> Iterator[Path]:
    """A folder on the same file system as `out`, gone afterwards; `out` is held meanwhile.

    `replaced`: the folders of `out` in which a notebook of each plan (None: everything) will be
    replaced. Raises SuiteError if that is not ours, or if somebody else holds `out`.
    """

    def refuse_others() -> None:
        for folder, plans in replaced.items():
            names = None if plans is None else [f"{plan.name}.ipynb" for plan in plans]
            ownership.refuse_others(out / folder, names)

    try:
        with locks.checked(out, refuse_others):
            for left in out.iterdir():  # by those that were killed
                if re.fullmatch(rf"{re.escape(SCRATCH)}\w{{8}}", left.name):
                    shutil.rmtree(left, ignore_errors=True)
            # absolute: papermill remembers, for all threads at once, where some run began
            with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=out.resolve()) as scratch:
                yield Path(scratch)
    except locks.FolderInUse as error:
        raise SuiteError(str(error)) from None


def _keep_notebooks(results: Sequence[Result], folder: Path) -> list[Result]:
    folder.mkdir(parents=True, exist_ok=True)
    ownership.sign(folder, {result.executed.name: result.executed for result in results})
    kept = []
    for result in results:
        path = folder / result.executed.name
        os.replace(result.executed, path)
        kept.append(replace(result, executed=path))
    return kept


def _keep_report(new: Path, place: Path) -> None:
    """Swap a report in; the last one without a failure stays as ``.previous``."""
    previous = place.with_name(PREVIOUS)
    if place.exists():
        if report.passed(place) or (report.whole(place) and not previous.exists()):
            shutil.rmtree(previous, ignore_errors=True)
            os.replace(place, previous)
        else:
            shutil.rmtree(place)
    os.replace(new, place)
