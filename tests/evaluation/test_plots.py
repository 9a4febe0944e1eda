import numpy as np
import pytest
from research.evaluation.glyphs import text

from research.evaluation import lines, plots
from research.evaluation.pictures import PALETTE

BLUE, ORANGE, GREEN = (tuple(color) for color in PALETTE[:3].tolist())


def where(picture, color):
    """True where a pixel has exactly this color."""
    return (picture == np.array(color)).all(-1)


def draw(curves, **options):
    return plots.line_panel(curves, height=80, width=200, colors=[BLUE, ORANGE, GREEN][: len(curves)], **options)


def test_a_rising_line_rises_from_border_to_border():
    ink = where(draw([np.arange(50.0)]), BLUE)
    rows, columns = np.nonzero(ink)
    assert np.corrcoef(rows, columns)[0, 1] < -0.99
    left = columns.min()
    assert set(range(left, 190)) <= set(columns)  # without gaps
    assert rows[columns == left].min() > 55
    assert rows[columns == columns.max()].min() < 10


def test_lines_have_smooth_edges_and_a_thickness():
    picture = draw([np.full(10, 3.0)])
    column = picture[:, 120].astype(int)
    covered = (255 - column[:, 0]) / (255 - BLUE[0])
    line = covered[20:50]
    assert 1.2 <= line.sum() <= 2.4
    assert line.max() == 1
    slanted = draw([np.array([0.0, 1.0, 0.0])])
    assert len({tuple(pixel) for pixel in slanted[5:65, 60].tolist()}) > 2  # white, the color, and some between


def test_what_is_not_finite_leaves_a_gap():
    curve = np.zeros(100)
    curve[40:60] = np.nan
    columns = np.nonzero(where(draw([curve, np.ones(100)]), BLUE))[1]
    width = columns.max() - columns.min()
    gap = np.diff(np.unique(columns)).max()
    assert gap / width == pytest.approx(21 / 99, abs=0.03)
    for values in ([np.full(5, np.nan)], [np.array([np.inf, np.nan])], [np.zeros(0)], []):
        assert not where(draw([np.array(v) for v in values]), BLUE).any()


def test_a_single_value_is_a_dot():
    rows, columns = np.nonzero(where(draw([np.array([2.0])]), BLUE))
    assert 2 <= len(np.unique(rows)) <= 5
    assert abs(columns.mean() - 110) < 20
    alone = np.full(30, np.nan)
    alone[15] = 1
    assert where(draw([alone, np.zeros(30)]), BLUE).any()


def test_shorter_curves_end_sooner():
    picture = draw([np.zeros(25), np.ones(100)])
    short, long = (np.nonzero(where(picture, color))[1] for color in (BLUE, ORANGE))
    assert np.ptp(short) / np.ptp(long) == pytest.approx(24 / 99, abs=0.03)


def test_dashed_lines_have_gaps_and_later_curves_lie_above():
    whole, dashed = (where(draw([np.zeros(50)], dashed=[broken]), BLUE).any(0).sum() for broken in (False, True))
    assert 0.4 * whole < dashed < 0.75 * whole
    over = draw([np.zeros(50), np.zeros(50)])
    assert not where(over, BLUE).any()
    assert where(over, ORANGE).any()


def test_a_band_lies_between_its_curves():
    curve = np.linspace(0, 1, 50)
    picture = draw([curve, curve * 0 - 3], bands={0: (curve - 1, curve + 1)})
    light = np.rint(255 * 0.75 + 0.25 * np.array(BLUE)).astype(int)
    rows, columns = np.nonzero(where(picture, light))
    middle = rows[columns == 110]
    line = np.nonzero(where(picture, BLUE)[:, 110])[0].mean()
    assert (middle.min() + middle.max()) / 2 == pytest.approx(line, abs=1.5)
    span = 80 - 3 - 9 - 5  # of values from -3 to 2
    assert np.ptp(middle) == pytest.approx(2 / 5 * span, abs=3)
    broken = (np.where(np.arange(50) < 25, np.nan, curve - 1), curve + 1)
    assert np.nonzero(where(draw([curve], bands={0: broken}), light))[1].min() > 100


def read(picture, words):
    """Whether these words are written somewhere, in any color but white."""
    ink = text(words)
    dark = (picture < 250).any(-1)
    views = np.lib.stride_tricks.sliding_window_view(dark, ink.shape)
    return bool((views == ink).all((2, 3)).any())


