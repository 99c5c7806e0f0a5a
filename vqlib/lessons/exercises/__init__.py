"""The exercises of the notebooks: what is right, on which inputs, and how it usually goes wrong.

Texts, hints and solutions stand in the notebooks. `tests/lessons/test_exercises.py` checks that
each solution passes and that each slip does not.
"""

from vqlib.lessons.exercises.choosing import FRONT, RESTART, TOP
from vqlib.lessons.exercises.counting import COUNT, MEMORY, USE, WINDOW
from vqlib.lessons.exercises.judging import GAP, PAIRED, READING, THRESHOLD, VERDICT
from vqlib.lessons.exercises.playing import CARRIED, FADING
from vqlib.lessons.exercises.resetting import CEILING, GRACE, RESET
from vqlib.lessons.exercises.tuning import INTERACTION, LIMITS, REGRET

__all__ = [
    "CARRIED",
    "CEILING",
    "COUNT",
    "FADING",
    "FRONT",
    "GAP",
    "GRACE",
    "INTERACTION",
    "LIMITS",
    "MEMORY",
    "PAIRED",
    "READING",
    "REGRET",
    "RESET",
    "RESTART",
    "THRESHOLD",
    "TOP",
    "USE",
    "VERDICT",
    "WINDOW",
]
