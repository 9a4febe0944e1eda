"""Two scores that ask which factor a group of rows shares: the FactorVAE score and the beta-VAE score.

The other scores of disentanglement take the rows, factors and draws from here too.

A vote is a group of 64 rows that agree in one factor, drawn from the given rows. 800 votes of one half of the rows are
learned from, and 800 votes of the other half are scored, because groups of few rows differ by chance.
"""

from collections.abc import Callable

import numpy as np

from research.evaluation.codes import SEED, linear_probe

VOTES, GROUP = 800, 64  # votes of each half, rows (or pairs of rows) of each vote
ITERATIONS = 1000  # most iterations of the linear classifier


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


def factor_vae_score(codes: np.ndarray, factors: np.ndarray, threshold: float = 0.0, seed: int = SEED) -> float:
    """Accuracy of telling the shared factor from the dimension that varies least (Kim & Mnih 2018).

    The rows of a vote agree in a random factor. The vote names the dimension of the smallest variance, divided by the
    variance over all rows. 800 votes decide which factor a dimension stands for; the score is the share of 800 other
    votes for which that factor is right. Chance is 1 / F, which is also the score if no dimension varies.

    Departure: the paper generates new examples with the fixed value. Here the value is that of a random row, and the 64
    rows are drawn with replacement from the given rows that have it.

    Args:
      codes: [N, L].
      factors: [N, F] integers.
      threshold: dimensions whose variance is not above it have collapsed and are left out.
      seed: of all draws.

    Raises:
      ValueError: fewer than two factors have values that several rows share.
    """
    codes, values = codes.astype(np.float64), varied(factors)
    variance = codes.var(0)
    active = (variance > threshold) & (np.ptp(codes, 0) > 0)
    if not active.any():
        return 1 / values.shape[1]
    codes = codes[:, active] / np.sqrt(variance[active])
    (spread, factor), (test_spread, test_factor) = _votes(codes, values, lambda rows, _: rows.var(1), seed)
    counts = np.zeros((codes.shape[1], values.shape[1]))
    np.add.at(counts, (spread.argmin(1), factor), 1)
    # a dimension without votes stands for the commonest factor
    meaning = np.where(counts.any(1), counts.argmax(1), counts.sum(0).argmax())
    return float((meaning[test_spread.argmin(1)] == test_factor).mean())


def beta_vae_score(codes: np.ndarray, factors: np.ndarray, seed: int = SEED) -> float:
    """Accuracy of a linear classifier that tells which factor 64 pairs of rows share (Higgins et al. 2017).

    The classifier sees the mean of |z - z'| over the pairs of a vote. It is the `linear_probe`, fitted to 800 votes and
    scored on 800 others. Chance is 1 / F.

    Departure: the two rows of a pair are drawn from the given rows with the same value; the paper generates new ones.

    Args:
      codes: [N, L].
      factors: [N, F] integers.
      seed: of all draws.

    Raises:
      ValueError: fewer than two factors have values that several rows share.
    """
    distance = lambda rows, partners: np.abs(rows - partners).mean(1)
    train, test = _votes(codes.astype(np.float64), varied(factors), distance, seed)
    return linear_probe(*train, *test, ITERATIONS)


def _votes(
    codes: np.ndarray, values: np.ndarray, statistic: Callable[[np.ndarray, np.ndarray], np.ndarray], seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Statistics [800, L] and shared factor [800] of the votes of each half of the rows.

    `statistic` gets the rows of some votes and a partner for each row that has the same value, both [votes, 64, L].
    """
    generator = generator_of(seed)
    parts = [(codes[rows], values[rows]) for rows in halves(len(codes), seed)]
    usable = [f for f in range(values.shape[1]) if all(np.bincount(part[:, f]).max() > 1 for _, part in parts)]
    if len(usable) < 2:
        raise ValueError("fewer than two factors have values that several rows share")
    votes_of_halves = []
    for part, columns in parts:
        factor = np.array(usable)[generator.integers(len(usable), size=VOTES)]
        statistics = np.empty((VOTES, codes.shape[1]))
        for number in usable:
            column = columns[:, number]
            order = np.argsort(column, kind="stable")  # puts the rows of one value side by side
            size = np.bincount(column)[column]  # rows that have the value of a row
            start = np.searchsorted(column[order], column)  # where the rows of its value begin in `order`
            shared = np.flatnonzero(size > 1)
            votes = np.flatnonzero(factor == number)
            for chunk in np.array_split(votes, len(votes) // 50 + 1):  # bounds the memory
                row = shared[generator.integers(len(shared), size=(len(chunk), 1))]
                drawn = generator.integers(size[row], size=(len(chunk), GROUP))
                step = generator.integers(1, size[row], size=(len(chunk), GROUP))  # no row is its own partner
                rows, partners = order[start[row] + drawn], order[start[row] + (drawn + step) % size[row]]
                statistics[chunk] = statistic(part[rows], part[partners])
        votes_of_halves.append((statistics, factor))
    return votes_of_halves
