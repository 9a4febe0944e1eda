"""Two players in one scalar: gradients that do not cross, players that move at their own times."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from configs import budget

from research import engine
from research.clock import Clock
from research.data import Examples, Facts
from research.engine import NEVER, State
from research.tree import ConfigError, plain

QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # of compiling
FACTS = Facts("sequence", (4, 2), 0.0, 1.0, 0, 24, 4, 4)
LENGTH = jnp.array([4, 2, 3, 1, 4])
X = jax.random.uniform(jax.random.key(0), (5, 4, 2))
BATCH = Examples(x=jnp.where(jnp.arange(4)[None, :, None] < LENGTH[:, None, None], X, 0), length=LENGTH)
CLOCK = Clock(*(jnp.float32(value) for value in (12, 3, 0.3, 24)))
GAMES: list[dict[str, Any]] = [
    {"game": "non_saturating"},
    {"game": "least_squares", "cell": "lstm", "bidirectional": True},
    {"game": "wasserstein", "gradient_penalty": 10.0},
]


def small(build_model, facts: Facts = FACTS, **options: Any) -> Any:
    return build_model("recurrent_gan", **({"hidden_dim": 4, "noise_dim": 2} | options)).bind(facts)


def start(model: Any) -> Any:
    return model.fresh(jax.random.key(0))


SGD = {"name": "sgd", "learning_rate": 1.0, "b1": None, "b2": None, "eps": None}  # in place of adam


# ------------------------------------------------------------------------------------------------------ one scalar


def played(model: Any, params: Any, key: Any) -> tuple[dict[str, jax.Array], Any]:
    """The players' own terms, as functions of all parameters without any stop of a gradient."""
    fake_key, mix_key = jax.random.split(key)
    fake = model.sample(params, fake_key, 5)
    real, judged = model.discriminate(params, BATCH.x, LENGTH), model.discriminate(params, fake, LENGTH)
    match model.game:
        case "non_saturating":  # -log D(x) - log(1 - D(fake)) with D a sigmoid
            critic = -jnp.log(jax.nn.sigmoid(real)) - jnp.log(1 - jax.nn.sigmoid(judged))
            generator = -jnp.log(jax.nn.sigmoid(judged))
        case "least_squares":
            critic, generator = 0.5 * (real - 1) ** 2 + 0.5 * judged**2, 0.5 * (judged - 1) ** 2
        case _:
            critic, generator = judged - real, -judged
    critic = critic.mean()
    if model.gradient_penalty is not None:
        share = jax.random.uniform(mix_key, (5, 1, 1))
        mixed = share * BATCH.x + (1 - share) * fake
        one = lambda x, length: model.discriminate(params, x[None], length[None])[0]
        slopes = jax.vmap(jax.grad(one))(mixed, LENGTH).reshape(5, -1)
        critic += model.gradient_penalty * jnp.square(jnp.sqrt(jnp.square(slopes).sum(-1)) - 1).mean()
    return {"discriminator": critic, "generator": generator.mean()}, fake


@pytest.mark.parametrize("options", GAMES, ids=str)
def test_the_gradient_of_the_sum_is_each_players_own(options: dict[str, Any], build_model):
    model, key = small(build_model, **options), jax.random.key(1)
    params = start(model)

    def everything(params: Any) -> Any:
        whole = jax.value_and_grad(lambda params: model.loss(params, BATCH, key, CLOCK)[0])(params)
        own = {
            name: jax.grad(lambda part, name=name: played(model, {**params, name: part}, key)[0][name])(params[name])
            for name in ("discriminator", "generator")
        }
        return whole, own, sum(played(model, params, key)[0].values())

    (loss, gradient), own, total = jax.jit(everything, compiler_options=QUICKLY)(params)
    assert float(loss) == pytest.approx(float(total), rel=1e-5)
    for (path, ours), theirs in zip(jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(own), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5, err_msg=str(path))


