"""A forecaster that reads covariates: what its forecasts depend on, and data whose answer only covariates tell."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest
from configs import shipped

from research.data import Examples, Facts
from research.data.loading import load
from research.fit import fit
from research.runs import batches
from research.tree import build

FACTS = Facts(
    "sequence", (6, 2), -9.0, 9.0, 0, 24, 4, 4, target_shape=(5, 2), target_follows=True, season=3, known=3, static=2
)
RANDOM = np.random.default_rng(0)
DRAWN = {"x": (4, 6, 2), "target": (4, 5, 2), "known": (4, 11, 3), "static": (4, 2)}
BATCH = Examples(**{name: jnp.asarray(RANDOM.normal(size=shape), jnp.float32) for name, shape in DRAWN.items()})
DECODINGS = ("direct", "parallel", "recursive")
SOME = [{}, {"static": 0}, {"known": 0}]


def small(build_model, some: dict[str, int], **options: Any) -> Any:
    facts = dataclasses.replace(FACTS, **some)
    return build_model("recurrent_forecaster", hidden_dim=4, segment=2, embedding=3, **options).bind(facts)


def rows_for(some: dict[str, int], **changes: Any) -> Examples:
    return dataclasses.replace(BATCH, **dict.fromkeys(some), **changes)


def forecast(model: Any, rows: Examples) -> np.ndarray:
    return np.asarray(model.forecast(model.fresh(jax.random.key(1)), rows).mean)


@pytest.mark.parametrize("some", SOME, ids=str)
@pytest.mark.parametrize("channels", ["independent", "joint"])
@pytest.mark.parametrize("decoding", DECODINGS)
def test_a_forecast_depends_on_covariates_and_never_on_the_values_to_come(decoding, channels, some, build_model):
    model = small(build_model, some, decoding=decoding, channels=channels)
    rows = rows_for(some)
    first = forecast(model, rows)
    np.testing.assert_array_equal(forecast(model, dataclasses.replace(rows, target=rows.target + 9)), first)
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(forecast(model, rows.take(order)), first[order], atol=1e-6)
    for name in ("known", "static"):
        if name not in some:
            other = dataclasses.replace(rows, **{name: getattr(rows, name) + 1})
            assert (np.abs(forecast(model, other) - first) > 1e-6).all(), name
    if channels == "independent":
        swapped = dataclasses.replace(rows, x=rows.x[..., ::-1])
        np.testing.assert_allclose(forecast(model, swapped), first[..., ::-1], atol=1e-6)


@pytest.mark.parametrize("decoding", DECODINGS)
def test_a_segment_of_the_forecast_reads_what_is_known_of_its_own_steps(decoding, build_model):
    """Segments hold two steps. Parallel ones read their own steps alone, recursive ones those before too."""
    model = small(build_model, {}, decoding=decoding)
    first = forecast(model, BATCH)
    for step in range(5):
        other = dataclasses.replace(BATCH, known=BATCH.known.at[:, 6 + step].add(1.0))
        changed = (np.abs(forecast(model, other) - first) > 1e-7).any((0, 2))
        piece = np.arange(5) // 2
        expected = {"direct": piece >= 0, "parallel": piece == step // 2, "recursive": piece >= step // 2}[decoding]
        np.testing.assert_array_equal(changed, expected)


@pytest.mark.parametrize("channels", ["independent", "joint"])
def test_recursive_forecasts_go_on_as_from_a_window_with_the_first_ones(channels, build_model):
    options = {"decoding": "recursive", "channels": channels, "normalize": "none", "residual": "none"}
    model = small(build_model, {}, **options)
    facts = dataclasses.replace(FACTS, feature_shape=(8, 2), target_shape=(3, 2))
    longer = build_model("recurrent_forecaster", hidden_dim=4, segment=2, embedding=3, **options).bind(facts)
    first = forecast(model, BATCH)
    rows = dataclasses.replace(BATCH, x=jnp.concatenate([BATCH.x, first[:, :2]], axis=1))
    np.testing.assert_allclose(forecast(longer, rows), first[:, 2:], atol=1e-6)


def test_the_width_that_is_asked_for_by_parameters_counts_those_of_covariates(build_model):
    sizes = [
        sum(leaf.size for leaf in jax.tree.leaves(small(build_model, some, parameters=900).fresh(jax.random.key(0))))
        for some in (*SOME, {"known": 0, "static": 0})
    ]
    np.testing.assert_allclose(sizes, 900, rtol=0.1)


# ------------------------------------------------------------------------------------------------------------ the truth

EFFECT = np.random.default_rng(9).normal(0, 3, 24)  # of the hours of a day


def priced(steps: int, number: int) -> pandas.DataFrame:
    """y = 2 price + effect of the hour + level of the kind: no past tells the prices to come."""
    hours = 5 * number + np.arange(steps)
    price, kind = np.random.default_rng(number).normal(10, 2, steps).round(2), "xy"[number % 2]
    y = 2 * price + EFFECT[hours % 24] + {"x": 0, "y": 15}[kind]
    times = np.datetime64("2021-03-01T00", "h") + hours.astype("m8[h]")
    return pandas.DataFrame({"store": f"s{number}", "hour": times, "kind": kind, "price": price, "y": y})


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("priced") / "priced.csv"
    series = [priced(steps, number) for number, steps in enumerate((300, 220, 260, 240))]
    pandas.concat(series).to_csv(file, index=False)
    return file


def error(table: Path, build_model, build_optimizer, *, covariates: bool, steps: int = 450, **options: Any) -> Any:
    """Mean absolute errors on the test rows, of a small network and of the last value."""
    keys = {"known": ["price"], "calendar": ["hour"], "static": ["kind"]} if covariates else {}
    own = {"path": str(table), "id_column": "store", "time_column": "hour", "values": ["y"], "window": 12, "horizon": 6}
    dataset = load(build(shipped("data", "panel") | own | keys | {"test_fraction": 0.15}))
    model = build_model("recurrent_forecaster", hidden_dim=32, segment=3, **options).bind(dataset.facts)
    split = dataset.split(None)
    train, test = (split.prepare(dataset.examples.take(split.rows(part))) for part in ("train", "test"))
    optimizer = build_optimizer("adam", learning_rate=5e-3)
    params = fit(model, optimizer, train, steps=steps, batch_size=64, seed=0)
    miss = np.abs(batches.call(model, params, test, "forecast").mean - test.target)
    return miss.mean(), np.abs(test.x[:, -1:] - test.target).mean()


@pytest.mark.parametrize(
    ("decoding", "channels"), [("direct", "independent"), ("parallel", "joint"), ("recursive", "independent")]
)
def test_what_covariates_tell_is_forecast(decoding, channels, table, build_model, build_optimizer):
    settings = {"decoding": decoding, "channels": channels, "normalize": "none"}
    miss, naive = error(table, build_model, build_optimizer, covariates=True, **settings)
    assert miss < naive / 6


def test_the_same_network_without_covariates_cannot(table, build_model, build_optimizer):
    miss, naive = error(table, build_model, build_optimizer, covariates=False, normalize="none")
    assert miss > naive / 2
