"""The figures of the notebooks and of the report."""

from vqlib.lessons.figures import claims, curves, fronts, pictures, tree

__all__ = ["claims", "curves", "fronts", "pictures", "tree"]