@pytest.mark.parametrize("options", GAMES, ids=str)
def test_no_gradient_crosses(options: dict[str, Any], build_model):
    """The discriminator's term is constant to the generator, and the generator's to the discriminator, exactly."""
    model, key = small(build_model, **options), jax.random.key(1)

    def terms(params: Any) -> tuple[jax.Array, jax.Array]:
        critic, generator, _, _ = model.terms(params, BATCH, model.sample(params, key, 5))
        return critic.sum(), generator.sum()

    critic, generator = jax.jit(jax.jacrev(terms), compiler_options=QUICKLY)(start(model))
    for one, other in (
        (critic["generator"], critic["discriminator"]),
        (generator["discriminator"], generator["generator"]),
    ):
        assert all(not np.any(leaf) for leaf in jax.tree.leaves(one))
        assert any(np.any(leaf) for leaf in jax.tree.leaves(other))


# --------------------------------------------------------------------------------------------------- samples, padding


def test_samples_lie_in_the_range_and_do_not_depend_on_what_follows(build_model):
    params = start(small(build_model))
    longer = dataclasses.replace(FACTS, feature_shape=(7, 2))
    key = jax.random.key(3)
    samples = {}
    for function, low, high in (("sigmoid", 0, 1), ("tanh", -1, 1), ("linear", -9, 9)):
        for facts in (FACTS, longer):
            model = small(build_model, facts, generator_activation=function)
            draw = jax.jit(lambda params, key, model=model: model.sample(params, key, 6), compiler_options=QUICKLY)
            samples[facts] = np.asarray(draw(params, key))
            if facts is FACTS:
                other = np.asarray(draw(params, jax.random.key(4)))
        short = samples[FACTS]
        np.testing.assert_allclose(samples[longer][:, :4], short, atol=1e-6)  # noise of a step is its own
        assert low <= short.min() < short.max() <= high
        assert np.abs(short[0] - short[1]).min() > 0
        assert np.abs(other - short).min() > 0


@pytest.mark.parametrize("cell", ["irnn", "lstm"])
def test_padding_changes_no_judgement(cell: str, build_model):
    model = small(build_model, cell=cell, bidirectional=True, layers=2)
    params = start(model)
    longer = jnp.pad(BATCH.x, ((0, 0), (0, 3), (0, 0)))
    judged = lambda x, length=None: jax.jit(model.discriminate, compiler_options=QUICKLY)(params, x, length)
    short = judged(BATCH.x, LENGTH)
    np.testing.assert_allclose(judged(longer, LENGTH), short, atol=1e-6)
    np.testing.assert_allclose(judged(X[1:2, :2])[0], short[1], atol=1e-6)


def test_ranges_out_of_reach_are_refused(build_model):
    for function, low, high in (("sigmoid", -3.0, 1.0), ("tanh", -1.0, 9.0)):
        with pytest.raises(ConfigError, match="generator_activation=linear") as error:
            small(build_model, dataclasses.replace(FACTS, low=low, high=high), generator_activation=function)
        assert error.value.key == "generator_activation"
    small(build_model, dataclasses.replace(FACTS, low=-30.0, high=90.0), generator_activation="linear")


# --------------------------------------------------------------------------------------------------------- players


def players(build_optimizer, **changes: dict[str, Any]) -> Any:
    """The shipped optimizer with some keys of its players replaced; None takes a key away."""
    sections = shipped_players(build_optimizer)
    for name, change in changes.items():
        changed = {**sections[name], **change}
        sections[name] = {key: value for key, value in changed.items() if value is not None or key.startswith("clip")}
    return build_optimizer("gan", **sections)


def shipped_players(build_optimizer) -> dict[str, Any]:
    sections = plain(build_optimizer("gan"))
    return {name: sections[name] for name in ("generator", "discriminator")}


def trained(model: Any, optimizer: Any, steps: int) -> list[Any]:
    """Parameters after every step of training on one batch."""
    params = start(model)
    after = jax.tree.map(np.asarray, train(model, params, optimizer, steps))
    return [params, *(jax.tree.map(lambda leaf, at=at: leaf[at], after) for at in range(steps))]


@functools.partial(jax.jit, static_argnames="steps", compiler_options=QUICKLY)
def train(model: Any, params: Any, optimizer: Any, steps: int) -> Any:
    transformation = optimizer.build(1, steps)
    never = jnp.int32(NEVER)
    state = State(jnp.int32(0), params, transformation.init(params), None, jnp.float32(0), never, never, never)

    def step(state: State, index: jax.Array) -> tuple[State, Any]:
        key = jax.random.fold_in(jax.random.key(5), index)
        state, _ = engine.train_step(model, transformation, state, BATCH, key, CLOCK, budget())
        return state, state.params

    return jax.lax.scan(step, state, jnp.arange(steps))[1]


