import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from research import tree
from research.data.examples import Examples, Facts
from research.evaluation import Findings, Subject
from research.evaluation.prediction import study, study_steps, unequal_steps
from research.fit import fit

STANDARD = Path(__file__).parents[2] / "conf" / "evaluation" / "standard.yaml"


@dataclasses.dataclass(frozen=True)
class Predictor:
    """What a study asks of a model that predicts."""

    of_label: bool = False
    target_classes: int = 0
    objective: str = "auto"
    stepwise: bool = False

    def predict(self, params, batch):
        raise AssertionError("no baseline needs the model")


def baselines(model, train, test, classes=0, target_classes=0):
    facts = Facts("sequence", train.x.shape[1:], 0.0, 1.0, classes, len(train), 1, len(test), None, target_classes)
    recipe, findings = tree.build(yaml.safe_load(STANDARD.read_text())), Findings()
    study(Subject(model, None, {"train": train, "test": test}, recipe, facts, jax.random.key(0)), findings)
    assert not findings.null_reasons
    return {name.removeprefix("baseline/"): value for name, value in findings.metrics.items()}


def labelled(label, seed=0):
    label = np.asarray(label)
    noise = np.random.default_rng(seed).normal(size=(len(label), 5, 2))
    return Examples(x=(noise + 4 * label[:, None, None]).astype(np.float32), label=label)


def test_classes_of_sequences():
    train, test = labelled([0] * 60 + [1] * 20), labelled([0] * 5 + [1] * 15, 1)
    found = baselines(Predictor(of_label=True), train, test, classes=2)
    assert found["majority/accuracy"] == 0.25
    assert found["majority/cross_entropy"] == pytest.approx(-(0.25 * np.log(0.75) + 0.75 * np.log(0.25)))
    assert found["logistic/accuracy"] == 1
    noise = dataclasses.replace(train, x=train.x * 0)  # constant inputs are no division by zero
    assert baselines(Predictor(of_label=True), noise, test, classes=2)["logistic/accuracy"] == 0.25


def test_one_class_of_training_rows_has_no_regression():
    found = baselines(Predictor(of_label=True), labelled([0] * 9), labelled([0, 1]), classes=2)
    assert set(found) == {"majority/accuracy", "majority/cross_entropy"}
    assert found["majority/cross_entropy"] == pytest.approx(-np.log(1e-6) / 2)  # never seen: not infinite


def test_copy_memory_without_memory(shipped_config):
    """Arjovsky et al. 2016: 10 log 8 / (T + 20) nats per step; frequencies of 3000 rows are not exactly 1/8."""
    from research.data.sequences import Copy

    blank = 4
    rows = np.random.default_rng(0).integers(1, 9, (4000, 10))
    target = np.concatenate([np.zeros((4000, blank + 10), int), rows], 1).astype(np.int32)
    examples = Examples(x=np.zeros((4000, blank + 20, 10), np.float32), target=target)
    train, test = examples.take(slice(3000)), examples.take(slice(3000, None))
    found = baselines(Predictor(target_classes=10), train, test, target_classes=10)
    assert found["memoryless/cross_entropy"] == pytest.approx(10 * np.log(8) / (blank + 20), rel=5e-3)
    assert found["memoryless/accuracy"] == pytest.approx((blank + 10 + 10 / 8) / (blank + 20), abs=5e-3)
    x, drawn = Copy.sample(
        dataclasses.replace(tree.build(shipped_config("data", "copy")), length=blank), 8, jax.random.key(0)
    )
    assert x.shape == (8, *examples.x.shape[1:])
    np.testing.assert_array_equal(np.asarray(drawn > 0).all(0), target.any(0))  # the data have this form


