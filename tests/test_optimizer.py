"""Every optimizer works from traced numbers; every schedule has the values that its formula says."""

import functools
import inspect
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from configs import names, shipped

from research.optax_names import NEEDS_MORE, known_optimizers
from research.optimizer import OWN_KEYS, Optimizer, Players
from research.tree import ConfigError, build, plain, stack, structure

CONFIGS: Any = {name: shipped("optimizer", name) for name in names("optimizer")}
SHIPPED = [name for name, config in CONFIGS.items() if "name" in config]
PLAYERS = [name for name in CONFIGS if name not in SHIPPED]
GAN, SGD = CONFIGS["gan"], CONFIGS["sgd"]
COMMON = {key: SGD[key] for key in OWN_KEYS if key != "name"}
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # of compiling
PARAMS = {"encoder": {"kernel": jnp.full((3, 2), 0.5), "bias": jnp.ones(2)}, "scale": jnp.ones(())}


def make(name: str = "sgd", learning_rate: float = 0.1, **changes: Any) -> Optimizer:
    return build({"name": name, "learning_rate": learning_rate} | COMMON | changes, Optimizer)


def defaults(name: str) -> dict[str, Any]:
    """The numbers, flags and integers that optax itself has for this optimizer."""
    parameters = inspect.signature(getattr(optax, name)).parameters.items()
    return {key: parameter.default for key, parameter in parameters if isinstance(parameter.default, float | int)}


def step(optimizer: Optimizer, params: Any) -> Any:
    """Two steps down |p|^2 / 2."""
    transformation = optimizer.build(epochs=4, steps_per_epoch=5)
    state = transformation.init(params)
    for _ in range(2):
        updates, state = transformation.update(params, state, params)
        params = optax.apply_updates(params, updates)
    return params


# ----------------------------------------------------------------------------------------------------- every optimizer


@pytest.mark.parametrize("name", known_optimizers())
def test_every_optimizer_takes_traced_numbers(name: str):
    optimizer = make(name, **defaults(name))
    assert build(plain(optimizer)) == optimizer
    other = make(name, learning_rate=0.02, **defaults(name))
    assert structure(other) == structure(optimizer)
    both = jax.jit(jax.vmap(step, (0, None)), compiler_options=QUICKLY)(stack([optimizer, other]), PARAMS)
    for leaf, start in zip(jax.tree.leaves(both), jax.tree.leaves(PARAMS), strict=True):
        assert np.isfinite(leaf).all()
        for member in leaf:
            assert (np.abs(member - start) > 1e-8).all()
        assert not np.array_equal(leaf[0], leaf[1])  # the rate is an input of the program


def test_known_optimizers():
    known = set(known_optimizers())
    assert {"adam", "nadam", "nadamw", "sgd", "rmsprop", "lion", "adafactor", "lamb"} <= known
    assert not known & set(NEEDS_MORE)
    assert not {name for name in known if name.startswith("scale_by")}


