"""Data sets: from a recipe in `conf/data/` to rows, splits and scaling. README.md tells where to begin."""

from research.data.examples import Dataset, Draw, Examples, Facts, Split, Windows
from research.data.images import MNIST, Digits, FashionMNIST
from research.data.loading import load
from research.data.published import ETT, M4, Energy, Stock
from research.data.series import Series
from research.data.source import Source, Splitting
from research.data.synthetic import LowRank
from research.data.tables import Arrays

__all__ = [
    "ETT",
    "M4",
    "MNIST",
    "Arrays",
    "Dataset",
    "Digits",
    "Draw",
    "Energy",
    "Examples",
    "Facts",
    "FashionMNIST",
    "LowRank",
    "Series",
    "Source",
    "Split",
    "Splitting",
    "Stock",
    "Windows",
    "load",
]
