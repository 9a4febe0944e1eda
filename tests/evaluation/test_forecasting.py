"""Errors of forecasts, and forecasts that need no network."""

import itertools

import numpy as np
import pytest

from research.data.examples import Examples
from research.evaluation import forecasting
from research.evaluation.forecasting import Linear, Sums, errors, repeat_last, seasonal_naive


def column(*values):
    return np.array(values, float)[None, :, None]


def test_errors_counted_by_hand():
    found = errors(column(1, 2, 0), column(3, 2, 0), column(1, 4, 0), None, np.array([[4.0]]))
    np.testing.assert_allclose(found["mse"], column(0, 4, 0))
    np.testing.assert_allclose(found["mae"], column(2, 2, 0))
    np.testing.assert_allclose(found["smape"], column(100, 200 / 3, 0))
    np.testing.assert_allclose(found["mase"], column(0.5, 0.5, 0))
    assert all(values.dtype == np.float64 for values in found.values())
    assert "mase" not in errors(column(1), column(1), column(1), None, None)


def test_percentages_are_of_raw_values_and_scaled_errors_too():
    generator = np.random.default_rng(0)
    target, forecast = generator.normal(size=(2, 5, 4, 3))
    naive = generator.uniform(1, 2, (5, 3))
    shift, scale = np.array([5.0, -3.0, 100.0]), np.array([0.5, 2.0, 0.01])
    raw = errors(forecast, forecast, target, None, naive)
    scaled = errors((forecast - shift) * scale, *((v - shift) * scale for v in (forecast, target)), None, naive,
                    shift, scale)  # fmt: skip
    for name in ("smape", "mase"):
        np.testing.assert_allclose(scaled[name], raw[name], rtol=1e-9)
    np.testing.assert_allclose(scaled["mae"], raw["mae"] * scale)
    np.testing.assert_allclose(scaled["mse"], raw["mse"] * scale**2)


def test_a_series_whose_naive_forecast_is_perfect():
    found = errors(column(1, 2), column(1, 2), column(1, 1), None, np.zeros((1, 1)))
    np.testing.assert_array_equal(found["mase"], column(0, np.inf))


def test_what_is_missing_counts_nowhere():
    target, observed = column(1, np.nan, 3), np.array([True, False, True])[None, :, None]
    sums = Sums()
    found = errors(column(2, 2, 2), column(2, 2, 2), target, observed, np.ones((1, 1)))
    sums.add(found, observed)
    assert sums.means()["mae"] == 1
    np.testing.assert_array_equal(sums.steps()["mae"], [1, np.nan, 1])
    forecast = column(2, 2, np.nan)  # but a forecast that is not a number is an error
    sums.add(errors(forecast, forecast, target, observed, np.ones((1, 1))), observed)
    assert np.isnan(sums.means()["mae"])
    empty = Sums()
    empty.add(found | {"mae": found["mae"] * 0}, np.zeros((1, 3, 1), bool))
    assert np.isnan(empty.means()["mae"])


def test_sums_do_not_depend_on_batches():
    generator = np.random.default_rng(0)
    forecast, target = generator.normal(size=(2, 11, 4, 3))
    observed, naive = generator.random((11, 4, 3)) < 0.7, generator.uniform(1, 2, (11, 3))
    whole, parts = Sums(), Sums()
    whole.add(errors(forecast, forecast, target, observed, naive), observed)
    for first in range(0, 11, 4):
        part = slice(first, first + 4)
        batch = errors(forecast[part], forecast[part], target[part], observed[part], naive[part])
        parts.add(batch, observed[part])
    assert parts.means() == pytest.approx(whole.means())
    assert whole.means()["mae"] == pytest.approx(np.abs(forecast - target)[observed].mean())
    steps = np.abs(forecast - target)[:, 2][observed[:, 2]].mean()
    assert whole.steps()["mae"][2] == pytest.approx(steps)


def test_the_last_value_is_repeated():
    x = np.arange(12.0).reshape(2, 3, 2)
    found = repeat_last(x, 4)
    assert found.shape == (2, 4, 2)
    np.testing.assert_array_equal(found[1], [[10, 11]] * 4)
    observed = np.ones(x.shape, bool)
    observed[0, 2, 0] = observed[1, :, 1] = False
    x[~observed] = np.nan
    np.testing.assert_array_equal(repeat_last(x, 1, observed)[:, 0], [[2, 5], [10, 0]])


@pytest.mark.parametrize("horizon", [1, 3, 7])
def test_a_periodic_series_is_forecast_exactly(horizon):
    series = np.tile(np.random.default_rng(0).normal(size=(3, 2)), (8, 1))
    for start, steps in itertools.product(range(3), (3, 5, 8)):
        x, target = series[None, start : start + steps], series[None, start + steps : start + steps + horizon]
        np.testing.assert_array_equal(seasonal_naive(x, horizon, 3), target)
        np.testing.assert_array_equal(seasonal_naive(x, horizon, 3, np.ones(x.shape, bool)), target)


