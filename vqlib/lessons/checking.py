"""Exercises: an answer is compared with the right one, and words say what is off.

The answer is a number, or a function that is called on several inputs. Each exercise knows the
slips that are common: if an answer gives what a slip gives, the check says which slip it is.
"""

from __future__ import annotations

import copy
import numbers
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from vqlib import lessons

Answer = float | Callable[..., Any]
LONG = 48  # characters of a result that are shown whole


class Case(NamedTuple):
    """An input of an exercise's function."""

    words: str  #: what is special about it
    given: tuple  #: the arguments


@dataclass(frozen=True)
class Exercise:
    """A question, its answer, and the usual ways to get it wrong.

    Attributes:
        question: a few words, shown before the verdict.
        answer: the right number, or a function that is right on all ``cases``.
        slips: {a sentence that says what went wrong: what that gives}; of the answer's kind.
        cases: inputs of the function, plain ones first; none where the answer is a number.
        tolerance: absolute, of every number.
    """

    question: str
    answer: Answer
    slips: Mapping[str, Answer]
    cases: Sequence[Case] = ()
    tolerance: float = 1e-4

    def __post_init__(self):
        if callable(self.answer) == (not self.cases):
            raise ValueError(f"{self.question!r}: cases go with a function, and only with one")

    def check(self, yours: Any) -> bool:
        """Say whether ``yours`` is right, and if not what is off; returns whether it is.

        Never raises, no matter what ``yours`` is or does.
        """
        fits = callable(yours) if self.cases else isinstance(yours, numbers.Real)
        if not fits:
            wanted = "a function" if self.cases else "a number"
            lessons.say(f"✗ **{self.question}** Expected {wanted}, got `{_shown(yours)}`.")
            return False
        wrong = list(self._wrong(yours))
        lessons.say(self._praise(yours) if not wrong else self._blame(wrong))
        return not wrong

    def _wrong(self, yours: Answer) -> Iterator[tuple[Case, Any, Any]]:
        """Cases in which ``yours`` is wrong: the case, what it gives, what is right."""
        for case in self.cases or (Case("", ()),):
            given, right = _outcome(yours, case), _outcome(self.answer, case)
            if not _same(given, right, self.tolerance):
                yield case, given, right

    def _praise(self, yours: Answer) -> str:
        if self.cases:
            return f"✓ **{self.question}** Right on all {len(self.cases)} inputs."
        return f"✓ **{self.question}** {_shown(yours)} is right."

    def _blame(self, wrong: list[tuple[Case, Any, Any]]) -> str:
        case, given, right = wrong[0]
        if not self.cases:
            said = f"{_shown(given)} is too {'high' if given > right else 'low'}."
        elif isinstance(given, Exception):
            said = f"On {case.words} it raises `{type(given).__name__}: {given}`."
        else:
            where, given, right = _narrowed("", given, right, self.tolerance)
            said = f"On {case.words} it gives `{_shown(given)}`{where}; right is `{_shown(right)}`."
        count = f" ({len(wrong)} of {len(self.cases)} inputs are wrong.)" if self.cases else ""
        return " ".join([f"✗ **{self.question}** {said}{count}", *self._slips(wrong)])

    def _slips(self, wrong: list[tuple[Case, Any, Any]]) -> list[str]:
        """The sentence of the first slip that agrees with the answer on every wrong input."""
        for sentence, slip in self.slips.items():
            if all(_same(given, _outcome(slip, case), self.tolerance) for case, given, _ in wrong):
                return [sentence]
        return []


def _outcome(answer: Answer, case: Case) -> Any:
    """What an answer gives on a case: a value, or the exception that it raised."""
    if not callable(answer):
        return answer
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an edge case is meant to be one
            return answer(*copy.deepcopy(case.given))
    except Exception as error:
        return error


def _same(given: Any, right: Any, tolerance: float) -> bool:
    if isinstance(right, Exception):
        return type(given) is type(right)
    if isinstance(right, str):
        return isinstance(given, str) and given == right
    if isinstance(right, tuple):
        parts = list(given) if isinstance(given, tuple | list) else []
        return len(parts) == len(right) and all(
            _same(*pair, tolerance) for pair in zip(parts, right, strict=True)
        )
    try:
        given, right = (np.asarray(value, dtype=float) for value in (given, right))
    except (TypeError, ValueError):
        return False
    return given.shape == right.shape and np.allclose(
        given, right, rtol=0, atol=tolerance, equal_nan=True
    )


def _narrowed(where: str, given: Any, right: Any, tolerance: float) -> tuple[str, Any, Any]:
    """The first part of a long result that is wrong: where it stands, what it is, what is right."""
    if len(_shown(right)) <= LONG or not _alike(given, right):
        return where, given, right
    for place, pair in enumerate(zip(given, right, strict=True)):
        if not _same(*pair, tolerance):
            part = f" in part {place + 1}" if isinstance(right, tuple) else f", row {place}"
            return _narrowed(where + part, *pair, tolerance)
    return where, given, right


def _alike(given: Any, right: Any) -> bool:
    """Whether both have the same parts: of tuples of one length, of tensors of one shape."""
    if isinstance(right, torch.Tensor):
        return isinstance(given, torch.Tensor) and given.shape == right.shape
    return isinstance(right, tuple) and isinstance(given, tuple | list) and len(given) == len(right)


def _shown(value: Any) -> str:
    """A value in one short line."""
    if isinstance(value, tuple | list):
        return "(" + ", ".join(map(_shown, value)) + ")"
    if isinstance(value, torch.Tensor | np.ndarray):
        return _shown(value.tolist())
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return f"{value:.4g}"
    return textwrap.shorten(repr(value), 80)
