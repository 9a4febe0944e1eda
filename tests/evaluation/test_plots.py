"""Pictures of runs: what lies where, which words are written, and equal bytes without matplotlib."""

import sys

import numpy as np
import pytest

from research.evaluation import plots
from research.evaluation.plots import Curve
from research.evaluation.views import COLORS, class_colors, interval_of, plane, series, spread
from research.runs.events import png

BLUE, ORANGE, GREEN = COLORS[:3]
BAND = plots.lighter(BLUE, 0.75)
SIZE = 80, 200


def where(picture, color, near=45):
    """True where a pixel has about this color; edges of lines are mixed with white."""
    wanted = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)])
    return (np.abs(picture.astype(int) - wanted) <= near).all(-1)


def draw(*curves, **options):
    curves = [Curve(np.asarray(y, float), color) for y, color in zip(curves, COLORS, strict=False)]
    return plots.line_panel(curves, size=SIZE, **options)


@pytest.fixture
def written(monkeypatch):
    """The words that are written on pictures."""
    words = []
    real = plots.write

    def write(picture, text, *place, **options):
        words.append(text)
        real(picture, text, *place, **options)

    monkeypatch.setattr(plots, "write", write)
    return words


def test_a_rising_line_rises_from_border_to_border():
    ink = where(draw(np.arange(50.0)), BLUE, near=110)
    rows, columns = np.nonzero(ink)
    assert np.corrcoef(rows, columns)[0, 1] < -0.99
    left = columns.min()
    assert set(range(left, 190)) <= set(columns)  # without gaps
    assert rows[columns == left].min() > 55
    assert rows[columns == columns.max()].min() < 10


def test_lines_have_smooth_edges_and_a_thickness():
    column = draw(np.full(10, 3.0))[:, 120, 0].astype(int)
    covered = ((255 - column) / 255)[20:50]  # blue has no red
    assert 1.2 <= covered.sum() <= 2.4
    assert covered.max() > 0.95
    slanted = draw([0.0, 1.0, 0.0])
    assert len({tuple(pixel) for pixel in slanted[5:65, 60].tolist()}) > 2  # white, the color, and some between


def test_what_is_not_finite_leaves_a_gap():
    curve = np.zeros(100)
    curve[40:60] = np.nan
    columns = np.nonzero(where(draw(curve, np.ones(100)), BLUE))[1]
    gap = np.diff(np.unique(columns)).max()
    assert gap / np.ptp(columns) == pytest.approx(21 / 99, abs=0.03)
    for values in ([np.full(5, np.nan)], [[np.inf, np.nan]], [[]], []):
        assert not where(draw(*values), BLUE).any()


def test_a_single_value_is_a_dot():
    rows, columns = np.nonzero(where(draw([2.0]), BLUE))
    assert 2 <= len(np.unique(rows)) <= 5
    assert abs(columns.mean() - 110) < 20
    alone = np.full(30, np.nan)
    alone[15] = 1
    assert where(draw(alone, np.zeros(30)), BLUE).any()


def test_shorter_curves_end_sooner_and_later_ones_lie_above():
    picture = draw(np.zeros(25), np.ones(100))
    short, long = (np.nonzero(where(picture, color))[1] for color in (BLUE, ORANGE))
    assert np.ptp(short) / np.ptp(long) == pytest.approx(24 / 99, abs=0.03)
    over = draw(np.zeros(50), np.zeros(50))
    assert not where(over, BLUE).any()
    assert where(over, ORANGE).any()


def test_dashed_lines_have_gaps():
    whole, dashed = (
        where(plots.line_panel([Curve(np.zeros(50), BLUE, dashed=broken)], size=SIZE), BLUE).any(0)
        for broken in (False, True)
    )
    assert 0.4 * whole.sum() < dashed.sum() < 0.75 * whole.sum()
    starts = np.flatnonzero(np.diff(dashed.astype(int)) == 1)
    assert np.diff(starts).mean() == pytest.approx(plots.PERIOD, abs=0.3)


def test_a_band_lies_between_its_curves():
    curve = np.linspace(0, 1, 50)
    rest = Curve(curve * 0 - 3, ORANGE)
    picture = plots.line_panel([Curve(curve, BLUE, band=(curve - 1, curve + 1)), rest], size=SIZE)
    rows, columns = np.nonzero(where(picture, BAND, near=8))
    middle = rows[columns == 110]
    line = np.nonzero(where(picture, BLUE)[:, 110])[0].mean()
    assert (middle.min() + middle.max()) / 2 == pytest.approx(line, abs=1.5)
    height = SIZE[0] - 3 - plots.LINE - 2  # of values from -3 to 2
    assert np.ptp(middle) == pytest.approx(2 / 5 * height, abs=3)
    broken = (np.where(np.arange(50) < 25, np.nan, curve - 1), curve + 1)
    picture = plots.line_panel([Curve(curve, BLUE, band=broken)], size=SIZE)
    assert np.flatnonzero(where(picture, BAND, near=8).sum(0) > 4).min() > 100


