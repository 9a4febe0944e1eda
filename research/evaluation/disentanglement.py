"""How well single dimensions of a code hold single known factors, and how much the code says at all.

Every function is numpy (and one optimizer of scipy), so that no score depends on the version of a learning library. All
draws come from `Generator(PCG64(seed))`; every study has the same seed, `SEED`. Codes are [N, L] floats and factors
[N, F] integers; a factor that has one value only in these rows is left out.

Order and units of the dimensions do not matter to any score (beyond rounding, and which of two equal splits or votes
comes first). The order of the rows does not matter to `mig` and `modularity`; elsewhere it decides which are drawn.
"""

from collections.abc import Callable

import numpy as np

from research.evaluation import classifiers
from research.evaluation.baselines import fitted_components
from research.evaluation.subject import BATCH, Findings, Subject
from research.models.abilities import Encodes, HasPosterior, able
from research.runs import batches

BINS = 20  # of a code dimension; Locatello et al. (2019) have as many
VOTES, PAIRS = 800, 64  # votes to learn from, and as many to score; rows (or pairs of rows) of each
ROWS, POSTERIORS, LEAST = 5000, 1000, 100  # most rows with factors, most posteriors, fewest rows of either
SEED = 20_180_217  # not 0, which data may have been drawn with: noise that equals the data is none
SUPERVISED = (
    *("mig", "dci_disentanglement", "dci_completeness", "dci_informativeness"),
    *("sap", "modularity", "factor_vae_score", "beta_vae_score"),
)
UNSUPERVISED = ("test/total_correlation", "test/mutual_information_nats")


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def _varied(factors: np.ndarray) -> np.ndarray:
    """The factors with at least two values, as [N, F] integers from 0.

    Raises:
      ValueError: there are fewer than two.
    """
    columns = [np.unique(column, return_inverse=True)[1].reshape(-1) for column in np.asarray(factors).T]
    columns = [column for column in columns if column.max() > 0]
    if len(columns) < 2:
        raise ValueError("fewer than two factors vary in these rows")
    return np.stack(columns, 1)


