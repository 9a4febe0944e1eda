"""Intervals of forecasts: scores of known distributions, naive intervals, and the conformal correction."""

import dataclasses
import math

import jax
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from research.data.examples import Examples, Facts
from research.distributions import Forecast, central_interval
from research.evaluation import Subject, calibration, intervals
from research.evaluation.intervals import (
    Misses,
    conformal_quantile,
    conformal_scores,
    gaussian_crps,
    interval_scores,
    quantile_crps,
    widened,
)

from . import asking
from .test_studies import FORECAST, HORIZON, ROWS, SCALE, SHIFT, named, recipe, series

RANDOM = np.random.default_rng(0)
STANDARD = np.zeros((1, 1, 1)), np.ones((1, 1, 1))
WIDE = [0.025, 0.1, 0.5, 0.9, 0.975]
PLAIN = ("crps", "crps_raw", "coverage_80", "width_80", "width_80_raw")
BOTH = (*PLAIN, "coverage_95", "width_95", "width_95_raw")
FURTHER = [f"coverage_{share}" for share in calibration.SHARES if share not in ("80", "95")]  # of a Gaussian


# -------------------------------------------------------------------------------------------------- known distributions


def test_the_crps_of_a_standard_normal_at_its_mean():
    assert gaussian_crps(np.zeros((1, 1, 1)), *STANDARD).item() == pytest.approx(
        (math.sqrt(2) - 1) / math.sqrt(math.pi)
    )
    assert gaussian_crps(np.zeros((1, 1, 1)), *STANDARD).item() == pytest.approx(0.2337, abs=1e-4)


@pytest.mark.parametrize(("y", "mean", "deviation"), [(0.3, 1.0, 2.0), (-4.0, 0.0, 0.5), (7.0, 7.0, 1e-3)])
def test_the_crps_of_a_gaussian_is_the_integral_that_defines_it(y, mean, deviation):
    squared = lambda x: (scipy.stats.norm.cdf(x, mean, deviation) - (x >= y)) ** 2
    points = sorted((y, mean))
    low, high = points[0] - 12 * deviation, points[1] + 12 * deviation
    integral = sum(
        scipy.integrate.quad(squared, *ends, limit=200)[0]
        for ends in ((low, points[0]), (points[0], points[1]), (points[1], high))
    )
    found = gaussian_crps(np.full((1, 1, 1), y), np.full((1, 1, 1), mean), np.full((1, 1, 1), deviation))
    assert found.item() == pytest.approx(integral, rel=1e-5)


def test_twice_the_pinball_loss_of_many_levels_is_the_crps():
    levels = (np.arange(2000) + 0.5) / 2000
    y = RANDOM.normal(size=(6, 2, 1))
    found = quantile_crps(y, list(scipy.stats.norm.ppf(levels)), levels.tolist())
    np.testing.assert_allclose(found, gaussian_crps(y, *STANDARD), rtol=1e-3)
    by_hand = 2 * np.mean([0.1 * 3, 0.5 * 2, 0.1 * 1])  # 0.1: (5 - 2), 0.5: (5 - 3), 0.9: (1 - 0.9) * (6 - 5)
    assert quantile_crps(
        np.full((1, 1, 1), 5.0), list(np.array([2.0, 3.0, 6.0])), (0.1, 0.5, 0.9)
    ).item() == pytest.approx(by_hand)


@pytest.mark.parametrize("share", [0.8, 0.95])
def test_the_coverage_of_the_true_model_is_the_share(share):
    """20,000 values of a known normal, as a Gaussian and as its quantiles; four standard errors are .011 and .006."""
    mean, deviation = RANDOM.normal(size=(2, 20_000, 1, 1))
    deviation = np.exp(deviation)
    y = RANDOM.normal(mean, deviation)
    quantiles = mean[..., None] + deviation[..., None] * scipy.stats.norm.ppf(WIDE)
    for forecast in (Forecast(mean, mean, deviation), Forecast(mean, mean, None, quantiles)):
        interval = central_interval(forecast, share, WIDE)
        assert interval is not None
        found = interval_scores(y, None, None, {"a": interval})
        assert found["coverage_a"].mean() == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 20_000))
        wanted = 2 * scipy.stats.norm.ppf((1 + share) / 2) * deviation
        np.testing.assert_allclose(found["width_a"], wanted, rtol=1e-9)


def test_an_interval_needs_its_two_levels():
    forecast = Forecast(0, 0, None, np.arange(3.0)[None, None, None])
    assert central_interval(forecast, 0.95, (0.1, 0.5, 0.9)) is None
    assert central_interval(forecast, 0.8, (0.1, 0.5, 0.9)) == (0, 2)
    assert central_interval(Forecast(0, 0), 0.8) is None


