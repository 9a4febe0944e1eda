"""Figures of a sweep folder for papers: `draw`. Importing this costs nothing; drawing imports matplotlib."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from research.report.table import Table

KINDS: dict[str, str] = {  # in the order in which they are drawn and shown
    "metric_over_key": "each main metric over each swept number, mean and 95 % interval over seeds",
    "scores": "all metrics of the table, where a setting is no number (models, cells), with their seeds",
    "heat_map": "each main metric over two swept keys, the best cell outlined",
    "rate_distortion": "KL against reconstruction in nats, of sweeps over model.beta",
    "learning_curves": "training and validation loss over epochs, up to eight configurations",
    "paired_differences": "differences between two configurations at equal seeds",
    "critical_difference": "average ranks of methods over three or more data sets (Demšar 2006)",
    "latent_map": "codes of held-out rows of the best run, by class",
    "traversals": "what the latents of the best run change, one at a time",
    "interpolations": "between the codes of pairs of held-out rows",
    "reconstructions": "held-out rows above their reconstructions",
    "samples": "draws from the best run",
    "gradient_norm": "gradient of the loss by distance in time, by cell",
    "forecasts": "forecasts of held-out windows with their interval, truth and seasonal naive forecast",
    "cluster_assignments": "held-out series by the cluster of their code",
    "confusion": "clusters of codes, or predicted classes, against classes",
}
_PLACES = {  # kind -> module of this package that has its `plans_...`
    "metric_over_key": "curves",
    "scores": "scores",
    "heat_map": "heat",
    "rate_distortion": "rate",
    "learning_curves": "learning",
    "paired_differences": "differences",
    "critical_difference": "ranks",
    "latent_map": "codes",
    "traversals": "codes",
    "interpolations": "codes",
    "reconstructions": "rows",
    "samples": "rows",
    "gradient_norm": "memory",
    "forecasts": "forecasts",
    "cluster_assignments": "clusters",
    "confusion": "clusters",
}


@dataclasses.dataclass(frozen=True)
class Drawn:
    """One figure.

    Attributes:
      name: stem of its files, of `[A-Za-z0-9._=-]` only.
      title: short.
      caption: what is shown, over which n, and what a band is; plain text.
      alternative: the same for people who cannot see it.
      runs: ids of the runs that are shown.
      svg, pdf, png: the files; text is drawn as paths in the SVG, which therefore needs no font.
    """

    name: str
    title: str
    caption: str
    alternative: str
    runs: tuple[str, ...]
    svg: bytes
    pdf: bytes
    png: bytes


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def draw(
    table: "Table", folder: Path, kinds: Sequence[str] | None = None, note: Callable[[str], None] = _to_stderr
) -> list[Drawn]:
    """All figures that apply to a sweep, or those of some kinds, in the order of `KINDS`.

    Args:
      table: of the sweep; its metrics, and its runs, are what is drawn.
      folder: of the sweep.
      kinds: None draws all kinds that apply.
      note: is told, a line each, what could not be drawn and why (the data are not there, no parameters were kept).

    Raises:
      ConfigError: an unknown kind, or one that was asked for and does not apply to this sweep.
    """
    import importlib

    from research.report.figures.scene import Scene, UnfitError
    from research.tree import ConfigError, nearest

    for kind in kinds or ():
        if kind not in KINDS:
            raise ConfigError("figures", kind, f"no such kind{nearest(kind, KINDS)}; there are {', '.join(KINDS)}")
    scene = Scene(table, Path(folder), note)
    found: list[Drawn] = []
    for kind in KINDS if kinds is None else sorted(set(kinds), key=list(KINDS).index):
        module = importlib.import_module(f"research.report.figures.{_PLACES[kind]}")
        try:
            found += scene.render(kind, getattr(module, kind))
        except UnfitError as error:
            if kinds is not None:
                raise ConfigError("figures", kind, f"does not apply to this sweep: {error}") from None
    return found
