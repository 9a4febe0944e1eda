"""How good samples of images and vectors are: whether they look like real rows, and whether they vary as much.

Samples and real rows are compared by the features of a small classifier that is trained on the training rows.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from research.clock import Clock
from research.compiling import compiled
from research.data.examples import Examples, Facts
from research.evaluation.baselines import MASKED
from research.evaluation.judge import Judge, fit, labels, samples, subset
from research.evaluation.rows import whole
from research.evaluation.subject import BATCH, Findings, Subject
from research.models.abilities import Decodes, Encodes, Samples, able
from research.networks.dense import DenseStack
from research.ranges import Size
from research.runs import batches
from research.tree import build, from_data, spec

PRECISION_NEIGHBORS, COVERAGE_NEIGHBORS = 3, 5  # k, as in the two papers
COMPONENTS, CODES = 10, 10_000  # of the mixture, and most codes that it is fitted to
BLOCK = 2048  # rows whose distances to all others are in memory at a time
SEED = 0  # the same for every run: of the classifier and of which rows are taken
HIDDEN = 128  # units of the classifier's layer below the features
JUDGE = Judge(units=64, steps=2000, rate=1e-3, batch=128)  # the same for every data set
Features = Callable[[np.ndarray], np.ndarray]
NAMES = (
    *("sample_precision", "sample_recall", "density", "coverage", "frechet_distance"),
    "sampling_classifier_accuracy",
)


def scores(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """How well generated rows stand for real ones, by their features [N, D] and [M, D].

    B_k(x) is the ball around x that reaches to its k-th nearest other row of the same kind.

    `sample_precision`: share of the generated rows that lie in B_3 of some real row (Kynkäänniemi et al. 2019).
    `sample_recall`: share of the real rows that lie in B_3 of some generated row (same paper).
    `density`: mean over the generated rows of the number of real rows whose B_5 they lie in, over 5 (Naeem et al.
      2020); about 1 where both are alike, more where samples lie where real rows are dense.
    `coverage`: share of the real rows whose B_5 holds a generated row (same paper); where N = M rows are alike,
      1 - prod_{i=1..5} (N - i) / (2 N - i), about .97.
    `frechet_distance`: see the function of this name.
    """
    of_real, of_fake = radii(real, (PRECISION_NEIGHBORS, COVERAGE_NEIGHBORS)), radii(fake, (PRECISION_NEIGHBORS,))
    precise, _ = occupied(fake, real, of_real[0])
    recalled, _ = occupied(real, fake, of_fake[0])
    dense, covered = occupied(fake, real, of_real[1])
    return {
        "sample_precision": float((precise > 0).mean()),
        "sample_recall": float((recalled > 0).mean()),
        "density": float(dense.mean() / COVERAGE_NEIGHBORS),
        "coverage": float((covered > 0).mean()),
        "frechet_distance": frechet_distance(real, fake),
    }


def radii(rows: np.ndarray, neighbors: tuple[int, ...]) -> np.ndarray:
    """Distance of every row [N, D] to its k-th nearest other row, for every k of `neighbors`, [number of k, N]."""
    ranks = list(neighbors)  # the row itself has rank 0
    blocks = [np.partition(distances, ranks, axis=1)[:, ranks] for distances in _distances(rows, rows)]
    return np.concatenate(blocks).T


def occupied(rows: np.ndarray, centers: np.ndarray, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of balls that every row lies in, [N], and the number of rows in every ball, [M].

    Args:
      rows: [N, D].
      centers, radius: of the balls, [M, D] and [M]; a ball includes its border.
    """
    by_row, by_ball = [], np.zeros(len(centers), int)
    for distances in _distances(rows, centers):
        inside = distances <= radius
        by_row.append(inside.sum(1))
        by_ball += inside.sum(0)
    return np.concatenate(by_row), by_ball


def _distances(rows: np.ndarray, others: np.ndarray) -> Iterator[np.ndarray]:
    """Euclidean distances [n, M] of blocks of the rows to all others.

    `cdist` squares differences, so that equal rows have distance 0 and equal distances stay equal. Expanding the square
    into matrix products would round them apart.
    """
    from scipy.spatial.distance import cdist

    for start in range(0, len(rows), BLOCK):
        yield cdist(rows[start : start + BLOCK].astype(np.float64), others.astype(np.float64))


