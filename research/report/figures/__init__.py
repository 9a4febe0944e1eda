"""Figures of a sweep folder for papers: `draw`. Importing this costs nothing; drawing imports matplotlib."""

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from research.report.figures.scene import Drawn
    from research.report.table import Table

_KINDS = {  # kind -> module with a function of this name, and what it shows; in the order of the page
    "metric_over_key": ("curves", "each main metric over each swept number, mean and 95 % interval over seeds"),
    "scores": ("settings", "all metrics of the table, where a setting is no number (models, cells), with their seeds"),
    "heat_map": ("heat", "each main metric over two swept keys, the best cell outlined"),
    "rate_distortion": ("rate", "KL against reconstruction in nats, of sweeps over model.beta"),
    "learning_curves": ("learning", "training and validation loss over epochs, up to eight configurations"),
    "paired_differences": ("settings", "differences between two configurations at equal seeds"),
    "critical_difference": ("ranks", "average ranks of methods over three or more data sets (Demšar 2006)"),
    "code_stability": (
        "stability",
        "similarity of the codes of different seeds, a matrix for each setting (--stability)",
    ),
    "latent_map": ("codes", "codes of held-out rows of the best run, by class"),
    "traversals": ("codes", "what the latents of the best run change, one at a time"),
    "interpolations": ("codes", "between the codes of pairs of held-out rows"),
    "reconstructions": ("rows", "held-out rows above their reconstructions"),
    "samples": ("rows", "draws from the best run"),
    "gradient_norm": ("memory", "gradient of the loss by distance in time, by cell"),
    "forecasts": ("rows", "forecasts of held-out windows with their interval, truth and seasonal naive forecast"),
    "cluster_assignments": ("clusters", "held-out series by the cluster of their code"),
    "confusion": ("clusters", "clusters of codes, or predicted classes, against classes"),
}
KINDS = {kind: text for kind, (_, text) in _KINDS.items()}


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def draw(
    table: "Table", folder: Path, kinds: Sequence[str] | None = None, note: Callable[[str], None] = _to_stderr
) -> list["Drawn"]:
    """Draw all figures that apply to a sweep, or those of some kinds, in the order of `KINDS`.

    Args:
      table: of the sweep; its metrics and its runs are drawn.
      folder: of the sweep.
      kinds: None draws all kinds that apply.
      note: called with one line for each figure that could not be drawn; the line says why.

    Raises:
      ConfigError: a kind is not known, or it is named in `kinds` and does not apply to this sweep.
    """
    from research.errors import ConfigError, nearest
    from research.report.figures.scene import Scene, UnfitError, render
    from research.report.texts import naming, renamed

    for kind in kinds or ():
        if kind not in KINDS:
            raise ConfigError("figures", kind, f"no such kind{nearest(kind, KINDS)}; the kinds are {', '.join(KINDS)}")
    scene = Scene(table, Path(folder), note)
    drawn: list[Drawn] = []
    for kind in [kind for kind in KINDS if kinds is None or kind in kinds]:
        module = importlib.import_module(f"research.report.figures.{_KINDS[kind][0]}")
        try:
            with naming(table.names):
                figures = render(scene, kind, getattr(module, kind))
                drawn += [replace(figure, caption=renamed(figure.caption)) for figure in figures]
        except UnfitError as error:
            if kinds is not None:
                raise ConfigError("figures", kind, f"does not apply to this sweep: {error}") from None
    return drawn
