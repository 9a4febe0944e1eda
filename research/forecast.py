"""The command `scripts/forecast.py`: the steps after the end of a file, with times and intervals, by a finished run."""

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.compose import refusals
from research.data.ends import End, Ends, HasEnds
from research.data.examples import Examples
from research.data.loading import load as load_data
from research.distributions import central_interval
from research.encode import as_csv, check_overrides, data_keys, shipped_keys, write_table
from research.evaluation.intervals import SHARES, base_interval, conformal_quantile, conformal_scores, widened
from research.models.abilities import lack
from research.runs.load import load
from research.runs.run import Run
from research.tree import ConfigError, build

SHOWN = 5  # names in a note
UNIT = np.ones((1, 1, 1))  # a correction in the units of the data


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    options = argparse.ArgumentParser(
        prog="forecast.py",
        description="Write the steps that follow the end of a file, with times and intervals, as CSV or Parquet.",
        epilog="example: python scripts/forecast.py outputs/sweep/RUN data.path=new.csv --output forecast.csv",
    )
    options.add_argument("run", metavar="RUN_FOLDER", help="folder of a finished run of a forecaster")
    options.add_argument(
        "overrides", nargs="*", metavar="data...", help="data keys that differ from those of the run, as in train.py"
    )
    options.add_argument("--output", metavar="FILE", help=".csv or .parquet (default: CSV to the terminal)")
    options.add_argument(
        "--conformal", action="store_true", help="correct the intervals on the validation rows of the run's own data"
    )
    options.add_argument(
        "--trust", action="append", default=[], metavar="PACKAGE", help="package that the model of the run comes from"
    )
    return options


def main() -> None:
    """Entry point of `scripts/forecast.py`."""
    arguments = parser().parse_intermixed_args()
    with refusals():
        check_overrides(arguments.overrides, "which file the forecast starts from")
        run = load(arguments.run, arguments.trust)
        columns, notes = forecast_file(run, arguments.overrides, arguments.conformal, arguments.trust)
        for note in notes:
            sys.stderr.write(f"note: {note}\n")
        if arguments.output is None:
            sys.stdout.write(as_csv(columns))
            return
        write_table(arguments.output, columns)
    sys.stderr.write(f"wrote {len(columns['step'])} rows of {', '.join(columns)} to {arguments.output}\n")


def forecast_file(
    run: Run, overrides: Sequence[str], conformal: bool = False, trusted: Sequence[str] = ()
) -> tuple[dict[str, np.ndarray], Sequence[str]]:
    """The steps after the end of a file, in the units of the data, and what was noticed, one sentence each.

    Args:
      run: a run that forecasts.
      overrides: data keys that differ from those of the run; without any, the file is the run's own.
      conformal: correct the intervals on the validation rows of the run's own data.
      trusted: packages whose recipes may be built.

    Returns:
      Columns of equal length, one row for each series, step and channel: `series` (where a file holds several), `step`
      (from 1), `time` (where the file has times), `channel`, `forecast` (the median), and `low_80`, `high_80`,
      `low_95`, `high_95`, where the run has such intervals.

    Raises:
      ConfigError: the run does not forecast, or the file does not fit the run.
    """
    if lack(run.model, "forecast") or run.facts is None or run.facts.target_shape is None:
        remedy = f"a {type(run.model).__name__} does not forecast; name a run of model=recurrent_forecaster"
        raise ConfigError("folder", run.folder, remedy)
    trained = {**shipped_keys(run.config["data"]["_target_"]), **run.config["data"], "root": None}
    keys = data_keys(trained, overrides)
    window, horizon = run.facts.feature_shape[0], run.facts.target_shape[0]
    for key, steps in (("window", window), ("horizon", horizon)):
        if keys.get(key) != steps and any(override.startswith(f"data.{key}=") for override in overrides):
            raise ConfigError(
                f"data.{key}", keys.get(key), f"the run was trained with data.{key}={steps}; leave it out"
            )
    ends = _whole(_ends(run, keys, trusted), window, keys.get("path"))
    x = np.stack([end.values[-window:] for end in ends.series])
    rows = _rows(x, ends, horizon)
    notes = [*ends.notes, *_far_notes(run, x, rows)]
    forecast, levels = run.forecast(x if rows is None else rows), getattr(run.model, "quantiles", ())
    intervals = {name: central_interval(forecast, share, levels) for name, share in SHARES.items()}
    if conformal:
        for name, correction in conformal_corrections(run, trained, keys.get("root"), trusted).items():
            intervals[name] = widened(base_interval(forecast, SHARES[name], levels), correction, UNIT)
    _, steps, channels = forecast.median.shape
    row, step, channel = np.indices(forecast.median.shape).reshape(3, -1)
    names = run.preparation.columns or tuple(map(str, range(channels)))
    columns = {"step": step + 1, "channel": np.array(names)[channel], "forecast": np.ravel(forecast.median)}
    if ends.series[0].later is not None:
        times = [list(end.later(steps)) for end in ends.series if end.later is not None]
        columns = {"step": columns.pop("step"), "time": np.array(times)[row, step], **columns}
    if ends.series[0].name is not None:
        columns = {"series": np.array([end.name for end in ends.series])[row], **columns}
    for name, interval in intervals.items():
        if interval is not None:
            columns |= {
                f"{edge}_{name}": np.ravel(value) for edge, value in zip(("low", "high"), interval, strict=True)
            }
    return columns, notes


