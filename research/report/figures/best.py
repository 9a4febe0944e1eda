"""The best run of a sweep, loaded, with the data that it was trained on."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.metrics import CHOOSING, base, judges
from research.models.abilities import is_conditional
from research.report.collect import Run
from research.report.figures.points import label_of, swept, values
from research.report.figures.scene import Plan, Scene, Sketch, UnavailableError, UnfitError
from research.report.keys import SEED, better, comparison_keys, peers
from research.tree import ConfigError, group

SETS = 3  # most data sets whose best run is shown


@dataclasses.dataclass(frozen=True)
class Material:
    """Data as models see them.

    Attributes:
      parts: `train`, `validation` and `test` rows, scaled, in the order of the data set.
      facts: of the data.
    """

    parts: dict[str, Any]
    facts: Any


@dataclasses.dataclass(frozen=True)
class Best:
    """A loaded run.

    Attributes:
      run: its record.
      loaded: from `runs.load`.
      place: what tells its data set apart from others of the sweep, or the empty string; for names of files.
      words: which run it is, for a caption.
    """

    scene: Scene
    run: Run
    loaded: Any
    material: Material
    place: str
    words: str

    @property
    def model(self) -> Any:
        return self.loaded.model

    @property
    def params(self) -> Any:
        return self.loaded.params

    @property
    def facts(self) -> Any:
        return self.material.facts

    @property
    def test(self) -> Any:
        return self.material.parts["test"]

    @property
    def train(self) -> Any:
        return self.material.parts["train"]

    @property
    def is_image(self) -> bool:
        return self.facts.kind == "image" and np.ndim(self.test.x) in (3, 4)

    @property
    def is_sequence(self) -> bool:
        return self.facts.kind == "sequence" and np.ndim(self.test.x) == 3

    @property
    def conditional(self) -> bool:
        return is_conditional(self.model)

    def raw(self, x: Any) -> np.ndarray:
        """Rows on the scale of the data as stored."""
        return self.loaded.preparation.raw(x)

    def raw_target(self, y: Any) -> np.ndarray:
        """Values of targets on the scale of the data as stored."""
        return self.loaded.preparation.raw_target(y)

    def channels(self, number: int = 1) -> list[int]:
        """The channels of series that vary most over the test rows, as models see them, in their order."""
        x = np.asarray(self.test.x, np.float64)
        variance = np.where(True if self.test.mask is None else self.test.mask, x, np.nan)
        spread = np.nan_to_num(np.nanvar(variance.reshape(-1, x.shape[-1]), 0))
        return sorted(int(at) for at in np.argsort(-spread, kind="stable")[:number])

    def channel_words(self, number: int = 1) -> str:
        """Which channels are drawn, of series that have more."""
        channels = np.shape(self.test.x)[-1]
        if channels <= number:
            return ""
        if number == 1:
            return f" Of {channels} channels the one that varies most is drawn, number {self.channels()[0] + 1}."
        return f" Of {channels} channels the {number} that vary most are drawn."

    @functools.cached_property
    def codes(self) -> np.ndarray:
        """Of all test rows, [N, L]."""
        return self.encode(self.test)

    def encode(self, rows: Any) -> np.ndarray:
        """Codes of rows as models see them, [N, L]."""
        return self.call("encode", rows)

    def call(self, ability: str, rows: Any) -> Any:
        """An ability of the model on rows as models see them."""
        from research.runs import batches

        function = lambda batch, _: batches.call(self.model, self.params, batch, ability)
        return batches.over(function, rows, min(256, len(rows)))

    def decode(self, z: np.ndarray, label: np.ndarray | None = None) -> np.ndarray:
        """E[x | z] of codes as models see them; a conditional model decodes class 0 unless told."""
        from research.runs import batches

        z = np.asarray(z, np.float32)
        if self.conditional and label is None:
            label = np.zeros(len(z), np.int32)
        rows = (z, None if label is None else np.asarray(label, np.int32))
        return batches.over(lambda batch, _: batches.decode(self.model, self.params, *batch), rows, min(256, len(z)))

    def name(self, kind: str) -> str:
        """Of a figure of this run."""
        return f"{kind}-{self.place}" if self.place else kind

    def sketch(self, kind: str, title: str, text: str, drawn: Any, alternative: str = "") -> Sketch:
        """A figure of this run; its caption says which run it is."""
        caption = f"{text} The run: {self.words}."
        return Sketch(self.name(kind), title, caption, alternative or text, (self.run.run_id,), drawn)

    def spread(self, number: int) -> np.ndarray:
        """Row numbers from all over the test part: neighbours of a series overlap, and classes may lie in order."""
        return np.unique(np.linspace(0, len(self.test) - 1, min(number, len(self.test))).astype(int))


def plans_of(scene: Scene, lacks: Callable[[Best], str], sketch: Callable[[Best], Sketch]) -> list[Plan]:
    """A figure of every best run that lacks nothing for it.

    Args:
      lacks: what a run has not that the figure needs, or the empty string.

    Raises:
      UnfitError: all of them lack something.
    """
    reasons = {best.run.run_id: lacks(best) for best in scene.best}
    fitting = [best for best in scene.best if not reasons[best.run.run_id]]
    if not fitting:
        raise UnfitError(next(iter(reasons.values())))
    return [functools.partial(sketch, best) for best in fitting]


def judge_for(scene: Scene) -> str:
    """The metric of the validation rows that chooses: of those by which most runs on one data set may be compared
    (losses of different beta may not) the first of `CHOOSING`; the loss where no run has any.
    """
    of_data = group([run for run in scene.table.runs if run.finished], lambda run: values(run, data_keys(scene)))
    found: dict[str, int] = {}
    for metric in judges(scene.table.metrics):
        having = [[run for run in own if run.metrics.get(metric) is not None] for own in of_data]
        found[metric] = sum(len(peers(metric, own)[0]) for own in having if own)
    best = max(sorted(found, key=_suited), key=lambda metric: found[metric])
    return best if found[best] else "validation/loss"


def _suited(metric: str) -> int:
    name = base(metric)
    return CHOOSING.index(name) if name in CHOOSING else len(CHOOSING)


def ranked(scene: Scene, runs: Sequence[Run]) -> list[Run]:
    """Finished runs that may be compared by the validation rows, the best first."""
    judge = scene.judge
    scored, _ = peers(judge, [run for run in runs if run.finished and run.metrics.get(judge) is not None])
    sign = -1 if better(1.0, 0.0, judge) else 1
    return sorted(scored, key=lambda run: sign * (run.metrics[judge] or 0.0))


def data_keys(scene: Scene) -> list[str]:
    """The swept keys that make another data set."""
    return [key for key in swept(scene.table) if key in comparison_keys("test/accuracy", scene.table.runs)]


def best_runs(scene: Scene) -> list[Best]:
    """The best run of every data set (at most three), loaded.

    Raises:
      UnfitError: no run has the metric that chooses.
      UnavailableError: none of them can be loaded.
    """
    keys = data_keys(scene)
    found: list[Best] = []
    failures: list[str] = []
    groups = [own for own in group(list(scene.table.runs), lambda run: values(run, keys)) if ranked(scene, own)]
    if not groups:
        raise UnfitError(f"no finished run has {scene.judge}")
    for own in groups[:SETS]:
        run, *others = ranked(scene, own)
        place = "-".join(
            f"{key.rpartition('.')[2]}={value}" for key, value in zip(keys, values(run, keys), strict=True)
        )
        settings = [key for key in swept(scene.table) if key not in keys]
        told = [label_of(scene.table, settings, values(run, settings))] if settings else []
        told += [f"seed {run.value(SEED)}"] if isinstance(run.value(SEED), int) else []
        many = len(others) + 1
        words = f"the best of {many} run{'s' * (many > 1)} by {scene.judge}"
        words += f" ({', '.join(told)})" if told else ""
        words += f" on {label_of(scene.table, keys, values(run, keys))}" if keys else ""
        try:
            found.append(Best(scene, run, load(scene, run), dataset_of(scene, run), place, words))
        except UnavailableError as error:
            failures.append(str(error))
    if not found:
        raise UnavailableError(f"no figures of the best run: {failures[0]}")
    for text in failures:
        scene.tell(f"no figures of one of the best runs: {text}")
    return found


def load(scene: Scene, run: Run) -> Any:
    """The run with its parameters.

    Raises:
      UnavailableError: it kept none, or its model is not of this project.
    """
    from research.runs.load import load as load_run

    try:
        return load_run(scene.folder / run.run_id)
    except (ConfigError, OSError) as error:
        raise UnavailableError(str(error)) from None


def dataset_of(scene: Scene, run: Run) -> Material:
    """The data of a run, read again by its config from where the run found them.

    Raises:
      UnavailableError: they are not there, or are not those of the training.
    """
    from research.data.loading import load as load_data
    from research.data.loading import scored
    from research.runs.folder import RunFolder
    from research.tree import build

    try:
        tree = dict(RunFolder(scene.folder / run.run_id).read_config()["config"]["data"])
        tree["root"] = root_of(scene.folder / run.run_id, run)
        recipe = build(tree, key="data")
        key = (repr(dataclasses.replace(recipe, fold=None)), recipe.fold)
        if key not in scene.materials:
            dataset = load_data(recipe)
            if run.data_sha256 and dataset.sha256 != run.data_sha256:
                raise UnavailableError("the data are no longer those of the training (another sha256)")
            scene.materials[key] = Material(scored(dataset, recipe.fold), dataset.facts)
        return scene.materials[key]
    except UnavailableError:
        raise
    except (ConfigError, OSError, KeyError, TypeError, ValueError) as error:
        raise UnavailableError(f"the data of {run.run_id} cannot be read: {error}") from None


def root_of(folder: Path, run: Run) -> str | None:
    """Where the data lay: `data.root` is no part of a run's config, but of what it was started with."""
    for override in run.overrides:
        key, separator, text = override.lstrip("+").partition("=")
        if key == "data.root" and separator:
            return None if text in ("null", "None", "") else text.strip("'\"")
    recorded = folder / ".hydra" / "config.yaml"
    if recorded.is_file() and not recorded.is_symlink():
        import yaml

        try:
            content = yaml.safe_load(recorded.read_text(encoding="utf-8"))
            root = content["data"].get("root")
            return root if isinstance(root, str) else None
        except (yaml.YAMLError, KeyError, AttributeError, TypeError, OSError, ValueError, RecursionError):
            return None
    return None
