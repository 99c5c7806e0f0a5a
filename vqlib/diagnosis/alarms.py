"""Alarms: a training in progress is diagnosed every few steps, and what changes is said once."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import pandas as pd

from vqlib.diagnosis import diagnose
from vqlib.diagnosis.findings import GRAVE, IDS, Diagnosis, Finding
from vqlib.quantization.distributed import process
from vqlib.quantization.names import printable
from vqlib.quantization.ranges import whole
from vqlib.watching.columns import COLUMNS
from vqlib.watching.rows import Listener, Thinned
from vqlib.watching.watch import Watch

LOG = logging.getLogger("vqlib")
LEVELS = {"critical": logging.CRITICAL, "warning": logging.WARNING}
EARLY = {
    "threshold-above-share",
    "cold-start",
    "first-step-explosion",
    "duplicate-codes",
    "evaluation-changes-counts",
    "unstable-training",
    "window-too-small",
}
"""Findings that the first steps show or the settings; all others wait for the warm-up, for
a codebook, too, has to come into use first."""

Event = Literal["appeared", "changed", "gone", "stop"]


@dataclass(frozen=True)
class Alarm:
    """What is said of a finding, once.

    Attributes:
        event: "appeared"; "changed", if the severity did; "gone"; or "stop", if the rule to
            stop is met.
        finding: as it stands now, with its evidence; if gone, its severity is no longer
            "critical" or "warning".
        layer: name of the layer. step: training steps done.
        was: the severity that was said before; "" if none was.
    """

    event: Event
    finding: Finding
    layer: str
    step: int
    was: str = ""

    def __str__(self) -> str:
        f = self.finding
        head = f"step {self.step}, {self.layer}: {f.id}"
        if self.event == "gone":
            return f"{head} is gone (was {self.was})"
        if self.event == "stop":
            return f"{head} stays critical: this training should stop. {f.remedy}".rstrip()
        was = f", was {self.was}" if self.was else ""
        numbers = "; ".join(map(str, f.evidence[:2]))
        return f"{head} ({f.severity}{was}): {f.symptom} [{numbers}]. Remedy: {f.remedy}"


class Alarms:
    """Diagnoses a running watch every n steps, and says what appears and what goes.

    >>> with vqlib.watch(model) as w:  # doctest: +SKIP
    ...     alarms = vqlib.Alarms(w, stop_if={"codebook-collapse"})
    ...     for batch in loader:
    ...         step(model, batch)
    ...         if alarms.should_stop:
    ...             break

    A finding, critical or a warning, is said once when it appears, once when its severity
    changes, and once when it goes. Notes are no alarms. A finding that comes and goes from
    one diagnosis to the next is not said. A question that a diagnosis cannot decide changes
    nothing.

    All steps count: of runs longer than some thousand rows, the diagnosis reads one row for
    every few, so it does not become slower.

    Of several processes each diagnoses what it has counted itself, and the first one speaks.
    ``should_stop`` is each one's own, and whoever sets it says so, for it may be the only one.

    Args:
        watch: may be running already; steps before are not known to the alarms.
        on_alarm: called with each `Alarm`. None: a record of the logger "vqlib", at level
            CRITICAL, WARNING, or INFO if gone, whose ``extra`` holds ``event``, ``id``,
            ``layer``, ``step``, ``severity`` and ``evidence``. If it raises, that is a
            warning, once, and training goes on.
        every: training steps between two diagnoses. A step is one forward, see `vqlib.watch`.
        warm_up: steps before which only findings of `EARLY` are said.
        confirm: diagnoses in a row that must agree before anything is said.
        stop_if: ids of findings. If one of them is critical, in any layer, in ``patience``
            diagnoses in a row after the warm-up, ``should_stop`` becomes True. Nothing is
            ended by it: the training has to ask.

    Attributes:
        should_stop: whether the rule to stop was met; it stays True.
        diagnosis: the last `Diagnosis`; None before the first.
        standing: {(layer, id): severity} of what was said and is not gone.

    Raises:
        TypeError: ``watch`` is no `Watch`, or ``on_alarm`` not callable.
        ValueError: a number below 1 (``warm_up``: below 0), or an id that does not exist.
    """

    def __init__(
        self,
        watch: Watch,
        on_alarm: Callable[[Alarm], None] | None = None,
        *,
        every: int = 500,
        warm_up: int = 500,
        confirm: int = 2,
        stop_if: Iterable[str] = (),
        patience: int = 5,
    ):
        if not isinstance(watch, Watch):
            raise TypeError(f"watch must be what vqlib.watch returns, got {type(watch).__name__}")
        self.every, self.patience = whole("every", every), whole("patience", patience)
        self.warm_up, confirm = whole("warm_up", warm_up, least=0), whole("confirm", confirm)
        self.stop_if = frozenset([stop_if] if isinstance(stop_if, str) else stop_if)
        if wrong := self.stop_if - IDS.keys():
            raise ValueError(
                f"stop_if: no finding is called {printable(', '.join(sorted(map(str, wrong))))}; "
                f"the ids are {', '.join(IDS)}"
            )
        self._watch, self._say = watch, Listener(on_alarm or _log, "on_alarm")
        self._began, self._due = watch.steps, watch.steps + self.every
        self._seen = {layer: {s: Thinned() for s in ("train", "val")} for layer in watch.layers}
        self._recent = {}  # {(layer, id): its last severities; None: neither of the grave ones}
        self._new = partial(deque, maxlen=confirm)
        self._critical = 0  # diagnoses in a row in which the rule to stop held
        self.should_stop = False
        self.diagnosis: Diagnosis | None = None
        self.standing: dict[tuple[str, str], str] = {}
        watch.tell_rows(self._take, "vqlib.Alarms")
        watch.tell_steps(self._step, "vqlib.Alarms")

    @property
    def histories(self) -> dict[str, pd.DataFrame]:
        """Of each layer by name: what is diagnosed, as in `Watch.histories`, but thinned out."""
        return {
            layer: pd.DataFrame([r for part in parts.values() for r in part.rows], columns=_NAMES)
            for layer, parts in self._seen.items()
        }

    @property
    def settings(self) -> dict[str, dict]:
        """Of each layer by name: as in `Watch.settings`."""
        return self._watch.settings

    @property
    def counted(self) -> str:
        """As in `Watch.counted`."""
        return self._watch.counted

    def counts(self) -> dict[str, dict[str, int]]:
        """{layer: {severity: findings in the last diagnosis}}, for critical and warning."""
        found = {layer: dict.fromkeys(GRAVE, 0) for layer in self._watch.layers}
        for finding in self.diagnosis.findings if self.diagnosis else ():
            if finding.severity in GRAVE:
                found[self._layer(finding)][finding.severity] += 1
        return found

    def _take(self, row: dict) -> None:
        self._seen[row["layer"]][row["split"]].add(row)

    def _step(self, step: int) -> None:
        if step < self._due:
            return
        self._due = step + self.every
        self._watch.catch_up()
        if not any(part.rows for parts in self._seen.values() for part in parts.values()):
            return
        self.diagnosis = diagnose(self)
        warm = step - self._began >= self.warm_up
        answers = [a for a in self.diagnosis.answers if warm or a.id in EARLY]
        for answer in answers:
            self._hear(answer, step)
        self._judge(answers, step)

    def _hear(self, answer: Finding, step: int) -> None:
        """Take in an ``answer``, and say what has become certain."""
        if answer.severity == "unknown":
            return
        layer = self._layer(answer)
        key = (layer, answer.id)
        recent = self._recent.setdefault(key, self._new())
        recent.append(answer.severity if answer.severity in GRAVE else None)
        was = self.standing.get(key)
        agree = len(set(recent)) == 1 if was else all(recent)
        if len(recent) < recent.maxlen or not agree or recent[-1] == was:
            return
        if recent[-1] is None:
            self.standing.pop(key, None)
        else:
            self.standing[key] = recent[-1]
        if recent[-1] or was:
            event = "gone" if recent[-1] is None else "changed" if was else "appeared"
            self._speak(Alarm(event, answer, layer, step, was or ""))

    def _judge(self, answers: list[Finding], step: int) -> None:
        """Whether the rule to stop is met."""
        hopeless = [a for a in answers if a.severity == "critical" and a.id in self.stop_if]
        self._critical = self._critical + 1 if hopeless else 0
        if self._critical >= self.patience and not self.should_stop:
            self.should_stop = True
            for a in hopeless:
                self._say(Alarm("stop", a, self._layer(a), step, a.severity))

    def _layer(self, finding: Finding) -> str:
        return finding.subject or self._watch.layers[0]

    def _speak(self, alarm: Alarm) -> None:
        if process()[0] == 0:
            self._say(alarm)


_NAMES = list(COLUMNS)


def _log(alarm: Alarm) -> None:
    """Say an alarm in a record of the logger "vqlib"."""
    finding = alarm.finding
    level = logging.INFO if alarm.event == "gone" else LEVELS[finding.severity]
    extra = {
        "event": alarm.event,
        "id": finding.id,
        "layer": alarm.layer,
        "step": alarm.step,
        "severity": finding.severity,
        "evidence": {e.name: e.value for e in finding.evidence},
    }
    number, others = process()
    own = f" (Counted in process {number} of {others} alone.)" if others > 1 else ""
    LOG.log(level, "%s%s", alarm, own, extra=extra)
