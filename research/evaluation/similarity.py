"""How similar two codes of the same rows are, whatever their axes mean: linear CKA and mean canonical correlation.

No run answers this alone, so nothing here is a study: a report compares the runs of one setting
(`research.report.stability`).
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np

# Share of the largest standard deviation below which a direction of codes counts as constant: 1 % of the variance, as
# for active units (Burda et al. 2016), whose largest variance is near 1. What a VAE does not use lies below it.
NEAR_CONSTANT = 0.1


class IncomparableError(ValueError):
    """Codes have no similarity; the text says why."""


@dataclasses.dataclass(frozen=True)
class Codes:
    """Codes of N rows without their mean, in float64.

    Attributes:
      centred: divided by the largest absolute value, [N, L].
      basis: orthonormal columns that span those principal directions whose standard deviation is at least
        `NEAR_CONSTANT` of the largest one, [N, R].
    """

    centred: np.ndarray
    basis: np.ndarray

    def permuted(self, rows: np.ndarray) -> "Codes":
        """The same codes with the rows in another order, [N] numbers of rows."""
        return Codes(self.centred[rows], self.basis[rows])


def prepared(codes: np.ndarray) -> Codes:
    """Codes [N, L] as they are compared.

    Raises:
      IncomparableError: they are no finite vectors, or equal for all rows.
    """
    if codes.ndim != 2:
        raise IncomparableError("the codes are no vectors")
    codes = codes.astype(np.float64)
    if not np.isfinite(codes).all():
        raise IncomparableError("some codes are not finite")
    centred = codes - codes.mean(0)
    largest = np.abs(centred).max(initial=0.0)
    if largest <= np.finfo(np.float32).eps * np.abs(codes).max(initial=0.0):
        raise IncomparableError("the codes are equal for all rows")
    centred /= largest
    directions, deviations, _ = np.linalg.svd(centred, full_matrices=False)
    return Codes(centred, directions[:, deviations >= NEAR_CONSTANT * deviations[0]])


def linear_cka(x: Codes, y: Codes) -> float:
    """Linear centred kernel alignment, |X'Y|^2 / (|X'X| |Y'Y|) in Frobenius norms, 0 to 1 (Kornblith et al. 2019).

    It is 1 for codes that differ by a shift, a rotation, a reflection and a factor. Directions count by their variance,
    so that it changes under other invertible maps.
    """
    norm = lambda a, b: float(np.linalg.norm(a.T @ b))
    return norm(x.centred, y.centred) ** 2 / (norm(x.centred, x.centred) * norm(y.centred, y.centred))


def mean_cca(x: Codes, y: Codes) -> float:
    """Mean of the min(R, R') canonical correlations of two codes, 0 to 1 (Hotelling 1936; Raghu et al. 2017).

    It is 1 for codes that differ by an invertible affine map: all directions count alike, whatever their variance. So
    directions that are nearly constant are left out first (`Codes.basis`).

    Raises:
      IncomparableError: R + R' > N - 1; then R + R' - (N - 1) of the correlations are 1 for any codes.
    """
    rows, directions = len(x.basis), x.basis.shape[1] + y.basis.shape[1]
    if directions > rows - 1:
        raise IncomparableError(f"{rows} rows are too few for {directions} directions of two codes, whatever they are")
    correlations = np.linalg.svd(x.basis.T @ y.basis, compute_uv=False)
    return float(np.minimum(correlations, 1).mean())


def between(measure: Callable[[Codes, Codes], float], codes: Sequence[Codes], *, permuted: bool = False) -> np.ndarray:
    """A measure between all pairs of S codes of the same rows, [S, S], 1 on the diagonal.

    Args:
      measure: `linear_cka` or `mean_cca`.
      codes: of the same N rows.
      permuted: puts the rows of the second codes of a pair in an order that is drawn anew for each pair. Then only
        chance makes codes similar: linear CKA has the mean sqrt(P P') / (N - 1) with the participation ratio
        P = |X|^4 / |X'X|^2, and squared canonical correlations have the mean max(R, R') / (N - 1).

    Raises:
      IncomparableError: some pair has no such similarity.
    """
    table = np.eye(len(codes))
    draws = np.random.default_rng(0)
    for first, second in itertools.combinations(range(len(codes)), 2):
        other = codes[second]
        if permuted:
            other = other.permuted(draws.permutation(len(other.basis)))
        table[first, second] = table[second, first] = measure(codes[first], other)
    return table


def mean_of_pairs(table: np.ndarray) -> float:
    """The mean over the S (S - 1) / 2 pairs of a table [S, S]."""
    return float(table[np.triu_indices(len(table), 1)].mean())


def check_count(size: int) -> None:
    """Raise `IncomparableError` for fewer than three codes: their one pair says nothing of a spread."""
    if size < 3:
        raise IncomparableError(f"{size} finished {'seed' if size == 1 else 'seeds'}, and a spread over pairs needs 3")


def jackknifed(table: np.ndarray) -> np.ndarray:
    """A number for each of S codes from a table [S, S] of pairs: the pseudo-values of the jackknife over codes, [S].

    Pairs that share a code are not independent, so that a standard error over pairs is wrong. With m the mean over all
    pairs and m_i the mean over the pairs without code i, the numbers are p_i = S m - (S - 1) m_i. Their mean is m, and
    their standard deviation (S - 1 in the denominator) over sqrt(S) is the jackknife's standard error of m (Arvesen
    1969), on average too large rather than too small (Efron & Stein 1981). A single p_i may lie outside 0 to 1.

    Raises:
      IncomparableError: fewer than three codes.
    """
    size = len(table)
    check_count(size)
    of_code = (table.sum(1) - table.diagonal()) / (size - 1)  # mean over the pairs with code i
    return (2 * (size - 1) * of_code - size * mean_of_pairs(table)) / (size - 2)
