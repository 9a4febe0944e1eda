"""Steps that accumulate batches, and the moving average of the parameters."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configs import budget

from research import engine, scores
from research.clock import Clock
from research.data import Examples, Facts
from research.engine import NEVER, State
from research.inputs import Budget, Data, JobInputs
from research.tree import ConfigError, config_hash, plain, spec

initialize = engine.initialize
chunk = jax.jit(engine.chunk, static_argnames="budget")
evaluate = jax.jit(scores.evaluate, static_argnames="budget")
EARLIER = "214e7841df5e30b1a2329f575e6bb7cd5a938510292343b18d0e8c84dc930298"  # hash of the trainer before these keys
CLOCK = Clock(*(jnp.float32(value) for value in (12, 3, 0.3, 6)))


@spec
class Noisy:
    """Its gradient is the mean of the batch's first column, and its loss also shows the draw of the batch's key."""

    bad_step: int = -9

    def bind(self, facts: Facts) -> "Noisy":
        return self

    def init(self, key: Any, train: Examples) -> Any:
        return {"weight": jnp.zeros(())}

    def loss(self, params: Any, batch: Examples, key: Any, clock: Any) -> Any:
        noise = jax.random.uniform(key)
        loss = jnp.where(clock.step == self.bad_step, jnp.nan, params["weight"] * batch.x[:, 0].mean() + noise)
        return loss, {"noise": noise, **clock._asdict()}

    def evaluate(self, params: Any, batch: Examples, keys: Any) -> Any:
        return {"loss": jnp.full((len(batch),), params["weight"])}


@pytest.fixture(scope="module")
def run(make_dataset, build_optimizer, build_trainer):
    """`run(model, epochs, batch_size=8)`: the state and the metrics after so many chunks of one epoch."""

    def train(model: Any, epochs: int, optimizer: Any = None, rows: int = 160, **keys: Any) -> Any:
        dataset = make_dataset(rows=rows)
        trainer = build_trainer(**({"epochs": 6, "batch_size": 8} | keys))
        trainer.check(dataset.facts)
        settings = Budget.of(trainer, trainer.steps_per_epoch(dataset.facts))
        optimizer = optimizer or build_optimizer("sgd", learning_rate=0.1)
        member, data = JobInputs(np.uint32(0), dataset.split(None)), Data(*[jax.device_put(dataset.examples)] * 2)
        model = model.bind(dataset.facts)
        states, metrics = [initialize(model, optimizer, member, data, settings)], {}
        for _ in range(epochs):
            state, metrics = chunk(model, optimizer, states[-1], member, data, np.int32(1), settings)
            states.append(state)
        score = lambda params: evaluate(model, params, member.seed, member.split, data, settings, np.bool_(False))
        return states, metrics, score

    return train


def assert_close(first: Any, second: Any, tolerance: float) -> None:
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


# ------------------------------------------------------------------------------------------------- accumulated batches


def test_accumulated_batches_are_one_large_batch(run, build_model, build_optimizer):
    model = build_model("dense_ae", latent_dim=2, hidden_dims=[4])
    optimizer = build_optimizer("adam", schedule="cosine", warmup_epochs=1, learning_rate=0.03, clip_norm=0.05)
    (*_, large), of_large, _ = run(model, 6, optimizer, batch_size=32)
    (*_, state), metrics, _ = run(model, 6, optimizer, batch_size=8, accumulate=4)
    assert int(state.step) == int(large.step) == 6 * 3
    assert_close((state.params, state.optimizer_state), (large.params, large.optimizer_state), 2e-6)
    assert_close(metrics, of_large, 2e-6)
    (*_, small), _, _ = run(model, 6, optimizer, batch_size=8)
    assert int(small.step) == 6 * 12


def test_a_step_is_an_optimizer_step_whatever_it_accumulates(run):
    (*_, state), metrics, _ = run(Noisy(), 3, batch_size=8, accumulate=4)  # 96 rows: 3 steps an epoch
    assert int(state.step) == 9
    assert float(metrics["train/step"]) == np.mean([6, 7, 8])
    assert float(metrics["train/epoch"]) == pytest.approx(np.mean([2, 2 + 1 / 3, 2 + 2 / 3]))
    assert float(metrics["train/fraction"]) == pytest.approx(np.mean([6, 7, 8]) / 18)
    (*_, state), *_ = run(Noisy(bad_step=4), 2, batch_size=8, accumulate=4)
    assert int(state.first_bad_step) == 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_gradient_of_both_players_is_the_mean_over_batches(dtype: str, build_model):
    facts = Facts("sequence", (4, 2), 0.0, 1.0, 3, 6, 2, 2)
    model = build_model("recurrent_gan", hidden_dim=3, noise_dim=2, gradient_penalty=1.0).bind(facts)
    batch = Examples(x=jax.random.uniform(jax.random.key(1), (6, 4, 2)))
    params, key = jax.jit(model.init)(jax.random.key(0), batch), jax.random.key(2)
    settings = budget(accumulate=3, compute_dtype=dtype)
    whole = jax.jit(lambda: engine.loss_and_gradient(model, params, batch, key, CLOCK, settings))()
    one = dataclasses.replace(settings, accumulate=1)
    of_batch = jax.jit(lambda batch, key: engine.loss_and_gradient(model, params, batch, key, CLOCK, one))
    rows = [batch.take(np.arange(2 * index, 2 * index + 2)) for index in range(3)]
    parts = [of_batch(rows[index], jax.random.fold_in(key, index)) for index in range(3)]
    assert_close(whole, jax.tree.map(lambda *leaves: sum(leaves) / 3, *parts), 1e-6)
    noise = [float(metrics["fake_value"]) for (_, metrics), _ in parts]
    assert len({*noise}) == 3


def test_more_batches_than_rows_are_refused(build_trainer, make_dataset):
    facts = make_dataset().facts  # 14 rows for training
    assert build_trainer(batch_size=3, accumulate=2).steps_per_epoch(facts) == 2
    build_trainer(batch_size=3, accumulate=4).check(facts)
    with pytest.raises(ConfigError, match=r"accumulate=5: .*batches of 3 rows .*\(14 rows\); set accumulate=4"):
        build_trainer(batch_size=3, accumulate=5).check(facts)


# ---------------------------------------------------------------------------------------------------- moving averages


@pytest.mark.parametrize("decay", [0.5, 0.99])
@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_average_is_that_of_the_steps_so_far(decay: float, keep: str, run, build_model, build_optimizer):
    model, optimizer = build_model("dense_ae", latent_dim=2, hidden_dims=[]), build_optimizer("adam")
    keys = {"batch_size": 96, "keep": keep}  # a step an epoch
    states, metrics, score = run(model, 5, optimizer, ema=decay, **keys)
    without, *_ = run(model, 5, optimizer, **keys)
    assert_close(states[-1].params, without[-1].params, 0)
    trained = [jax.tree.leaves(state.params) for state in without[1:]]
    for step in range(1, 6):
        weights = np.array([decay ** (step - index) for index in range(1, step + 1)])
        weights = weights / weights.sum()
        expected = [np.tensordot(weights, np.stack(leaves), 1) for leaves in zip(*trained[:step], strict=True)]
        assert_close(states[step].average, expected, 1e-6)
    assert float(metrics["validation/loss"]) == pytest.approx(float(score(states[-1].average)["validation/loss"]))
    assert float(metrics["validation/loss"]) != float(score(states[-1].params)["validation/loss"])
    assert int(states[-1].best_epoch) == 5  # the loss falls all the time
    assert_close(engine.kept_params(states[-1]), states[-1].average, 0)


def test_without_an_average_the_state_is_that_of_earlier_versions(run):
    (state, *_), *_ = run(Noisy(), 0, keep="last")
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    names = [".step", ".params['weight']", ".best", ".best_epoch", ".first_bad_step", ".stopped_epoch"]
    assert [path for path in paths if "optimizer_state" not in path] == names
    assert state.average is None
    assert isinstance(state, State)
    assert int(state.best_epoch) == NEVER


# --------------------------------------------------------------------------------------------------------- the config


def test_the_hash_of_a_trainer_stays(build_trainer):
    assert config_hash(plain(build_trainer())) == EARLIER
    for key, value in {"compute_dtype": "bfloat16", "accumulate": 2, "ema": 0.5}.items():
        changed = plain(build_trainer(**{key: value}))
        assert changed[key] == value
        assert config_hash(changed) != EARLIER


@pytest.mark.parametrize(
    ("key", "value"),
    [("compute_dtype", "float16"), ("accumulate", 0), ("ema", 0), ("ema", 1), ("ema", 0.99999999)],
)
def test_wrong_settings_are_refused(key: str, value: Any, build_trainer):
    with pytest.raises(ConfigError) as error:
        build_trainer(**{key: value})
    assert error.value.key == f"trainer.{key}"