def test_axes_and_title_are_written():
    picture = draw([np.linspace(-1.25, 30, 41)], title="class 7", starts=[-10])
    for words in ("-1.25", "30", "-10", "class 7"):
        assert read(picture, words), words
    assert not read(picture, "class 8")


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (-1.25, "-1.25"), (0.5, "0.5"), (123.4, "123"), (41234.0, "41234"), (3e-5, "3e-05"), (-2.5e7, "-2e+07")],
)
def test_numbers_are_short(value, written):
    assert lines.number(value) == written


def test_every_letter_is_another_picture():
    letters = "0123456789abcdefghijklmnopqrstuvwxyz-.+=/:%,()_ ?|"
    assert len({text(letter).tobytes() for letter in letters}) == len(letters)
    assert text("ab").shape == (9, 11)
    assert (text("A~") == text("a?")).all()
    assert text("").shape == (9, 0)
    assert not text(" ").any()


def test_panels_show_three_channels_in_their_colors():
    x = np.random.default_rng(0).normal(size=(6, 30, 5))
    picture = plots.sequences(x, length=np.array([30, 20, 10, 5, 1, 0]), titles=[f"row {row}" for row in range(6)])
    height, width = plots.PANEL
    assert picture.shape == (13 + 2 * height + 1, 4 * width + 3, 3)
    for color in (BLUE, ORANGE, GREEN):
        assert where(picture[13:], color).any()
    assert read(picture, "channel 2 (of 5)")
    assert read(picture, "row 5")
    assert not where(picture[14 + height :, width : 2 * width], BLUE).any()  # no steps, no line


def test_reconstructions_lie_over_their_inputs():
    x = np.sin(np.arange(60.0)[None, :, None] / 5) * np.ones((3, 1, 2))
    observed = np.ones(x.shape, bool)
    observed[:, 20:40] = False
    picture = plots.reconstructions(np.where(observed, x, 0), x + 3, np.array([60, 30, 60]), observed)[13:]
    inputs, outputs = (where(picture, color).any(0) for color in (lines.lighter(ORANGE), ORANGE))
    assert inputs.any()
    assert outputs.any()
    panel = slice(25, plots.PANEL[1])
    assert outputs[panel].sum() > 1.2 * 0.5 * inputs[panel].sum()
    assert np.diff(np.flatnonzero(inputs[panel])).max() > 50  # the gap


def test_forecasts_begin_after_the_look_back():
    generator = np.random.default_rng(0)
    x, target = generator.normal(size=(2, 50, 3)), generator.normal(size=(2, 10, 3))
    picture = plots.forecasts(x, target, target * 0, (target - 1, target + 1), channel=1)
    panel = picture[13:, : plots.PANEL[1]]
    forecast, past = (np.nonzero(where(panel, color))[1] for color in (ORANGE, lines.INK))
    assert past.max() <= forecast.min()
    assert read(panel, "-10")
    assert read(panel, "9")
    assert read(picture, "80 % band")


def test_decay_is_a_line_on_a_logarithmic_axis():
    distance = np.arange(100)
    picture = plots.decay_panel({"rnn": 10.0 * 0.8**distance, "gru": np.where(distance < 50, 1.0, 0.0)})
    rows, columns = np.nonzero(where(picture[40:], BLUE))
    slope = np.polyfit(columns, rows, 1)
    assert np.abs(np.polyval(slope, columns) - rows).max() < 2.5
    flat = np.nonzero(where(picture[40:], ORANGE))[1]
    assert np.ptp(flat) / np.ptp(columns) == pytest.approx(49 / 99, abs=0.05)
    for words in ("rnn", "gru", "1e1", "1", "1e-8", "0", "80", "steps back in time"):
        assert read(picture, words), words


@pytest.mark.parametrize("norms", [np.zeros(9), np.full(9, np.nan), np.ones(1), np.array([1e-300, 1.0]), np.zeros(0)])
def test_decay_of_unusual_norms(norms):
    assert plots.decay_panel({"rnn": norms}).shape == (240, 360, 3)


def test_ticks_are_round():
    assert lines.ticks(0) == [0]
    assert lines.ticks(4) == [0, 1, 2, 3, 4]
    assert lines.ticks(199) == [0, 50, 100, 150]
    assert lines.ticks(1000) == [0, 200, 400, 600, 800, 1000]