def test_scores_count_observed_values_and_have_units():
    y = np.array([1.0, 2.0, np.nan, 4.0])[:, None, None]
    known = np.isfinite(y)
    low, high = np.array([1.0, 2.1, 0.0, np.nan])[:, None, None], np.array([3.0, 3.1, 9.0, 9.0])[:, None, None]
    found = interval_scores(y, known, np.ones(y.shape), {"80": (low, high)}, scale=np.array([0.5]))
    np.testing.assert_array_equal(found["coverage_80"].ravel(), [1, 0, 0, np.nan])  # an edge counts as inside
    np.testing.assert_allclose(found["width_80"].ravel(), [2, 1, 0, np.nan])
    np.testing.assert_allclose(found["width_80_raw"].ravel(), [4, 2, 0, np.nan])
    np.testing.assert_allclose(found["crps_raw"].ravel(), [2, 2, 0, 2])
    crossed = interval_scores(y[:1], None, None, {"80": (high[:1], low[:1])})
    assert crossed["width_80"].item() == crossed["coverage_80"].item() == 0


# ---------------------------------------------------------------------------------------------------------- calibration


def test_the_true_model_lies_on_the_diagonal_and_one_that_is_too_sure_below():
    y = RANDOM.normal(size=(20_000, 1, 1))
    for deviation, on_it in ((1.0, True), (0.5, False)):
        forecast = Forecast(0 * y, 0 * y, np.full(y.shape, deviation))
        edges = {name: intervals.base_interval(forecast, share, ()) for name, share in calibration.SHARES.items()}
        means = {name: float(values.mean()) for name, values in interval_scores(y, None, None, edges).items()}
        curve = calibration.coverages(means)
        assert list(curve) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
        for nominal, observed in curve.items():
            error = 4 * math.sqrt(nominal * (1 - nominal) / 20_000)
            assert abs(observed - nominal) < error if on_it else observed < nominal - error


