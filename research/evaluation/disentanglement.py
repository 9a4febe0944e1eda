"""How well single dimensions of a code hold single known factors.

Codes are [N, L] floats and factors [N, F] integers. A factor that has one value only in these rows is left out. All
draws come from one seed (`votes.SEED`), and the forest and the classifiers are scikit-learn's, whose version is in
`result.json`.

Order and unit of the dimensions do not change a score, apart from rounding and from which of two equal splits or votes
comes first. The order of the rows does not change `mig` and `modularity`; in the other scores it decides which rows
are drawn.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from research.evaluation.baselines import MASKED, encoded, fitted_components
from research.evaluation.subject import Findings, Subject
from research.evaluation.votes import SEED, beta_vae_score, factor_vae_score, generator_of, halves, varied
from research.models.abilities import HasPosterior, able

BINS = 20  # of a code dimension, as in Locatello et al. (2019)
TREES, DEPTH, LEAF = 10, 12, 2  # of a forest: how many trees, most splits above a leaf, fewest rows of a leaf
FEWEST, MOST = 100, 5000  # rows that the scores need at least, and use at most
NAMES = (
    *("mig", "dci_disentanglement", "dci_completeness", "dci_informativeness"),
    *("sap", "modularity", "factor_vae_score", "beta_vae_score"),
)


def discretize(codes: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Bins of equal width over the range of every dimension, [N, L] integers from 0; one bin where it is constant."""
    codes = codes.astype(np.float64)
    low, width = codes.min(0), np.ptp(codes, 0) / bins
    return np.minimum((codes - low) / np.where(width > 0, width, 1), bins - 1).astype(np.int64)


