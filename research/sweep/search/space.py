"""The space of a search: for every key an interval of numbers, or a list of values.

A value is a text, as an override has it (`model.beta=3.14159`), in the study file as well as in the command of a run.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Protocol

DIGITS = 6  # significant digits of a drawn number
INSIDE = 0.4142  # where between its ends an interval is tried before a search begins


class Dimension(Protocol):
    """The values of one key. Its text tells spaces apart, and has Hydra's grammar where that has a word for it."""

    def suggest(self, trial: Any, key: str) -> str:
        """Draw a value by a trial of Optuna."""
        ...

    def parameter(self, value: str) -> Any:
        """The parameter of Optuna for a value that `suggest` gave.

        Raises:
          ValueError: it is no value of this dimension.
        """
        ...

    def trials(self) -> list[str]:
        """Values that show whether the key can be searched: the ends of an interval, or all values of a list."""
        ...

    @property
    def size(self) -> float:
        """Number of values; infinite for an interval of real numbers."""
        ...


@dataclasses.dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, both included. Real numbers are rounded to six significant digits.

    Attributes:
      low, high: the ends.
      log: equal ratios are equally likely, and not equal differences.
      whole: only whole numbers.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def problem(self) -> str | None:
        """Why these are no ends of an interval; None if they are."""
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return "an interval needs finite ends"
        if not self.low < self.high:
            return "the first end of an interval must lie below the second one"
        if self.log and self.low <= 0:
            return "with the tag log both ends must be positive"
        return None

    def of_whole_numbers(self) -> "Interval | None":
        """The same interval of whole numbers; None if its ends are none."""
        if self.whole or not (float(self.low).is_integer() and float(self.high).is_integer()):
            return None
        return Interval(int(self.low), int(self.high), self.log, whole=True)

    def suggest(self, trial: Any, key: str) -> str:
        if self.whole:
            return str(trial.suggest_int(key, self.low, self.high, log=self.log))
        number = float(f"{trial.suggest_float(key, self.low, self.high, log=self.log):.{DIGITS}g}")
        return repr(min(max(number, self.low), self.high))

    def parameter(self, value: str) -> Any:
        number = int(value) if self.whole else float(value)
        if not self.low <= number <= self.high:
            raise ValueError(f"{value} lies outside of {self}")
        return number

    def trials(self) -> list[str]:
        if self.whole:
            return [str(self.low), str(self.high)]
        middle = float(f"{self.low + INSIDE * (self.high - self.low):.{DIGITS}g}")
        return [repr(self.low), repr(middle), repr(self.high)]

    @property
    def size(self) -> float:
        return self.high - self.low + 1 if self.whole else math.inf

    def __str__(self) -> str:
        text = f"interval({self.low},{self.high})"
        text = f"int({text})" if self.whole else text
        return f"tag(log,{text})" if self.log else text


@dataclasses.dataclass(frozen=True)
class Values:
    """A list of values.

    Attributes:
      values: as overrides have them.
      ordered: neighbours are alike, as in a range; otherwise every value is as like to the others as any.
    """

    values: tuple[str, ...]
    ordered: bool = False

    def suggest(self, trial: Any, key: str) -> str:
        if self.ordered:
            return self.values[trial.suggest_int(key, 0, len(self.values) - 1)]
        return trial.suggest_categorical(key, self.values)

    def parameter(self, value: str) -> Any:
        number = self.values.index(value)  # refuses other values
        return number if self.ordered else value

    def trials(self) -> list[str]:
        return [self.values[0], self.values[-1]] if self.ordered else list(self.values)

    @property
    def size(self) -> float:
        return len(self.values)

    def __str__(self) -> str:
        return f"{'range' if self.ordered else 'choice'}({','.join(self.values)})"


Space = Mapping[str, Dimension]
Point = dict[str, str]


def size(space: Space) -> float:
    """Number of points; infinite with an interval of real numbers."""
    return math.prod(dimension.size for dimension in space.values())


def corners(space: Space) -> list[Point]:
    """Points that show whether every key can be searched.

    They are the first point, points that differ from it in one key, and the last point.
    """
    trials = {key: dimension.trials() for key, dimension in space.items()}
    first = {key: values[0] for key, values in trials.items()}
    along = [first | {key: value} for key, values in trials.items() for value in values[1:]]
    return [first, *along, {key: values[-1] for key, values in trials.items()}]
