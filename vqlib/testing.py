"""The audit as a conformance test in your own pytest: one test a question, each by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any

import pytest
from torch import nn

from vqlib.diagnosis.audit import ALWAYS, CODEBOOK, RANKS, audit
from vqlib.diagnosis.findings import GRAVE, Diagnosis
from vqlib.quantization.names import near

UNSTABLE = "unstable-training"  # asked of every layer, and answered only if it is so
Subject = nn.Module | Callable[[], nn.Module]


class AuditFailed(AssertionError):
    """The audit found a fault; the message is the finding."""


def parametrize_with_audit(
    subjects: Iterable[Subject] | Mapping[str, Subject],
    *,
    expected_failures: Mapping[str, str] | None = None,
    **options: Any,
) -> pytest.MarkDecorator:
    """Decorate a test so that it runs once a quantizer and question of `vqlib.audit`.

    >>> @parametrize_with_audit([MyQuantizer])  # doctest: +SKIP
    ... def test_my_quantizer(check):
    ...     check()

    The test's argument must be called ``check``. Calling it raises `AuditFailed` if the audit
    finds the fault, critical or as a warning. It skips the test, and says why, if the question
    does not apply or cannot be decided: that is no proof of conformance. Each quantizer is
    audited once, when its first test runs; an error of the audit is an error of each test.

    Args:
        subjects: classes or functions without arguments that make a quantizer, or quantizers;
            as a mapping with a name each, which the tests then bear.
        expected_failures: {finding's id: why you accept it}, for all subjects. Such a test is
            an expected failure (xfail). If it passes, it fails: remove the entry then.
        options: of `vqlib.audit`: ``adapter``, ``dim``, ``tokens``, ``ranks``, ``seed``,
            ``timeout``.

    Raises:
        TypeError: a subject is no quantizer and makes none, or a reason is no text.
        ValueError: no subjects, a finding that no audit looks for, or a reason without words.
    """
    named = _named(subjects)
    questions = [*CODEBOOK, *ALWAYS, UNSTABLE]
    if options.get("ranks", True):
        questions.append(RANKS)
    expected = _checked(expected_failures, questions)
    cases = []
    for name, subject in named:
        examine = _once(partial(audit, subject, **options))
        for question in questions:
            why = expected.get(question)
            check = partial(_check, examine, question, why is not None)
            marks = []
            if why is not None:
                marks.append(pytest.mark.xfail(reason=why, raises=AuditFailed, strict=True))
            cases.append(pytest.param(check, id=f"{name}-{question}", marks=marks))
    return pytest.mark.parametrize("check", cases)


def _check(examine: Callable[[], Diagnosis], question: str, expected: bool) -> None:
    """One test: raise if the fault was found, skip if that cannot be told."""
    found = [answer for answer in examine().answers if answer.id == question]
    for answer in found:
        if answer.severity in GRAVE:
            raise AuditFailed(f"{examine().title}\n{answer}")
    for answer in found:
        # "not applicable" does not skip an expected failure: it is stale, and must show
        if answer.severity == "unknown" or (answer.severity == "not applicable" and not expected):
            pytest.skip(f"{answer.severity}: {answer.cause}")


def _once(examine: Callable[[], Diagnosis]) -> Callable[[], Diagnosis]:
    """The same, run at most once; an error is kept too, and raised each time."""

    @cache
    def outcome() -> Diagnosis | Exception:
        try:
            return examine()
        except Exception as error:
            return error

    def again() -> Diagnosis:
        found = outcome()
        if isinstance(found, Exception):
            raise found
        return found

    return again


def _named(subjects: Iterable[Subject] | Mapping[str, Subject]) -> list[tuple[str, Subject]]:
    """(name, subject) each; checked while tests are collected, though nothing is made yet."""
    if isinstance(subjects, nn.Module) or not isinstance(subjects, Iterable):
        raise TypeError(f"subjects must be a list, such as [MyQuantizer], got {subjects!r}")
    if isinstance(subjects, Mapping):
        named = [(str(name), subject) for name, subject in subjects.items()]
    else:
        named = [(_name(subject, i), subject) for i, subject in enumerate(subjects)]
    if not named:
        raise ValueError(
            "subjects is empty: give at least one quantizer, or a class that makes one"
        )
    for _, subject in named:
        if not callable(subject):
            raise TypeError(
                "each subject must be a quantizer, or a class or a function without arguments that "
                f"makes one, got {subject!r}"
            )
    return named


def _name(subject: Any, place: int) -> str:
    while isinstance(subject, partial):
        subject = subject.func
    kind = type(subject) if isinstance(subject, nn.Module) else subject
    name = getattr(kind, "__name__", type(kind).__name__)
    return f"quantizer{place}" if name == "<lambda>" else name


def _checked(expected: Mapping[str, str] | None, questions: list[str]) -> Mapping[str, str]:
    if not isinstance(expected, Mapping | None):
        raise TypeError(f"expected_failures must be a dict {{finding: why}}, got {expected!r}")
    for finding, why in (expected or {}).items():
        if finding not in questions:
            raise ValueError(
                f"expected_failures: no such question of the audit, {finding!r}"
                f"{near(str(finding), questions)}"
            )
        if not isinstance(why, str):
            raise TypeError(f"expected_failures: say why in words for {finding!r}, got {why!r}")
        if not why.strip():
            raise ValueError(f"expected_failures: say why you accept {finding!r}, got no words")
    return expected or {}
