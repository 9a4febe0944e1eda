"""Data: recipes, splits, scaling, downloads."""

from research.data.examples import Dataset, Examples, Facts, Split
from research.data.images import MNIST, Digits, FashionMNIST
from research.data.loading import load
from research.data.splits import Source, Splitting
from research.data.synthetic import LowRank
from research.data.tables import Arrays

__all__ = [
    "MNIST",
    "Arrays",
    "Dataset",
    "Digits",
    "Examples",
    "Facts",
    "FashionMNIST",
    "LowRank",
    "Source",
    "Split",
    "Splitting",
    "load",
]
