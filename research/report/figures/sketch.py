"""A figure before and after it is drawn, and the two reasons why there may be none."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class UnfitError(Exception):
    """A sweep has nothing for a kind of figure; the text says what is missing."""


class UnavailableError(Exception):
    """A figure applies but cannot be drawn now, because data or parameters are missing."""


class Picture(Protocol):
    """What a figure shows, described without matplotlib."""

    def draw(self) -> "Figure": ...


@dataclasses.dataclass(frozen=True)
class Sketch:
    """A figure that is not drawn yet; the other fields are those of `Drawn`."""

    name: str
    title: str
    caption: str
    runs: tuple[str, ...]
    picture: Picture


Plan = Callable[[], Sketch]


@dataclasses.dataclass(frozen=True)
class Drawn:
    """One figure.

    Attributes:
      name: stem of its files, of `[A-Za-z0-9._=-]` only.
      title: short.
      caption: says what is shown, over which n, and what a band is; plain text. It is also the alternative text for
        people who cannot see the figure.
      runs: ids of the runs that are shown.
      svg, pdf, png: the files. Text is drawn as paths in the SVG, which therefore needs no font.
    """

    name: str
    title: str
    caption: str
    runs: tuple[str, ...]
    svg: bytes
    pdf: bytes
    png: bytes
