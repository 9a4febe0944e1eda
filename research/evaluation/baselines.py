"""Baselines without a network: the mean and principal components of training rows, and rows that such methods can read.

Methods that know no mask would take zeros behind the end of a row for data: k-means would group series by their length.
So rows of unequal length, or with gaps, become rows of one length without gaps (`whole_rows`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from research.data.examples import Examples
from research.evaluation.codes import probes
from research.evaluation.rows import chunks, pieces, whole
from research.evaluation.subject import Findings, Subject
from research.models.abilities import latent_dim_of, models_counts

LARGEST = 4096  # the decomposition takes the cube of the number of features or rows, whichever is smaller
MASKED = "rows are padded or have missing values"
PADDED, RESAMPLED = "padded_", "resampled_"  # prefixes of the name of a method


@dataclasses.dataclass(frozen=True)
class Components:
    """Principal components of training rows, float64.

    Attributes:
      mean: of the training rows, [D].
      directions: one column for each component, the largest variance first, [D, R].
    """

    mean: np.ndarray
    directions: np.ndarray

    def encode(self, x: np.ndarray, latent_dim: int) -> np.ndarray:
        """Scores of rows [N, ...] on the first L components, [N, L].

        Raises:
          ValueError: there are fewer than L components.
        """
        available = self.directions.shape[1]
        if latent_dim > available:
            raise ValueError(f"the data has only {available} principal components, fewer than latents")
        return (_flat(x) - self.mean) @ self.directions[:, :latent_dim]

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Reconstructions [N, D] of codes [N, L]."""
        return codes @ self.directions[:, : codes.shape[1]].T + self.mean


def components(x: Any) -> Components:
    """Fit all principal components to training rows [N, ...], dense or lazy.

    They are the eigenvectors of the covariance; if there are fewer rows than features, they are computed from the
    eigenvectors of the Gram matrix.

    Raises:
      ValueError: there are more than 4,096 rows and more than 4,096 features.
    """
    rows, features = len(x), int(np.prod(x.shape[1:]))
    if min(rows, features) > LARGEST:
        raise ValueError(f"principal components of {rows} rows of {features} features are too large to compute")
    mean = np.asarray(sum(_flat(piece).astype(np.float64).sum(0) for piece in pieces(x))) / rows
    centered = (_flat(piece).astype(np.float64) - mean for piece in pieces(x))
    if features <= rows:
        return Components(mean, np.linalg.eigh(sum(piece.T @ piece for piece in centered))[1][:, ::-1])
    difference = np.concatenate(list(centered))
    values, vectors = np.linalg.eigh(difference @ difference.T)
    keep = values[::-1] > values[-1] * 1e-12
    directions = difference.T @ vectors[:, ::-1][:, keep]
    return Components(mean, directions / np.linalg.norm(directions, axis=0))


def reconstruction_error(fitted: Components, x: Any, latent_dim: int, scale: Any = 1.0) -> float:
    """Mean over elements of ((x - x') / scale)^2 of rows [N, ...] and their reconstructions x' by L components.

    Without components, x' is the training mean. The scale is () or of the last axes of x.
    """
    scale = np.broadcast_to(np.asarray(scale, np.float64), x.shape[1:]).reshape(-1)
    misses = ((_flat(piece) - fitted.decode(fitted.encode(piece, latent_dim))) / scale for piece in pieces(x))
    return float(sum(np.square(miss).sum() for miss in misses) / np.prod(x.shape))


def encoded(fitted: Components, x: Any, latent_dim: int) -> np.ndarray:
    """Scores of rows [N, ...], dense or lazy, on the first L components, [N, L]; see `Components.encode`."""
    return np.concatenate([fitted.encode(piece, latent_dim) for piece in pieces(x)])


def mean_of_rows(values: np.ndarray, known: np.ndarray) -> float:
    """Mean over rows of the mean over the known values of a row, as models compute it; both are [N, ...]."""
    values, known = _flat(values), _flat(known)
    return float((np.where(known, values, 0).sum(1) / np.maximum(known.sum(1), 1)).mean())


def masked_mean_error(train: Examples, test: Examples) -> float:
    """Squared error of the training mean of every element on the valid and observed elements of the test rows.

    It is the mean over rows of the mean over elements, as models compute it. An element that no training row has is
    predicted as 0.
    """
    total, count = sums_of_known(train)
    mean, error = total / np.maximum(count, 1), 0.0
    for rows in chunks(test):
        error += len(rows) * mean_of_rows(np.square(np.asarray(rows.x, np.float64) - mean), known(rows))
    return error / len(test)


def known(rows: Examples) -> np.ndarray:
    """True where a value of `x` is valid and observed, of the shape of `x`; the rows are dense."""
    return np.broadcast_to(True if rows.mask is None else np.asarray(rows.mask), rows.x.shape)


