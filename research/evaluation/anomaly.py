"""How well scores tell anomalous rows from normal ones, and scores that need no training."""

from typing import Any

import jax
import numpy as np

from research.data.examples import Examples
from research.evaluation.baselines import Components, fitted_components
from research.evaluation.subject import BATCH, Findings, Subject
from research.runs import batches


def auroc(score: np.ndarray, anomalous: np.ndarray) -> float:
    """Area under the ROC curve: the chance that an anomalous row scores above a normal one, equal scores count half.

    Args:
      score: [N], larger means more anomalous.
      anomalous: [N], true or false (1 or 0).

    Raises:
      ValueError: there is none: scores that are not finite, or rows of one kind only.
    """
    from sklearn.metrics import roc_auc_score

    _check(score, "scores")
    kinds = np.unique(np.asarray(anomalous).astype(bool))
    if len(kinds) < 2:
        raise ValueError(f"{'no normal' if kinds.all() else 'no anomalous'} rows")
    return float(roc_auc_score(np.asarray(anomalous).astype(bool), score))


def threshold(validation_score: np.ndarray, share: float) -> float:
    """The score that the given share of (normal) validation rows does not exceed, an observed one.

    The smallest score t with mean(score <= t) >= share, so that at most 1 - share of the validation rows lie above it.

    Args:
      validation_score: [N].
      share: 0 to 1; .95 expects one false alarm in twenty normal rows.

    Raises:
      ValueError: no rows, or scores that are not finite.
    """
    _check(validation_score, "validation scores")
    return float(np.quantile(validation_score, share, method="inverted_cdf"))


def rates(score: np.ndarray, anomalous: np.ndarray, level: float) -> dict[str, float]:
    """What happens if rows [N] with scores above a level are called anomalous.

    Returns:
      `precision`: share of the called rows that are anomalous; `recall`: share of the anomalous rows that are called;
      `false_positive_rate`: share of the normal rows that are called. NaN where there are no such rows.

    Raises:
      ValueError: no rows, or scores that are not finite.
    """
    _check(score, "scores")
    called, anomalous = np.asarray(score) > level, np.asarray(anomalous).astype(bool)

    def share(part: np.ndarray, whole: np.ndarray) -> float:
        return float((part & whole).sum() / whole.sum()) if whole.any() else float("nan")

    return {
        "precision": share(anomalous, called),
        "recall": share(called, anomalous),
        "false_positive_rate": share(called, ~anomalous),
    }


def mean_distance(fitted: Components, x: np.ndarray) -> np.ndarray:
    """Mean squared distance per element of rows [N, ...] to the training mean, [N]."""
    flat = np.asarray(x).reshape(len(x), -1)
    return np.square(flat - fitted.mean).mean(1)


def residual(fitted: Components, x: np.ndarray, latent_dim: int) -> np.ndarray:
    """Mean squared error per element of rows [N, ...] against their first L principal components, [N].

    Raises:
      ValueError: fewer components than latents.
    """
    if latent_dim > fitted.directions.shape[1]:
        raise ValueError(f"the data has only {fitted.directions.shape[1]} principal components, fewer than latents")
    flat = np.asarray(x).reshape(len(x), -1)
    return np.square(flat - fitted.decode(fitted.encode(x, latent_dim))).mean(1)


def _check(score: np.ndarray, what: str) -> None:
    if not np.size(score):
        raise ValueError(f"no {what}")
    if not np.isfinite(score).all():
        raise ValueError(f"some {what} are not finite")


def study(subject: Subject, findings: Findings) -> None:
    """How well the model's loss tells anomalous test rows from normal ones, with a threshold from validation rows."""
    share = subject.recipe.anomaly_share
    if share is None or not subject.facts.anomaly or not subject.reconstructs:
        return
    anomalous = np.asarray(subject.test.label) > 0
    names = ("test/auroc", "test/precision", "test/recall", "test/false_positive_rate")
    key = jax.random.fold_in(subject.key, 3)

    def losses(part: str) -> np.ndarray:
        def function(batch: Examples, rows: np.ndarray) -> Any:
            return batches.evaluate(subject.model, subject.params, batch, batches.row_keys(key, rows))["loss"]

        return batches.over(function, subject.parts[part], BATCH)

    try:
        level = threshold(losses("validation"), share)
        score = losses("test")
        findings.add({"auroc": auroc(score, anomalous), **rates(score, anomalous, level)}, "test/")
    except ValueError as error:
        findings.refuse(str(error), *names)
        return
    if subject.recipe.baselines:
        if subject.test.mask is not None:
            reason = "rows are padded or have missing values"
            findings.refuse(reason, "baseline/mean_distance/auroc", "baseline/pca_residual/auroc")
            return
        try:
            fitted = fitted_components(subject)
        except ValueError as error:
            findings.refuse(str(error), "baseline/mean_distance/auroc", "baseline/pca_residual/auroc")
            return
        x, size = np.asarray(subject.test.x), subject.model.latent_dim
        findings.add({"baseline/mean_distance/auroc": auroc(mean_distance(fitted, x), anomalous)})
        if size <= fitted.directions.shape[1]:
            findings.add({"baseline/pca_residual/auroc": auroc(residual(fitted, x, size), anomalous)})