@pytest.mark.parametrize("name", sorted(NEEDS_MORE))
def test_optimizers_that_need_more_are_refused_with_the_reason(name: str):
    assert hasattr(optax, name)
    with pytest.raises(ConfigError) as error:
        make(name)
    assert error.value.key == "name"
    assert NEEDS_MORE[name].replace("{key}", "name") in str(error.value)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_optimizers(name: str, build_optimizer):
    optimizer = build_optimizer(name)
    assert optimizer.name == name
    traced = jax.jit(step, compiler_options=QUICKLY)(optimizer, PARAMS)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(traced))
    # the same as optax by hand
    rate = optimizer.numbers["learning_rate"]
    numbers = {key: value for key, value in optimizer.numbers.items() if key != "learning_rate"}
    by_hand = getattr(optax, name)(rate, **numbers, **dict(optimizer.options))
    state, params = by_hand.init(PARAMS), PARAMS
    for _ in range(2):
        updates, state = by_hand.update(params, state, params)
        params = optax.apply_updates(params, updates)
    for ours, theirs in zip(jax.tree.leaves(traced), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"name": "adm"}, "name", "did you mean 'adam'"),
        ({"name": "adam", "b3": 0.1}, "b3", "no such number"),
        ({"name": "adam", "b1": "x"}, "b1", "expected a number"),
        ({"name": "adam", "nesterov": 1.0}, "nesterov", "true or false"),
        ({"name": "adam", "b1": True}, "b1", "expected a number"),
        ({"name": "adam", "b1": -1}, "b1", "[0, 1)"),
        ({"name": "adam", "b2": 1 - 1e-12}, "b2", "is 1.0 in 32 bits"),
        ({"name": "adam", "eps": -1}, "eps", "negative"),
        ({"name": "adamw", "weight_decay": 1e39}, "weight_decay", "too large"),
        ({"name": "adamw", "mask": 1}, "mask", "no number"),
        ({"name": "adam", "mu_dtype": 1}, "mu_dtype", "no number"),
        ({"name": "signum", "beta": 1.0}, "beta", "[0, 1)"),
        ({"name": "adafactor", "clipping_threshold": 0.5}, "clipping_threshold", "at least 1"),
        ({"clip_norm": float("inf")}, "clip_norm", "too large"),
        ({"name": "adafactor", "min_dim_size_to_factor": 1.5}, "min_dim_size_to_factor", "integer"),
        ({"learning_rate": None}, "learning_rate", "must be set"),
        ({"learning_rate": 0.0}, "learning_rate", "positive"),
        ({"clip_norm": 0.0}, "clip_norm", "positive"),
        ({"clip_value": -1.0}, "clip_value", "positive"),
        ({"warmup_epochs": -1}, "warmup_epochs", "negative"),
        ({"final_factor": 1.5}, "final_factor", "[0, 1]"),
        ({"schedule": "exponential", "final_factor": 0}, "final_factor", "above 0"),
        ({"schedule": "cosin"}, "schedule", "did you mean 'cosine'"),
        ({"stages": 1}, "stages", "2 ... 20"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], key: str, words: str):
    with pytest.raises(ConfigError) as error:
        make(**({"name": "sgd"} | changes))
    assert error.value.key == key
    assert words in str(error.value)


def test_flags_are_structure_and_numbers_are_leaves():
    assert structure(make("adam", b1=0.9)) == structure(make("adam", b1=0.5))
    assert structure(make("adam", nesterov=True)) != structure(make("adam", nesterov=False))
    assert structure(make(clip_norm=1.0)) != structure(make())
    assert structure(make(momentum=0.9)) != structure(make(momentum=None))


# ----------------------------------------------------------------------------------------------------------- schedules


def rates(optimizer: Optimizer, steps: Any, epochs: int, steps_per_epoch: int) -> np.ndarray:
    shape = functools.partial(optimizer.rate_shape, epochs=epochs, steps_per_epoch=steps_per_epoch)
    return np.asarray(jax.jit(jax.vmap(shape))(jnp.asarray(steps)))


@pytest.mark.parametrize(
    ("schedule", "final", "expected"),
    [
        ("constant", 0.0, [1, 1, 1, 1, 1]),
        ("linear", 0.2, [1, 0.8, 0.6, 0.4, 0.2]),
        ("cosine", 0.0, [1, (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 + math.cos(3 * math.pi / 4)) / 2, 0]),
        ("cosine", 0.5, [1, 0.5 + 0.25 * (1 + math.cos(math.pi / 4)), 0.75, 0.5732233, 0.5]),
        ("exponential", 0.0625, [1, 0.5, 0.25, 0.125, 0.0625]),
    ],
)
def test_schedules(schedule: str, final: float, expected: list[float]):
    optimizer = make(schedule=schedule, final_factor=final)
    np.testing.assert_allclose(rates(optimizer, [0, 5, 10, 15, 20], 4, 5), expected, atol=1e-6)
    assert rates(optimizer, [40], 4, 5)[0] == pytest.approx(expected[-1], abs=1e-6)  # and nothing more after the end