def test_ranges_of_both_axes_are_written(written):
    plots.line_panel([Curve(np.linspace(-1.25, 30, 41), BLUE, start=-10)], size=SIZE)
    assert written == ["30", "-1.25", "-10", "30"]


def test_words_lie_where_they_are_put():
    from PIL import Image

    picture = Image.new("RGB", (100, 30), "white")
    plots.write(picture, "a word", 50, 10, "#000000", anchor="ra")
    rows, columns = np.nonzero((np.asarray(picture) < 128).all(-1))
    assert 50 - plots._length("a word") <= columns.min() < columns.max() < 50
    assert 10 <= rows.min() < rows.max() < 10 + plots.LINE


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (-1.25, "-1.25"), (0.5, "0.5"), (123.4, "123"), (41234.0, "41234"), (3e-5, "3e-05"), (-2.5e7, "-2e+07")],
)
def test_numbers_are_short(value, text):
    assert plots.number(value) == text


def test_lighter_colors_are_mixed_with_white():
    assert plots.lighter("#0080FF", 0.0) == "#0080FF"
    assert plots.lighter("#0080FF", 0.5) == "#80C0FF"
    assert plots.lighter("#0080FF", 1.0) == "#FFFFFF"


def test_panels_show_three_channels_in_their_colors(written):
    x = np.random.default_rng(0).normal(size=(6, 30, 5))
    picture = plots.sequences(x, length=np.array([30, 20, 10, 5, 1, 0]))
    height, width = plots.PANEL
    assert picture.shape == (plots.LINE + 2 * height + 1, 4 * width + 3, 3)
    for color in (BLUE, ORANGE, GREEN):
        assert where(picture[plots.LINE :], color).any()
    assert {"channel 1", "channel 3 (of 5)"} <= set(written)
    assert not where(picture[plots.LINE + 1 + height :, width : 2 * width], BLUE).any()  # no steps, no line


def test_reconstructions_lie_over_their_inputs():
    x = np.sin(np.arange(60.0)[None, :, None] / 5) * np.ones((3, 1, 2))
    observed = np.ones(x.shape, bool)
    observed[:, 20:40] = False
    picture = plots.reconstructions(np.where(observed, x, 0), x + 3, np.array([60, 30, 60]), observed)[plots.LINE :]
    panel = slice(30, plots.PANEL[1])
    upper, lower = picture[:45, panel], picture[60:95, panel]  # outputs are larger by 3
    outputs, inputs = where(upper, ORANGE, near=80).any(0), where(lower, plots.lighter(ORANGE)).any(0)
    assert outputs.sum() > 1.2 * 0.5 * inputs.sum()
    assert np.diff(np.flatnonzero(inputs)).max() > 50  # the gap
    assert np.diff(np.flatnonzero(outputs)).max() < 2 * plots.PERIOD  # only dashes


def test_forecasts_begin_after_the_look_back(written):
    generator = np.random.default_rng(0)
    x, target = generator.normal(size=(2, 50, 3)), generator.normal(size=(2, 10, 3))
    picture = plots.forecasts(x, target, target * 0, (target - 1, target + 1))
    panel = picture[plots.LINE : plots.LINE + plots.PANEL[0], : plots.PANEL[1]]
    forecast, past = (np.nonzero(where(panel, color))[1] for color in (ORANGE, plots.INK))
    assert past.max() <= forecast.min()
    assert {"-10", "9", "80 % interval", "look-back", "truth", "forecast"} <= set(written)


def test_channels_have_the_names_of_their_columns(written):
    x = np.random.default_rng(0).normal(size=(2, 9, 5))
    plots.sequences(x, columns=["OT", "HUFL", "HULL", "d", "e"])
    assert {"OT", "HUFL", "HULL (of 5)"} <= set(written)
    written.clear()
    plots.reconstructions(x, x, columns=["OT", "HUFL", "HULL", "d", "e"])
    assert {"OT", "HUFL", "HULL (of 5)"} <= set(written)
    plots.forecasts(x, x, x, columns=["OT", "HUFL", "HULL", "d", "e"])
    assert written[-1] == "OT (of 5 channels)"
    plots.forecasts(x[..., :1], x[..., :1], x[..., :1], columns=["OT"])
    assert written[-1] != "OT (of 5 channels)"


