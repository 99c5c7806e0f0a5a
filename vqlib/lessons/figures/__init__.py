"""The figures of the notebooks and of the report."""

from vqlib.lessons.figures import claims, curves, flat, fronts, pictures, tree, tuning

__all__ = ["claims", "curves", "flat", "fronts", "pictures", "tree", "tuning"]
