"""How good samples are of images and vectors: as likely as real rows, and as varied, on features of a classifier."""

import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from research.clock import Clock
from research.data.examples import Examples, Facts
from research.evaluation.judge import BATCH, Judge, fit, labels, samples, some
from research.evaluation.subject import Findings, Subject
from research.models.abilities import Samples, able
from research.networks.dense import DenseStack
from research.ranges import Size
from research.runs import batches
from research.tree import build, from_data, spec

SEED = 0  # of everything that must not differ between runs: the classifier, the mixture, which rows are taken
HIDDEN = 128  # units below the features
JUDGE = Judge(units=64, steps=2000, rate=1e-3, batch=128)  # the same classifier for every data set
PRECISION_NEIGHBORS, COVERAGE_NEIGHBORS = 3, 5  # k, as in the two papers
COMPONENTS, CODES = 10, 10_000  # of the mixture, and most codes that it is fitted to
FEWEST = 20  # rows of a part
BLOCK = 2048  # rows whose distances to all others are in memory at a time
NAMES = (
    *("sample_precision", "sample_recall", "density", "coverage", "frechet_distance"),
    "sampling_classifier_accuracy",
)


@spec
class Classifier:
    """Classes of flattened rows by two hidden layers: f = relu(A relu(B x' + b) + a), logits W f + c.

    x' is x less its mean over the training rows, over the root of its features' mean variance there, so that the unit
    of the data does not matter.

    Attributes:
      hidden: units of the first hidden layer.
      units: of the second, the features f.
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
        shift, scale = jax.lax.stop_gradient((params["shift"], params["scale"]))  # moments, which nothing trains
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
        """Cross-entropy in nats, and whether the answer is right, of every example."""
        del keys  # nothing is drawn
        return self._scores(params, batch)


def scores(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """How well generated rows stand for real ones, by their features [N, D] and [M, D].

    With B_k(x) the ball around x that reaches to its k-th nearest other row of the same kind:

    `sample_precision`: share of the generated rows that lie in B_3 of any real row (Kynkäänniemi et al. 2019).
    `sample_recall`: share of the real rows that lie in B_3 of any generated row (same paper).
    `density`: mean over the generated rows of the number of real rows whose B_5 they lie in, over 5 (Naeem et al.
      2020); about 1 where both are alike, more where samples keep to where real rows are dense.
    `coverage`: share of the real rows whose B_5 holds any generated row (same paper); where N = M rows are alike,
      1 - prod_{i=1..5} (N - i) / (2 N - i), about .97.
    `frechet_distance`: see there.
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
    places = list(neighbors)  # the row itself is at place 0
    found = [np.partition(distances, places, axis=1)[:, places] for distances in _distances(rows, rows)]
    return np.concatenate(found).T


def occupied(rows: np.ndarray, centers: np.ndarray, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In how many balls every row lies [N], and how many rows lie in every ball [M].

    Args:
      rows: [N, D].
      centers, radius: of the balls, [M, D] and [M]; a border belongs to its ball.
    """
    by_row, by_ball = [], np.zeros(len(centers), int)
    for distances in _distances(rows, centers):
        inside = distances <= radius
        by_row.append(inside.sum(1))
        by_ball += inside.sum(0)
    return np.concatenate(by_row), by_ball


def _distances(one: np.ndarray, other: np.ndarray) -> Iterator[np.ndarray]:
    """Euclidean distances [n, M] of a few rows of `one` at a time to all of `other`.

    From differences, not from products: equal rows have distance 0 and order does not matter, so that ties are ties.
    """
    from scipy.spatial.distance import cdist

    for start in range(0, len(one), BLOCK):
        yield cdist(one[start : start + BLOCK].astype(np.float64), other.astype(np.float64))


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Frechet distance of the Gaussians with the moments of two samples [N, D] and [M, D].

    |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) with means m and covariances C (Dowson and Landau, 1982). The name FID
    belongs to the features of one published network. It is biased upward at few rows, equally at equal numbers.
    """
    (mean, covariance), (other_mean, other_covariance) = (
        (rows.mean(0), np.atleast_2d(np.cov(rows, rowvar=False)))
        for rows in (one.astype(np.float64), other.astype(np.float64))
    )
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    # C C' has the eigenvalues of the symmetric root C' root
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other_covariance @ root), 0)).sum()
    distance = np.square(mean - other_mean).sum() + np.trace(covariance) + np.trace(other_covariance) - 2 * shared
    return float(max(distance, 0.0))


