"""The results as JUnit XML, which build servers show: a suite a notebook, a case a gate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from vqlib.suite import tables

if TYPE_CHECKING:
    from vqlib.suite.gates import Verdict
    from vqlib.suite.results import Result

EXECUTES = "executes"
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(results: Sequence[Result], path: Path) -> None:
    """Write `path`. The first case of each notebook is that it executes and records what it should;
    a gate without a value is skipped. The records are the suite's properties."""
    root = ElementTree.Element("testsuites", name="vqlib")
    for result in results:
        root.append(_suite(result))
    for count in ("tests", "errors", "failures", "skipped"):
        root.set(count, str(sum(int(suite.get(count)) for suite in root)))
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _suite(result: Result) -> ElementTree.Element:
    cases = [_executes(result), *(_gate(result, verdict) for verdict in result.gates)]
    suite = ElementTree.Element(
        "testsuite",
        name=_clean(result.notebook),
        time=f"{result.seconds:.3f}",
        tests=str(len(cases)),
    )
    kinds = {"errors": "error", "failures": "failure", "skipped": "skipped"}
    for count, kind in kinds.items():
        suite.set(count, str(sum(case.find(kind) is not None for case in cases)))
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in result.records.items():
        ElementTree.SubElement(properties, "property", name=_clean(name), value=repr(value))
    suite.extend(cases)
    return suite


def _executes(result: Result) -> ElementTree.Element:
    case = _case(result, EXECUTES, result.seconds)
    if result.error:
        _explain(case, "error", result.error.splitlines()[0], result.error)
    return case


def _gate(result: Result, verdict: Verdict) -> ElementTree.Element:
    case = _case(result, verdict.record, 0.0)
    if verdict.value is None:
        _explain(case, "skipped", "there is no value to judge")
    elif not verdict.passed:
        _explain(
            case, "failure", tables.verdict_sentence(verdict), tables.verdict_explained(verdict)
        )
    return case


def _case(result: Result, name: str, seconds: float) -> ElementTree.Element:
    return ElementTree.Element(
        "testcase", classname=_clean(result.notebook), name=_clean(name), time=f"{seconds:.3f}"
    )


def _explain(case: ElementTree.Element, kind: str, message: str, text: str = "") -> None:
    ElementTree.SubElement(case, kind, message=_clean(message)).text = _clean(text)


def _clean(text: str) -> str:
    """Without what XML cannot hold, escaped or not."""
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