def mutual_information(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mutual information of every binned dimension with every factor, [L, F], in nats.

    I = sum p(a, b) log p(a, b) / (p(a) p(b)), of the observed shares. The shares of few rows are uneven by chance,
    which adds about (A - 1)(B - 1) / 2N for A bins and B values.
    """
    from sklearn.metrics import mutual_info_score

    table = np.array([[mutual_info_score(z, v) for v in values.T] for z in discretize(codes).T])
    return np.where(table > 1e-12, table, 0)  # what is smaller is rounding


def mig(codes: np.ndarray, factors: np.ndarray) -> float:
    """Mutual information gap: mean over factors of (I(z_1; v) - I(z_2; v)) / H(v) (Chen et al. 2018), 0 to 1.

    z_1 and z_2 are the dimensions with most and second most information about the factor v; a single dimension has a
    gap of all its information. Dimensions are cut into 20 bins of equal width. So an outlier, or a map that squeezes
    several values of a factor into one bin, costs information. A factor of K > 20 values has at most log 20 / log K.
    """
    from scipy.stats import entropy

    values = varied(factors)
    of_factors = np.array([entropy(np.bincount(column)) for column in values.T])
    return float((_gap(mutual_information(codes, values), np.zeros(len(of_factors))) / of_factors).mean())


def modularity(codes: np.ndarray, factors: np.ndarray) -> float:
    """Mean over dimensions of 1 - sum_f I_f^2 / (I_max^2 (F - 1)), f not the largest (Ridgeway & Mozer 2018), 0 to 1.

    I are the mutual informations of `mig`. A constant dimension scores 0, as in Locatello et al. (2019). A dimension of
    noise does not score 0: its informations are those of chance, which grow with the number of values of a factor.
    """
    squares = np.square(mutual_information(codes, varied(factors)))
    largest = squares.max(1)
    others = (squares.sum(1) - largest) / (np.where(largest > 0, largest, 1) * (squares.shape[1] - 1))
    return float(np.where(largest > 0, 1 - others, 0).mean())


def dci(codes: np.ndarray, factors: np.ndarray, seed: int = SEED) -> dict[str, float]:
    """Disentanglement, completeness and informativeness (Eastwood & Williams 2018), 0 to 1.

    R[l, f] is the importance of dimension l to a forest that predicts factor f; it sums to 1 for every factor.
    Disentanglement: mean over dimensions of 1 - H_F(R[l, :]), weighted by sum_f R[l, f]; H_F is the entropy to base F
    of the normalized row. Completeness: mean over factors of 1 - H_L(R[:, f]); 1 for a single dimension, and 0 for a
    factor that no dimension says anything about. Informativeness: mean over factors of the forest's accuracy on the
    half of the rows that it has not seen; a code of noise scores at most about the share of the commonest value.

    The forest is scikit-learn's `RandomForestClassifier`: 10 trees on bootstraps of the rows, depth at most 12, leaves
    of two rows or more, importance by the decrease of the Gini impurity. Every split looks at all dimensions
    (`max_features=None`), so that a dimension that holds a factor alone gets all of its importance. Equal dimensions
    share importance about equally, since scikit-learn draws which of two equal splits it takes.

    Departures: the paper has lasso and a forest of validated depth, with a regression error in place of the accuracy.
    `disentanglement_lib` has gradient boosting and weights all factors alike.
    """
    from sklearn.ensemble import RandomForestClassifier

    codes, values = codes.astype(np.float64), varied(factors)
    fitted, scored = halves(len(codes), seed)
    importance, accuracy = [], []
    for column in values.T:
        settings: Any = {"max_depth": DEPTH, "min_samples_leaf": LEAF, "max_features": None}
        forest = RandomForestClassifier(TREES, random_state=seed, **settings)
        forest.fit(codes[fitted], column[fitted])
        importance.append(forest.feature_importances_)
        accuracy.append(forest.score(codes[scored], column[scored]))
    table = np.stack(importance, 1)
    weight = table.sum(1)
    return {
        "dci_disentanglement": float((_concentration(table) * weight).sum() / weight.sum()) if weight.any() else 0.0,
        "dci_completeness": float(_concentration(table.T).mean()),
        "dci_informativeness": float(np.mean(accuracy)),
    }


def _concentration(table: np.ndarray) -> np.ndarray:
    """1 - entropy to base m of every row of [n, m]: 1 for a row of one entry, 0 for a row of zeros."""
    from scipy.stats import entropy

    empty = table.sum(1) == 0
    return np.where(empty, 0, 1 - entropy(table + empty[:, None], base=max(table.shape[1], 2), axis=1))


def sap(codes: np.ndarray, factors: np.ndarray, seed: int = SEED) -> float:
    """Separated attribute predictability: mean over factors of the gap of the two best accuracies (Kumar et al. 2018).

    A dimension predicts the value of a factor with the largest p(bin | value) on one half of the rows, in bins of equal
    width: 20, or K where the factor has K > 20 values. Its accuracy is the balanced one on the other half: the mean
    over values of the share of rows that are predicted right. Chance is 1 / K: a lower accuracy counts as chance, and
    chance is the second accuracy of a single dimension. So the score lies between 0 and the mean of 1 - 1 / K.

    Departure: the paper has a linear support vector machine, which cannot tell a middle value from those on its sides.
    """
    values, parts = varied(factors), halves(len(codes), seed)
    accuracy = np.empty((codes.shape[1], values.shape[1]))
    for number, value in enumerate(values.T):
        bins = max(BINS, int(value.max()) + 1)
        accuracy[:, number] = [_balanced_accuracy(z, value, bins, *parts) for z in discretize(codes, bins).T]
    chance = 1 / (values.max(0) + 1)
    return float(_gap(np.maximum(accuracy, chance), chance).mean())


def _balanced_accuracy(
    binned: np.ndarray, value: np.ndarray, bins: int, fitted: np.ndarray, scored: np.ndarray
) -> float:
    from sklearn.metrics import recall_score

    counts = np.zeros((bins, int(value.max()) + 1))
    np.add.at(counts, (binned[fitted], value[fitted]), 1)
    predicted = (counts / np.maximum(counts.sum(0), 1)).argmax(1)[binned[scored]]
    return float(recall_score(value[scored], predicted, labels=np.unique(value[scored]), average="macro"))


def _gap(table: np.ndarray, absent: np.ndarray) -> np.ndarray:
    """Largest less second largest entry of every column of [L, F]; `absent` is the second of a single dimension."""
    ordered = np.sort(table, axis=0)[::-1]
    return ordered[0] - (ordered[1] if len(table) > 1 else absent)


def supervised(codes: np.ndarray, factors: np.ndarray, threshold: float = 0.0) -> dict[str, float]:
    """All scores of codes [N, L] against factors [N, F]; `threshold` is that of `factor_vae_score`.

    Raises:
      ValueError: some codes are not finite, there are fewer than 100 rows, or fewer than two factors vary or have
        values that several rows share.
    """
    if not np.isfinite(codes).all():
        raise ValueError("some codes are not finite")
    if len(codes) < FEWEST:
        raise ValueError(f"fewer than {FEWEST} rows")
    return {
        "factor_vae_score": factor_vae_score(codes, factors, threshold),
        "beta_vae_score": beta_vae_score(codes, factors),
        **dci(codes, factors),
        **{score.__name__: score(codes, factors) for score in (mig, sap, modularity)},
    }


def study(subject: Subject, findings: Findings) -> None:
    """Add the scores of the test codes against known discrete factors, and those of three other codes.

    The scores are of at most 5,000 test rows, drawn at random. Beside them stand the scores of Gaussian noise
    (`baseline/random_code/...`, the floor), of as many principal components (`baseline/pca/...`), and of the factors
    themselves as a code (`baseline/perfect_code/...`, the ceiling), all on the same rows. In `factor_vae_score` a
    dimension of a posterior counts if the variance of its mean is above `active_threshold`; a dimension of another code
    counts if it varies at all.
    """
    recipe, codes = subject.recipe, subject.codes("test")
    size, rows = codes.shape[1], np.sort(generator_of(SEED).permutation(len(codes))[:MOST])
    factors = np.asarray(subject.test.factors)[rows]

    def report(prefix: str, scores: Callable[[], dict[str, float]]) -> None:
        try:
            findings.add(scores(), prefix)
        except ValueError as error:
            findings.refuse(str(error), *(prefix + name for name in NAMES))

    threshold = recipe.active_threshold if able(subject.model, HasPosterior) else 0.0
    report("test/", lambda: supervised(codes[rows], factors, threshold))
    if not recipe.baselines:
        return
    codes_of_baselines = {
        "random_code": lambda: generator_of(SEED).standard_normal((len(rows), size)),
        "pca": lambda: _components(subject, size)[rows],
        "perfect_code": lambda: varied(factors).astype(np.float64),
    }
    for name, code in codes_of_baselines.items():
        key = ("disentanglement", name, None if name == "perfect_code" else size)
        report(f"baseline/{name}/", lambda key=key, code=code: subject.once(key, lambda: supervised(code(), factors)))


def _components(subject: Subject, size: int) -> np.ndarray:
    """Principal components of the test rows, [N, L].

    Raises:
      ValueError: there are none, or fewer than L.
    """
    if subject.train.masked:
        raise ValueError(MASKED)
    return encoded(fitted_components(subject), subject.test.x, size)
