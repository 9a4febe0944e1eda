"""Known factors of a data set, and what the scores of disentanglement share: halves of the rows and their draws."""

import numpy as np

SEED = 20_180_217  # of all draws. It is not 0, with which data may have been drawn: noise that equals the data is none.


def generator_of(seed: int) -> np.random.Generator:
    """The generator of all draws."""
    return np.random.Generator(np.random.PCG64(seed))


def varied(factors: np.ndarray) -> np.ndarray:
    """The factors [N, F] that have at least two values in these rows, their values numbered from 0.

    Raises:
      ValueError: fewer than two factors vary.
    """
    columns = [np.unique(column, return_inverse=True)[1].reshape(-1) for column in np.asarray(factors).T]
    columns = [column for column in columns if column.max() > 0]
    if len(columns) < 2:
        raise ValueError("fewer than two factors vary in these rows")
    return np.stack(columns, 1)


def halves(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers to fit on and row numbers to score on: halves drawn at random."""
    order = generator_of(seed).permutation(rows)
    return order[rows // 2 :], order[: rows // 2]