def test_long_legends_of_classes_take_several_lines(written):
    names = [f"class number {number}" for number in range(7)]
    strips = plots.class_legend(names, 320)
    assert written == names  # none is left out
    assert strips.shape == (4 * plots.LINE, 320, 3)


def test_names_stand_beside_their_rows(written):
    picture = np.zeros((50, 30, 3), np.uint8)
    named = plots.named_rows(picture, ["7", "12"])
    assert written == ["7", "12"]
    np.testing.assert_array_equal(named[:, -30:], picture)
    ink = (named[:, :-30] < 128).all(-1)
    assert ink[:25].any()
    assert ink[25:].any()


def test_decay_is_a_line_on_a_logarithmic_axis(written):
    distance = np.arange(100)
    picture = plots.decay_panel({"rnn": 10.0 * 0.8**distance, "gru": np.where(distance < 50, 1.0, 0.0)})
    rows, columns = np.nonzero(where(picture[40:], BLUE))
    slope = np.polyfit(columns, rows, 1)
    assert np.abs(np.polyval(slope, columns) - rows).max() < 2.5
    flat = np.nonzero(where(picture[40:], ORANGE))[1]
    assert np.ptp(flat) / np.ptp(columns) == pytest.approx(49 / 99, abs=0.05)
    assert {"rnn", "gru", "10", "3e-09", "0", "99", "gradient norm by steps back in time, log scale"} <= set(written)


@pytest.mark.parametrize("norms", [np.zeros(9), np.full(9, np.nan), np.ones(1), np.array([1e-300, 1.0]), np.zeros(0)])
def test_decay_of_unusual_norms(norms):
    assert plots.decay_panel({"rnn": norms}).shape == (228, 360, 3)


def test_equal_input_gives_equal_bytes_and_needs_no_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # importing it raises
    x = np.random.default_rng(0).normal(size=(3, 20, 2))
    first, second = (png(plots.reconstructions(x, x / 2)) for _ in range(2))
    assert first == second
    plots._font.cache_clear()
    assert png(plots.reconstructions(x, x / 2)) == first


# ----------------------------------------------------------------------- what pictures and figures of reports share


def test_rows_are_chosen_from_all_over():
    assert list(spread(100, 5)) == [0, 24, 49, 74, 99]
    assert list(spread(3, 8)) == [0, 1, 2]


def test_series_end_at_their_length_and_have_gaps():
    x, observed = np.ones((2, 4, 1)), np.ones((2, 4, 1), bool)
    observed[0, 1] = False
    first, second = series(x, np.array([4, 2]), observed)
    np.testing.assert_array_equal(first[:, 0], [1, np.nan, 1, 1])
    assert second.shape == (2, 1)


def test_classes_have_colors_of_their_own_up_to_ten():
    assert class_colors(3) == list(COLORS[:3])
    assert len(set(class_colors(10))) == 10
    assert class_colors(12)[10] == class_colors(12)[0]


def test_the_plane_is_that_of_the_largest_variances():
    generator = np.random.default_rng(0)
    wanted = generator.normal(size=(200, 2)) * [5, 2]
    turned = np.linalg.qr(generator.normal(size=(4, 4)))[0]
    points, shares = plane(np.concatenate([wanted, np.zeros((200, 2))], 1) @ turned)
    # distances in the plane are those of the codes
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), np.linalg.norm(wanted - wanted.mean(0), axis=1))
    assert sum(shares or ()) == pytest.approx(1)
    assert points[:, 0].var() > points[:, 1].var()
    two = generator.normal(size=(5, 2))
    np.testing.assert_array_equal(plane(two)[0], two)
    assert plane(two[:, :1])[0].shape == (5, 2)


def test_intervals_of_forecasts_are_quantiles_or_deviations():
    class Forecast:
        quantiles, deviation, mean = None, None, np.zeros((1, 2, 1))

    class Model:
        quantiles = (0.05, 0.5, 0.95)

    forecast = Forecast()
    assert interval_of(forecast, Model()) is None
    forecast.deviation = np.ones((1, 2, 1))
    low, high, name = interval_of(forecast, Model())
    assert (name, high[0, 0, 0]) == ("80 % interval", pytest.approx(1.2816))
    assert (low == -high).all()
    forecast.quantiles = np.stack([np.full((1, 2, 1), value) for value in (-3.0, 0.0, 4.0)], -1)
    low, high, name = interval_of(forecast, Model())
    assert (low[0, 0, 0], high[0, 0, 0], name) == (-3, 4, "90 % interval")