def test_classes_of_steps_within_lengths():
    """Padding says nothing, every row counts the same, and a step that no training row has is no error."""
    train = Examples(
        x=np.zeros((4, 3, 1), np.float32),
        target=np.array([[0, 1, 9], [0, 1, 9], [1, 1, 9], [0, 0, 9]], np.int32),
        length=np.array([2, 2, 2, 2]),
    )
    test = Examples(
        x=np.zeros((2, 3, 1), np.float32),
        target=np.array([[0, 7, 7], [1, 1, 0]], np.int32),
        length=np.array([1, 3]),
    )
    found = baselines(Predictor(target_classes=10), train, test, target_classes=10)
    rows = -np.log(3 / 4), -(np.log(1 / 4) + np.log(3 / 4) + np.log(1e-6)) / 3
    assert found["memoryless/cross_entropy"] == pytest.approx(np.mean(rows))
    nats = -np.log(3 / 4), -(np.log(1 / 4) + np.log(3 / 4) + np.log(1e-6))
    assert found["memoryless/step_cross_entropy"] == pytest.approx(sum(nats) / 4)  # every step counts the same
    # first step 0, second 1; of the third nothing is known, and class 0 is the first of equals
    assert found["memoryless/accuracy"] == pytest.approx((1 + 2 / 3) / 2)


def sequence(target, **fields):
    target = np.asarray(target, np.float32)
    return Examples(x=np.zeros((len(target), 3, 1), np.float32), target=target, **fields)


def test_a_value_of_a_sequence():
    train, test = sequence([[0, 1], [0, 3], [3, 5]]), sequence([[1, 3], [2, 7]])
    found = baselines(Predictor(), train, test)
    assert found == {
        "constant/mse": pytest.approx(np.mean([0, 0, 1, 16])),  # means 1 and 3
        "constant/mae": pytest.approx(np.mean([1, 0, 2, 4])),  # medians 0 and 3
    }


def test_missing_values_of_a_target_count_nowhere():
    observed = np.array([[True, True], [True, True], [True, False]])
    train, test = sequence([[0, 1], [0, 3], [3, 0]], target_observed=observed), sequence([[1, 3], [2, 7]])
    test = dataclasses.replace(test, target_observed=np.array([[True, False], [True, True]]))
    found = baselines(Predictor(), train, test)  # means 1 and 2, medians 0 and 2
    assert found["constant/mse"] == pytest.approx(np.mean([0, (1 + 25) / 2]))
    assert found["constant/mae"] == pytest.approx(np.mean([1, (2 + 5) / 2]))


def test_values_of_steps_within_lengths():
    train = sequence([[[1], [3], [99]], [[5], [99], [99]]], length=np.array([2, 1]))  # mean and median 3
    test = sequence([[[3], [4], [6]], [[1], [99], [99]]], length=np.array([3, 1]))
    found = baselines(Predictor(), train, test)
    assert found["constant/mse"] == pytest.approx(((0 + 1 + 9) / 3 + 4) / 2)
    assert found["constant/mae"] == pytest.approx(((0 + 1 + 3) / 3 + 2) / 2)


def test_notes_of_steps_within_lengths():
    """As of piano rolls: nats are summed over notes, means over the valid steps of a row, then over rows."""
    train = sequence([[[1, 0], [1, 0], [1, 1]], [[0, 1], [1, 1], [1, 1]]], length=np.array([3, 1]))
    level = np.array([3 / 4, 2 / 4])
    test = sequence([[[1, 1], [0, 1], [1, 1]], [[1, 0], [1, 1], [1, 1]]], length=np.array([2, 1]))
    nats = lambda note: -(note * np.log(level) + (1 - note) * np.log(1 - level)).sum()
    rows = (nats(np.array([1, 1])) + nats(np.array([0, 1]))) / 2, nats(np.array([1, 0]))
    found = baselines(Predictor(objective="cross_entropy"), train, test)
    of_steps = (2 * rows[0] + rows[1]) / 3
    assert found == {
        "constant/cross_entropy": pytest.approx(np.mean(rows)),
        "constant/step_cross_entropy": pytest.approx(of_steps),
    }


