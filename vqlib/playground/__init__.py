"""The live part: controls, demonstrations, and a codebook that can be watched."""

from vqlib import extras

with extras.named("notebooks"):
    from vqlib.playground.controls import Choice, Panel, Slider, Switch
    from vqlib.playground.demos import Demo
    from vqlib.playground.playground import Playground
    from vqlib.playground.trainings.trainings import Trainings

__all__ = ["Choice", "Demo", "Panel", "Playground", "Slider", "Switch", "Trainings"]
