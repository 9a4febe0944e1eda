"""What figures are made of: a table, its folder, and what kinds of figures share."""

import dataclasses
import functools
import re
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.report.figures import Drawn
from research.report.table import Table

if TYPE_CHECKING:
    from research.report.figures.best import Best


class UnfitError(Exception):
    """A kind of figure that a sweep has nothing for; the text says what is missing."""


class UnavailableError(Exception):
    """A figure that applies and cannot be made now: the data or the parameters are not there."""


@dataclasses.dataclass(frozen=True)
class Sketch:
    """A figure before it is rendered; the fields are those of `Drawn`."""

    name: str
    title: str
    caption: str
    alternative: str
    runs: tuple[str, ...]
    figure: Any


Plan = Callable[[], Sketch]
Planner = Callable[["Scene"], Sequence[Plan]]  # raises UnfitError; the plans are independent of each other


@dataclasses.dataclass
class Scene:
    """A sweep that is drawn.

    Attributes:
      note: is told what could not be drawn; each line once.
    """

    table: Table
    folder: Path
    note: Callable[[str], None]
    told: set[str] = dataclasses.field(default_factory=set)
    materials: dict[Any, Any] = dataclasses.field(default_factory=dict)  # data that were read

    @functools.cached_property
    def judge(self) -> str:
        """The metric of the validation rows by which runs are chosen."""
        from research.report.figures.best import judge_for

        return judge_for(self)

    @property
    def best(self) -> "list[Best]":
        """The best run of every data set, loaded; raises UnfitError or UnavailableError, without trying again."""
        found = self._best
        if isinstance(found, Exception):
            raise found
        return found

    @functools.cached_property
    def _best(self) -> "list[Best] | Exception":
        from research.report.figures.best import best_runs

        try:
            return best_runs(self)
        except (UnfitError, UnavailableError) as error:
            return error

    def tell(self, text: str) -> None:
        """Note a line, once."""
        if text not in self.told:
            self.told.add(text)
            self.note(text)

    def render(self, kind: str, planner: Planner) -> list[Drawn]:
        """Draw all figures of a kind; one that fails is noted and stops no other."""
        from research.report.figures.style import rendered, styled

        found: list[Drawn] = []
        with styled(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # of values in other scripts
            try:
                plans = planner(self)
            except UnfitError:
                raise
            except Exception as error:
                self.tell(_failure(kind, error))
                return found
            for plan in plans:
                try:
                    sketch = plan()
                    files = rendered(sketch.figure)
                except Exception as error:  # whatever is wrong with one figure, the others and the table are right
                    self.tell(_failure(kind, error))
                    continue
                words = sketch.title, sketch.caption, sketch.alternative
                found.append(Drawn(stem(sketch.name), *words, sketch.runs, files["svg"], files["pdf"], files["png"]))
        return found


def _failure(kind: str, error: Exception) -> str:
    """One line that says why there is no figure, and where an unforeseen error arose."""
    text = (str(error).splitlines() or [""])[0]
    if isinstance(error, UnavailableError):
        return text
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"no figure {kind}: {type(error).__name__}: {text} ({Path(where.filename).name}, line {where.lineno})"


def stem(name: str) -> str:
    """A file name of `[A-Za-z0-9._=-]` only."""
    return re.sub(r"[^A-Za-z0-9._=-]+", "_", name).strip("_")
