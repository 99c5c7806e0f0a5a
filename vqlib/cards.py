"""A diagnosis as an HTML card with small curves, for notebooks. No script, nothing from outside."""

from __future__ import annotations

from functools import cache

import jinja2

from vqlib.findings import Diagnosis

WIDTH, HEIGHT = 210, 64  # pixels of a curve
COLORS = {"critical": "#b3261e", "warning": "#9a6700", "note": "#0b5cad", "healthy": "#1a7f37",
          "undecided": "#57606a"}  # fmt: skip


def card(diagnosis: Diagnosis) -> str:
    """HTML of a diagnosis."""
    return template("card.html.j2").render(
        d=diagnosis, colors=COLORS, curves=[_curve(*item) for item in diagnosis.curves.items()],
        width=WIDTH, height=HEIGHT,
        rest=[(heading, [a for a in diagnosis.answers if a.severity == severity])
              for heading, severity in (("Examined, and not so", "clear"),
                                        ("Not applicable", "not applicable"))],
    )  # fmt: skip


@cache
def template(name: str) -> jinja2.Template:
    """One of vqlib/templates."""
    loader = jinja2.PackageLoader("vqlib", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    return environment.get_template(name)


def _curve(label: str, points: list[tuple[float, float]]) -> dict:
    """A curve scaled into the picture; shares are drawn on an axis from 0 to 1, all else from 0."""
    top = 1.0 if label.startswith("utilization") else max(y for _, y in points) or 1.0
    first, last = points[0][0], points[-1][0]
    span = (last - first) or 1.0
    scaled = [
        (2 + (WIDTH - 4) * (x - first) / span, HEIGHT - 2 - (HEIGHT - 4) * max(0.0, y) / top)
        for x, y in points
    ]
    return {
        "label": label, "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in scaled),
        "end": scaled[-1], "last": points[-1][1], "top": top, "steps": (first, last),
        "percent": label.startswith("utilization"),
    }  # fmt: skip
