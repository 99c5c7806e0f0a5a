"""Several audits side by side."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from vqlib.diagnosis.findings import Diagnosis
from vqlib.quantization.ranges import shown

WORDS = {"not applicable": "–", "clear": "clear"}


def audit_table(audits: Mapping[str, Diagnosis]) -> pd.DataFrame:
    """One row a question, one column a subject, each cell its answer in a word.

    A dash is "not applicable"; an empty cell is a question that was not asked. Raises TypeError
    unless ``audits`` is a dict {subject: what `audit` returned}.
    """
    if not isinstance(audits, Mapping) or not all(
        isinstance(audit, Diagnosis) for audit in audits.values()
    ):
        raise TypeError(f"expected a dict {{subject: audit}}, got {shown(audits)}")
    questions = dict.fromkeys(a.id for audit in audits.values() for a in audit.answers)
    questions.pop("healthy", None)
    rows = {
        question: {
            name: next(
                (WORDS.get(a.severity, a.severity) for a in audit.answers if a.id == question), ""
            )
            for name, audit in audits.items()
        }
        for question in sorted(questions)
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(audits)).rename_axis(
        "question"
    )
