"""Values given from Python, such as `run.encode(x)`: real numbers, whole numbers and targets, or a refusal."""

from typing import Any, Protocol, runtime_checkable

import numpy as np

from research.ranges import INT32
from research.tree import ConfigError


@runtime_checkable
class Table(Protocol):
    """A table with named columns, of pandas or polars."""

    @property
    def columns(self) -> Any: ...

    def to_numpy(self) -> np.ndarray: ...


def is_table(values: Any) -> bool:
    """Whether values are a table with named columns, of pandas or polars."""
    return isinstance(values, Table)


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