def test_rows_stand_beside_a_trained_predictor(build_model):
    """The same names as the model's own metrics, and a constant is better than a model of zeros."""
    train = sequence([[[1, 0], [1, 0], [1, 1]]] * 4, length=np.array([3, 2, 1, 3]))
    facts = Facts("sequence", (3, 1), 0.0, 1.0, 0, 4, 1, 4, (3, 2), 0, 0.0, 1.0)
    for objective in ("cross_entropy", "mse", "mae"):
        model = build_model("recurrent_predictor", hidden_dim=2, objective=objective).bind(facts)
        shapes = jax.eval_shape(model.fresh, jax.random.key(0))
        params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        found = baselines(model, train, train)
        own = jax.jit(model.evaluate)(params, jax.tree.map(jnp.asarray, train), jax.random.split(jax.random.key(0), 4))
        for name, value in found.items():
            metric = name.removeprefix("constant/").removeprefix("step_")  # zeros give every step the same nats
            assert value < float(own[metric].mean())


def flipping(rows, steps, seed):
    """Two notes that change with a probability of .1 at every step: x, the frames that follow, and unequal lengths."""
    random = np.random.default_rng(seed)
    changes = random.random((rows, steps + 1, 2)) < 0.1
    changes[:, 0] = random.random((rows, 2)) < 0.5
    frames = (changes.cumsum(1) % 2).astype(np.float32)
    return Examples(x=frames[:, :-1], target=frames[:, 1:], length=random.integers(steps // 2, steps + 1, rows))


def test_the_next_frame_of_a_known_process_costs_its_entropy(build_model, build_optimizer):
    """-2 (.1 log .1 + .9 log .9) = .650 nats a step; a constant has 2 log 2 = 1.386. Every step counts the same."""
    train, test = flipping(400, 12, 0), flipping(2000, 12, 1)
    facts = Facts("sequence", (12, 2), 0.0, 1.0, 0, 400, 1, 2000, (12, 2), 0, 0.0, 1.0)
    model = build_model("recurrent_predictor", hidden_dim=8, objective="cross_entropy").bind(facts)
    params = fit(model, build_optimizer("adam", learning_rate=0.02), train, steps=300, batch_size=50, seed=0)
    recipe, findings = tree.build(yaml.safe_load(STANDARD.read_text())), Findings()
    parts = {"train": train, "validation": train, "test": test}
    subject = Subject(model, params, parts, recipe, facts, jax.random.key(0))
    assert unequal_steps(subject)
    study_steps(subject, findings)
    study(subject, findings)
    scores = findings.metrics
    entropy = -2 * (0.1 * np.log(0.1) + 0.9 * np.log(0.9))
    assert scores["test/step_cross_entropy"] == pytest.approx(entropy, abs=0.02)
    assert scores["baseline/constant/step_cross_entropy"] == pytest.approx(2 * np.log(2), abs=0.002)
    for part, rows in (("validation", train), ("test", test)):  # the sum over all steps over their number
        loss = subject.evaluate(rows, subject.key)["loss"].astype(np.float64)
        assert scores[f"{part}/step_cross_entropy"] == pytest.approx(loss.sum() / rows.length.sum(), rel=1e-6)
        assert scores[f"{part}/step_cross_entropy"] != pytest.approx((loss / rows.length).mean(), rel=1e-6)


def test_steps_of_rows_of_one_length_have_no_second_mean():
    whole, unequal = sequence([[[1], [0], [1]]] * 2), sequence([[[1], [0], [1]]] * 2, length=np.array([3, 2]))
    for test, stepwise, asked in ((whole, True, False), (unequal, False, False), (unequal, True, True)):
        subject = Subject(Predictor(stepwise=stepwise), None, {"test": test}, None, None, jax.random.key(0))
        assert unequal_steps(subject) is asked
