"""Laws of training one job: order, chunks, evaluation, stopping, the first bad step; and what training must reach."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import engine, scores
from research.data import Examples, Facts, Windows
from research.data.preparation import Binarize
from research.engine import NEVER, State
from research.fit import fit as train
from research.inputs import Budget, Data, JobInputs
from research.metrics import higher_is_better
from research.tree import ConfigError, recipe, spec


@spec
class Scripted:
    """Losses by epoch as written down; the parameter counts epochs (with sgd at a rate of 1 / steps per epoch)."""

    training: tuple[float, ...] = (1.0,)
    validation: tuple[float, ...] = (1.0,)
    bad_step: int = -9

    def bind(self, facts: Facts) -> "Scripted":
        return self

    def init(self, key: Any, train: Examples) -> Any:
        return {"epochs": jnp.zeros(())}

    def loss(self, params: Any, batch: Examples, key: Any, clock: Any) -> Any:
        value = jnp.array(self.training)[clock.epoch.astype(int)]
        value = jnp.where((clock.step == self.bad_step) | (clock.step == self.bad_step + 2), jnp.nan, value)
        return value + jax.lax.stop_gradient(params["epochs"]) - params["epochs"], clock._asdict()

    def evaluate(self, params: Any, batch: Examples, keys: Any) -> Any:
        value = jnp.array(self.validation)[params["epochs"].round().astype(int) - 1]
        return {"loss": jnp.full((len(batch),), value), "elbo_nats": jnp.full((len(batch),), value)}


@spec
class Recorder:
    """Its parameters say how often and when each row was trained on; rows are one-hot."""

    def bind(self, facts: Facts) -> "Recorder":
        return self

    def init(self, key: Any, train: Examples) -> Any:
        return {"visits": jnp.zeros(train.x.shape[1]), "step": jnp.zeros(train.x.shape[1])}

    def loss(self, params: Any, batch: Examples, key: Any, clock: Any) -> Any:
        rows = batch.x.sum(0)
        metrics = {"seen": batch.x.mean(), "binary": ((batch.x == 0) | (batch.x == 1)).all().astype(jnp.float32)}
        return -params["visits"] @ rows - (params["step"] @ rows) * clock.step, metrics

    def evaluate(self, params: Any, batch: Examples, keys: Any) -> Any:
        return {"loss": batch.x.sum(-1)}


chunk = jax.jit(engine.chunk, static_argnames="budget")
initialize = engine.initialize
evaluate = jax.jit(scores.evaluate, static_argnames="budget")


class Run(NamedTuple):
    """One job with its arguments bound."""

    model: Any
    optimizer: Any
    member: JobInputs
    data: Data
    budget: Budget

    def start(self) -> State:
        return initialize(*self)

    def train(self, state: State, epochs: int) -> tuple[State, dict[str, Any]]:
        return chunk(self.model, self.optimizer, state, self.member, self.data, np.int32(epochs), self.budget)

    def score(self, params: Any, part: str = "validation") -> dict[str, Any]:
        test, (seed, split) = np.bool_(part == "test"), self.member
        values = evaluate(self.model, params, seed, split, self.data, self.budget, test)
        return {name: value for name, value in values.items() if name.startswith(f"{part}/")}


@pytest.fixture(scope="module")
def make_run(make_dataset, build_optimizer, build_trainer):
    """`make_run(model, batch_size=3)`: 24 rows, 14 of them for training, sgd."""

    def make(
        model: Any, dataset: Any = None, seed: int = 0, optimizer: Any = None, draw: Any = None, **trainer: Any
    ) -> Run:
        dataset = make_dataset(np.eye(24, dtype=np.float32)) if dataset is None else dataset
        budget = build_trainer(**({"epochs": 8, "batch_size": 3} | trainer))
        optimizer = optimizer or build_optimizer("sgd", learning_rate=0.25)
        data = Data(*[jax.device_put(dataset.examples)] * 2)
        steps = budget.steps_per_epoch(dataset.facts)
        member = JobInputs(np.uint32(seed), dataset.split(None))
        return Run(model.bind(dataset.facts), optimizer, member, data, Budget.of(budget, steps, draw))

    return make


@pytest.fixture(scope="module")
def vae_run(make_run, make_dataset, build_model, build_optimizer):
    """A small VAE with everything that depends on time or chance."""

    def make(**trainer: Any) -> Run:
        model = build_model("vae", latent_dim=2, hidden_dims=[4], warmup="linear", warmup_epochs=3)
        optimizer = build_optimizer("adam", schedule="cosine", warmup_epochs=1, learning_rate=0.03, clip_norm=5.0)
        return make_run(model, make_dataset(), 3, optimizer, **trainer)

    return make


def assert_equal(first: Any, second: Any) -> None:
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(one, other)


# ---------------------------------------------------------------------------------------------------- order and chunks


@pytest.mark.parametrize("batch_size", [1, 3, 14])
def test_an_epoch_visits_as_many_rows_as_fill_batches_and_none_twice(batch_size: int, make_run, build_optimizer):
    run = make_run(Recorder(), batch_size=batch_size, optimizer=build_optimizer("sgd", learning_rate=1.0))
    state, _ = run.train(run.start(), 1)
    train = run.member.split.rows("train")
    assert len(train) == 14
    steps = 14 // batch_size
    assert int(state.step) == run.budget.steps_per_epoch == steps
    visits = np.asarray(state.params["visits"])
    assert visits.sum() == visits[train].sum() == steps * batch_size
    assert visits.max() == 1
    counts = np.bincount(np.asarray(state.params["step"], int)[visits > 0], minlength=steps)
    np.testing.assert_array_equal(counts, batch_size)


def test_the_order_depends_on_seed_and_epoch_only(make_run, build_optimizer):
    def order(seed: int = 0, first: int = 0, learning_rate: float = 1.0, **trainer: Any) -> np.ndarray:
        optimizer = build_optimizer("sgd", learning_rate=learning_rate)
        run = make_run(Recorder(), seed=seed, optimizer=optimizer, **trainer)
        start = run.start()
        state, _ = run.train(dataclasses.replace(start, step=start.step + first * run.budget.steps_per_epoch), 1)
        visited = np.asarray(state.params["visits"]) > 0
        steps = np.asarray(state.params["step"]) / learning_rate - first * run.budget.steps_per_epoch
        return np.where(visited, steps, -1)

    np.testing.assert_array_equal(order(), order(learning_rate=2.0, epochs=5))
    np.testing.assert_array_equal(order(first=3), order(first=3, epochs=5))
    assert not np.array_equal(order(), order(first=1))
    assert not np.array_equal(order(), order(seed=1))


@pytest.mark.parametrize(("steps", "epochs"), [(1, 1), (3, 1), (4, 2), (7, 3)])
def test_fit_trains_on_all_rows_for_whole_epochs(steps: int, epochs: int, build_optimizer):
    rows, optimizer = Examples(np.eye(24, dtype=np.float32)), build_optimizer("sgd", learning_rate=1.0)
    fit = lambda **changes: train(
        Recorder(), optimizer, rows, **({"steps": steps, "batch_size": 8, "seed": 0} | changes)
    )
    np.testing.assert_array_equal(fit()["visits"], epochs)
    np.testing.assert_array_equal(fit()["step"], fit()["step"])
    assert not np.array_equal(fit()["step"], fit(seed=1)["step"])
    np.testing.assert_array_equal(fit(batch_size=100)["visits"], steps)  # a batch is cut to the number of rows


def test_chunked_equals_whole(vae_run):
    run = vae_run(keep="last")
    traces = []

    @jax.jit
    def train(state: State, epochs: Any) -> Any:
        traces.append(epochs)
        return engine.chunk(run.model, run.optimizer, state, run.member, run.data, epochs, run.budget)

    ends = []
    for parts in ([4], [1, 1, 1, 1], [3, 1]):
        state, metrics = run.start(), {}
        for epochs in parts:
            state, metrics = train(state, np.int32(epochs))
        assert int(state.step) == 4 * run.budget.steps_per_epoch
        ends.append((state.step, state.params, state.optimizer_state, state.first_bad_step, metrics))
    assert len(traces) == 1  # the number of epochs is an input
    assert_equal(ends[0], ends[1])
    assert_equal(ends[0], ends[2])
    other = run._replace(member=run.member._replace(seed=np.uint32(4)))
    assert not np.array_equal(other.train(other.start(), 4)[1]["train/loss"], ends[0][-1]["train/loss"])


def test_the_clock_and_training_metrics_are_those_of_the_last_epoch(make_run):
    run = make_run(Scripted(training=(7.0, 5.0, 3.0)))  # 4 steps an epoch, 8 epochs
    _, metrics = run.train(run.start(), 3)
    assert float(metrics["train/loss"]) == 3
    assert float(metrics["train/step"]) == np.mean([8, 9, 10, 11])
    assert float(metrics["train/epoch"]) == pytest.approx(np.mean([2, 2.25, 2.5, 2.75]))
    assert float(metrics["train/fraction"]) == pytest.approx(np.mean([8, 9, 10, 11]) / 32)
    assert float(metrics["train/train_size"]) == 14


# ---------------------------------------------------------------------------------------------------------- evaluation


def test_the_evaluation_batch_does_not_matter(vae_run):
    first = vae_run(evaluation_batch=500)
    params = first.start().params
    whole = first.score(params, "test")
    assert {name.partition("/")[0] for name in whole} == {"test"}
    assert len(first.member.split.rows("test")) == 5
    for size in (1, 3):
        for name, value in vae_run(evaluation_batch=size).score(params, "test").items():
            assert float(value) == pytest.approx(float(whole[name]), rel=1e-6), (name, size)


def test_padding_rows_do_not_count_whatever_they_hold(vae_run):
    run = vae_run(evaluation_batch=2)
    params = run.start().params
    rows = run.member.split.validation[:3]
    split = run.member.split
    plain = dataclasses.replace(split, validation=rows, validation_weight=np.ones(3, np.float32))
    padded = dataclasses.replace(
        split,
        validation=np.append(rows, [0, 0]).astype(np.int32),
        validation_weight=np.array([1, 1, 1, 0, 0], np.float32),
    )
    assert 0 not in rows
    spoiled = dataclasses.replace(run.data.evaluation, x=run.data.evaluation.x.at[0].set(jnp.nan))
    expected = run._replace(member=run.member._replace(split=plain)).score(params)
    found = run._replace(member=run.member._replace(split=padded), data=run.data._replace(evaluation=spoiled)).score(
        params
    )
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-6), name


# ----------------------------------------------------------------------------------------- best, patience, target loss

CURVE = (5.0, 4.0, 3.0, 3.5, 3.2, 1.0, 1.0, 1.0)


def test_the_best_parameters_are_kept(make_run):
    for keep, monitor, best, epoch in (
        ("best", "validation/loss", 3.0, 3),
        ("best", "validation/elbo_nats", 5.0, 1),
        ("last", "validation/loss", 3.0, 3),
    ):
        run = make_run(Scripted(validation=CURVE[:5]), keep=keep, monitor=monitor)
        state = run.start()
        assert float(state.best) == (-np.inf if higher_is_better(monitor) else np.inf)
        for _ in range(5):
            state, metrics = run.train(state, 1)
        assert float(metrics[monitor]) == pytest.approx(3.2)
        assert (float(state.best), int(state.best_epoch)) == (best, epoch)
        assert float(engine.kept_params(state)["epochs"]) == (epoch if keep == "best" else 5)
        assert (state.best_params is None) == (keep == "last")
        assert int(state.stopped_epoch) == NEVER


@pytest.mark.parametrize(
    ("model", "trainer", "parts", "epoch"),
    [
        (Scripted(validation=CURVE), {"patience": 2}, [1] * 8, 5),
        (Scripted(validation=CURVE), {"patience": 3}, [1] * 8, NEVER),
        (Scripted(validation=CURVE), {"patience": 2}, [2] * 3, NEVER),  # epochs 2, 4, 6: 4.0, 3.5, 1.0
        (Scripted(validation=CURVE), {"patience": 1}, [3, 1, 1], 4),
        (Scripted(training=(5.0, 4.0, 1.5, 9.0)), {"target_loss": 2.0}, [1] * 6, 3),
        (Scripted(training=(5.0, 4.0, 1.5, 9.0)), {"target_loss": 2.0}, [2] * 3, NEVER),
        (Scripted(training=(5.0, 4.0, 1.5, 9.0)), {"target_loss": 1.5}, [1] * 6, NEVER),
        (Scripted(training=(2.0, 1.0), validation=CURVE), {"target_loss": 1.5, "patience": 1}, [1] * 6, 2),
    ],
)
def test_a_stopped_run_is_frozen(model: Scripted, trainer: dict[str, Any], parts: list[int], epoch: int, make_run):
    run = make_run(model, **trainer)
    state, done, frozen = run.start(), 0, None
    for epochs in parts:
        state, _ = run.train(state, epochs)
        done += epochs
        if frozen is None and int(state.stopped_epoch) != NEVER:
            frozen = state
            assert done == epoch
        if frozen is not None:
            assert_equal(state, frozen)
    assert int(state.stopped_epoch) == epoch
    assert float(state.params["epochs"]) == (done if epoch == NEVER else epoch)


# -------------------------------------------------------------------------------------------------- the first bad step


def test_the_first_bad_step_is_exact(make_run):
    for bad in (0, 5, 11):
        run = make_run(Scripted(bad_step=bad, validation=CURVE))
        state = run.start()
        for epoch in range(1, 4):
            state, _ = run.train(state, 1)
            assert int(state.first_bad_step) == (bad if bad < 4 * epoch else NEVER)
        assert int(state.best_epoch) == (bad // 4 or NEVER)  # the last evaluation before it


def test_a_huge_rate_and_a_missing_value_are_found(make_run, make_dataset, build_model, build_optimizer):
    model = build_model("dense_ae", latent_dim=2, hidden_dims=[])
    # the first update is finite, the loss after it is not
    run = make_run(model, make_dataset(), optimizer=build_optimizer("sgd", learning_rate=1e30))
    start = run.start()
    state, _ = run.train(start, 2)
    assert int(state.first_bad_step) == 1
    assert int(state.best_epoch) == NEVER
    assert_equal(state.best_params, start.params)
    assert np.isfinite(run.score(engine.kept_params(state))["validation/loss"])
    # a NaN in a row that is visited at a known step
    order = make_run(Recorder(), optimizer=build_optimizer("sgd", learning_rate=1.0))
    recorded, _ = order.train(order.start(), 1)
    row = int(np.argmax(recorded.params["step"]))
    step = int(recorded.params["step"][row])
    assert step == 3
    run = make_run(model, make_dataset(), optimizer=build_optimizer("sgd", learning_rate=0.1))
    clean, spoiled = run.data.train, run.data.train.x.at[row, 2].set(jnp.nan)
    train = dataclasses.replace(clean, x=spoiled)
    state, _ = run.train(run.start(), 1)
    assert int(state.first_bad_step) == NEVER
    state, _ = run._replace(data=run.data._replace(train=train)).train(run.start(), 1)
    assert int(state.first_bad_step) == step


# ------------------------------------------------------------------------------------------------ dynamic binarisation


def test_binarisation():
    x = jnp.tile(jnp.array([[0.0, 2.0**-16, 0.1, 0.5, 1.0]]), (1 << 20, 1))
    drawn = jax.jit(Binarize().draw)(Examples(x=x), jax.random.key(0)).x
    assert set(np.unique(drawn)) == {0.0, 1.0}
    mean = np.asarray(drawn, np.float64).mean(0)
    assert (mean[0], mean[4]) == (0, 1)
    assert 4 <= mean[1] * (1 << 20) <= 40  # 16 expected
    np.testing.assert_allclose(mean[2:4], [0.1, 0.5], atol=0.002)


def test_dynamic_rows_are_drawn_anew_and_scored_as_they_were_drawn_once(make_run, make_dataset, build_optimizer):
    dataset = make_dataset(np.full((24, 24), 100, np.uint8))
    split = dataclasses.replace(dataset.splits[0], scale=np.float32(1 / 255))
    run = make_run(Recorder(), dataset, draw=Binarize(), optimizer=build_optimizer("sgd", learning_rate=1.0))
    ones = dataclasses.replace(run.data.evaluation, x=jnp.ones((24, 24), jnp.uint8))
    run = run._replace(member=run.member._replace(split=split), data=run.data._replace(evaluation=ones))
    start, seen = run.start(), []
    for first in (0, 1):
        state = dataclasses.replace(start, step=start.step + first * run.budget.steps_per_epoch)
        state, metrics = run.train(state, 1)
        assert float(metrics["train/binary"]) == 1
        assert float(metrics["train/seen"]) == pytest.approx(100 / 255, abs=0.15)
        assert float(metrics["validation/loss"]) == 24  # neither drawn again nor scaled
        seen.append(np.asarray(state.params["visits"]))
    assert not np.array_equal(*seen)


# ------------------------------------------------------------------------------------------- fresh batches and windows


@recipe
class Marked:
    """Replaces every batch by one that is 7 in the first column and the scaled rows in the others."""

    def draw(self, batch: Examples, key: Any) -> Examples:
        return dataclasses.replace(batch, x=batch.x.at[:, 0].set(7.0))


def test_fresh_batches_are_for_training_only_and_evaluation_rows_are_scaled(make_run, make_dataset, build_optimizer):
    dataset = make_dataset(np.ones((24, 24), np.float32))
    split = dataclasses.replace(dataset.splits[0], scale=np.float32(0.5))
    run = make_run(Recorder(), dataset, draw=Marked(), optimizer=build_optimizer("sgd", learning_rate=1.0))
    run = run._replace(member=run.member._replace(split=split))
    state, metrics = run.train(run.start(), 1)
    assert float(metrics["train/seen"]) == pytest.approx((7 + 23 * 0.5) / 24)
    assert float(metrics["validation/loss"]) == 12
    visits = np.asarray(state.params["visits"])
    assert visits[0] == pytest.approx(14 * visits[1])


def test_windows_train_as_their_dense_rows_do(make_run, make_dataset):
    series = np.random.default_rng(0).random(27).astype(np.float32)
    windows = Windows(series, np.arange(24, dtype=np.int32), 4)
    run = make_run(Recorder(), make_dataset(windows[:]))
    lazy = run._replace(data=Data(*[jax.device_put(dataclasses.replace(run.data.train, x=windows))] * 2))
    results = [one.train(one.start(), 2) for one in (run, lazy)]
    jax.tree.map(np.testing.assert_array_equal, *results)


# ------------------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("key", "value"),
    [("epochs", 0), ("batch_size", 0), ("evaluate_every", 0), ("patience", 0), ("monitor", "train/loss")],
)
def test_wrong_budgets_are_refused(key: str, value: Any, build_trainer):
    with pytest.raises(ConfigError) as error:
        build_trainer(**{key: value})
    assert error.value.key == f"trainer.{key}"


def test_budgets_and_data(build_trainer, make_dataset, make_run):
    facts = make_dataset().facts
    assert build_trainer(batch_size=5).steps_per_epoch(facts) == 2
    build_trainer(batch_size=14).check(facts)
    with pytest.raises(ConfigError, match="14 rows"):
        build_trainer(batch_size=15).check(facts)
    with pytest.raises(ConfigError, match="14 steps each are 28000000000; a program counts to 2147483647"):
        build_trainer(batch_size=1, epochs=2_000_000_000).check(facts)
    run = make_run(Scripted(), monitor="validation/accuracy")
    with pytest.raises(ConfigError, match="validation/elbo_nats"):
        run.train(run.start(), 1)


def test_training_may_start_from_given_parameters(make_run):
    run = make_run(Scripted())
    state = initialize(*run, {"epochs": jnp.full((), 7.0)})
    assert float(state.params["epochs"]) == 7
    assert int(state.step) == 0
