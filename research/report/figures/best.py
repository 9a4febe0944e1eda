"""The best run of each data set of a sweep, loaded, with the data that it was trained on."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from research.evaluation.views import BATCH, channel_names, class_names, decoded, series, spread
from research.models.abilities import able, is_conditional, methods
from research.report.again import UnavailableError, dataset_of, load
from research.report.collect import Run
from research.report.figures import points, style
from research.report.figures.chart import Chart, Limits
from research.report.figures.scene import Plan, Scene, Sketch, UnfitError
from research.report.texts import listed, plural

SETS = 3  # most data sets whose best run is shown
ANY = ("image", "sequence", "")  # kinds of rows


@dataclasses.dataclass(frozen=True)
class Best:
    """A loaded run and its data.

    Attributes:
      run: its record.
      loaded: from `runs.load`.
      parts, facts: the data that it was trained on.
      suffix: distinguishes its data set from others of the sweep in names of files, or the empty string.
      which: says in a caption which run it is.
    """

    run: Run
    loaded: Any
    parts: dict[str, Any]
    facts: Any
    suffix: str
    which: str

    @property
    def model(self) -> Any:
        return self.loaded.model

    @property
    def test(self) -> Any:
        return self.parts["test"]

    @property
    def kind(self) -> str:
        """`image`, `sequence`, or the empty string for rows that are neither."""
        dimensions = {"image": (3, 4), "sequence": (3,)}.get(self.facts.kind, ())
        return self.facts.kind if np.ndim(self.test.x) in dimensions else ""

    @property
    def is_image(self) -> bool:
        return self.kind == "image"

    @property
    def conditional(self) -> bool:
        return is_conditional(self.model)

    @property
    def reach(self) -> Limits:
        """Smallest and largest value of the test rows."""
        return float(np.min(self.test.x)), float(np.max(self.test.x))

    @functools.cached_property
    def label(self) -> np.ndarray | None:
        """Classes of the test rows, [N]."""
        return None if self.test.label is None else np.asarray(self.test.label).astype(int)

    @functools.cached_property
    def codes(self) -> np.ndarray:
        """Codes of all test rows, [N, L]."""
        return self.call("encode", self.test)

    def raw(self, x: Any) -> np.ndarray:
        """Rows on the scale of the data as stored."""
        return self.loaded.preparation.raw(x)

    def raw_series(self, rows: Any) -> list[np.ndarray]:
        """Rows of the data as stored, each cut to its length, NaN where a value is missing."""
        return series(self.raw(rows.x), rows.length, rows.mask)

    def channels(self, number: int = 1) -> list[int]:
        """The channels of series that vary most over the test rows, as models see them, in their order."""
        x = np.asarray(self.test.x, np.float64)
        known = np.where(True if self.test.mask is None else self.test.mask, x, np.nan)
        variance = np.nan_to_num(np.nanvar(known.reshape(-1, x.shape[-1]), 0))
        return sorted(int(at) for at in np.argsort(-variance, kind="stable")[:number])

    @functools.cached_property
    def channel(self) -> int:
        return self.channels()[0]

    def channel_words(self, number: int = 1) -> str:
        """A sentence that names the channels that are drawn, of series that have more."""
        channels = np.shape(self.test.x)[-1]
        if self.is_image or channels <= number:
            return ""
        names = listed([self.channel_name(channel, short=False) for channel in self.channels(number)])
        most = "the one that varies most is" if number == 1 else f"the {number} that vary most are"
        return f"Of {channels} channels {most} drawn: {names}."

    def channel_name(self, channel: int, short: bool = True) -> str:
        """The name of a channel of series: that of its column where the data have names, else its number."""
        return channel_names(self.loaded.preparation.columns, channel + 1, short)[channel]

    @property
    def channel_label(self) -> str:
        """The name of the drawn channel for an axis; empty where series have one channel only."""
        has_several = not self.is_image and np.shape(self.test.x)[-1] > 1
        return style.literal(self.channel_name(self.channel)) if has_several else ""

    def class_name(self, number: int) -> str:
        """The name of a class where the data have names, else its number."""
        names = class_names(self.loaded.preparation.classes, self.facts)
        return names[number] if number < len(names) else str(number)

    def call(self, ability: str, rows: Any) -> Any:
        """What an ability of the model gives for rows as models see them."""
        from research.runs import batches

        function = lambda batch, _: batches.call(self.model, self.loaded.params, batch, ability)
        return batches.over(function, rows, min(BATCH, len(rows)))

    def decode(self, z: np.ndarray) -> np.ndarray:
        """E[x | z] of codes [..., L] as models see it, [..., *x]; a conditional model decodes class 0."""
        return decoded(self.model, self.loaded.params, z)

    def spread(self, number: int) -> np.ndarray:
        """Numbers of some test rows, from all over the test part."""
        return spread(len(self.test), number)

    def sketch(self, kind: str, title: str, text: str, picture: Chart) -> Sketch:
        """A figure of this run; its caption says which run it is."""
        name = f"{kind}-{self.suffix}" if self.suffix else kind
        return Sketch(name, title, f"{text} The run: {self.which}.", (self.run.run_id,), picture)


def plans_of(
    scene: Scene,
    sketch: Callable[[Best], Sketch],
    *abilities: type,
    kinds: Sequence[str] = ANY[:2],
    codes: bool = False,
    lacks: Callable[[Best], str] = lambda best: "",
) -> list[Plan]:
    """A figure of every best run that has all that the figure needs.

    Args:
      abilities: of the model.
      kinds: of rows, as in `Best.kind`.
      codes: whether rows must have finite codes.
      lacks: names what else a run does not have, or returns the empty string.

    Raises:
      UnfitError: every best run lacks something.
    """
    reasons = []
    plans: list[Plan] = []
    for best in best_runs(scene):
        missing = [ability for ability in abilities if not able(best.model, ability)]
        if missing:
            reasons.append(f"a {type(best.model).__name__} does not {methods(missing[0])[0]}")
        elif best.kind not in kinds:
            reasons.append(f"rows are no {' and no '.join(f'{kind}s' for kind in kinds)}")
        elif codes and not (best.codes.ndim == 2 and np.isfinite(best.codes).all()):
            reasons.append("rows have no finite codes")
        elif reason := lacks(best):
            reasons.append(reason)
        else:
            plans.append(functools.partial(sketch, best))
    if not plans:
        raise UnfitError(reasons[0])
    return plans


def best_runs(scene: Scene) -> list[Best]:
    """The best run of every data set (at most three), loaded once for all kinds of figures.

    Raises:
      UnfitError: no run has the metric that chooses.
      UnavailableError: none of them can be loaded.
    """
    return scene.once("best", lambda: _load_best(scene))


def _load_best(scene: Scene) -> list[Best]:
    keys, settings = points.data_keys(scene.table), points.method_keys(scene.table)
    orders = [points.ranked(runs, scene.judge) for runs in points.grouped(scene.table.runs, keys).values()]
    orders = [order for order in orders if order][:SETS]
    if not orders:
        raise UnfitError(f"no finished run has {scene.judge}")
    loaded: list[Best] = []
    failures: list[str] = []
    for order in orders:
        run, seed = order[0], points.seed_of(order[0])
        suffix = "-".join(f"{key.rpartition('.')[2]}={run.value(key)}" for key in keys)
        setting = [points.label_of(settings, run.at(settings)), "" if seed is None else f"seed {seed}"]
        which = f"the best of {plural(len(order), 'run')} by {scene.judge}"
        which += f" ({', '.join(filter(None, setting))})" if any(setting) else ""
        which += f" on {points.label_of(keys, run.at(keys))}" if keys else ""
        try:
            loaded.append(Best(run, load(scene.folder, run), *dataset_of(scene.folder, run, scene.once), suffix, which))
        except UnavailableError as error:
            failures.append(str(error))
    if not loaded:
        raise UnavailableError(f"no figures of the best run: {failures[0]}")
    for text in failures:
        scene.tell(f"no figures of one of the best runs: {text}")
    return loaded
