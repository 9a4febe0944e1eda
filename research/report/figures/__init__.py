"""Figures of a sweep folder for papers: `draw`. Importing this costs nothing; drawing imports matplotlib."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from research.report.figures.sketch import Drawn, UnfitError

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
_MODULES = {  # module of this package -> the kinds that it has a function of the same name for
    "curves": ("metric_over_key",),
    "scores": ("scores",),
    "heat": ("heat_map",),
    "rate": ("rate_distortion",),
    "learning": ("learning_curves",),
    "differences": ("paired_differences",),
    "ranks": ("critical_difference",),
    "codes": ("latent_map", "traversals", "interpolations"),
    "rows": ("reconstructions", "samples"),
    "memory": ("gradient_norm",),
    "forecasts": ("forecasts",),
    "clusters": ("cluster_assignments", "confusion"),
}


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def draw(
    table: "Table", folder: Path, kinds: Sequence[str] | None = None, note: Callable[[str], None] = _to_stderr
) -> list[Drawn]:
    """Draw all figures that apply to a sweep, or those of some kinds, in the order of `KINDS`.

    Args:
      table: of the sweep; its metrics and its runs are drawn.
      folder: of the sweep.
      kinds: None draws all kinds that apply.
      note: called with one line for each figure that could not be drawn; the line says why.

    Raises:
      ConfigError: a kind is not known, or it is named in `kinds` and does not apply to this sweep.
    """
    import importlib

    from research.report.figures.scene import Scene, render
    from research.tree import ConfigError, nearest

    for kind in kinds or ():
        if kind not in KINDS:
            raise ConfigError("figures", kind, f"no such kind{nearest(kind, KINDS)}; the kinds are {', '.join(KINDS)}")
    modules = {kind: module for module, names in _MODULES.items() for kind in names}
    scene = Scene(table, Path(folder), note)
    drawn: list[Drawn] = []
    for kind in [kind for kind in KINDS if kinds is None or kind in kinds]:
        module = importlib.import_module(f"research.report.figures.{modules[kind]}")
        try:
            drawn += render(scene, kind, getattr(module, kind))
        except UnfitError as error:
            if kinds is not None:
                raise ConfigError("figures", kind, f"does not apply to this sweep: {error}") from None
    return drawn