def discretize(codes: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Bins of equal width over the range of every dimension, [N, L] integers from 0; one bin where it is constant."""
    codes = codes.astype(np.float64)
    low, width = codes.min(0), np.ptp(codes, 0) / bins
    return np.minimum((codes - low) / np.where(width > 0, width, 1), bins - 1).astype(np.int64)


def mutual_information(one: np.ndarray, other: np.ndarray) -> float:
    """I = sum p(a, b) log p(a, b) / (p(a) p(b)) in nats, of the observed shares of two columns [N] of integers from 0.

    The shares of few rows are uneven by chance, which adds about (A - 1)(B - 1) / 2N for A and B values.
    """
    sizes = int(one.max()) + 1, int(other.max()) + 1
    joint = np.bincount(one * sizes[1] + other, minlength=sizes[0] * sizes[1]).reshape(sizes) / len(one)
    expected = joint.sum(1, keepdims=True) * joint.sum(0)
    some = joint > 0
    return float((joint[some] * np.log(joint[some] / expected[some])).sum())


def _information(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mutual information of every binned dimension with every factor, [L, F] nats; 0 where only rounding is left."""
    table = np.array([[mutual_information(z, v) for v in values.T] for z in discretize(codes).T])
    return np.where(table > 1e-12, table, 0)


def _gap(table: np.ndarray, absent: np.ndarray) -> np.ndarray:
    """Largest less second largest entry of every column of [L, F]; `absent` is the second of a single dimension."""
    ordered = np.sort(table, axis=0)[::-1]
    return ordered[0] - (ordered[1] if len(table) > 1 else absent)


def mig(codes: np.ndarray, factors: np.ndarray) -> float:
    """Mutual information gap: mean over factors of (I(z_1; v) - I(z_2; v)) / H(v) (Chen et al. 2018), 0 to 1.

    z_1 and z_2 are the dimensions with most and second most information about the factor v; of a single dimension the
    second has none. Dimensions are cut into 20 bins of equal width: an outlier, or a map that squeezes values of a
    factor into one bin, costs information, and a factor of K > 20 values has at most log 20 / log K.
    """
    values = _varied(factors)
    entropy = np.array([mutual_information(column, column) for column in values.T])
    return float((_gap(_information(codes, values), np.zeros(len(entropy))) / entropy).mean())


def modularity(codes: np.ndarray, factors: np.ndarray) -> float:
    """Mean over dimensions of 1 - sum_f I_f^2 / (I_max^2 (F - 1)), f not the largest (Ridgeway & Mozer 2018), 0 to 1.

    I are the mutual informations of `mig`. A constant dimension scores 0, as in Locatello et al. (2019). One of noise
    does not: its informations are those of chance, which grow with the number of values of a factor.
    """
    squares = np.square(_information(codes, _varied(factors)))
    largest = squares.max(1)
    others = (squares.sum(1) - largest) / (np.where(largest > 0, largest, 1) * (squares.shape[1] - 1))
    return float(np.where(largest > 0, 1 - others, 0).mean())


def dci(codes: np.ndarray, factors: np.ndarray, seed: int = SEED) -> dict[str, float]:
    """Disentanglement, completeness and informativeness (Eastwood & Williams 2018), 0 to 1.

    R[l, f] is the importance of dimension l to a forest that tells factor f, of sum 1 for every factor.
    Disentanglement: mean of 1 - H_F(R[l, :]) over dimensions, weighted by sum_f R[l, f]; H_F is the entropy to base F
    of the normalized row. Completeness: mean over factors of 1 - H_L(R[:, f]); 1 with a single dimension, and 0 of
    a factor that no dimension says anything of. Informativeness: mean over factors of the accuracy on a half of the
    rows that the forest has not seen; a code of noise scores at most about the share of the commonest value.

    Departures: the paper has lasso and a forest of depth chosen by validation, with a regression error in place of the
    accuracy; `disentanglement_lib` has scikit-learn's gradient boosting and weights factors alike. Here it is
    `classifiers.fit` (bagged trees that look at all dimensions at every node), so that a dimension that holds a factor
    alone gets all importance, and copies of a dimension get the same.
    """
    codes, values = codes.astype(np.float64), _varied(factors)
    fitted, held = _halves(len(codes), seed)
    importance, accuracy = [], []
    for column in values.T:
        grown = classifiers.fit(codes[fitted], column[fitted], seed=seed)
        importance.append(grown.importance)
        accuracy.append((grown.predict(codes[held]) == column[held]).mean())
    table = np.stack(importance, 1)
    weight = table.sum(1)
    rows = _concentration(table)
    return {
        "dci_disentanglement": float((rows * weight).sum() / weight.sum()) if weight.sum() > 0 else 0.0,
        "dci_completeness": float(_concentration(table.T).mean()),
        "dci_informativeness": float(np.mean(accuracy)),
    }


def _concentration(table: np.ndarray) -> np.ndarray:
    """1 - entropy of every row of [n, m] to base m; 0 of a row of zeros, 1 of a row of one entry."""
    total = table.sum(1, keepdims=True)
    share = table / np.where(total > 0, total, 1)
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(1)
    return np.where(total[:, 0] > 0, 1 - entropy / np.log(max(table.shape[1], 2)), 0)


def _halves(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows to fit on, and of those to score on: halves drawn at random."""
    order = _generator(seed).permutation(rows)
    return order[rows // 2 :], order[: rows // 2]


def sap(codes: np.ndarray, factors: np.ndarray, seed: int = SEED) -> float:
    """Separated attribute predictability: mean over factors of the gap of the two best accuracies (Kumar et al. 2018).

    The accuracy of a dimension about a factor of K values is the balanced one (mean over values of the share told
    right) on a half of the rows, of the value with the largest p(bin | value) on the other half, 20 bins of equal width
    or K where that is more. Chance is 1 / K: an accuracy below it counts as that, and it is the second of a single
    dimension. So the score lies between 0 and the mean of 1 - 1 / K.

    Departure: the paper has a linear support vector machine, which cannot tell a middle value from those on its sides.
    """
    values, halves = _varied(factors), _halves(len(codes), seed)
    sizes = [max(BINS, int(column.max()) + 1) for column in values.T]
    binned = {size: discretize(codes, size).T for size in {*sizes}}
    columns = [
        [_balanced_accuracy(z, v, size, *halves) for z in binned[size]] for v, size in zip(values.T, sizes, strict=True)
    ]
    accuracy = np.array(columns).T
    chance = 1 / (values.max(0) + 1)
    return float(_gap(np.maximum(accuracy, chance), chance).mean())


def _balanced_accuracy(bins: np.ndarray, value: np.ndarray, size: int, fitted: np.ndarray, held: np.ndarray) -> float:
    shape = size, int(value.max()) + 1
    counts = np.bincount(bins[fitted] * shape[1] + value[fitted], minlength=shape[0] * shape[1]).reshape(shape)
    told = (counts / np.maximum(counts.sum(0), 1)).argmax(1)[bins[held]]
    right, there = (np.bincount(value[held], weights, shape[1]) for weights in (told == value[held], None))
    return float((right[there > 0] / there[there > 0]).mean())


def factor_vae_score(codes: np.ndarray, factors: np.ndarray, threshold: float = 0.0, seed: int = SEED) -> float:
    """Accuracy of telling which factor was fixed from the dimension that varies least (Kim & Mnih 2018).

    A vote takes 64 rows that agree in a random factor; its dimension is the one of the smallest variance, divided by
    that over all rows. 800 votes say which factor each dimension stands for, and the share right of 800 others is the
    score: 1 / F by chance, and where no dimension varies.

    Departure: the paper draws new examples with the fixed value. Here the value is that of a random row, and the 64
    are drawn with replacement from the given rows that share it: a sample, not all combinations of the factors. Votes
    to learn from and to score are of different halves of the rows, since groups of few rows differ by chance.

    Args:
      threshold: dimensions whose variance is not above it have collapsed and are left out.

    Raises:
      ValueError: fewer than two factors have values that several rows share.
    """
    codes, values = codes.astype(np.float64), _varied(factors)
    variance = codes.var(0)
    active = (variance > threshold) & (np.ptp(codes, 0) > 0)
    if not active.any():
        return 1 / values.shape[1]
    codes = codes[:, active] / np.sqrt(variance[active])
    (spread, factor), (other_spread, other_factor) = _draws(codes, values, lambda batch, _: batch.var(1), seed)
    counts = np.zeros((codes.shape[1], values.shape[1]))
    np.add.at(counts, (spread.argmin(1), factor), 1)
    # a dimension without votes stands for the commonest factor
    told = np.where(counts.any(1), counts.argmax(1), counts.sum(0).argmax())
    return float((told[other_spread.argmin(1)] == other_factor).mean())


def beta_vae_score(codes: np.ndarray, factors: np.ndarray, seed: int = SEED) -> float:
    """Accuracy of a linear classifier that tells which factor 64 pairs of rows share (Higgins et al. 2017).

    It sees the mean of |z - z'| over the pairs and is a softmax regression (L2 as in the probes: C = 1, standardized)
    fitted to 800 such means by L-BFGS and scored on 800 others; 1 / F by chance.

    Departure: pairs are two of the given rows with the same value, not new examples; the halves of `factor_vae_score`.

    Raises:
      ValueError: fewer than two factors have values that several rows share.
    """
    codes, values = codes.astype(np.float64), _varied(factors)
    (fitted, factor), (held, other_factor) = _draws(codes, values, lambda a, b: np.abs(a - b).mean(1), seed)
    mean, deviation = fitted.mean(0), fitted.std(0)
    deviation = np.where(deviation > 0, deviation, 1)
    weights = classifiers.softmax_regression((fitted - mean) / deviation, factor, values.shape[1])
    held = np.column_stack([(held - mean) / deviation, np.ones(len(held))])
    return float(((held @ weights).argmax(1) == other_factor).mean())


def _draws(
    codes: np.ndarray, values: np.ndarray, statistic: Callable[[np.ndarray, np.ndarray], np.ndarray], seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each half of the rows: statistics [800, L] of 64 rows, and of partners, that agree in a factor; which [800].

    `statistic` gets rows that all share one value, and for each another row that agrees with it: [votes, 64, L] both.
    """
    generator = _generator(seed)
    halves = [(codes[rows], values[rows]) for rows in _halves(len(codes), seed)]
    usable = [f for f in range(values.shape[1]) if all(np.bincount(part[:, f]).max() > 1 for _, part in halves)]
    if len(usable) < 2:
        raise ValueError("fewer than two factors have values that several rows share")
    found = []
    for part, columns in halves:
        factor = np.array(usable)[generator.integers(len(usable), size=VOTES)]
        statistics = np.empty((VOTES, codes.shape[1]))
        for number in usable:
            column = columns[:, number]
            order = np.argsort(column, kind="stable")  # rows of one value stand together
            size = np.bincount(column)[column]
            start = np.searchsorted(column[order], column)
            shared = np.flatnonzero(size > 1)
            votes = np.flatnonzero(factor == number)
            for some in np.array_split(votes, len(votes) // 50 + 1):  # bounds the memory
                one = shared[generator.integers(len(shared), size=(len(some), 1))]
                place = generator.integers(size[one], size=(len(some), PAIRS))
                step = generator.integers(1, size[one], size=(len(some), PAIRS))  # so that no row is its own partner
                rows, partners = (order[start[one] + at] for at in (place, (place + step) % size[one]))
                statistics[some] = statistic(part[rows], part[partners])
        found.append((statistics, factor))
    return found


def total_correlation(mean: np.ndarray, threshold: float = 0.0) -> float:
    """KL(N(m, S) || prod_l N(m_l, S_ll)) = -1/2 log det R of rows [N, L] with covariance S, correlations R; nats.

    Locatello et al. (2019) take it of posterior means. 0 if and only if no two dimensions correlate; other dependence
    is not seen. Dimensions whose variance is not above the threshold are left out: correlation knows no scale, and
    noise that is left of a collapsed dimension would count as much as any other. Chance adds about L (L - 1) / 4N;
    infinite where some dimension is a linear function of others, as always with N <= L.
    """
    mean = mean.astype(np.float64)
    mean = mean[:, (mean.var(0) > threshold) & (np.ptp(mean, 0) > 0)]
    if mean.shape[1] < 2:
        return 0.0
    values = np.linalg.eigvalsh(np.corrcoef(mean.T))
    return float("inf") if values[0] <= 1e-12 * len(values) else float(-np.log(values).sum() / 2)


def mutual_information_nats(mean: np.ndarray, log_variance: np.ndarray, seed: int = SEED) -> float:
    """I(x; z) = E log q(z | x) / q(z) with q(z) = 1/N sum_j q(z | x_j), of Gaussian posteriors [N, L]; nats.

    One z is drawn from every posterior (Hoffman & Johnson 2016). It is the information of the code about which of these
    N rows it stands for, so never more than log N, whatever a code knows.
    """
    mean, log_variance = mean.astype(np.float64), log_variance.astype(np.float64)
    z = mean + np.exp(log_variance / 2) * _generator(seed).standard_normal(mean.shape)
    precision, total = np.exp(-log_variance), 0.0
    for first in range(0, len(z), BATCH):
        some = z[first : first + BATCH]
        # less a constant that all densities have; a dimension at a time for memory, and differences before squares
        # rather than products of matrices, which lose small variances
        logs = np.tile(-log_variance.sum(1) / 2, (len(some), 1))
        for dimension in range(z.shape[1]):
            logs -= np.square(some[:, dimension, None] - mean[:, dimension]) * precision[:, dimension] / 2
        highest = logs.max(1)
        aggregate = highest + np.log(np.exp(logs - highest[:, None]).mean(1))
        total += float((np.diagonal(logs, first) - aggregate).sum())
    return total / len(z)


def supervised(codes: np.ndarray, factors: np.ndarray, threshold: float = 0.0) -> dict[str, float]:
    """All scores of codes [N, L] against factors [N, F]; `threshold` is that of `factor_vae_score`.

    Raises:
      ValueError: codes that are not finite, fewer than 100 rows, or factors that do not vary or that no rows share.
    """
    if not np.isfinite(codes).all():
        raise ValueError("some codes are not finite")
    if len(codes) < LEAST:
        raise ValueError(f"fewer than {LEAST} rows")
    return {
        "factor_vae_score": factor_vae_score(codes, factors, threshold),
        "beta_vae_score": beta_vae_score(codes, factors),
        **dci(codes, factors),
        **{function.__name__: function(codes, factors) for function in (mig, sap, modularity)},
    }


def study(subject: Subject, findings: Findings) -> None:
    """Scores of the test codes against known discrete factors, and of posteriors without any factors.

    The former are of at most 5,000 test rows, drawn at random, and have beside them those of Gaussian noise
    (`baseline/random_code/...`) and of principal components (`baseline/pca/...`) of the same size on the same rows:
    what noise scores is the floor. `baseline/perfect_code/...` is the ceiling: the factors themselves as a code.
    Dimensions of a posterior count in `factor_vae_score` where their mean varies by more than `active_threshold`,
    others wherever they vary. The latter are of the first 1,000 test rows.
    """
    model, recipe, factors = subject.model, subject.recipe, subject.test.factors
    if not recipe.disentanglement:
        return
    posterior = able(model, HasPosterior)
    if posterior:
        _study_posteriors(subject, findings)
    factors = np.empty(0) if factors is None else np.asarray(factors)
    if factors.ndim != 2 or factors.dtype.kind not in "iu" or not able(model, Encodes):
        return
    if (factors != factors[:1]).any(0).sum() < 2:  # not even two factors vary
        return
    codes = subject.codes("test")
    size, rows = codes.shape[1], np.sort(_generator(SEED).permutation(len(codes))[:ROWS])

    def report(prefix: str, scores: Callable[[], dict[str, float]]) -> None:
        try:
            findings.add(scores(), prefix)
        except ValueError as error:
            findings.refuse(str(error), *(prefix + name for name in SUPERVISED))

    report("test/", lambda: supervised(codes[rows], factors[rows], recipe.active_threshold if posterior else 0.0))
    if recipe.baselines:
        noise = lambda: supervised(_generator(SEED).standard_normal((len(rows), size)), factors[rows])
        components = lambda: supervised(_components(subject, size)[rows], factors[rows])
        perfect = lambda: supervised(_varied(factors[rows]).astype(np.float64), factors[rows])
        for name, scores in (("random_code", noise), ("pca", components), ("perfect_code", perfect)):
            key = ("disentanglement", name, None if name == "perfect_code" else size, ROWS, SEED)
            report(f"baseline/{name}/", lambda key=key, scores=scores: subject.once(key, scores))


def _components(subject: Subject, size: int) -> np.ndarray:
    """Principal components of the test rows, [N, L].

    Raises:
      ValueError: there are none, or fewer than L.
    """
    if subject.train.observed is not None or subject.train.length is not None:
        raise ValueError("rows are padded or have missing values")
    fitted = fitted_components(subject)
    if size > fitted.directions.shape[1]:
        raise ValueError(f"the data has only {fitted.directions.shape[1]} principal components, fewer than latents")
    return fitted.encode(np.asarray(subject.test.x), size)


def _study_posteriors(subject: Subject, findings: Findings) -> None:
    test = subject.test.take(slice(POSTERIORS))
    if len(test) < LEAST:
        findings.refuse(f"fewer than {LEAST} rows", *UNSUPERVISED)
        return
    posterior = lambda batch, _: batches.call(subject.model, subject.params, batch, "posterior")
    mean, log_variance = batches.over(posterior, test, BATCH)
    if not np.isfinite(mean).all() or not np.isfinite(log_variance).all():
        findings.refuse("some codes are not finite", *UNSUPERVISED)
        return
    values = total_correlation(mean, subject.recipe.active_threshold), mutual_information_nats(mean, log_variance)
    findings.add(dict(zip(UNSUPERVISED, values, strict=True)))