def moved(before: Any, after: Any, name: str) -> bool:
    return bool(
        max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (before[name], after[name])), strict=True))
    )


def test_players_move_when_their_period_is_due(build_model, build_optimizer):
    optimizer = players(build_optimizer, generator={"period": 3.0})
    found = trained(small(build_model), optimizer, 5)
    pairs = list(itertools.pairwise(found))
    assert [moved(*pair, "generator") for pair in pairs] == [True, False, False, True, False]
    assert all(moved(*pair, "discriminator") for pair in pairs)


def test_clipping_one_player_leaves_the_other_alone(build_model, build_optimizer):
    model, sgd = small(build_model), SGD | {"learning_rate": 0.1}
    free, clipped, loose = (
        trained(model, players(build_optimizer, generator=sgd, discriminator=sgd | {"clip_norm": norm}), 1)
        for norm in (None, 1e-6, 1e6)
    )
    for one, other in zip(jax.tree.leaves(free[1]["generator"]), jax.tree.leaves(clipped[1]["generator"]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-9)
    move = jax.tree.map(lambda a, b: b - a, clipped[0]["discriminator"], clipped[1]["discriminator"])
    assert float(optax.tree.norm(move)) < 1e-6
    assert moved(free[0], free[1], "discriminator")
    for one, other in zip(jax.tree.leaves(free[1]), jax.tree.leaves(loose[1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-9)


def test_schedules_follow_the_training_and_not_the_moves(build_model, build_optimizer):
    """A player that moves at every second step ends its schedule with the training."""
    optimizer = players(build_optimizer, generator=SGD | {"schedule": "linear", "period": 2.0})
    params = {"generator": jnp.zeros(()), "discriminator": jnp.zeros(())}
    transformation = optimizer.build(2, 4)
    state, rates = transformation.init(params), []
    for _ in range(8):
        updates, state = transformation.update(
            {"generator": jnp.ones(()), "discriminator": jnp.ones(())}, state, params
        )
        rates.append(-float(updates["generator"]))
    np.testing.assert_allclose(rates, [1, 0, 0.75, 0, 0.5, 0, 0.25, 0], atol=1e-6)


def test_players_that_the_model_does_not_have_are_refused(build_model, build_optimizer):
    params = start(small(build_model))
    with pytest.raises(ConfigError, match="discriminator, generator"):
        build_optimizer("gan").build(1, 1).init({"encoder": params["generator"], "decoder": params["discriminator"]})


def test_gaps_do_not_tell_real_from_fake(build_model):
    """Where the real row has no value, the fake one has none either: equal discriminators see equal gaps."""
    model = small(build_model)
    params = start(model)
    observed = jnp.zeros(X.shape, bool)  # nothing is there: both are zeros
    batch = Examples(x=jnp.zeros_like(X), observed=observed)
    keys = jax.random.split(jax.random.key(2), 5)
    (_, metrics), scores = jax.jit(
        lambda params: (model.loss(params, batch, jax.random.key(1), CLOCK), model.evaluate(params, batch, keys)),
        compiler_options=QUICKLY,
    )(params)
    assert float(metrics["real_value"]) == pytest.approx(float(metrics["fake_value"]), abs=1e-7)
    np.testing.assert_allclose(scores["discriminator_loss"], scores["discriminator_loss"][0], rtol=1e-5)


def test_the_border_of_least_squares_lies_between_its_targets(build_model, monkeypatch):
    """Targets are 1 and 0: a discriminator that says .75 of real rows and .25 of fake ones is right every time."""
    model = small(build_model, game="least_squares")
    params = jax.tree.map(jnp.zeros_like, start(model))  # every fake value is sigmoid(0) = .5
    monkeypatch.setattr(type(model), "discriminate", lambda self, own, x, length=None: x.mean((1, 2)) - 0.25)
    batch = Examples(x=jnp.ones_like(X))
    scores = model.evaluate(params, batch, jax.random.split(jax.random.key(2), 5))
    np.testing.assert_array_equal(scores["discriminator_accuracy"], 1)


def test_a_summary_that_nothing_reads_is_refused(build_model):
    with pytest.raises(ConfigError, match=r"no such choice; leave model\.summary out") as error:
        small(build_model, summary="mean")
    assert error.value.key == "model.summary"
