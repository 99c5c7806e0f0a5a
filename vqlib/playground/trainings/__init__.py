"""The real model, trained from sliders."""

from vqlib.playground.trainings.trainings import Trainings

__all__ = ["Trainings"]
