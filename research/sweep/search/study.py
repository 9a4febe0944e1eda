"""The study of a search: which points were tried and what came out, kept in `search.json` of the sweep folder.

Points are chosen in batches. The points of a batch are a function of the space, the seed of the search, the number of
the batch and the outcomes of the batches before it. They are written before they are trained, and their outcomes when
all are trained. So a search that was killed goes on with the batch under way, and ends with the trials of an
undisturbed one.
"""

import contextlib
import dataclasses
import importlib.util
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from research.metrics import higher_is_better
from research.ranges import Count, Range, Seed
from research.runs.files import Held, write_atomically
from research.sweep.search.space import Point, Space, size
from research.tree import ConfigError, recipe

ROUNDS = 8  # batches of a search whose `batch` is null
FEWEST = 4  # points of such a batch
DRAWS = 100  # draws for each new point of a batch, after which its space counts as exhausted
# What a sampler learns from a point. It counts a pruned point as worse than all completed ones.
STATES = {"completed": "COMPLETE", "diverged": "PRUNED", "pruned": "PRUNED", "failed": "FAIL"}


@recipe
class Search:
    """How a command searches.

    Attributes:
      trials: number of points; null means no search: the command tries all values.
      batch: number of points that are chosen at once, from the outcomes of the batches before, and trained as one
        sweep. null takes an eighth of all points, at least 4, as far as their runs fit `sweep.max_width`.
      sampler: "tpe" learns from the outcomes (tree-structured Parzen estimator of Optuna); "random" does not.
      seed: draws the points. It is not the seed of a run.
    """

    trials: Annotated[int, Range(1, 100_000)] | None
    batch: Count | None
    sampler: Literal["tpe", "random"]
    seed: Seed

    def validate(self) -> None:
        if self.trials is not None and importlib.util.find_spec("optuna") is None:
            raise ConfigError("trials", self.trials, "it needs the package optuna: pip install -e '.[optuna]'")

    def points(self, runs: int, max_width: int) -> int:
        """Number of points of a batch, of which each has so many runs."""
        assert self.trials is not None
        return self.batch or max(1, min(max(FEWEST, -(-self.trials // ROUNDS)), max_width // runs))


@dataclasses.dataclass(frozen=True)
class Trial:
    """A point and what came out.

    Attributes:
      point: key -> value, as overrides have it.
      runs: names of its run folders.
      status: completed, or the worst status of its runs: pruned, diverged or failed; None while it is trained.
      value: mean of the objective over its runs; None unless it completed.
      reason: why it did not complete.
    """

    point: Point
    runs: Sequence[str] = ()
    status: str | None = None
    value: float | None = None
    reason: str | None = None


def outcome(point: Point, results: Sequence[Mapping[str, Any] | None], objective: str) -> Trial:
    """A trial from the results of its runs (`result.json`); None stands for a run without one."""
    runs = [str(result["run_id"]) for result in results if result is not None]
    statuses = ["failed" if result is None else str(result["status"]) for result in results]
    worst = next((status for status in ("failed", "interrupted", "diverged", "pruned") if status in statuses), None)
    if worst is not None:
        number = statuses.index(worst)
        reason = (results[number] or {}).get("reason") or "it has no result"
        status = "failed" if worst == "interrupted" else worst
        return Trial(point, runs, status, None, f"{statuses.count(worst)} of {len(results)} runs {worst}: {reason}")
    values = [result["metrics"].get(objective) for result in results if result is not None]
    if any(value is None for value in values):
        return Trial(point, runs, "failed", None, f"{objective} is not finite")
    return Trial(point, runs, "completed", math.fsum(values) / len(values))


class Study:
    """The trials of a search, in batches.

    Args:
      path: of `search.json`.
      space: key -> values.
      repeats: key -> its values, over which every point is averaged: seeds and folds.
      objective: the metric; empty takes that of the file.
      search: settings of the search.
      first: `config_hash` of a run at the first values of all keys. It tells apart searches whose other keys differ.

    Attributes:
      path: of the file.
      objective: the metric.
      batches: trials, batch by batch.

    Raises:
      ConfigError: the file is damaged, or holds another search.
    """

    def __init__(
        self,
        path: Path,
        space: Space,
        repeats: Mapping[str, Sequence[str]],
        objective: str,
        search: Search,
        first: str = "",
    ):
        # Draws follow the order of the keys, so that it must not be that of the command.
        self.path, self._space, self.objective, self._search = path, dict(sorted(space.items())), objective, search
        content = read(path)
        self.batches: list[list[Trial]] = []
        self._made_by: list[str] = []
        identity = {
            **{key: str(dimension) for key, dimension in space.items()},
            **{key: ",".join(values) for key, values in repeats.items()},
            "objective": objective or (content or {}).get("objective"),
            "search.sampler": search.sampler,
            "search.seed": search.seed,
            "config_hash of the first values": first,
        }
        self._identity = identity
        if content is None:
            return
        self._refuse_another(content)
        self.objective = str(identity["objective"])
        try:
            for batch in content["batches"]:
                trials = [Trial(**trial) for trial in batch["trials"]]
                for trial in trials:
                    self._check(trial)
                self.batches.append(trials)
                self._made_by.append(str(batch["optuna"]))
            points = [trial.point for trial in self.trials]
            if any(point in points[:number] for number, point in enumerate(points)):
                raise ValueError("a point was tried twice")
            if not all(trial.status for trials in self.batches[:-1] for trial in trials):
                raise ValueError("a batch before the last one is not finished")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise damaged(path, str(error)) from None

    def _refuse_another(self, content: Mapping[str, Any]) -> None:
        before = content["search"]
        changed = [
            f"{key}: {before.get(key)} there, {self._identity.get(key)} now"
            for key in dict.fromkeys([*before, *self._identity])
            if before.get(key) != self._identity.get(key)
        ]
        if changed:
            folder = self.path.parent
            problem = f"{folder} holds another search ({'; '.join(changed[:3])}); choose another name="
            raise ConfigError("name", folder.name, problem)

    def _check(self, trial: Trial) -> None:
        """Refuse a trial that this search cannot have.

        Raises:
          KeyError, ValueError: it has other keys, other values, or an outcome that is none.
        """
        if trial.point.keys() != self._space.keys():
            raise ValueError(f"a trial has the keys {', '.join(trial.point)}")
        for key, value in trial.point.items():
            if not isinstance(value, str):
                raise ValueError(f"{key} has a value that is no text")
            self._space[key].parameter(value)
        if not all(isinstance(run, str) for run in trial.runs):
            raise ValueError("the name of a run is no text")
        if trial.status not in (None, *STATES) or (trial.status == "completed") != (trial.value is not None):
            raise ValueError(f"a trial has the status {trial.status} and the value {trial.value}")
        if trial.value is not None and not math.isfinite(trial.value):
            raise ValueError(f"a trial has the value {trial.value}")

    # ------------------------------------------------------------------------------------------------------- batches

    @property
    def trials(self) -> list[Trial]:
        """All trials, also those under way."""
        return [trial for trials in self.batches for trial in trials]

    @property
    def under_way(self) -> list[Point]:
        """The points of the batch that was begun and is not finished; empty if there is none."""
        begun = self.batches[-1] if self.batches else []
        return [] if all(trial.status for trial in begun) else [trial.point for trial in begun]

    def next_points(self, count: int) -> list[Point]:
        """The points of the batch under way, or new ones: at most `count`, so that there are `search.trials` in all.

        No point is tried twice. There are fewer points if so many draws give no new one. Nothing is written.
        """
        assert self._search.trials is not None
        if self.under_way:
            return self.under_way
        count = min(count, self._search.trials - len(self.trials))
        tried, points = [trial.point for trial in self.trials], []
        with quiet():
            study = self._told() if count > 0 else None
            for _ in range(DRAWS * count):
                trial = study.ask()  # type: ignore[union-attr]
                point = {key: dimension.suggest(trial, key) for key, dimension in self._space.items()}
                if point not in tried and point not in points:
                    points.append(point)
                if len(points) == count:
                    break
        return points

    def begin(self, points: Sequence[Point], lease: Held) -> None:
        """Record a batch before it is trained."""
        if not self.under_way:
            self.batches.append([Trial(point) for point in points])
            self._made_by.append(optuna_version())
            self._write(lease)

    def tell(self, trials: Sequence[Trial], lease: Held) -> None:
        """Record the outcomes of the batch under way."""
        self.batches[-1] = list(trials)
        self._write(lease)

    def best(self) -> Trial | None:
        """The completed trial with the best value, the first one among equals; None if no trial completed."""
        completed = [trial for trial in self.trials if trial.value is not None]
        sign = -1.0 if higher_is_better(self.objective) else 1.0
        return min(completed, key=lambda trial: sign * (trial.value or 0.0), default=None)

    @property
    def other_versions(self) -> list[str]:
        """Versions of Optuna that chose points of this study and are not the installed one."""
        return sorted({*self._made_by} - {optuna_version()})

    # -------------------------------------------------------------------------------------------------------- Optuna

    def _told(self) -> Any:
        """A study of Optuna in memory with all finished trials, and the sampler of the next batch."""
        import optuna

        seed = int(np.random.SeedSequence([self._search.seed, len(self.batches)]).generate_state(1)[0])
        if self._search.sampler == "random":
            sampler: Any = optuna.samplers.RandomSampler(seed)
        else:  # the points of a batch that are drawn already count as bad, so the next one lies elsewhere
            sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        direction = "maximize" if higher_is_better(self.objective) else "minimize"
        study = optuna.create_study(sampler=sampler, direction=direction)
        scratch = optuna.create_study(sampler=optuna.samplers.RandomSampler(0)).ask()
        for key, dimension in self._space.items():
            dimension.suggest(scratch, key)
        for trial in self.trials:
            told = optuna.trial.create_trial(
                state=optuna.trial.TrialState[STATES[str(trial.status)]],
                value=trial.value,
                params={key: self._space[key].parameter(value) for key, value in trial.point.items()},
                distributions=scratch.distributions,
            )
            study.add_trial(told)
        return study

    # ------------------------------------------------------------------------------------------------------ the file

    def _write(self, lease: Held) -> None:
        batches = [
            {"optuna": version, "trials": [dataclasses.asdict(trial) for trial in trials]}
            for version, trials in zip(self._made_by, self.batches, strict=True)
        ]
        content = {"objective": self.objective, "search": self._identity, "batches": batches}
        write_atomically(self.path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode(), lease)


def read(path: Path) -> dict[str, Any] | None:
    """Content of `search.json`; None if there is no such file.

    Raises:
      ConfigError: the file is damaged.
    """
    try:
        content = json.loads(path.read_bytes())
        if isinstance(content["objective"], str) and isinstance(content["search"], dict):
            return content
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, RecursionError, IsADirectoryError):
        pass
    raise damaged(path, "it is no study")


def damaged(path: Path, problem: str) -> ConfigError:
    """The refusal of a study file that is not as a search wrote it."""
    return ConfigError("name", path.parent.name, f"{path} is damaged ({problem}); restore it, or choose another name=")


def check_size(space: Space, trials: int) -> None:
    """Refuse a search that has at least as many trials as its space has points.

    Raises:
      ConfigError: naming what tries them all.
    """
    if size(space) <= trials:
        remedy = f"these values make only {size(space):.0f} points; set {{key}}=null, which tries them all"
        raise ConfigError("search.trials", trials, remedy)


def optuna_version() -> str:
    """The installed version of Optuna."""
    from importlib.metadata import version

    return version("optuna")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Optuna without its log of every study and its warnings, such as that a sampler is experimental."""
    import logging

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import optuna

        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(logging.WARNING)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)
