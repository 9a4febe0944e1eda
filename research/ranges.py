"""Ranges of numbers. A range is part of the type of a field, `beta: NonNegative`, and the builder holds values to it.

A type checker reads `Annotated[float, Range(...)]` as `float`; so do the leaves of a spec (`research.tree.hints`).
"""

import dataclasses
import math
from typing import Annotated

import numpy as np

INT32 = 2**31 - 1
LARGEST, SMALLEST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)


@dataclasses.dataclass(frozen=True)
class Range:
    """An interval of numbers.

    Attributes:
      low, high: its ends.
      above: low itself lies outside.
      below: high itself lies outside.
      bits: of the number where it is used: 32 in programs, 64 on the host.
      static: the number is compiled into the program rather than swept within it.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    bits: int = 32
    static: bool = False

    def __contains__(self, number: float) -> bool:
        over = number > self.low if self.above else number >= self.low
        return over and (number < self.high if self.below else number <= self.high)

    def problem(self, number: float) -> str | None:
        """What is wrong with a number: it lies outside, or what a program would make of it does."""
        if isinstance(number, float) and (problem := unfit(number, self.bits)):
            return problem
        if number in self and (isinstance(number, int) or self.bits > 32 or float(np.float32(number)) in self):
            return None
        rounded = "" if number not in self else f"is {float(np.float32(number))!r} in 32 bits; "
        return rounded + self.remedy(number)

    def remedy(self, number: float) -> str:
        """Where a number that lies outside would have to lie."""
        whole = isinstance(self.high, int)
        low, high = (str(self.low), str(self.high)) if whole else (f"{self.low:g}", f"{self.high:g}")
        if self.high <= 1000 * max(1, abs(self.low)):  # both ends say something
            opening, closing = "(" if self.above else "[", ")" if self.below else "]"
            return f"must lie in {low} ... {high}" if whole else f"must lie in {opening}{low}, {high}{closing}"
        if number > self.low:
            return f"must be {'below' if self.below else 'at most'} {high}"
        if self.low == 0:
            return "must be positive" if self.above else "must not be negative"
        return f"must be {'above' if self.above else 'at least'} {low}"


def unfit(number: float, bits: int = 32) -> str | None:
    """Why a number cannot be a finite one of so many bits; None if it can."""
    if math.isnan(number):
        return "expected a number, got NaN"
    if bits > 32:
        return "expected a finite number" if math.isinf(number) else None
    if abs(number) > LARGEST:
        return f"too large for a number of 32 bits; the largest is {LARGEST:.2g}"
    if 0 < abs(number) < SMALLEST:
        return f"too small for a number of 32 bits; the smallest above 0 is {SMALLEST:.2g}"
    return None


Finite = Annotated[float, Range()]
Finite64 = Annotated[float, Range(bits=64)]  # of raw data, never inside a program
NonNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
Share = Annotated[float, Range(0.0, 1.0)]
ShareBelow1 = Annotated[float, Range(0.0, 1.0, below=True)]
StaticShareBelow1 = Annotated[float, Range(0.0, 1.0, below=True, static=True)]
OpenShare = Annotated[float, Range(0.0, 1.0, above=True, below=True)]
Epochs = Annotated[float, Range(0.0, 1e9)]  # of a ramp, of which 1 counts all batches once

Count = Annotated[int, Range(1, INT32)]
Index = Annotated[int, Range(-INT32, INT32)]  # of a column; from the end where it is negative
Seed = Annotated[int, Range(0, 2**32 - 1)]
Size = Annotated[int, Range(1, 1_000_000)]  # of one dimension of an array of parameters or of an example
Repeats = Annotated[int, Range(1, 100_000)]  # of something that is drawn, tried or stacked so many times