def mixture(codes: np.ndarray) -> Any:
    """A mixture of 10 Gaussians with full covariances, fitted by EM from k-means to codes [N, L] (`GaussianMixture`).

    The variances get a ridge of 1e-6 of the mean variance of the codes.

    Raises:
      ValueError: codes that are all equal.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    codes = some(codes, CODES, SEED).astype(np.float64)
    ridge, different = 1e-6 * codes.var(0).mean(), len(np.unique(codes, axis=0))
    if different < 2 or ridge == 0:
        raise ValueError("all codes are equal")
    fitted = GaussianMixture(min(COMPONENTS, different), reg_covar=ridge, random_state=SEED)
    # one thread: several wait for each other longer than they work
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a hundred steps are enough for a density
        return fitted.fit(codes)


def drawn(subject: Subject, number: int) -> np.ndarray:
    """Samples of a model, [number, ...]: its own, or of a density that is fitted to its training codes.

    A model that only encodes and decodes is sampled by decoding draws from `mixture` of its training codes (ex-post
    density estimation: Ghosh et al. 2020). Conditional models get labels as they occur in the training rows. A sample
    is E[x | z], also of binary likelihoods: gray where rows are 0 and 1.

    Raises:
      ValueError: codes that no mixture fits.
    """
    model = subject.model
    if able(model, Samples):
        return samples(subject, number)
    codes = subject.codes("train")
    if not np.isfinite(codes).all():
        raise ValueError("some codes are not finite")
    z = mixture(codes).sample(number)[0].astype(np.float32)
    inputs = {"z": z, "label": labels(subject, number, np.random.default_rng(subject.seed))}
    decode = lambda batch, _: batches.decode(model, subject.params, batch["z"], batch["label"])
    return batches.over(decode, inputs, BATCH)


class Referee(NamedTuple):
    """What is the same for all runs on some data: the classifier, its accuracy and features [N, 64] of test rows."""

    model: Classifier
    params: Any
    accuracy: float
    real: np.ndarray

    def features(self, x: np.ndarray) -> np.ndarray:
        """Features [N, 64] of rows [N, ...]."""
        return batches.over(lambda batch, _: _features(self.model, self.params, batch), x, BATCH)


@jax.jit
def _features(model: Classifier, params: Any, x: jax.Array) -> jax.Array:
    return model.features(params, x)


def referee(train: Examples, test: Examples, facts: Facts, size: int) -> Referee:
    """The classifier trained on the training rows and their labels, with features of `size` test rows."""
    model = build({"hidden": HIDDEN, "units": JUDGE.units}, Classifier).bind(facts)
    train, test = (Examples(x=np.asarray(part.x), label=np.asarray(part.label)) for part in (train, test))
    params = fit(model, train, JUDGE, SEED)
    keys = jax.random.split(jax.random.key(SEED), BATCH)  # nothing is drawn
    right = batches.over(lambda batch, _: batches.evaluate(model, params, batch, keys)["accuracy"], test, BATCH)
    made = Referee(model, params, float(right.mean()), np.zeros(0))
    return made._replace(real=made.features(some(test.x, size, SEED)))


def study(subject: Subject, findings: Findings) -> None:
    """Scores of samples against equally many test rows, and of training rows (`baseline/real_vs_real/...`).

    The features are those of `Classifier`, trained on the training rows; `sampling_classifier_accuracy` on all test
    rows says what they are worth. The classifier has seen the training rows, but no test row.
    """
    recipe, train, test = subject.recipe, subject.train, subject.test
    if not recipe.sampling:
        return
    refuse = lambda reason: findings.refuse(reason, *(f"test/{name}" for name in NAMES))
    reason = _impossible(subject)
    if reason:
        refuse(reason)
        return
    size = min(recipe.sampling_rows or len(test), len(train), len(test))
    try:
        fake = drawn(subject, size)
    except ValueError as error:
        refuse(str(error))
        return
    if not np.isfinite(fake).all():
        refuse("some samples are not finite")
        return
    judge = subject.once(("sampling", size), lambda: referee(train, test, subject.facts, size))
    found = scores(judge.real, judge.features(fake))
    findings.add(found | {"sampling_classifier_accuracy": judge.accuracy}, "test/")
    if recipe.baselines:
        others = lambda: scores(judge.real, judge.features(some(np.asarray(train.x), size, SEED)))
        findings.add(subject.once(("sampling real_vs_real", size), others), "baseline/real_vs_real/")


def _impossible(subject: Subject) -> str:
    """Why there are no such scores, or nothing."""
    model, train, test = subject.model, subject.train, subject.test
    if subject.facts.kind == "sequence":
        return "samples of sequences are scored by evaluation.generation"
    if not able(model, Samples) and not subject.reconstructs:
        return "this model neither samples nor decodes codes"
    if train.mask is not None or test.mask is not None:
        return "rows are padded or have missing values"
    if train.label is None or test.label is None or len(np.unique(np.asarray(train.label))) < 2:
        return "the training rows have no labels of two classes or more to train a classifier on"
    if min(len(train), len(test)) < FEWEST:
        return f"fewer than {FEWEST} rows"
    return ""
