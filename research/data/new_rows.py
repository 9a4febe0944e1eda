"""New rows for a run: brought into the form of the rows that it was trained on, or refused."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.data.covariates import Coding, calendar
from research.data.examples import Examples
from research.data.preparation import TAIL, Preparation, marked, pad, zero_tails
from research.errors import nearest
from research.ranges import INT32
from research.tree import ConfigError


def stored_rows(
    preparation: Preparation,
    x: Any,
    *,
    takes_masks: bool,
    target_shape: tuple[int, ...] | None = None,
    target_classes: int = 0,
    lengths: Any = None,
    observed: Any = None,
    label: Any = None,
    target: Any = None,
    known: Any = None,
    times: Any = None,
    static: Any = None,
    series: Any = None,
) -> Examples:
    """New rows as stored, of the kind that training had.

    Args:
      preparation: preparation of the run.
      x: an array [N, *stored_shape]; a table with named columns (pandas) or sequences as a list of [T, C] arrays of
        unequal length; or `Examples` with `label` as numbers 0 to K - 1. NaN is a missing value, and so is a value
        that a masked array masks.
      takes_masks: whether the model can leave out padding and missing values.
      target_shape, target_classes: shape and classes of the targets of training, see `values.target_values`.
      lengths: number of time steps of every sequence, where sequences are padded, [N].
      observed: False where a value is missing, of the shape of x.
      label: classes as stored: names, or numbers from 0 where the classes have no names.
      target: targets as in training.
      known: values of the columns `data.known` of the run, of every step of x and of the steps to come, [N, T + H, K].
      times: of these steps, dates [N, T + H], for `data.calendar`.
      static: values of the columns `data.static`, a list of numbers and texts for every row.
      series: names of the series of the rows, where series have scales of their own (`data.scale_by=series`).

    Raises:
      ConfigError: naming what does not fit, and the remedy.
    """
    ready = isinstance(x, Examples)
    rows = x if ready else dataclasses.replace(_from_values(preparation, x, lengths, observed), label=label)
    values = np.asarray(rows.x)
    if values.ndim == 2 and preparation.kind == "sequence" and preparation.stored_shape == (values.shape[1], 1):
        values = values[..., None]  # one channel
    if values.ndim < 1 or len(values) == 0:
        raise ConfigError("x", values.shape, "expected at least one row")
    if preparation.stored_shape is not None and values.shape[1:] != preparation.stored_shape:
        expected = ", ".join(map(str, ("N", *preparation.stored_shape)))
        raise ConfigError("x", values.shape, f"expected rows of shape [{expected}], as in training")
    # Rows that are scaled by their series already may hold such a number by chance.
    gaps = marked(values, preparation.missing) if rows.series_scale is None else np.zeros(1, bool)
    rows = dataclasses.replace(rows, x=np.where(gaps, np.nan, values) if gaps.any() else values)
    rows = _by_series(preparation, rows, series)
    if ready and target_shape is not None and rows.target is not None:
        rows = _with_target(rows, target_shape, target_classes)
    if target is not None and not ready:
        target, target_observed = target_values(target, len(values), target_shape, target_classes)
        if rows.series_scale is not None:
            target = (target - rows.series_shift[:, None]) * rows.series_scale[:, None]
        rows = dataclasses.replace(rows, target=target, target_observed=target_observed)
    rows = _masked(preparation, rows, takes_masks)
    given = {"known": known, "times": times, "static": static}
    rows = _with_covariates(
        preparation, rows, (target_shape or (0,))[0], {k: v for k, v in given.items() if v is not None}
    )
    _check_whole(preparation, rows.x)
    if rows.label is None:
        return rows
    numbers = class_numbers(preparation, rows.label, named=not ready)
    if len(numbers) != len(values):
        raise ConfigError("label", numbers.shape, f"expected one class for each of {len(values)} rows")
    return dataclasses.replace(rows, label=numbers)


def _by_series(preparation: Preparation, rows: Examples, names: Any) -> Examples:
    """Rows scaled by their series, for a run whose series have scales of their own.

    Raises:
      ConfigError: a name is lacking or is not one of the training, or the run knows no names.
    """
    known = preparation.series
    if known is None:
        if names is not None:
            raise ConfigError("series", "given", "this run has one scale for all series; leave it out")
        return rows
    if rows.series_scale is not None:
        return rows
    remedy = f"each series has its own scale: give a list of their names, one for each of {len(rows)} rows"
    if names is None or isinstance(names, str) or len(names) != len(rows):
        raise ConfigError("series", names if isinstance(names, str) else None, remedy)
    for name in map(str, names):
        if name not in known:
            problem = f"training had no such series{nearest(name, list(known))}"
            raise ConfigError("series", name, f"{problem}; scripts/forecast.py scales a new series by its own steps")
    shift, scale = (np.array([known[str(name)][at] for name in names], np.float64) for at in (0, 1))
    x = (np.asarray(rows.x, np.float64) - shift[:, None]) * scale[:, None]
    return dataclasses.replace(rows, x=x, series_shift=shift, series_scale=scale)


def _with_covariates(preparation: Preparation, rows: Examples, horizon: int, given: Mapping[str, Any]) -> Examples:
    """Rows with what is known of their steps and series; refuse what is lacking or what the run does not read."""
    coding = None if preparation.covariates is None else Coding.from_record(preparation.covariates)
    needed = {} if coding is None else {"known": coding.known, "times": coding.calendar, "static": coding.static}
    for key in given:
        if not needed.get(key):
            raise ConfigError(key, "given", "this run was trained without such covariates; leave it out")
    ready = {"known": rows.known, "times": rows.known, "static": rows.static}
    for key, names in needed.items():
        if names and key not in given and ready[key] is None:
            what = {"known": "the values", "times": "the dates of all steps, for", "static": "the values"}[key]
            remedy = f"this run reads {', '.join(names)}; give {what} of {', '.join(names)} by {key}=..."
            raise ConfigError(key, None, f"{remedy}, or forecast a file by scripts/forecast.py")
    if coding is None or not given:
        return rows
    size = len(rows), rows.x.shape[1] + horizon
    pieces = []
    if coding.known:
        values = as_numbers("known", given["known"])
        values = values[..., None] if values.shape == size and len(coding.known) == 1 else values
        if values.shape != (*size, len(coding.known)) or not np.isfinite(values).all():
            expected = ", ".join(map(str, (*size, len(coding.known))))
            raise ConfigError("known", values.shape, f"expected finite numbers of the shape [{expected}]")
        pieces.append(values)
    if coding.calendar:
        dates = np.asarray(given["times"], "datetime64[us]")
        if dates.shape != size or np.isnat(dates).any():
            raise ConfigError("times", dates.shape, f"expected dates of the shape {list(size)}")
        pieces.append(calendar(dates.ravel(), coding.calendar).reshape(*size, -1))
    of_steps = coding.of_steps(np.concatenate(pieces, axis=-1)) if pieces else None
    of_rows = None
    if coding.static:
        cells = [
            tuple(row) if isinstance(row, Sequence | np.ndarray) and not isinstance(row, str) else (row,)
            for row in given["static"]
        ]
        if len(cells) != len(rows) or any(len(row) != len(coding.static) for row in cells):
            expected = f"{len(coding.static)} values ({', '.join(coding.static)}) for each of {len(rows)} rows"
            raise ConfigError("static", len(cells), f"expected {expected}")
        of_rows = np.stack([coding.of_series(row) for row in cells])
    return dataclasses.replace(rows, known=of_steps, static=of_rows)


# ------------------------------------------------------------------------------------------------ arrays, tables, lists


def _from_values(preparation: Preparation, x: Any, lengths: Any, observed: Any) -> Examples:
    if is_table(x):
        x = ordered(preparation, x)
    elif isinstance(x, list | tuple):
        x = [ordered(preparation, row) if is_table(row) else row for row in x]
        if _are_unequal(preparation, x):
            if lengths is not None:
                raise ConfigError("lengths", "given", "sequences in a list have their own lengths; leave it out")
            x, lengths = _padded(preparation, x)
    x = as_numbers("x", x)
    if lengths is not None:
        lengths = _check_lengths(lengths, x)
    elif x.ndim == 3 and preparation.kind == "sequence" and preparation.layout == "image":
        count = int((zero_tails(x) >= TAIL).sum())
        if count:
            text = f"{count} of {len(x)} rows end in {TAIL} or more steps of zeros in every channel"
            warnings.warn(f"{text}; if they are padding, give lengths=[...] of the rows", stacklevel=5)
    if observed is not None:
        observed = as_numbers("observed", observed)
        if observed.shape != x.shape:
            raise ConfigError("observed", observed.shape, f"expected the shape of x, {x.shape}")
        if not np.isin(observed, (0, 1)).all():
            raise ConfigError("observed", observed[~np.isin(observed, (0, 1))][0], "expected True and False")
        observed = None if observed.all() else observed.astype(bool)
    return Examples(x=x, length=lengths, observed=observed)


def _check_lengths(lengths: Any, x: np.ndarray) -> np.ndarray | None:
    """Lengths of the rows, [N] int32; None if all rows have the full length."""
    lengths, steps = np.asarray(lengths), x.shape[1] if x.ndim > 1 else 0
    if lengths.shape != x.shape[:1] or lengths.dtype.kind not in "iu":
        raise ConfigError("lengths", lengths.shape, f"expected one whole number for each of {len(x)} rows")
    wrong = (lengths < 1) | (lengths > steps)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ConfigError("lengths", int(lengths[row]), f"row {row} must have 1 to {steps} steps")
    return None if (lengths == steps).all() else lengths.astype(np.int32)


def ordered(preparation: Preparation, table: Any) -> np.ndarray:
    """The values of a table with named columns in the order of training, [N, D].

    Raises:
      ConfigError: a column is missing, was not there in training, occurs twice, or holds no numbers.
    """
    names, wanted = [str(name) for name in table.columns], preparation.columns
    if wanted is not None:
        for name in wanted:
            if names.count(name) != 1:
                absent = f"no such column{nearest(name, names)}"
                problem = "more than one column of this name" if name in names else absent
                raise ConfigError("columns", name, f"the table has {problem}; training had: {', '.join(wanted)}")
        if unknown := [name for name in names if name not in wanted]:
            remedy = "the table has this column, and training had not; leave it out"
            raise ConfigError("columns", unknown[0], remedy)
        table = table[[table.columns[names.index(name)] for name in wanted]]
    if table.to_numpy().dtype.kind in "biuf":
        return table.to_numpy()
    columns = []
    for name in table.columns:
        try:
            columns.append(as_numbers("x", np.asarray(table[name])))
        except ConfigError as error:
            raise ConfigError("x", error.value, f"column '{name}' of the table holds no real numbers") from None
    return np.stack(columns, axis=1)


def _are_unequal(preparation: Preparation, rows: Sequence[Any]) -> bool:
    """Whether the rows of a list are sequences of unequal length, or all of them shorter than those of training."""
    lengths = {np.shape(row)[:1] for row in rows}
    if len(lengths) != 1 or preparation.kind != "sequence" or preparation.layout != "image":
        return len(lengths) > 1
    return preparation.stored_shape is not None and () < lengths.pop() < preparation.stored_shape[:1]


def _padded(preparation: Preparation, rows: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of unequal length as one array of the steps of training, and their lengths."""
    if preparation.kind != "sequence" or preparation.layout != "image":
        remedy = f"expected rows of shape {list(preparation.stored_shape or ())}"
        raise ConfigError("x", "rows of unequal length", remedy)
    arrays = [as_numbers("x", row).astype(np.float64) for row in rows]
    arrays = [array[:, None] if array.ndim == 1 else array for array in arrays]
    steps = preparation.stored_shape[0] if preparation.stored_shape else max(map(len, arrays))
    for index, array in enumerate(arrays):
        if array.ndim != 2 or not 1 <= len(array) <= steps or array.shape[1] != arrays[0].shape[1]:
            expected = f"1 to {steps} steps of {arrays[0].shape[-1]} channels, as in training"
            raise ConfigError("x", array.shape, f"row {index} must have {expected}")
    return pad(arrays, steps)