def _ends(run: Run, keys: Mapping[str, Any], trusted: Sequence[str]) -> Ends:
    """The ends of the series of a recipe, for a run."""
    recipe: Any = build(keys, key="data", trusted=trusted)
    if not isinstance(recipe, HasEnds):
        remedy = "it does not say where its series end; give your file by data=series data.path=..."
        raise ConfigError("data", type(recipe).__name__, remedy)
    try:
        return recipe.ends(run.preparation)
    except ConfigError as error:
        raise error.under("data") from error.__cause__


def _rows(x: np.ndarray, ends: Ends, horizon: int) -> Examples | None:
    """The windows x at the ends of series with all else that is known of them; None where nothing else is.

    Windows of series that have scales of their own are scaled.
    """
    known = [end.known for end in ends.series if end.known is not None]
    static = [end.static for end in ends.series if end.static is not None]
    scalings = [end.scaling for end in ends.series if end.scaling is not None]
    if not known and not static and not scalings:
        return None
    # What is known reaches over the horizon, so that its last rows are those of the window and of the steps to come.
    of_steps = np.stack([values[-x.shape[1] - horizon :] for values in known]) if known else None
    rows = Examples(x=x, known=of_steps, static=np.stack(static) if static else None)
    if not scalings:
        return rows
    shift, scale = (np.stack(arrays) for arrays in zip(*scalings, strict=True))
    scaled = (x - shift[:, None]) * scale[:, None]
    return dataclasses.replace(rows, x=scaled, series_shift=shift, series_scale=scale)


def _whole(ends: Ends, window: int, path: Any) -> Ends:
    """The ends that hold a whole window with some value of every channel, and notes on the others and on gaps.

    Raises:
      ConfigError: there is none.
    """
    kept: list[End] = []
    notes, short, empty = list(ends.notes), [], []
    missing = total = 0
    for end in ends.series:
        observed = np.isfinite(end.values[-window:])
        if len(observed) < window:
            short.append(end)
        elif not observed.any(0).all():
            empty.append(end)
        else:
            kept.append(end)
            missing, total = missing + int((~observed).sum()), total + observed.size
    if not kept:
        steps = max(len(end.values) for end in ends.series)
        problem = f"it has {steps} steps, and the run looks back on {window}; give a longer file"
        if empty:
            problem = f"a channel has no value in the last {window} steps; end the file where all have some"
        raise ConfigError("data.path", path, problem)
    for which, left_out in (
        (f"shorter than the {window} steps that the run looks back on", short),
        (f"without a value of some channel in the last {window} steps", empty),
    ):
        if left_out:
            names = ", ".join(str(end.name) for end in left_out[:SHOWN]) + (", ..." if len(left_out) > SHOWN else "")
            notes.append(f"{len(left_out)} of {len(ends.series)} series are {which} and are left out: {names}")
    if missing:
        notes.append(f"{missing} of the {total} values that the forecast starts from are missing and masked")
    return Ends(kept, notes)


def _far_notes(run: Run, x: np.ndarray, rows: Examples | None) -> list[str]:
    """A note on the value of windows [N, T, C] that is farthest outside the range of training, if it is far outside.

    Args:
      run: the loaded run.
      x: in the units of the data.
      rows: the windows as the run stores them; None: as they are.
    """
    assert run.facts is not None
    low, high = run.facts.low, run.facts.high
    scaled = ((x if rows is None else rows.x) - run.preparation.shift) * run.preparation.scale
    outside = np.nan_to_num(np.maximum(scaled - high, low - scaled), nan=-np.inf)
    outside[np.isin(x, run.preparation.missing)] = -np.inf
    if outside.max() <= high - low:
        return []
    at = np.unravel_index(np.argmax(outside), x.shape)
    name = "" if run.preparation.columns is None else f" of channel '{run.preparation.columns[at[-1]]}'"
    text = f"the forecast starts from the value {x[at]:.10g}{name}, which is far outside the range of training"
    return [f"{text}; if it means a missing value: 'data.missing=[{x[at]:.10g}]'"]


def conformal_corrections(
    run: Run, trained: Mapping[str, Any], root: str | None, trusted: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """How much the intervals of a run are widened, [H, C] in the units of the data, by the name of their share.

    Args:
      run: the loaded run.
      trained: data keys of its training.
      root: the folder of its data.
      trusted: packages whose recipes may be built.

    Raises:
      ConfigError: the rows cannot be read or are not those of the training, are too few, or are of several series.
    """
    recipe: Any = build({**trained, "root": root}, key="data", trusted=trusted)
    try:
        dataset = load_data(recipe)
        if run.result.get("data_sha256", dataset.sha256) != dataset.sha256:
            raise ConfigError("data", dataset.name, "the data are no longer those of the training")
        rows = recipe.stored().examples.take(dataset.split(recipe.fold).rows("validation"))
    except ConfigError as error:
        remedy = "intervals are corrected on the validation rows of the run, and these cannot be read"
        raise ConfigError("--conformal", error.value, f"{remedy} ({error.key}: {error.remedy})") from None
    sizes = rows.naive_error if rows.series_scale is None else rows.series_scale
    if sizes is not None and np.ptp(sizes, axis=0).any():
        raise ConfigError(
            "--conformal", dataset.name, "one correction does not fit series of different sizes; leave it out"
        )
    forecast, levels = run.forecast(rows), getattr(run.model, "quantiles", ())
    shift, scale = rows.units(0.0, 1.0)
    truth, corrections = rows.target / scale + shift, {}
    for name, share in SHARES.items():
        scores = conformal_scores(base_interval(forecast, share, levels), truth, rows.target_observed, UNIT)
        try:
            corrections[name] = conformal_quantile(scores, share)
        except ValueError as error:
            raise ConfigError("--conformal", dataset.name, f"{error}; leave it out") from None
    return corrections
