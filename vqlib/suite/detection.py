"""False alarms and detection, measured: sound executions, and executions with planted faults."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vqlib.suite import repeats, tables, trust, versions
from vqlib.suite.errors import SuiteError
from vqlib.suite.lineup import Lineup
from vqlib.suite.repeats import Outcome
from vqlib.suite.trust import Trust


def measure(
    suite: Lineup,
    expected: Path,
    out: Path,
    *,
    kinds: Sequence[str],
    first: int,
    times: int,
    faults: Mapping[str, Mapping[str, object]],
    fault_times: int,
    command: str,
    **options,
) -> Trust:
    """Execute `suite` on fresh seeds, and with each of `faults` ({name: parameters}) planted.

    `expected`: the file of gates. `options` are those of `repeats.execute`. Raises SuiteError if
    some of the seeds are those that the bands were calibrated on.
    """
    sound = repeats.plan(suite, kinds, first, times)
    sick = repeats.plan(suite, kinds, first, fault_times, faults)
    _refuse_known(suite, repeats.seeds_of(suite, first, max(times, fault_times)))
    outcomes = repeats.execute(suite, [*sound, *sick], out, **options)
    about = {
        "date": datetime.date.today(),
        "command": command,
        "profile": suite.profile,
        "notebooks": sorted(suite.selected),
        "seeds": _span(repeats.seeds_of(suite, first, times)),
        "kinds": list(dict.fromkeys(str(repeat.kind) for repeat in sound)),
        "vqlib": versions.installed("vqlib"),
        "torch": versions.installed("torch"),
        "judged": trust.digest(expected, suite.selected),
    }
    return of(suite, outcomes, about)


def of(suite: Lineup, outcomes: Iterable[Outcome], about: dict[str, object]) -> Trust:
    """Judge what was executed by the gates of `suite`."""
    executions = gates = 0
    alarms: list[str] = []
    failed: list[str] = []
    found: dict[str, dict[str, None]] = {}
    tries: dict[tuple, bool] = {}
    for outcome in outcomes:
        repeat = outcome.repeat
        if repeat.fault:
            found.setdefault(repeat.fault, {})
        if outcome.error:
            failed.append(str(outcome))
            continue
        verdicts = suite.expected.judge(repeat.notebook, suite.profile, outcome.records)
        verdicts = [verdict for verdict in verdicts if verdict.passed is not None]
        red = [verdict for verdict in verdicts if not verdict.passed]
        if repeat.fault:
            names = [f"{repeat.notebook} {verdict.record}" for verdict in red]
            found[repeat.fault] |= dict.fromkeys(names)
            group = repeat.fault, repeat.seed, repeat.kind
            tries[group] = tries.get(group, False) or bool(red)
        else:
            executions, gates = executions + 1, gates + len(verdicts)
            where = f"{repeat.notebook}, seed {repeat.seed}, {repeat.kind}"
            alarms += [f"{where}: {tables.verdict_sentence(verdict)}" for verdict in red]
    red_of = {fault: list(red) for fault, red in found.items()}
    counts = len(tries), sum(tries.values())
    return Trust(about, executions, gates, alarms, red_of, *counts, failed)


def _refuse_known(suite: Lineup, seeds: range) -> None:
    """Raises SuiteError if a band was calibrated on one of `seeds`."""
    for (profile, notebook), measurement in suite.expected.measured.items():
        known = measurement.seeds
        overlap = max(known.start, seeds.start) < min(known.stop, seeds.stop)
        if profile == suite.profile and notebook in suite.selected and overlap:
            raise SuiteError(
                f"seeds: {_span(seeds)} overlap with {_span(known)}, on which {notebook} was "
                f"calibrated; expected --first {known.stop} or more"
            )


def _span(seeds: range) -> str:
    return f"{seeds.start} to {seeds.stop - 1}"
