"""Ranges of numbers. A range is part of the type of a field, `beta: NonNegative`; the builder refuses other values.

A type checker reads `Annotated[float, Range(...)]` as `float`, and so does `@spec`: the field is a leaf.
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
      low, high: the ends of the interval.
      above: numbers must lie above low; low itself lies outside.
      below: numbers must lie below high; high itself lies outside.
      bits: precision in which the number is used: 32 in programs, 64 on the host.
      static: the number is part of the compiled program, and no leaf.
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
        """What is wrong with a number: it lies outside, or its value in 32 bits does; None if nothing is wrong."""
        if isinstance(number, float) and (problem := unfit(number, self.bits)):
            return problem
        if number in self and (isinstance(number, int) or self.bits > 32 or float(np.float32(number)) in self):
            return None
        rounded = "" if number not in self else f"is {float(np.float32(number))!r} in 32 bits; "
        return rounded + self.remedy(number)

    def remedy(self, number: float) -> str:
        """The interval in words, for a number that lies outside."""
        whole = isinstance(self.high, int)
        low, high = (str(self.low), str(self.high)) if whole else (f"{self.low:g}", f"{self.high:g}")
        if self.high <= 1000 * max(1, abs(self.low)):  # otherwise one end says enough
            opening, closing = "(" if self.above else "[", ")" if self.below else "]"
            return f"must lie in {low} ... {high}" if whole else f"must lie in {opening}{low}, {high}{closing}"
        if number > self.low:
            return f"must be {'below' if self.below else 'at most'} {high}"
        if self.low == 0:
            return "must be positive" if self.above else "must not be negative"
        return f"must be {'above' if self.above else 'at least'} {low}"


def unfit(number: float, bits: int = 32) -> str | None:
    """Why a number has no finite value in that many bits; None if it has one."""
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
Finite64 = Annotated[float, Range(bits=64)]  # a number of raw data, which no program sees
NonNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
Share = Annotated[float, Range(0.0, 1.0)]
ShareBelow1 = Annotated[float, Range(0.0, 1.0, below=True)]
StaticShareBelow1 = Annotated[float, Range(0.0, 1.0, below=True, static=True)]
OpenShare = Annotated[float, Range(0.0, 1.0, above=True, below=True)]
StaticOpenShare = Annotated[float, Range(0.0, 1.0, above=True, below=True, static=True)]
Epochs = Annotated[float, Range(0.0, 1e9)]  # length of a ramp

Count = Annotated[int, Range(1, INT32)]
Index = Annotated[int, Range(-INT32, INT32)]  # number of a column; a negative one counts from the end
Seed = Annotated[int, Range(0, 2**32 - 1)]
Size = Annotated[int, Range(1, 1_000_000)]  # length of one axis of parameters or of an example
Repeats = Annotated[int, Range(1, 100_000)]  # number of draws, attempts or layers