def sums_of_known(part: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the valid and observed values of every element of `x` over the rows, and how many they are, [...]."""
    total, count = np.zeros(part.x.shape[1:]), np.zeros(part.x.shape[1:], int)
    for rows in chunks(part):
        total += np.where(known(rows), np.asarray(rows.x, np.float64), 0).sum(0)
        count += known(rows).sum(0)
    return total, count


def independent_poisson(train: Examples, test: Examples) -> float:
    """-log p of the test rows under independent Poisson counts at the training mean of every element, in nats.

    It is the sum over the elements whose truth is known, and the mean over rows, as models compute their likelihood. An
    element that is 0 in all n training rows gets the mean 1/2n, under which a test row may have counts there.
    """
    from scipy.stats import poisson

    total, count = sums_of_known(train)
    mean, nats = np.maximum(total, 0.5) / np.maximum(count, 1), 0.0
    for rows in chunks(test):
        x = rows.x if rows.truth is None else rows.truth
        scored = True if rows.score_mask is None else rows.score_mask
        nats -= float(np.sum(poisson.logpmf(np.asarray(x, np.float64), mean), where=scored))
    return nats / len(test)


def whole_rows(part: Examples) -> Mapping[str, np.ndarray]:
    """Flat rows [N, D] by the prefix that the name of a method gets which sees them.

    If all rows have the same length there is one entry, "". If they differ in length there are two: `padded_` repeats
    the last value to the end, and `resampled_` stretches every row to the full number of steps, linearly between its
    steps.
    A gap is filled linearly between the observed steps of its channel, and beyond them with the nearest one.

    Raises:
      ValueError: the rows are lazy, and too many.
    """
    x = whole(part.x)
    if x.ndim > 2 and part.observed is not None:
        x = fill_gaps(x, np.asarray(part.take(slice(None)).mask))
    if part.length is None:
        return {"": _flat(x)}
    length = np.asarray(part.length)
    return {PADDED: _flat(repeat_end(x, length)), RESAMPLED: _flat(stretch(x, length))}


def repeat_end(x: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Rows [N, T, ...] of valid lengths [N] with their last valid step repeated."""
    steps = np.minimum(np.arange(x.shape[1])[None], np.maximum(length, 1)[:, None] - 1)
    return x[np.arange(len(x))[:, None], steps]


def stretch(x: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Rows [N, T, ...] of valid lengths [N] stretched to T steps: step t is read at t (length - 1) / (T - 1)."""
    last, rows = np.maximum(length, 1)[:, None] - 1, np.arange(len(x))[:, None]
    position = np.arange(x.shape[1])[None] * last / max(x.shape[1] - 1, 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, last)
    share = (position - low).reshape(position.shape + (1,) * (x.ndim - 2))
    return x[rows, low] * (1 - share) + x[rows, high] * share


def fill_gaps(x: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Rows [N, T, C] with missing values interpolated linearly between observed ones.

    A channel of a row that has no observed value at all stays as it is.
    """
    x = x.copy()
    steps = np.arange(x.shape[1])
    gaps = ~observed.all(1) & observed.any(1)
    for row, *channel in np.argwhere(gaps):
        series = (row, slice(None), *channel)
        known = observed[series]
        x[series] = np.interp(steps, steps[known], x[series][known])
    return x


def fitted_components(subject: Subject, prefix: str = "") -> Components:
    """Principal components of the training rows, fitted once for all runs on them; `prefix` is a key of `whole_rows`.

    Raises:
      ValueError: they are too large to compute.
    """
    gaps = subject.train.masked
    return subject.once(
        ("components", prefix), lambda: components(whole_rows(subject.train)[prefix] if gaps else subject.train.x)
    )


def study(subject: Subject, findings: Findings) -> None:
    """Add `baseline/mean/...` and `baseline/pca/...`, at the latent size of a model that reconstructs.

    Beside a likelihood of counts stands the likelihood of independent Poisson counts, on the rows of `nll_nats`.
    """
    if models_counts(subject.model):
        scored = subject.test.take(slice(subject.recipe.nll_examples))
        poisson = lambda: independent_poisson(subject.train, scored)
        findings.add({"baseline/mean/nll_nats": subject.once(("poisson", len(scored)), poisson)})
    names = ("baseline/mean/reconstruction_mse", "baseline/pca/reconstruction_mse")
    if subject.train.masked:
        error = subject.once("masked mean", lambda: masked_mean_error(subject.train, subject.test))
        findings.add({names[0]: error})
        findings.refuse(MASKED, names[1])
        return
    recipe, latent_dim = subject.recipe, latent_dim_of(subject.model)
    key = ("pca", latent_dim, recipe.probes, recipe.neighbors, recipe.probe_iterations)
    try:
        fitted = fitted_components(subject)
        findings.add(subject.once("mean error", lambda: _errors(subject, fitted, 0)), "baseline/mean/")
        if latent_dim is None:
            raise ValueError("the model does not say the size of its codes (latent_dim)")
        scores = subject.once(key, lambda: _errors(subject, fitted, latent_dim) | _probes(subject, fitted, latent_dim))
        findings.add(scores, "baseline/pca/")
    except ValueError as error:
        findings.refuse(str(error), *(name for name in names if name not in findings.metrics))


def _errors(subject: Subject, fitted: Components, latent_dim: int) -> dict[str, float]:
    x = subject.test.x
    errors = {"reconstruction_mse": reconstruction_error(fitted, x, latent_dim)}
    if not subject.binary:
        errors["reconstruction_mse_raw"] = reconstruction_error(fitted, x, latent_dim, subject.scale)
    return errors


def _probes(subject: Subject, fitted: Components, latent_dim: int) -> dict[str, float]:
    recipe, train, test = subject.recipe, subject.train, subject.test
    if not recipe.probes or train.label is None or len(np.unique(np.asarray(train.label))) < 2:
        return {}
    codes = (encoded(fitted, part.x, latent_dim) for part in (train, test))
    (train_codes, test_codes), labels = codes, (np.asarray(train.label), np.asarray(test.label))
    return probes(train_codes, labels[0], test_codes, labels[1], recipe.neighbors, recipe.probe_iterations)


def _flat(x: np.ndarray) -> np.ndarray:
    return np.asarray(x).reshape(len(x), -1)
