"""How well a model's loss tells anomalous rows from normal ones, and three scores that need no training."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from research.evaluation.baselines import MASKED, Components, fitted_components
from research.evaluation.rows import whole
from research.evaluation.subject import Findings, Subject
from research.models.abilities import latent_dim_of

AREAS = ("auroc", "auprc")
NAMES = (*(f"test/{name}" for name in AREAS), "test/precision", "test/recall", "test/false_positive_rate")
METHODS = ("mean_distance", "pca_residual", "knn_distance")


def auroc(score: np.ndarray, anomalous: np.ndarray) -> float:
    """Area under the ROC curve: the chance that an anomalous row scores above a normal one; equal scores count half.

    Args:
      score: [N]; larger means more anomalous.
      anomalous: [N], true or false (1 or 0).

    Raises:
      ValueError: there are no rows of one of the kinds, or some scores are not finite.
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(_kinds(score, anomalous), score))


def auprc(score: np.ndarray, anomalous: np.ndarray) -> float:
    """Area under the curve of precision over recall, as average precision: sum_n (R_n - R_(n-1)) P_n.

    P_n and R_n are precision and recall if the rows with the n highest different scores raise an alarm. Scores that say
    nothing have the share of anomalous rows.

    Args:
      score: [N]; larger means more anomalous.
      anomalous: [N], true or false (1 or 0).

    Raises:
      ValueError: there are no rows of one of the kinds, or some scores are not finite.
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(_kinds(score, anomalous), score))


def areas(score: np.ndarray, anomalous: np.ndarray) -> dict[str, float]:
    """Both areas of scores [N]; see `auroc` and `auprc`."""
    return {"auroc": auroc(score, anomalous), "auprc": auprc(score, anomalous)}


def threshold(validation_score: np.ndarray, share: float) -> float:
    """The smallest observed score t such that the given share of (normal) validation rows score at most t.

    So at most 1 - share of the validation rows lie above it.

    Args:
      validation_score: [N].
      share: 0 to 1; .95 expects one false alarm in twenty normal rows.

    Raises:
      ValueError: there are no rows, or some scores are not finite.
    """
    _check(validation_score, "validation scores")
    return float(np.quantile(validation_score, share, method="inverted_cdf"))


def rates(score: np.ndarray, anomalous: np.ndarray, level: float) -> dict[str, float]:
    """Rates of right and false alarms, if every row whose score [N] is above a level raises an alarm.

    Returns:
      `precision`: share of the alarms that are anomalous; `recall`: share of the anomalous rows that raise an alarm;
      `false_positive_rate`: share of the normal rows that raise one. A rate is NaN where there are no such rows.

    Raises:
      ValueError: there are no rows, or some scores are not finite.
    """
    from sklearn.metrics import precision_score, recall_score

    _check(score, "scores")
    alarm, anomalous = np.asarray(score) > level, np.asarray(anomalous).astype(bool)
    undefined: Any = np.nan
    return {
        "precision": float(precision_score(anomalous, alarm, zero_division=undefined)),
        "recall": float(recall_score(anomalous, alarm, zero_division=undefined)),
        "false_positive_rate": float(recall_score(~anomalous, alarm, zero_division=undefined)),
    }


def residual(fitted: Components, x: np.ndarray, latent_dim: int) -> np.ndarray:
    """Mean squared error per element of the reconstruction of rows [N, ...] by L principal components, [N].

    Without components it is the mean squared distance to the training mean.

    Raises:
      ValueError: there are fewer than L components.
    """
    flat = np.asarray(x).reshape(len(x), -1)
    return np.square(flat - fitted.decode(fitted.encode(x, latent_dim))).mean(1)


def neighbor_distance(train: np.ndarray, x: np.ndarray, neighbors: int) -> np.ndarray:
    """Euclidean distance of rows [N, ...] to their k-th nearest training row [M, ...], [N].

    Raises:
      ValueError: there are fewer than k training rows.
    """
    from sklearn.neighbors import NearestNeighbors

    if neighbors > len(train):
        raise ValueError(f"there are only {len(train)} training rows, fewer than neighbors")
    fitted = NearestNeighbors(n_neighbors=neighbors).fit(train.reshape(len(train), -1))
    return fitted.kneighbors(x.reshape(len(x), -1))[0][:, -1]


def study(subject: Subject, findings: Findings) -> None:
    """Add how well the loss tells anomalous test rows from normal ones, with a threshold from the validation rows."""
    anomalous = np.asarray(subject.test.label) > 0
    key = jax.random.fold_in(subject.key, 3)
    share: Any = subject.recipe.anomaly_share  # with null, this question is not asked
    try:
        level = threshold(subject.evaluate(subject.parts["validation"], key)["loss"], share)
        score = subject.evaluate(subject.test, key)["loss"]
        findings.add(areas(score, anomalous) | rates(score, anomalous, level), "test/")
    except ValueError as error:
        findings.refuse(str(error), *NAMES)
        return
    if subject.recipe.baselines:
        _study_baselines(subject, findings, anomalous)


def _study_baselines(subject: Subject, findings: Findings, anomalous: np.ndarray) -> None:
    for method in METHODS:
        try:
            if subject.test.masked:
                raise ValueError(MASKED)
            findings.add(_once(subject, method, anomalous), f"baseline/{method}/")
        except ValueError as error:
            findings.refuse(str(error), *(f"baseline/{method}/{name}" for name in AREAS))


def _once(subject: Subject, method: str, anomalous: np.ndarray) -> dict[str, float]:
    """The areas of a method, computed once for all runs on these rows and with these sizes."""
    if method == "knn_distance":
        neighbors = subject.recipe.neighbors
        score: Callable[[], np.ndarray] = lambda: neighbor_distance(
            whole(subject.train.x), whole(subject.test.x), neighbors
        )
        return subject.once((method, neighbors), lambda: areas(score(), anomalous))
    latent_dim = 0 if method == "mean_distance" else latent_dim_of(subject.model)
    if latent_dim is None:
        raise ValueError("the model does not say the size of its codes (latent_dim)")
    fitted, x = fitted_components(subject), subject.test.x
    return subject.once((method, latent_dim), lambda: areas(residual(fitted, x, latent_dim), anomalous))


def _kinds(score: np.ndarray, anomalous: np.ndarray) -> np.ndarray:
    """Which rows are anomalous, [N] bool, once it is sure that scores can be compared with it."""
    _check(score, "scores")
    anomalous = np.asarray(anomalous).astype(bool)
    if anomalous.all() or not anomalous.any():
        raise ValueError("no normal rows" if anomalous.all() else "no anomalous rows")
    return anomalous


def _check(score: np.ndarray, name: str) -> None:
    if not np.size(score):
        raise ValueError(f"no {name}")
    if not np.isfinite(score).all():
        raise ValueError(f"some {name} are not finite")