def test_the_picture_has_a_point_where_its_shares_say():
    calibrated, sure = ({0.5: share, 0.9: 0.9} for share in (0.5, 0.2))
    pictures = [calibration.picture({"model": curve}, 1234) for curve in (calibrated, sure)]
    assert pictures[0].dtype == np.uint8
    blue = [int(digits, 16) for digits in ("00", "72", "B2")]
    for picture, observed in zip(pictures, (0.5, 0.2), strict=True):
        down = calibration.TOP + round((1 - observed) * calibration.SIDE)
        np.testing.assert_array_equal(picture[down, calibration.LEFT + calibration.SIDE // 2], blue)
    assert (pictures[0] != pictures[1]).any()
    two = calibration.picture({"model": calibrated, "conformal": sure}, 1234)
    assert two.shape == pictures[0].shape
    assert (two != pictures[0]).any()
    assert calibration.coverages({"coverage_80": math.nan, "coverage_90": 0.5, "crps": 1.0}) == {0.9: 0.5}


# ------------------------------------------------------------------------------------------------------ naive intervals


def misses(values):
    rows = Examples(x=np.zeros((len(values), 1, 1)), target=np.asarray(values, float)[:, None, None])
    return Misses.of(lambda windows: np.zeros(windows.target.shape), rows, 1.0)


def test_the_crps_of_misses_is_that_of_their_empirical_distribution():
    values, y = RANDOM.normal(size=7), RANDOM.normal(size=(5, 1, 1))
    found = misses(values).crps(y).ravel()
    for at, truth in enumerate(y.ravel()):
        spread = np.abs(values[:, None] - values).mean() / 2
        assert found[at] == pytest.approx(np.abs(values - truth).mean() - spread)
    many = misses(RANDOM.normal(size=200_000)).crps(np.zeros((1, 1, 1))).item()
    assert many == pytest.approx((math.sqrt(2) - 1) / math.sqrt(math.pi), abs=5e-3)


def test_misses_of_many_series_are_in_the_units_of_each():
    """A series of a thousandfold size has intervals of a thousandfold width."""
    size = np.where(np.arange(400) % 2, 1000.0, 1.0)
    target = (RANDOM.normal(size=400) * size)[:, None, None]
    rows = Examples(x=np.zeros((400, 1, 1)), target=target, naive_error=(3 * size)[:, None])
    found = Misses.of(lambda windows: np.zeros(windows.target.shape), rows, 1.0)
    assert found.quantile(0.9).item() * 3 == pytest.approx(scipy.stats.norm.ppf(0.9), abs=0.25)
    unknown = dataclasses.replace(rows, naive_error=np.where(size > 1, np.nan, 0.0)[:, None])
    np.testing.assert_array_equal(intervals.units_of(unknown, 1.0), 1)


# ------------------------------------------------------------------------------------------------- conformal correction


def test_the_conformal_quantile_is_the_rank_of_the_theorem():
    scores = np.arange(1.0, 20.0)[:, None, None]  # 19 of them: ranks 16 and 19
    assert conformal_quantile(scores, 0.8).item() == 16
    assert conformal_quantile(scores, 0.95).item() == 19
    gaps = np.concatenate([scores, np.full((5, 1, 1), np.nan)])
    assert conformal_quantile(gaps, 0.95).item() == 19
    with pytest.raises(ValueError, match=r"95 % needs 19 observed values .* and some step has 18"):
        conformal_quantile(scores[1:], 0.95)


@pytest.mark.parametrize("half", [0.2, 1.28155, 6.0], ids=["too narrow", "right", "too wide"])
def test_a_corrected_interval_has_the_right_coverage(half):
    y, unit = RANDOM.normal(size=(6000, 2, 1)), np.ones((1, 1, 1))
    interval = lambda rows: (np.full(rows.shape, -half), np.full(rows.shape, half))
    known, new = y[:3000], y[3000:]
    correction = conformal_quantile(conformal_scores(interval(known), known, None, unit), 0.8)
    low, high = widened(interval(new), correction, unit)
    assert ((low <= new) & (new <= high)).mean() == pytest.approx(0.8, abs=0.03)


# ------------------------------------------------------------------------------------------------------------ the study


@pytest.fixture(scope="module")
def forecasters(build_model):
    """Bound models of three objectives, and their parameters."""
    made = {}
    for name, options in {
        "mse": {},
        "gaussian": {"objective": "gaussian"},
        "three levels": {"objective": "quantile"},
        "five levels": {"objective": "quantile", "quantiles": WIDE},
    }.items():
        facts = Facts("sequence", (6, 2), 0.0, 1.0, 0, 40, 12, 20, **FORECAST)
        model = build_model("recurrent_forecaster", hidden_dim=4, **options).bind(facts)
        made[name] = model, model.fresh(jax.random.key(0)), facts
    return made


def found_of(forecaster, examples, **options):
    model, params, facts = forecaster
    parts = options.pop("parts", None) or {name: examples.take(rows) for name, rows in ROWS.items()}
    keys = options.pop("keys", {})
    subject = Subject(
        model, params, parts, recipe(**keys), facts, jax.random.key(0), shift=SHIFT, scale=SCALE, **options
    )
    return asking.ask(subject, intervals.study)


def naive(*names):
    return named("baseline/repeat_last", *names) | named("baseline/seasonal_naive", *names)


def test_a_point_forecast_has_no_intervals(forecasters):
    found = found_of(forecasters["mse"], series()[0])
    assert not found.metrics
    assert not found.curves


@pytest.mark.parametrize("name", ["gaussian", "five levels"])
def test_intervals_by_hand(name, forecasters):
    examples, raw = series()
    found = found_of(forecasters[name], examples)
    further = FURTHER if name == "gaussian" else ()
    assert set(found.metrics) == {
        *named("test", *BOTH, *further),
        *named("validation", "crps", "crps_raw"),
        *naive(*BOTH),
    }
    assert set(found.pictures) == {"calibration"}
    assert not found.null_reasons
    assert set(found.curves) == {f"forecast_{metric}" for metric in BOTH if not metric.endswith("_raw")}
    assert all(curve.shape == (HORIZON,) for curve in found.curves.values())
    model, params, _ = forecasters[name]
    test = examples.take(ROWS["test"])
    forecast = jax.jit(model.forecast)(params, test)
    known, y = test.target_observed, raw[ROWS["test"], 6:]
    if name == "gaussian":
        low, high = (forecast.mean + side * 1.2815516 * forecast.deviation for side in (-1, 1))
    else:
        low, high = forecast.quantiles[..., 1], forecast.quantiles[..., 3]
    if name == "gaussian":
        half = scipy.stats.norm.ppf(0.65) * forecast.deviation  # 30 %
        inside = np.abs(test.target - forecast.mean) <= half
        assert found.metrics["test/coverage_30"] == pytest.approx(float(inside[known].mean()), abs=1e-6)
    low, high = (np.asarray(edge) / SCALE + SHIFT for edge in (low, high))
    inside = (low <= y) & (y <= high)
    assert found.metrics["test/coverage_80"] == pytest.approx(float(inside[known].mean()), abs=1e-6)
    assert found.metrics["test/width_80_raw"] == pytest.approx(float((high - low)[known].mean()), rel=1e-4)


def test_levels_that_a_forecast_lacks_are_named(forecasters):
    found = found_of(forecasters["three levels"], series()[0])
    assert {name for name, value in found.metrics.items() if value is not None} == {
        *named("test", *PLAIN),
        *named("validation", "crps", "crps_raw"),
        *naive(*PLAIN),
    }
    reason = "it needs quantiles at 0.025 and 0.975: 'model.quantiles=[0.025,0.1,0.5,0.9,0.975]'"
    assert found.null_reasons == dict.fromkeys(named("test", "coverage_95", "width_95", "width_95_raw"), reason)


def test_naive_intervals_by_hand(forecasters):
    """The last value and the quantiles of what it missed on the validation rows, for each step and channel."""
    examples, _ = series()
    found = found_of(forecasters["gaussian"], examples)
    last = {}
    for part in ("validation", "test"):
        rows = examples.take(ROWS[part])
        last[part] = np.zeros((len(rows), 2))
        for row, channel in np.ndindex(len(rows), 2):
            known = np.flatnonzero(rows.observed[row, :, channel])
            last[part][row, channel] = rows.x[row, known[-1], channel] if len(known) else 0
    validation, test = (examples.take(ROWS[part]) for part in ("validation", "test"))
    inside = []
    unit = lambda rows, row, channel: rows.naive_error[row, channel] * SCALE[channel]
    for step, channel in np.ndindex(HORIZON, 2):
        missed = [
            (validation.target[row, step, channel] - last["validation"][row, channel]) / unit(validation, row, channel)
            for row in np.flatnonzero(validation.target_observed[:, step, channel])
        ]
        low, high = np.quantile(missed, [0.1, 0.9])
        for row in np.flatnonzero(test.target_observed[:, step, channel]):
            miss = (test.target[row, step, channel] - last["test"][row, channel]) / unit(test, row, channel)
            inside.append(low <= miss <= high)
    assert found.metrics["baseline/repeat_last/coverage_80"] == pytest.approx(np.mean(inside))


def test_naive_intervals_that_do_not_exist_say_why(forecasters):
    examples, _ = series()
    model, params, facts = forecasters["gaussian"]
    long = model, params, dataclasses.replace(facts, season=7)
    reasons = found_of(long, examples).null_reasons
    assert reasons["baseline/seasonal_naive/crps"] == "the look-back of 6 steps is shorter than a season of 7"
    parts = {name: examples.take(rows) for name, rows in ROWS.items()}
    unseen = np.array(parts["validation"].target_observed)
    unseen[:, 1] = False
    parts["validation"] = dataclasses.replace(parts["validation"], target_observed=unseen)
    reasons = found_of(forecasters["gaussian"], examples, parts=parts).null_reasons
    assert "no observed value in the validation rows" in reasons["baseline/repeat_last/crps"]


def test_naive_intervals_are_made_once(forecasters, monkeypatch):
    calls, original = [], intervals.naive_scores
    monkeypatch.setattr(intervals, "naive_scores", lambda *given: calls.append(1) or original(*given))
    options = {"shared": {}, "data_key": "a"}
    first = found_of(forecasters["gaussian"], series()[0], **options).metrics
    assert found_of(forecasters["gaussian"], series()[0], **options).metrics == first
    assert len(calls) == 2
    found_of(forecasters["five levels"], series()[0], **options)  # another measure
    assert len(calls) == 4


@pytest.mark.parametrize("name", ["mse", "three levels"])
def test_a_conformal_correction_covers_the_rows_that_it_was_fitted_to(name, forecasters):
    """Scored on the validation rows themselves, so that the share is that of the rank: 12 rows less their gaps."""
    examples, _ = series(target_observed=np.ones((72, HORIZON, 2), bool))
    parts = {name: examples.take(rows) for name, rows in ROWS.items()}
    parts["test"] = parts["validation"]
    found = found_of(forecasters[name], examples, parts=parts, keys={"conformal": True})
    assert found.metrics["test/coverage_80_conformal"] == pytest.approx(math.ceil(13 * 0.8) / 12)
    assert found.metrics["test/coverage_95_conformal"] is None
    assert "needs 19 observed values" in found.null_reasons["test/coverage_95_conformal"]
    assert ("test/coverage_80" in found.metrics) == (name != "mse")
    for percent in range(10, 91, 10):
        rank = -(-13 * percent // 100)
        assert found.metrics[f"test/coverage_{percent}_conformal"] == pytest.approx(
            rank / 12, abs=0.03
        )  # edges are rounded
    assert "test/width_30_conformal" not in found.metrics
    assert not found_of(forecasters[name], examples, parts=parts, keys={"conformal": True, "pictures": False}).pictures


def test_test_rows_choose_nothing(forecasters):
    """Other targets of the test rows change no edge, so that the widths stay."""
    examples, _ = series(target_observed=np.ones((72, HORIZON, 2), bool))
    other = np.array(examples.target)
    other[ROWS["test"]] += 100
    found = (
        found_of(forecasters["gaussian"], rows, keys={"conformal": True}).metrics
        for rows in (examples, dataclasses.replace(examples, target=other))
    )
    widths = [{name: value for name, value in metrics.items() if "width" in name} for metrics in found]
    assert widths[0] == widths[1]
    assert "test/width_80_conformal" in widths[0]