def test_the_warm_up_is_linear_and_the_schedule_begins_after_it():
    optimizer = make(schedule="linear", final_factor=0.0, warmup_epochs=0.8)  # 4 steps of 20
    expected = [1 / 5, 2 / 5, 3 / 5, 4 / 5, 1, 0.5, 1 / 16]
    np.testing.assert_allclose(rates(optimizer, [0, 1, 2, 3, 4, 12, 19], 4, 5), expected, atol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "exponential", "stages"])
@pytest.mark.parametrize("warmup", [0.0, 4.0, 100.0])
def test_no_schedule_has_a_nan(schedule: str, warmup: float):
    optimizer = make(schedule=schedule, final_factor=0.1, warmup_epochs=warmup)

    def rate(optimizer: Optimizer, step: jax.Array) -> jax.Array:
        return optimizer.rate_shape(step, 4, 5)

    steps = jnp.arange(21)
    values = jax.jit(jax.vmap(rate, (None, 0)))(optimizer, steps)
    assert np.isfinite(values).all()
    assert (np.asarray(values) > 0).all()
    slopes = jax.jit(jax.vmap(jax.grad(rate), (None, 0)))(optimizer, steps)
    assert np.isfinite(slopes.warmup_epochs).all()


def test_the_first_rate_without_warm_up_is_the_full_one():
    moved = step(make(warmup_epochs=0.0), PARAMS)
    assert float(moved["scale"]) == pytest.approx(0.9 * 0.9)


