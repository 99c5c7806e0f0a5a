"""The figures of the notebooks and of the report."""

from vqlib.lessons.figures import claims, curves, pictures, tree, tuning

__all__ = ["claims", "curves", "pictures", "tree", "tuning"]