# ---------------------------------------------------------------------------------------------- values that do not fit


def _masked(preparation: Preparation, rows: Examples, takes_masks: bool) -> Examples:
    """Mark NaN as missing, and refuse gaps that the model cannot leave out."""
    x, observed = rows.x, rows.observed
    if x.dtype.kind == "f":
        mask = rows.mask
        known = np.isfinite(x) if mask is None else np.isfinite(x) | ~mask
        if not known.all():
            index = tuple(int(axis[0]) for axis in np.nonzero(~known))
            if np.isinf(x[index]):
                raise ConfigError("x", float(x[index]), f"at index {list(index)}; expected finite numbers, or NaN")
            observed = known if observed is None else observed & known
            empty = ~(observed if mask is None else observed & mask).reshape(len(x), -1).any(1)
            if empty.any():
                text = f"{empty.sum()} of {len(x)} rows hold no value at all (the first is row {int(np.argmax(empty))})"
                warnings.warn(f"{text}; what a model says of them means nothing", stacklevel=5)
    missing = observed is not None or rows.length is not None
    if missing and not (takes_masks or preparation.masked):
        kind = "missing values" if observed is not None else "rows of unequal length"
        remedy = "this model saw none in training and takes no masks; fill them first, or leave out those rows"
        raise ConfigError("x", kind, remedy)
    return dataclasses.replace(rows, observed=observed)


