"""How good generated sequences are: told apart from real ones, used in their place, too few, or copied."""

from typing import Any, NamedTuple

import jax
import numpy as np

from research.data.examples import Examples, Facts
from research.evaluation.judge import BATCH, Judge, fit, samples, some
from research.evaluation.subject import Findings, Subject
from research.models.abilities import Samples, able
from research.models.recurrent_predictor import RecurrentPredictor
from research.runs import batches
from research.tree import build

PARTS = ("train", "test")
FEWEST = 4  # rows of a part: two for each half of them
CLASSIFIER_UNITS, CLASSIFIER_EPOCHS = 32, 40  # the honest classifier: the same capacity for every data set
CLASSIFIER_STEPS = 1000, 2000  # fewest and most: after 40 of them (64 rows) it tells not even constants from noise


def timegan_judge(channels: int, steps: int) -> Judge:
    """As in TimeGAN's code (Yoon et al. 2019): half as many units as channels (at least one), Adam 1e-3, 128 rows."""
    return Judge(max(1, channels // 2), steps, 1e-3, 128)


def discriminative_score(real: np.ndarray, fake: np.ndarray, seed: int) -> float:
    """TimeGAN's score, |accuracy - .5| of a classifier on a random fifth of real and generated rows; 0 is best.

    Its defects are kept, for comparison with published numbers: half as many units as channels, and overlapping windows
    on both sides of the split. `classifier_score` is the honest one.

    Args:
      real, fake: equally many sequences, [N, T, C].
    """
    order = np.random.default_rng(seed).permutation(len(real)), np.random.default_rng(seed + 1).permutation(len(fake))
    cut = int(0.8 * len(real))
    train = [rows[at[:cut]] for rows, at in zip((real, fake), order, strict=True)]
    test = [rows[at[cut:]] for rows, at in zip((real, fake), order, strict=True)]
    return abs(_accuracy(train, test, timegan_judge(real.shape[2], 2000), seed)[0] - 0.5)


def predictive_score(real: np.ndarray, fake: np.ndarray, seed: int) -> float:
    """TimeGAN's score: mean absolute error on real rows of a GRU trained on generated ones; lower is better.

    It predicts the last channel one step ahead from the other channels.

    Raises:
      ValueError: one channel only.
    """
    channels = real.shape[2]
    if channels < 2:
        raise ValueError("one channel only: the score predicts the last channel from the others")
    given = lambda rows: Examples(x=rows[:, :-1, :-1], target=rows[:, 1:, -1:])
    judge = timegan_judge(channels, 5000)
    model, params = _fit(given(fake), judge, "mae", seed)
    values = batches.over(lambda batch, _: _scores(model, params, batch)["mae"], given(real), BATCH)
    return float(np.mean(values))


class Verdict(NamedTuple):
    """What the honest classifier says.

    Attributes:
      score: |accuracy - .5| on held-out rows.
      null: mean of the same over permutations of the held-out labels: what a score of 0 looks like at this size.
      p_value: share of permutations with at least this score.
    """

    score: float
    null: float
    p_value: float


def classifier_score(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], seed: int, permutations: int = 1000
) -> Verdict:
    """|accuracy - .5| of a GRU classifier of fixed capacity: real against generated rows; 0 is best.

    It is fitted on training rows against one sample and judged on test rows, whose windows share no time step with the
    training rows, against another sample.

    Args:
      train, test: (real, generated) sequences [N, T, C]; in each pair as many rows of both as the fewer.
    """
    pairs = []
    for real, fake in (train, test):
        size = min(len(real), len(fake))
        random = np.random.default_rng(seed)
        pairs.append([rows[np.sort(random.permutation(len(rows))[:size])] for rows in (real, fake)])
    steps = CLASSIFIER_EPOCHS * max(1, 2 * len(pairs[0][0]) // 128)
    fewest, most = CLASSIFIER_STEPS
    judge = Judge(CLASSIFIER_UNITS, min(max(steps, fewest), most), 1e-3, min(128, 2 * len(pairs[0][0])))
    accuracy, right, label = _accuracy(pairs[0], pairs[1], judge, seed)
    guess = np.where(right, label, 1 - label)
    random = np.random.default_rng(seed)
    null = np.abs([(random.permutation(label) == guess).mean() - 0.5 for _ in range(permutations)])
    score = abs(accuracy - 0.5)
    return Verdict(score, float(null.mean()), float((1 + (null >= score).sum()) / (1 + permutations)))


def diversity(real: np.ndarray, fake: np.ndarray, seed: int, most: int = 1000) -> float:
    """Mean distance between two generated rows over that between two real rows; 1 is right, 0 is one sample only."""
    spread = lambda rows: _distances(rows, rows).sum() / (len(rows) * (len(rows) - 1))
    return float(spread(some(fake, most, seed)) / spread(some(real, most, seed)))


def memorization(train: np.ndarray, held_out: np.ndarray, fake: np.ndarray, seed: int, most: int = 1000) -> float:
    """Share of generated rows whose nearest real row is a training row rather than a held-out one; .5 is right.

    Equally many rows of both are compared; near 1 the generator repeats what it has seen. Held-out rows of a later time
    may differ from training rows for their own reasons: the same share for real rows says how much.
    """
    size = min(len(train), len(held_out), most)
    fake = some(fake, size, seed)
    near = [_distances(fake, some(rows, size, seed)).min(1) for rows in (train, held_out)]
    return float(((near[0] < near[1]) + 0.5 * (near[0] == near[1])).mean())


def shuffled(rows: np.ndarray, seed: int) -> np.ndarray:
    """Every row with its time steps in a random order of its own: the right values, no dynamics."""
    random = np.random.default_rng(seed)
    order = np.argsort(random.random(rows.shape[:2]), axis=1)
    return np.take_along_axis(rows, order[..., None], axis=1)


def halves(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint halves of rows in their order: windows of a series stay with those that they overlap."""
    middle = len(rows) // 2
    return rows[:middle], rows[middle : 2 * middle]


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Euclidean distances of flattened rows, [N, M]."""
    one, other = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (one, other))
    squares = np.square(one).sum(1)[:, None] + np.square(other).sum(1)[None] - 2 * one @ other.T
    return np.sqrt(np.maximum(squares, 0))


def _accuracy(
    train: list[np.ndarray], test: list[np.ndarray], judge: Judge, seed: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Accuracy on test rows, which of them are right, and their labels (1 real, 0 generated)."""

    def joined(pair: list[np.ndarray]) -> Examples:
        label = np.repeat([1, 0], [len(rows) for rows in pair]).astype(np.int32)
        return Examples(x=np.concatenate(pair).astype(np.float32), label=label)

    model, params = _fit(joined(train), judge, "cross_entropy", seed)
    examples = joined(test)
    right = batches.over(lambda batch, _: _scores(model, params, batch)["accuracy"], examples, BATCH)
    return float(right.mean()), right > 0, np.asarray(examples.label)


@jax.jit
def _scores(model: Any, params: Any, batch: Examples) -> dict[str, jax.Array]:
    return model.scores(model.predict(params, batch), batch)


def _fit(examples: Examples, judge: Judge, objective: Any, seed: int) -> tuple[Any, Any]:
    """A GRU trained on all of these rows for so many steps; the last parameters are kept."""
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


def study(subject: Subject, findings: Findings) -> None:
    """Scores of generated sequences, and of rows that need no generator."""
    recipe, model = subject.recipe, subject.model
    if not recipe.generation or subject.facts.kind != "sequence" or not able(model, Samples):
        return
    most, seed = recipe.generation_rows, subject.seed
    train, test = (some(np.asarray(subject.parts[part].x), most or len(subject.parts[part]), 0) for part in PARTS)
    names = ("discriminative_score", "predictive_score", "classifier_score", "diversity", "memorization")
    if subject.train.mask is not None:
        findings.refuse("rows are padded or have missing values", *(f"test/{name}" for name in names))
        return
    if min(len(train), len(test)) < FEWEST:
        findings.refuse(f"fewer than {FEWEST} rows", *(f"test/{name}" for name in names))
        return
    fake = samples(subject, len(train) + len(test))
    if not np.isfinite(fake).all():
        findings.refuse("some samples are not finite", *(f"test/{name}" for name in names))
        return
    findings.add(scores(train, test, fake[: len(train)], fake[len(train) :], seed), "test/")
    if train.shape[2] == 1:
        findings.refuse("one channel only", "test/predictive_score")
    if not recipe.baselines:
        return
    settings = (most, seed)
    for name, rows in {"shuffled": lambda: shuffled(train, seed), "real_vs_real": lambda: None}.items():
        made = rows()
        if made is None:  # one half of the real rows stands for generated ones
            (train_one, train_two), (test_one, test_two) = halves(train), halves(test)
            arguments = train_one, test_one, train_two, test_two
        else:
            arguments = train, test, made, shuffled(test, seed)
        found = subject.once((name, *settings), lambda arguments=arguments: scores(*arguments, seed))
        findings.add(found, f"baseline/{name}/")


def scores(
    train: np.ndarray, test: np.ndarray, train_fake: np.ndarray, test_fake: np.ndarray, seed: int
) -> dict[str, float]:
    """All scores of generated rows [N, T, C] against training and test rows."""
    size = min(len(train), len(train_fake))
    verdict = classifier_score((train, train_fake), (test, test_fake), seed)
    found = {
        "discriminative_score": discriminative_score(train[:size], train_fake[:size], seed),
        "classifier_score": verdict.score,
        "classifier_null": verdict.null,
        "classifier_p_value": verdict.p_value,
        "diversity": diversity(train, train_fake, seed),
        "memorization": memorization(train, test, train_fake, seed),
    }
    if train.shape[2] > 1:
        found["predictive_score"] = predictive_score(train[:size], train_fake[:size], seed)
    return found
