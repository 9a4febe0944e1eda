"""The sweep that is drawn, what a figure is before and after it is drawn, and how the figures of one kind are drawn."""

import dataclasses
import functools
import re
import traceback
import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

from research.report.again import UnavailableError
from research.report.figures.chart import Chart
from research.report.figures.points import judge_of
from research.report.figures.style import rendered, styled
from research.report.table import Table


class UnfitError(Exception):
    """A sweep has nothing for a kind of figure; the text says what is missing."""


@dataclasses.dataclass
class Scene:
    """A sweep that is drawn.

    Attributes:
      note: called with a line of text for each figure that could not be drawn.
      noted: lines that were noted; each is noted once.
      kept: data sets and best runs; the first figure that needs them reads them, and later ones use them again.
    """

    table: Table
    folder: Path
    note: Callable[[str], None]
    noted: set[str] = dataclasses.field(default_factory=set)
    kept: dict[Hashable, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def judge(self) -> str:
        """The metric of the validation rows by which runs are chosen."""
        return judge_of(self.table)

    def once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """What a function returns, or the exception that it raises; it is called once for each key."""
        if key not in self.kept:
            try:
                self.kept[key] = compute()
            except (UnfitError, UnavailableError) as error:
                self.kept[key] = error
        if isinstance(self.kept[key], Exception):
            raise self.kept[key]
        return self.kept[key]

    def tell(self, text: str) -> None:
        """Note a line, once."""
        if text not in self.noted:
            self.noted.add(text)
            self.note(text)


@dataclasses.dataclass(frozen=True)
class Described:
    """What is said of a figure.

    Attributes:
      name: stem of its files.
      title: short.
      caption: says what is shown, over which n, and what a band is; plain text. It is also the alternative text for
        people who cannot see the figure.
      runs: ids of the runs that are shown.
    """

    name: str
    title: str
    caption: str
    runs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Sketch(Described):
    """A figure that is not drawn yet."""

    picture: Chart


@dataclasses.dataclass(frozen=True)
class Drawn(Described):
    """The files of a figure. Text is drawn as paths in the SVG, which therefore needs no font."""

    svg: bytes
    pdf: bytes
    png: bytes


Plan = Callable[[], Sketch]


def plans_for(sketch: Callable[..., Sketch], cases: Iterable[Sequence[Any]], lacks: str) -> list[Plan]:
    """A plan for each case; they are the arguments of `sketch`.

    Raises:
      UnfitError: there is no case; `lacks` says why.
    """
    plans: list[Plan] = [functools.partial(sketch, *case) for case in cases]
    if not plans:
        raise UnfitError(lacks)
    return plans


def render(scene: Scene, kind: str, planner: Callable[[Scene], Sequence[Plan]]) -> list[Drawn]:
    """Draw all figures of a kind. A figure that fails is noted, and the others are drawn.

    Raises:
      UnfitError: the kind does not apply to the sweep.
    """
    drawn: list[Drawn] = []
    with styled(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # values in other scripts
        try:
            plans = planner(scene)
        except UnfitError:
            raise
        except Exception as error:
            scene.tell(_failure(kind, error))
            return drawn
        for plan in plans:
            try:
                sketch = plan()
                files = rendered(sketch.picture.draw())
            except Exception as error:  # the table and the other figures do not depend on it
                scene.tell(_failure(kind, error))
                continue
            name = re.sub(r"[^A-Za-z0-9._=-]+", "_", sketch.name).strip("_")  # all that names of files hold
            title, caption = (text.replace(r"\$", "$") for text in (sketch.title, sketch.caption))  # see `literal`
            drawn.append(Drawn(name, title, caption, sketch.runs, **files))
    return drawn


def _failure(kind: str, error: Exception) -> str:
    """One line that says why there is no figure, and where an unforeseen error was raised."""
    text = (str(error).splitlines() or [""])[0]
    if isinstance(error, UnavailableError):
        return text
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"no figure {kind}: {type(error).__name__}: {text} ({Path(where.filename).name}, line {where.lineno})"