def _check_whole(preparation: Preparation, x: np.ndarray) -> None:
    """Refuse other numbers where training had whole numbers of a fixed range, such as pixels."""
    if preparation.whole is None:
        return
    remedy = f"rows of this run are whole numbers from 0 to {preparation.whole} as stored; do not scale them before"
    if x.dtype == np.bool_:
        if preparation.whole > 1:
            raise ConfigError("x", True, remedy)
        return
    finite = x[np.isfinite(x)]
    wrong = finite[(finite != np.round(finite)) | (finite < 0) | (finite > preparation.whole)]
    if wrong.size:
        raise ConfigError("x", wrong[0].item(), remedy)
    if preparation.whole > 1 and finite.size and finite.max() == 1:
        text = f"no value of these rows is above 1, and those of training reached up to {preparation.whole}"
        warnings.warn(f"{text} as stored; were they scaled before?", stacklevel=5)


# ------------------------------------------------------------------------------------------------------------- classes


def class_numbers(preparation: Preparation, label: Any, named: bool = True) -> np.ndarray:
    """Classes as stored as numbers 0 to K - 1, [N] int32.

    Args:
      preparation: preparation of the run.
      label: names as they were in training, or numbers from 0 where the classes have no names; [N].
      named: False for numbers 0 to K - 1 whatever the names.

    Raises:
      ConfigError: an unknown class, a fraction or a number out of range.
    """
    if np.ma.is_masked(label):
        raise ConfigError("label", "masked", "every row needs its class; leave out the rows without one")
    label = np.asarray(label)
    first = label.ravel()[0] if label.size else label.shape
    if not preparation.class_count:
        raise ConfigError("label", first, "this run was trained on rows without classes; leave it out")
    label = label[:, 0] if label.ndim == 2 and label.shape[1] == 1 else label
    if label.ndim != 1:
        raise ConfigError("label", label.shape, "expected one class for each row, [N]")
    if named and (classes := preparation.classes) is not None:
        # 2, 2.0 and "2" are one class.
        names = [str(int(name) if isinstance(name, float) and name.is_integer() else name) for name in label.tolist()]
        if unknown := [name for name in names if name not in classes]:
            known = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
            problem = f"no such class{nearest(unknown[0], classes)}; there are: {known}"
            raise ConfigError("label", unknown[0], problem)
        return np.asarray([classes.index(name) for name in names], np.int32)
    if label.dtype.kind in "US":  # names of another file may be numbers
        try:
            label = label.astype(np.float64)
        except ValueError:
            raise ConfigError("label", first, "the classes of this run have no names, only numbers") from None
    remedy = f"expected whole numbers from 0 to {preparation.class_count - 1}"
    if label.dtype.kind not in "biuf" or (label != np.round(label)).any():
        raise ConfigError("label", first, remedy)
    outside = label[(label < 0) | (label >= preparation.class_count)]
    if outside.size:
        raise ConfigError("label", outside[0], remedy)
    return label.astype(np.int32)


