"""How numbers are written, and what a kind of document has to say about that."""

import dataclasses
import math
from collections.abc import Callable

from research.report.cell import EQUAL
from research.report.statistics import IntervalKind

MOST_DECIMALS = 9  # of a number that is not smaller than SMALL
SMALL = 1e-4


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a cell shows.

    Attributes:
      digits: decimals; None for two significant digits of the standard deviation.
      parts: what stands beside the mean, of `cli.PARTS`.
      interval: kind of the 95 % interval.
    """

    digits: int | None = None
    parts: tuple[str, ...] = ("sd",)
    interval: IntervalKind = "t"

    @property
    def words(self) -> str:
        """The end of the caption: what the parts are that it does not explain itself."""
        kind = {"t": "t interval", "bootstrap": "bootstrap interval, too narrow below ten numbers"}[self.interval]
        texts = [f"in brackets: 95 % {kind} of the mean"] if "interval" in self.parts else []
        texts += ["IQM: mean without the lowest and highest quarter"] if "iqm" in self.parts else []
        text = "; ".join(texts)
        return f" {text[0].upper()}{text[1:]}." if text else ""


PLAIN = Layout()


@dataclasses.dataclass(frozen=True)
class Style:
    """How one kind of document writes what all kinds have in common.

    Attributes:
      escape: any text.
      name: the name of a key or metric.
      best, second: a bold and an underlined cell.
      mark: a mark of a note.
      power: a number that is too large or small to write out, from its digits and its exponent.
      better: direction of a metric -> what follows its name.
    """

    escape: Callable[[str], str]
    name: Callable[[str], str]
    best: Callable[[str], str]
    second: Callable[[str], str]
    mark: Callable[[str], str]
    power: Callable[[str, int], str]
    plus_minus: str
    dash: str
    better: dict[str, str]


def decimals(mean: float, sd: float | None) -> int:
    """Decimals that show two significant digits of `sd`, or four of `mean` if there is no sd."""
    size, digits = (sd, 2) if sd and sd > EQUAL * abs(mean) else (mean, 4)  # a smaller sd is rounding
    if not size or not math.isfinite(size):
        return 3
    exponent = int(f"{abs(size):.{digits - 1}e}".partition("e")[2])  # of the rounded number: .0996 has that of .10
    places = max(0, digits - 1 - exponent)
    return min(places, MOST_DECIMALS) if abs(mean) >= SMALL else places


def number(value: float, places: int, style: Style) -> str:
    """A number with a number of decimals, or as a power of ten where those would not show it."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1e7 or (places > MOST_DECIMALS and abs(value) < SMALL):
        digits, _, exponent = f"{value:.2e}".partition("e")
        return style.power(digits, int(exponent))
    return f"{round(value, places) + 0.0:.{places}f}"  # adding 0.0 turns -0.0 into 0.0


def written_decimals(value: float) -> int:
    """Decimals that a number has as it was written."""
    return len(f"{value:.10g}".partition(".")[2])