def test_stages_are_those_of_the_importance_weighted_autoencoder():
    steps_per_epoch, lengths = 2980, [3**i for i in range(8)]
    epochs = sum(lengths)
    assert epochs == 3280
    optimizer = make("adam", learning_rate=1e-3, schedule="stages", stages=8)
    ends = np.cumsum(lengths) * steps_per_epoch
    steps = np.stack([ends - [length * steps_per_epoch for length in lengths], ends - 1], axis=1)
    published = [1e-4 * round(10 ** (1 - (i - 1) / 7), 1) for i in range(1, 9)]
    found = 1e-3 * rates(optimizer, steps.reshape(-1), epochs, steps_per_epoch).reshape(8, 2)
    np.testing.assert_allclose(found, np.stack([published, published], axis=1), rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------ clipping


def test_clipping():
    gradient = {"a": jnp.array([3.0, -4.0]), "b": jnp.array([0.0])}

    def update(**changes: Any) -> Any:
        transformation = make(learning_rate=1.0, **changes).build(1, 1)
        return transformation.update(gradient, transformation.init(gradient), gradient)[0]["a"]

    np.testing.assert_allclose(update(), [-3, 4], rtol=1e-6)
    np.testing.assert_allclose(update(clip_norm=2.5), [-1.5, 2], rtol=1e-6)
    np.testing.assert_allclose(update(clip_norm=6.0), [-3, 4], rtol=1e-6)
    np.testing.assert_allclose(update(clip_value=1.0), [-1, 1], rtol=1e-6)
    np.testing.assert_allclose(update(clip_value=3.0, clip_norm=1.0), np.array([-1, 1]) / math.sqrt(2), rtol=1e-6)


# ------------------------------------------------------------------------------------------------------------- players


def make_players(**changes: Any) -> Players:
    """The shipped players with some keys of the generator replaced."""
    return build(GAN | {"generator": GAN["generator"] | changes})


def test_players_and_their_sections_are_the_same():
    players = make_players(period=5, learning_rate=0.2)
    assert build(plain(players)) == players
    sections = plain(players)
    assert sections["generator"]["period"] == players.periods["generator"] == 5.0
    assert sections["generator"]["learning_rate"] == players.players["generator"].numbers["learning_rate"] == 0.2
    assert set(players.players) == set(players.periods) == {"generator", "discriminator"}


def test_periods_sweep():
    every, third = make_players(period=1.0), make_players(period=3.0, learning_rate=0.5)
    assert structure(every) == structure(third)
    assert structure(every) != structure(make_players(clip_norm=1.0))
    params = {name: jnp.zeros(2) for name in ("generator", "discriminator")}

    def train(players: Players) -> Any:
        """Which player moved at each of six steps."""
        transformation = players.build(epochs=2, steps_per_epoch=3)

        def step(state: Any, _: None) -> Any:
            updates, state = transformation.update(jax.tree.map(jnp.ones_like, params), state, params)
            return state, jax.tree.map(lambda update: jnp.all(update != 0), updates)

        return jax.lax.scan(step, transformation.init(params), None, length=6)[1]

    moved: Any = jax.jit(jax.vmap(train), compiler_options=QUICKLY)(stack([every, third]))
    np.testing.assert_array_equal(moved["generator"], [[True] * 6, [True, False, False] * 2])
    assert moved["discriminator"].all()


@pytest.mark.parametrize(
    ("config", "key", "words"),
    [
        ({"generator": 0.1}, "generator", "a section of keys"),
        ({"generator": {"period": None}}, "generator.period", "null"),
        ({"generator": {"period": 0.5}}, "generator.period", "at least 1"),
        ({"generator": {"period": "x"}}, "generator.period", "number"),
        ({"discriminator": {"learning_rate": -1.0}}, "discriminator.learning_rate", "positive"),
        ({"discriminator": {"nam": "sgd"}}, "discriminator.nam", "did you mean 'optimizer.discriminator.name'"),
    ],
)
def test_wrong_players_are_refused(config: dict[str, Any], key: str, words: str):
    changed = {name: GAN[name] | section if isinstance(section, dict) else section for name, section in config.items()}
    with pytest.raises(ConfigError) as error:
        build(GAN | changed, key="optimizer")
    assert error.value.key == f"optimizer.{key}"
    assert words in str(error.value)


def test_a_player_without_a_period_or_a_part_is_refused():
    section = {key: value for key, value in GAN["generator"].items() if key != "period"}
    with pytest.raises(ConfigError, match="must be set") as error:
        build(GAN | {"generator": section}, key="optimizer")
    assert error.value.key == "optimizer.generator.period"
    with pytest.raises(ConfigError, match="players are decoder, encoder"):
        make_players().build(1, 1).init({"encoder": jnp.ones(2), "decoder": jnp.ones(2)})
    with pytest.raises(ConfigError, match="players are generator"):
        make_players().build(1, 1).init({"generator": jnp.ones(2)})


def test_shipped_players(build_optimizer):
    assert set(PLAYERS) == {"codebook", "discriminator", "gan"}
    for name in PLAYERS:
        assert set(build_optimizer(name).players) == set(CONFIGS[name]) - {"_target_"}


def test_the_rest_is_a_player(build_optimizer):
    """Every part that no player is named after moves by the rate of `rest`."""
    sgd = COMMON | {"name": "sgd", "period": 1.0}
    sections = {"discriminator": sgd | {"learning_rate": 0.5}, "rest": sgd | {"learning_rate": 0.25}}
    players = build({"_target_": CONFIGS["discriminator"]["_target_"]} | sections)
    params = {name: jnp.ones(2) for name in ("encoder", "decoder", "discriminator")}
    transformation = players.build(1, 1)
    updates, _ = transformation.update(params, transformation.init(params), params)
    assert {name: float(update[0]) for name, update in updates.items()} == {
        **{"encoder": -0.25, "decoder": -0.25},
        "discriminator": -0.5,
    }
    assert players.unmatched(params) == []
    assert players.unmatched(("encoder", "decoder")) == ["discriminator"]  # a player of nothing is refused all the same
    with pytest.raises(ConfigError, match="players are decoder, encoder"):
        players.build(1, 1).init({"encoder": jnp.ones(2), "decoder": jnp.ones(2)})
    assert make_players().unmatched(params) == ["generator"]
    assert make_players().unmatched(("generator", "discriminator", "encoder")) == ["encoder"]  # without a rest