# ----------------------------------------------------------------------------------------------------- values of Python


def is_table(values: Any) -> bool:
    """Whether values are a table with named columns, of pandas or polars."""
    return hasattr(values, "columns") and hasattr(values, "to_numpy")


def as_numbers(key: str, values: Any) -> np.ndarray:
    """Values as an array of real numbers; NaN where a masked array masks one, or a value is None or pandas.NA.

    Raises:
      ConfigError: text, dates, complex numbers, or rows of unequal shape.
    """
    shown = str(getattr(values, "dtype", type(values).__name__))
    try:
        array = values if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
        if array.dtype.kind in "cMm":
            raise TypeError("no real numbers")
        if array.dtype.kind == "O":
            cells = [np.nan if str(cell) == "<NA>" else cell for cell in array.ravel().tolist()]
            array = np.array(cells, object).reshape(array.shape)
        masked = isinstance(array, np.ma.MaskedArray) and np.ma.getmaskarray(array).any()
        if masked or array.dtype.kind not in "biuf":
            array = array.astype(np.float64)
        return np.ma.filled(array, np.nan) if masked else np.asarray(array)
    except (TypeError, ValueError):
        raise ConfigError(key, shown, "expected real numbers in rows of one shape") from None


def whole_number(key: str, value: Any, least: int) -> int:
    """A whole number from `least`.

    Raises:
      ConfigError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= INT32:
        raise ConfigError(key, value, f"expected a whole number from {least}")
    return int(value)


def _with_target(rows: Examples, shape: tuple[int, ...], classes: int) -> Examples:
    """Rows whose target has the form of training: whole numbers may be classes or values."""
    target, observed = np.asarray(rows.target[:]), rows.target_observed
    if target.shape[1:] == (*shape, 1) and classes:
        target, observed = target[..., 0], None  # classes of steps that a file stores as fractions
    if target.shape[1:] == shape[:-1] and shape[-1:] == (1,):
        target = target[..., None]  # values of steps that a file stores as whole numbers
    if classes or target.dtype.kind != "f":
        values, _ = target_values(target, len(rows), shape, classes)
        return dataclasses.replace(rows, target=values, target_observed=observed)
    if target.shape[1:] != shape:
        expected = ", ".join(map(str, (len(rows), *shape)))
        raise ConfigError("target", target.shape, f"expected the shape [{expected}], as in training")
    return dataclasses.replace(rows, target=target, target_observed=observed)


def target_values(
    target: Any, rows: int, shape: tuple[int, ...] | None, classes: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Targets of rows in the form of training, and where they are observed (None: everywhere).

    Args:
      target: [N, *shape]; [N] stands for [N, 1]. NaN is a missing step of a forecast.
      rows: N.
      shape: shape of one target in training; None if training had no targets.
      classes: number of classes of targets of whole numbers; 0 for values.

    Raises:
      ConfigError: another shape, a class that training had not, or a value that is not finite.
    """
    if shape is None:
        raise ConfigError("target", "given", "this run was trained without a target; leave it out (classes are label)")
    array = as_numbers("target", target)
    if array.shape == (rows,) and shape == (1,):
        array = array[:, None]
    if array.shape != (rows, *shape):
        expected = ", ".join(map(str, (rows, *shape)))
        raise ConfigError("target", array.shape, f"expected the shape [{expected}]")
    if classes:
        good = (array == np.round(array)) & (array >= 0) & (array < classes)
        if not good.all():
            raise ConfigError("target", array[~good][0], f"expected whole numbers from 0 to {classes - 1}")
        return array.astype(np.int32), None
    observed = np.isfinite(array)
    if observed.all():
        return array.astype(np.float64), None
    if len(shape) == 1 or np.isinf(array).any():
        raise ConfigError("target", array[~observed][0], "expected finite numbers; leave out such rows")
    return array.astype(np.float64), observed