def frechet_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Fréchet distance of the Gaussians with the moments of two samples [N, D] and [M, D].

    |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) with means m and covariances C (Dowson and Landau, 1982). It is not called
    FID, because that name belongs to the features of one published network. It is biased upward at few rows, equally at
    equal numbers.
    """
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    covariance, fake_covariance = (np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (real, fake))
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    # C C' has the eigenvalues of the symmetric matrix root C' root
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ fake_covariance @ root), 0)).sum()
    distance = np.square(real.mean(0) - fake.mean(0)).sum() + np.trace(covariance) + np.trace(fake_covariance)
    return float(max(distance - 2 * shared, 0.0))


@spec
class Classifier:
    """Classes of flattened rows by two hidden layers: f = relu(A relu(B x' + b) + a), logits W f + c.

    x' is x less its mean over the training rows, over the root of its features' mean variance there, so that the unit
    of the data does not matter.

    Attributes:
      hidden: units of the first hidden layer.
      units: units of the second hidden layer, the features f.
      classes: number of classes, from the data.
    """

    hidden: Size
    units: Size
    classes: int = from_data(0)

    def bind(self, facts: Facts) -> "Classifier":
        """The classifier of these data."""
        return dataclasses.replace(self, classes=facts.classes)

    def _stack(self, hidden_dims: tuple[int, ...], outputs: int) -> DenseStack:
        return DenseStack(hidden_dims, outputs, "relu")

    def init(self, key: Key[Array, ""], train: Examples) -> dict[str, Any]:
        """Fresh parameters, and the moments of the training rows."""
        x = jnp.asarray(train.x).reshape(len(train), -1)
        body_key, head_key = jax.random.split(key)
        spread = jnp.sqrt(x.var(0).mean())
        return {
            "shift": x.mean(0),
            "scale": 1 / jnp.where(spread > 0, spread, 1.0),
            "body": self._stack((self.hidden,), self.units).init(body_key, x[:1])["params"],
            "head": self._stack((), self.classes).init(head_key, jnp.zeros((1, self.units)))["params"],
        }

    def features(self, params: Any, x: Float[Array, "B ..."]) -> Float[Array, "B units"]:
        """f of rows [B, ...]."""
        shift, scale = jax.lax.stop_gradient((params["shift"], params["scale"]))  # moments are not trained
        x = (x.reshape(x.shape[0], -1) - shift[None]) * scale
        return jax.nn.relu(self._stack((self.hidden,), self.units).apply({"params": params["body"]}, x))  # type: ignore

    def _scores(self, params: Any, batch: Examples) -> dict[str, Float[Array, " B"]]:
        logits: Any = self._stack((), self.classes).apply({"params": params["head"]}, self.features(params, batch.x))
        label: Int[Array, " B"] = jnp.asarray(batch.label)
        loss = -jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], axis=1)[:, 0]
        return {"loss": loss, "accuracy": (logits.argmax(-1) == label).astype(jnp.float32)}

    def loss(
        self, params: Any, batch: Examples, key: Key[Array, ""], clock: Clock
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Cross-entropy in nats, mean over the batch."""
        del key, clock
        return self._scores(params, batch)["loss"].mean(), {}

    def evaluate(self, params: Any, batch: Examples, keys: Key[Array, " B"]) -> dict[str, Float[Array, " B"]]:
        """Cross-entropy in nats, and 1 for a right answer, of every example."""
        del keys  # nothing is drawn
        return self._scores(params, batch)


@compiled()
def _features(model: Classifier, params: Any, x: jax.Array) -> jax.Array:
    return model.features(params, x)


def referee(train: Examples, test: Examples, facts: Facts, size: int) -> tuple[Features, float, np.ndarray]:
    """Train the classifier on the training rows and their labels.

    Returns:
      A function from rows [N, ...] to their features [N, 64], the accuracy on the test rows, and the features of
      `size` of them. All runs on the data share these.

    Raises:
      ValueError: the rows are lazy, and too many.
    """
    model = build({"hidden": HIDDEN, "units": JUDGE.units}, Classifier).bind(facts)
    train, test = (Examples(x=whole(part.x), label=np.asarray(part.label)) for part in (train, test))
    params = fit(model, train, JUDGE, SEED)
    keys = jax.random.split(jax.random.key(SEED), BATCH)  # nothing is drawn
    right = batches.over(lambda batch, _: batches.evaluate(model, params, batch, keys)["accuracy"], test, BATCH)
    features = lambda x: batches.over(lambda batch, _: _features(model, params, batch), x, BATCH)
    return features, float(right.mean()), features(subset(test.x, size, SEED))


def mixture(codes: np.ndarray) -> Any:
    """scikit-learn's `GaussianMixture` of 10 components with full covariances, fitted to codes [N, L].

    EM starts from k-means. The variances get a ridge of 1e-6 of the mean variance of the codes.

    Raises:
      ValueError: all codes are equal.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    codes = subset(codes, CODES, SEED).astype(np.float64)
    ridge, different = 1e-6 * codes.var(0).mean(), len(np.unique(codes, axis=0))
    if different < 2 or ridge == 0:
        raise ValueError("all codes are equal")
    fitted = GaussianMixture(min(COMPONENTS, different), reg_covar=ridge, random_state=SEED)
    # one thread, because several would wait for each other longer than they work
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a hundred steps are enough for a density
        return fitted.fit(codes)


def drawn(subject: Subject, number: int) -> np.ndarray:
    """Samples of a model, [number, ...]: its own, or decoded draws from a density that is fitted to its training codes.

    The density of a model that only encodes and decodes is the `mixture` (ex-post density estimation: Ghosh et al.
    2020). Conditional models get labels as they occur in the training rows. A sample is E[x | z]; for a binary
    likelihood it is a grey image, although rows are 0 and 1.

    Raises:
      ValueError: the model cannot sample, or samples or codes are not finite, or all codes are equal.
    """
    model = subject.model
    if able(model, Samples):
        return samples(subject, number)
    if not able(model, Encodes) or not able(model, Decodes):
        raise ValueError("this model neither samples nor decodes codes")
    codes = subject.codes("train")
    if not np.isfinite(codes).all():
        raise ValueError("some codes are not finite")
    z = mixture(codes).sample(number)[0].astype(np.float32)
    inputs = {"z": z, "label": labels(subject, number, np.random.default_rng(subject.seed))}
    decode = lambda batch, _: batches.decode(model, subject.params, batch["z"], batch["label"])
    decoded = batches.over(decode, inputs, BATCH)
    if not np.isfinite(decoded).all():
        raise ValueError("some samples are not finite")
    return decoded


def study(subject: Subject, findings: Findings) -> None:
    """Add scores of samples against equally many test rows, and of training rows (`baseline/real_vs_real/...`).

    The classifier has seen no test row; `sampling_classifier_accuracy` on all test rows tells how good its features
    are. The recipe has refused sequences, few rows and data without classes before the training.
    """
    recipe, train, test = subject.recipe, subject.train, subject.test
    size = min(recipe.sampling_rows or len(test), len(train), len(test))
    try:
        if train.masked or test.masked:
            raise ValueError(MASKED)
        if train.label is None or test.label is None or len(np.unique(np.asarray(train.label))) < 2:
            raise ValueError("the training rows have no labels of two classes or more to train a classifier on")
        fake = drawn(subject, size)
        trained = lambda: referee(train, test, subject.facts, size)
        features, accuracy, real = subject.once(("sampling", size), trained)
    except ValueError as error:
        findings.refuse(str(error), *(f"test/{name}" for name in NAMES))
        return
    findings.add(scores(real, features(fake)), "test/")
    findings.add({"test/sampling_classifier_accuracy": accuracy})
    if recipe.baselines:
        of_training = lambda: scores(real, features(subset(train.x, size, SEED)))
        findings.add(subject.once(("sampling real_vs_real", size), of_training), "baseline/real_vs_real/")
