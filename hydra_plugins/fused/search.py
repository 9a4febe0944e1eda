"""A search as a sequence of sweeps: the points of a batch are jobs that the launcher trains together.

It must not import JAX before it is used; see `launcher.py`.
"""

import dataclasses
import math
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf

REPEATED = ("seed", "data.fold")  # keys over whose values every point is averaged


class Searching:
    """The search of one command.

    Args:
      overrides: of the command; those with several values are searched or repeated.
      config: of the command.
      loader: Hydra's.
      launcher: trains the jobs of a batch.
      search: its settings.
    """

    def __init__(
        self, overrides: Sequence[Override], config: DictConfig, loader: ConfigLoader, launcher: Any, search: Any
    ):
        self.overrides, self.config, self.launcher, self.search = overrides, config, launcher, search
        self.parser = OverridesParser.create(config_loader=loader)
        self.loader = loader
        self.repeats = {
            o.key_or_group: values_of(o) for o in overrides if o.key_or_group in REPEATED and o.is_sweep_override()
        }
        self.space = {
            o.key_or_group: dimension(o) for o in overrides if o.key_or_group not in REPEATED and o.is_sweep_override()
        }

    def run(self) -> list[Any]:
        """Check the search, then train batch after batch until all points are tried.

        Returns:
          What the launcher returns, of the batches of this command.
        """
        from research import app, config
        from research.sweep.folder import SEARCH, locked
        from research.sweep.search.study import Study

        self.check()
        folder, options = config.folder_of(self.config), config.options_of(self.config)
        probes = self.typed(self.probes())
        self.check_values(probes)
        objective = app.check_search(probes, self.config, self.space.keys())
        seeds = {"seed": [str(self.config.seed)]} | self.repeats
        study = Study(folder / SEARCH, self.space, seeds, objective, self.search, probes[0].hash)
        OmegaConf.update(self.config, "objective", study.objective)
        size = self.search.points(math.prod(map(len, self.repeats.values())), options.max_width)
        points = study.next_points(size)
        if options.plan_only:
            if not points:
                app.note(f"search: no point is left to try; {len(study.trials)} of {self.search.trials} were tried")
                return []
            app.note(f"search: the plan of the next {len(points)} of {self.search.trials} points")
            app.check(self.typed(self.jobs(points)), self.config)
            return []
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, Path(folder) / "multirun.yaml")
        if others := study.other_versions:
            app.note(
                f"note: optuna {', '.join(others)} chose points of this study; the installed one may choose others"
            )
        returns: list[Any] = []
        while points:
            with locked(folder) as lease:
                study.begin(points, lease)
            first = len(study.trials) - len(points) + 1
            app.note(f"search: points {first} to {len(study.trials)} of {self.search.trials}{so_far(study)}")
            jobs = self.jobs(points)
            returns += self.launcher.launch(jobs, initial_job_idx=len(returns))
            with locked(folder) as lease:
                study.tell(self.outcomes(points, jobs, study.objective), lease)
            points = study.next_points(size)
        app.show_table(folder, search=True)
        self.show(study, folder)
        return returns

    def check(self) -> None:
        """Refuse keys that cannot be searched, before any job is made.

        Raises:
          ConfigError: naming the override.
        """
        from research.compose import check_count, refused
        from research.config import options_of
        from research.sweep.search.study import check_size
        from research.tree import ConfigError

        check_count([override for override in self.overrides if override.key_or_group in REPEATED])
        for override in self.overrides:
            key = override.key_or_group
            if override.is_sweep_override() and sum(key == other.key_or_group for other in self.overrides) > 1:
                raise refused(override.input_line, f"{key} is set twice; leave one of them out")
        if not self.space:
            remedy = "no key is searched; give one or more a range: 'model.beta=interval(0.1,10)'"
            raise ConfigError("search.trials", self.search.trials, remedy)
        check_size(self.space, self.search.trials)
        options = options_of(self.config)
        if options.prune != "none" and not options.across:
            remedy = "a search prunes points, by the mean over their seeds; add sweep.peers=command"
            raise ConfigError("sweep.prune", options.prune, remedy)

    def probes(self) -> list[list[str]]:
        """Jobs at points that show whether every key can be searched."""
        from research.sweep.search.space import corners

        return [self.jobs([point])[0] for point in corners(self.space)]

    def check_values(self, probes: Sequence[Any]) -> None:
        """Refuse two values of a key that are the same, such as 1 and 1.0: no point is tried twice.

        Args:
          probes: the jobs of `probes`.

        Raises:
          ConfigError: naming both values.
        """
        from research.sweep.search.space import corners
        from research.tree import ConfigError

        seen: dict[str, Any] = {}
        for point, job in zip(corners(self.space), probes, strict=True):
            other = seen.setdefault(job.hash, point)
            for key, value in point.items():
                if value != other[key]:
                    raise ConfigError(key, value, f"is the same as {other[key]}; leave one of them out")

    def jobs(self, points: Sequence[Any]) -> list[list[str]]:
        """The overrides of all jobs of some points, those of one point after each other."""
        return [list(job) for point in points for job in self.jobs_of(point)]

    def jobs_of(self, point: Any) -> Any:
        """The overrides of the jobs of a point; a run alone is no search, so it has no key of the search."""
        values = point | {key: ",".join(values) for key, values in self.repeats.items()}
        lines = [
            f"{override.get_key_element()}={values[override.key_or_group]}"
            if override.key_or_group in values
            else str(override.input_line)
            for override in self.overrides
            if not override.key_or_group.startswith("search.")
        ]
        (jobs,) = BasicSweeper.split_arguments(self.parser.parse_overrides(lines), max_batch_size=None)
        return jobs

    def typed(self, jobs: Sequence[Sequence[str]]) -> list[Any]:
        """The jobs with these overrides.

        Raises:
          ConfigError: a key cannot have its value.
        """
        from hydra_plugins.fused.compose import composer
        from research import config
        from research.sweep.search.space import Interval
        from research.tree import ConfigError

        compose, typed_jobs = composer(self.loader, self.config).compose, []
        for overrides in jobs:
            try:
                composed = compose(overrides)
                typed_jobs.append(config.job_of(composed.tree(), composed.base.choices, composed.overrides))
            except ConfigError as error:
                interval = self.space.get(error.key)
                whole = interval.of_whole_numbers() if isinstance(interval, Interval) else None
                if whole is None or "integer" not in error.template:
                    raise
                remedy = f"{error.template}; write {shlex.quote(f'{error.key}={whole}')}"
                raise ConfigError(error.key, error.value, remedy) from None
        return typed_jobs

    def outcomes(self, points: Sequence[Any], jobs: Sequence[Sequence[str]], objective: str) -> list[Any]:
        """What came out at some points, from the results on the disk."""
        from research import config
        from research.sweep.folder import finished
        from research.sweep.search.study import outcome

        typed, each = self.typed(jobs), len(jobs) // len(points)
        options = dataclasses.replace(config.options_of(self.config), retry="none")
        ended = finished(typed, config.folder_of(self.config), options)
        results = [ended[job.hash].result if job.hash in ended else None for job in typed]
        return [outcome(point, results[at * each : (at + 1) * each], objective) for at, point in enumerate(points)]

    def show(self, study: Any, folder: Path) -> None:
        """Print how many points came out how, and the best one with its overrides and its run folders."""
        from research import app
        from research.report.cell import COLLAPSED
        from research.report.texts import plural
        from research.runs.folder import RunFolder

        trials = study.trials
        statuses = dict.fromkeys(trial.status for trial in trials)
        counts = ", ".join(f"{sum(t.status == status for t in trials)} {status}" for status in statuses)
        short = self.search.trials - len(trials)
        more = f"; no new point came up for {short} more" if short > 0 else ""
        app.note(f"search: {plural(len(trials), 'point')}, {counts}{more}; {os.path.relpath(folder / study.path.name)}")
        best = study.best()
        if best is None:
            app.note("no point completed")
            return
        runs = len(best.runs)
        mean = f", the mean of {runs} runs" if runs > 1 else ""
        app.note(f"best point by {study.objective}: {best.value:.6g}{mean}")
        keys = {override.key_or_group: override.get_key_element() for override in self.overrides}
        app.note(f"  {shlex.join(f'{keys[key]}={value}' for key, value in best.point.items())}")
        for run in best.runs:
            app.note(f"  {os.path.relpath(folder / run)}")
        results = [RunFolder(folder / run).read_result() or {} for run in best.runs]
        if unused := sum(result.get("metrics", {}).get(COLLAPSED) == 1 for result in results):
            app.note(f"in {unused} of {runs} runs of this point the decoder ignores its code (collapsed)")


