"""How good generated sequences are: can they be told from real ones, replace them, vary as much, or are they copies?"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from research.compiling import compiled
from research.data.examples import Examples, Facts
from research.evaluation.baselines import MASKED
from research.evaluation.judge import Judge, fit, samples, subset
from research.evaluation.rows import whole
from research.evaluation.subject import BATCH, Findings, Subject
from research.models.recurrent_predictor import RecurrentPredictor
from research.runs import batches
from research.tree import build

FEWEST = 4  # rows of a part: two for each half of them
CLASSIFIER_UNITS, CLASSIFIER_EPOCHS = 32, 40  # of the honest classifier: the same capacity for every data set
CLASSIFIER_STEPS = 1000, 2000  # its fewest and most steps: after 40 it does not even tell constants from noise
DISTANCES = ("energy_distance", "diversity", "memorization")  # scores for which no network is trained
NAMES = ("discriminative_score", "predictive_score", "classifier_score", *DISTANCES)


def timegan_judge(channels: int, steps: int) -> Judge:
    """As in TimeGAN's code (Yoon et al. 2019): half as many units as channels (at least one), Adam 1e-3, 128 rows."""
    return Judge(max(1, channels // 2), steps, 1e-3, 128)


def discriminative_score(real: np.ndarray, fake: np.ndarray, seed: int) -> float:
    """TimeGAN's score, |accuracy - .5| of a classifier on a random fifth of real and generated rows; 0 is best.

    Its defects are kept, so that it compares with published numbers: the classifier has half as many units as channels,
    and overlapping windows lie on both sides of the split. `classifier_score` has neither.

    Args:
      real, fake: equally many sequences, [N, T, C].
      seed: of the split and the classifier.
    """
    order = np.random.default_rng(seed).permutation(len(real)), np.random.default_rng(seed + 1).permutation(len(fake))
    cut = int(0.8 * len(real))
    train = [rows[numbers[:cut]] for rows, numbers in zip((real, fake), order, strict=True)]
    test = [rows[numbers[cut:]] for rows, numbers in zip((real, fake), order, strict=True)]
    right, _ = _classify(train, test, timegan_judge(real.shape[2], 2000), seed)
    return abs(float(right.mean()) - 0.5)


def predictive_score(real: np.ndarray, fake: np.ndarray, seed: int) -> float:
    """TimeGAN's score: mean absolute error on real rows of a GRU trained on generated ones; lower is better.

    The GRU predicts the last channel one step ahead from the other channels. Rows are sequences [N, T, C].

    Raises:
      ValueError: the rows have one channel only.
    """
    channels = real.shape[2]
    if channels < 2:
        raise ValueError("one channel only: the score predicts the last channel from the others")
    task = lambda rows: Examples(x=rows[:, :-1, :-1], target=rows[:, 1:, -1:])
    model, params = _train(task(fake), timegan_judge(channels, 5000), "mae", seed)
    return float(np.mean(batches.over(lambda batch, _: _scores(model, params, batch)["mae"], task(real), BATCH)))


def classifier_score(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], seed: int, permutations: int = 1000
) -> dict[str, float]:
    """|accuracy - .5| of a GRU classifier of fixed capacity on real against generated rows; 0 is best.

    It is fitted to training rows and one sample of the model, and judged on test rows, whose windows share no time step
    with the training rows, and another sample.

    Args:
      train, test: (real, generated) sequences [N, T, C]; each pair is cut to as many rows of both as the fewer.
      seed: of the rows that are taken and of the classifier.
      permutations: of the held-out labels.

    Returns:
      `classifier_score`; `classifier_null`: mean of the same over permutations of the held-out labels, which is what a
      score of 0 looks like at this size; `classifier_p_value`: share of permutations with at least this score.
    """
    pairs = []
    for real, fake in (train, test):
        size = min(len(real), len(fake))
        random = np.random.default_rng(seed)
        pairs.append([rows[np.sort(random.permutation(len(rows))[:size])] for rows in (real, fake)])
    steps = CLASSIFIER_EPOCHS * max(1, 2 * len(pairs[0][0]) // 128)
    fewest, most = CLASSIFIER_STEPS
    judge = Judge(CLASSIFIER_UNITS, min(max(steps, fewest), most), 1e-3, min(128, 2 * len(pairs[0][0])))
    right, label = _classify(pairs[0], pairs[1], judge, seed)
    guess = np.where(right > 0, label, 1 - label)
    random = np.random.default_rng(seed)
    null = np.abs([(random.permutation(label) == guess).mean() - 0.5 for _ in range(permutations)])
    score = abs(float(right.mean()) - 0.5)
    return {
        "classifier_score": score,
        "classifier_null": float(null.mean()),
        "classifier_p_value": float((1 + (null >= score).sum()) / (1 + permutations)),
    }


def energy_distance(real: np.ndarray, fake: np.ndarray, seed: int, most: int = 1000) -> float:
    """Normalized energy distance of two samples (Székely and Rizzo 2013); 0 is best, 1 the most.

    (2 E|X - Y| - E|X - X'| - E|Y - Y'|) / 2 E|X - Y| for independent real X, X' and generated Y, Y', with Euclidean
    distances of whole sequences [T C]. It is 0 if and only if both have one distribution. A row is not compared with
    itself, so that the mean of the numerator is that of the distributions, and the score of alike samples lies on both
    sides of 0.
    """
    real, fake = subset(real, most, seed), subset(fake, most, seed)
    between = 2 * float(_distances(real, fake).mean())
    return 1 - (_spread(real) + _spread(fake)) / between if between > 0 else 0.0


def _spread(rows: np.ndarray) -> float:
    """Mean distance between two different rows."""
    return float(_distances(rows, rows).sum() / (len(rows) * (len(rows) - 1)))


def diversity(real: np.ndarray, fake: np.ndarray, seed: int, most: int = 1000) -> float:
    """Mean distance between two generated rows over that between two real rows; 1 is right, 0 is one sample only.

    NaN if the real rows are all equal.
    """
    of_real = _spread(subset(real, most, seed))
    return _spread(subset(fake, most, seed)) / of_real if of_real > 0 else float("nan")


def memorization(train: np.ndarray, held_out: np.ndarray, fake: np.ndarray, seed: int, most: int = 1000) -> float:
    """Share of generated rows whose nearest real row is a training row rather than a held-out one; .5 is right.

    Equally many rows of both are compared. A generator that repeats what it has seen scores near 1. Held-out rows of a
    later time may differ from training rows for other reasons; the same share of real rows tells how much.
    """
    size = min(len(train), len(held_out), most)
    fake = subset(fake, size, seed)
    near = [_distances(fake, subset(rows, size, seed)).min(1) for rows in (train, held_out)]
    return float(((near[0] < near[1]) + 0.5 * (near[0] == near[1])).mean())


def shuffled(rows: np.ndarray, seed: int) -> np.ndarray:
    """Rows [N, T, C], each with its time steps in a random order of its own: the right values without dynamics."""
    order = np.argsort(np.random.default_rng(seed).random(rows.shape[:2]), axis=1)
    return np.take_along_axis(rows, order[..., None], axis=1)


def halves(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint halves of rows in their order: windows of a series stay with those that they overlap."""
    middle = len(rows) // 2
    return rows[:middle], rows[middle : 2 * middle]


def distances(
    train: np.ndarray, test: np.ndarray, train_fake: np.ndarray, test_fake: np.ndarray, seed: int
) -> dict[str, float]:
    """The scores of generated rows [N, T, C] for which no network is trained."""
    return {
        "energy_distance": energy_distance(test, test_fake, seed),
        "diversity": diversity(train, train_fake, seed),
        "memorization": memorization(train, test, train_fake, seed),
    }


def scores(
    train: np.ndarray, test: np.ndarray, train_fake: np.ndarray, test_fake: np.ndarray, seed: int
) -> dict[str, float]:
    """All scores of generated rows [N, T, C] against training and test rows."""
    size = min(len(train), len(train_fake))
    by_name = {
        "discriminative_score": discriminative_score(train[:size], train_fake[:size], seed),
        **classifier_score((train, train_fake), (test, test_fake), seed),
        **distances(train, test, train_fake, test_fake, seed),
    }
    if train.shape[2] > 1:
        by_name["predictive_score"] = predictive_score(train[:size], train_fake[:size], seed)
    return by_name


def study(subject: Subject, findings: Findings) -> None:
    """Add scores of generated sequences, of rows shuffled in time, and of real rows in place of generated ones."""
    if (size := _study(subject, findings, scores, NAMES)) and size[1] == 1:
        findings.refuse("one channel only", "test/predictive_score")


def study_distances(subject: Subject, findings: Findings) -> None:
    """Add the same, but only the scores for which no network is trained (seconds)."""
    _study(subject, findings, distances, DISTANCES)


def _study(
    subject: Subject, findings: Findings, score: Callable[..., dict[str, float]], names: Sequence[str]
) -> tuple[int, ...] | None:
    """Add some scores; returns the shape of a row, or None where there are no scores."""
    recipe, seed = subject.recipe, subject.seed
    most = recipe.generation_rows
    try:
        if subject.train.masked or subject.test.masked:
            raise ValueError(MASKED)
        train, validation, test = (
            subset(part.x if most else whole(part.x), most or len(part), 0)
            for part in (subject.train, subject.parts["validation"], subject.test)
        )
        if min(len(train), len(test)) < FEWEST:
            raise ValueError(f"fewer than {FEWEST} rows")
        fake = samples(subject, len(train) + len(test))
    except ValueError as error:
        findings.refuse(str(error), *(f"test/{name}" for name in names))
        return None
    findings.add(score(train, test, fake[: len(train)], fake[len(train) :], seed), "test/")
    if len(validation) >= FEWEST:  # by which runs are chosen
        findings.add({"energy_distance": energy_distance(validation, fake, seed)}, "validation/")
    if recipe.baselines:
        (first, second), (test_first, test_second) = halves(train), halves(test)
        methods = {
            "shuffled": lambda: score(train, test, shuffled(train, seed), shuffled(test, seed), seed),
            # all training rows can stand for generated rows where these are compared with test rows alone
            "real_vs_real": lambda: (
                score(first, test_first, second, test_second, seed)
                | {"energy_distance": energy_distance(test, train, seed)}
            ),
        }
        for name, compute in methods.items():
            findings.add(subject.once((name, score.__name__, most, seed), compute), f"baseline/{name}/")
    return train.shape[1:]


def _distances(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Euclidean distances of flattened rows, [N, M]."""
    from scipy.spatial.distance import cdist

    rows, others = (array.reshape(len(array), -1).astype(np.float64) for array in (rows, others))
    return cdist(rows, others)


def _classify(
    train: list[np.ndarray], test: list[np.ndarray], judge: Judge, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Train a classifier of (real, generated) rows.

    Returns:
      1 for each test row that it gets right and 0 for the others, and the labels of the test rows (1: real).
    """

    def joined(pair: list[np.ndarray]) -> Examples:
        label = np.repeat([1, 0], [len(rows) for rows in pair]).astype(np.int32)
        return Examples(x=np.concatenate(pair).astype(np.float32), label=label)

    model, params = _train(joined(train), judge, "cross_entropy", seed)
    examples = joined(test)
    right = batches.over(lambda batch, _: _scores(model, params, batch)["accuracy"], examples, BATCH)
    return right, np.asarray(examples.label)


@compiled()
def _scores(model: Any, params: Any, batch: Examples) -> dict[str, jax.Array]:
    return model.scores(model.predict(params, batch), batch)


def _train(examples: Examples, judge: Judge, objective: str, seed: int) -> tuple[Any, Any]:
    """A GRU trained on all of these rows, and its last parameters."""
    settings = {
        "parameters": None,
        "cell": "gru",
        "hidden_dim": judge.units,
        "layers": 1,
        "bidirectional": False,
        "layer_norm": False,
        "forget_bias": 1.0,
        "summary": "last",
        "form": "auto",
        "unroll": 0,
        "objective": objective,
    }
    target = examples.target
    facts = Facts(
        kind="sequence",
        feature_shape=tuple(examples.x.shape[1:]),
        low=0.0,
        high=1.0,
        classes=0 if target is not None else 2,
        train_size=len(examples),
        validation_size=1,
        test_size=1,
        target_shape=None if target is None else tuple(target.shape[1:]),
    )
    model = build(settings, RecurrentPredictor).bind(facts)
    return model, fit(model, examples, judge, seed)