def test_a_missing_season_is_taken_from_the_one_before():
    x = column(9, 0, 1, 2, 10, 11, 12)  # season 3: phases (0, 10), (1, 11), (9, 2, 12)
    observed = np.ones(x.shape, bool)
    np.testing.assert_array_equal(seasonal_naive(x, 3, 3, observed), column(10, 11, 12))
    observed[0, [4, 6, 3]] = False
    x[~observed] = np.nan
    np.testing.assert_array_equal(seasonal_naive(x, 3, 3, observed), column(0, 11, 9))
    observed[0, [0, 5]] = False
    np.testing.assert_array_equal(seasonal_naive(x, 3, 3, observed), column(0, 1, 1))  # the last phase was never seen
    with pytest.raises(ValueError, match="7 steps is shorter than a season of 8"):
        seasonal_naive(x, 3, 8)


def windows(series, steps, horizon, size=16):
    """Batches of all windows of series [S, C]."""
    starts = np.arange(len(series) - steps - horizon + 1)
    for first in range(0, len(starts), size):
        at = starts[first : first + size, None]
        yield Examples(x=series[at + np.arange(steps)], target=series[at + steps + np.arange(horizon)])


def recurrence(length, channels=2):
    """Sums of two waves and a constant of each channel: a fixed linear function of the last values continues them."""
    time, generator = np.arange(length)[:, None], np.random.default_rng(0)
    phase, size = generator.uniform(0, 6, (2, channels)), generator.uniform(0.5, 2, (2, channels))
    waves = size[0] * np.sin(0.3 * time + phase[0]) + size[1] * np.sin(1.1 * time + phase[1])
    return waves + 10 * np.arange(channels)


def test_the_linear_forecast_continues_what_is_linear():
    series = recurrence(300)
    fitted = Linear.fit(windows(series[:200], 12, 5), windows(series[200:250], 12, 5))
    for chunk in windows(series[250:], 12, 5):
        np.testing.assert_allclose(fitted.predict(chunk.x), chunk.target, atol=0.02)
        assert np.abs(repeat_last(chunk.x, 5) - chunk.target).max() > 1
    assert fitted.ridge == forecasting.RIDGES[0]


def test_the_linear_fit_is_ridge_regression():
    from sklearn.linear_model import Ridge

    series = np.random.default_rng(0).normal(size=(80, 2)).cumsum(0)
    train, validation = list(windows(series[:60], 6, 3)), list(windows(series[50:], 6, 3))
    fitted = Linear.fit(train, validation)
    x, y = (np.concatenate([getattr(chunk, field) for chunk in train]) for field in ("x", "target"))
    rows = np.swapaxes(x - x[:, -1:], 1, 2).reshape(-1, 6)
    ahead = np.swapaxes(y - x[:, -1:], 1, 2).reshape(-1, 3)
    unit = rows.var(0).mean() * len(rows)
    found = {}
    for strength in forecasting.RIDGES:
        reference = Ridge(strength * unit).fit(rows, ahead)
        test_x, test_y = (np.concatenate([getattr(chunk, field) for chunk in validation]) for field in ("x", "target"))
        inputs = np.swapaxes(test_x - test_x[:, -1:], 1, 2).reshape(-1, 6)
        outputs = np.swapaxes(test_y - test_x[:, -1:], 1, 2).reshape(-1, 3)
        found[strength] = np.square(reference.predict(inputs) - outputs).mean()
        if strength == fitted.ridge:
            np.testing.assert_allclose(fitted.weight, reference.coef_.T, atol=1e-6)
            np.testing.assert_allclose(fitted.bias, reference.intercept_, atol=1e-6)
    assert fitted.ridge == min(found, key=lambda strength: found[strength])


def test_much_noise_wants_a_strong_ridge():
    series = np.random.default_rng(0).normal(size=(90, 1))
    fitted = Linear.fit(windows(series[:50], 20, 4), windows(series[40:], 20, 4))
    assert fitted.ridge == forecasting.RIDGES[-1]


def test_the_linear_forecast_leaves_out_missing_targets():
    series = recurrence(120)
    whole = list(windows(series, 8, 3))
    keep = np.arange(len(series) - 10) % 3 > 0
    rng = np.random.default_rng(0)
    with_holes, without, first = [], [], 0
    for chunk in whole:
        kept = keep[first : first + len(chunk)]
        first += len(chunk)
        without.append(chunk.take(kept))
        observed = np.ones(chunk.target.shape, bool)
        observed[~kept, rng.integers(3)] = False
        target = np.where(observed, chunk.target, np.nan)
        with_holes.append(Examples(chunk.x, target, observed=np.ones(chunk.x.shape, bool), target_observed=observed))
    fitted = Linear.fit(with_holes, whole)
    np.testing.assert_allclose(fitted.weight, Linear.fit(without, whole).weight, atol=1e-8)
    x = whole[0].x
    observed = np.ones(x.shape, bool)
    observed[:, 5:] = False
    level = np.where(observed, x, x[:, 4:5])
    np.testing.assert_allclose(fitted.predict(np.where(observed, x, np.nan), observed), fitted.predict(level))


def test_what_cannot_be_fitted_is_refused(monkeypatch):
    batch = next(windows(recurrence(30), 8, 3))
    nothing = Examples(batch.x, batch.target, target_observed=np.zeros(batch.target.shape, bool))
    with pytest.raises(ValueError, match="no window"):
        Linear.fit([nothing], [batch])
    with pytest.raises(ValueError, match="no window"):
        Linear.fit([batch], [])
    monkeypatch.setattr(forecasting, "LARGEST", 7)
    with pytest.raises(ValueError, match="8 steps is too large"):
        Linear.fit([batch], [batch])
