"""Data sets: from a recipe in `conf/data/` to rows, splits and scaling. README.md tells where to begin."""

from research.data.examples import Dataset, Draw, Examples, Facts, Split, Windows
from research.data.loading import load
from research.data.source import Source, Splitting

__all__ = ["Dataset", "Draw", "Examples", "Facts", "Source", "Split", "Splitting", "Windows", "load"]