def so_far(study: Any) -> str:
    """`; best so far ...`, or an empty text before the first completed point."""
    best = study.best()
    return "" if best is None else f"; best so far {study.objective} {best.value:.6g}"


def values_of(override: Override) -> list[str]:
    """The values of a key that is repeated.

    Raises:
      ConfigError: it has an interval.
    """
    from research.compose import refused

    if override.is_interval_sweep():
        remedy = f"every point is averaged over its values; list some: {override.key_or_group}=0,1,2"
        raise refused(override.input_line, remedy)
    return list(dict.fromkeys(override.sweep_string_iterator()))


def dimension(override: Override) -> Any:
    """The values of a key that is searched.

    Raises:
      ConfigError: no values that can be searched.
    """
    from research.compose import check_count, refused
    from research.sweep.search.space import Interval, Values

    check_count([override])
    value: Any = override.value()
    tags = set(getattr(value, "tags", ()))
    if tags - {"log"}:
        raise refused(override.input_line, f"unknown tag {sorted(tags - {'log'})[0]}; a search knows the tag log")
    if isinstance(value, IntervalSweep):
        ends: Any = value.start, value.end
        if not all(isinstance(end, int | float) for end in ends):
            raise refused(override.input_line, "the ends of an interval are numbers")
        interval = Interval(*ends, log="log" in tags, whole=all(isinstance(end, int) for end in ends))
        if problem := interval.problem():
            raise refused(override.input_line, problem)
        return interval
    if tags:
        key = override.key_or_group
        raise refused(override.input_line, f"the tag log needs an interval: '{key}=tag(log,int(interval(1,64)))'")
    if getattr(value, "shuffle", False):
        raise refused(override.input_line, "the points of a search are drawn at random anyway; leave out shuffle")
    ordered = isinstance(value, RangeSweep)
    values = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if not values:
        raise refused(override.input_line, "there is no value in it")
    return Values(values, ordered)
