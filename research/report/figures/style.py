"""How every figure looks, and how it becomes bytes that are the same each time."""

import contextlib
import io
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from research.metrics import base, direction
from research.metrics import metric as known

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.3, 6.8  # widths of one and two columns of a paper, inches
DPI = 200
# Okabe & Ito (2008): told apart with any common color blindness; yellow is left out, too light for lines on white
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # and with no color at all
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1, 1, 1, 1, 1)), (0, (8, 3)))
BASELINE_DASHES = ((0, (4, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)), (0, (8, 2)), (0, (2, 3)))
GREY, LIGHT = "#595959", "#D0D0D0"
LONGEST = 60  # letters of a value or a name in a figure
SPREAD = 30  # ratio of largest to smallest value from which an axis is logarithmic

SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 7.5,
    "axes.labelsize": 8,
    "axes.titlesize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-4, 5),
    "lines.linewidth": 1.2,
    "lines.markersize": 3.6,
    "hatch.linewidth": 0.5,
    "mathtext.fontset": "dejavusans",
    "image.interpolation": "nearest",
    "svg.fonttype": "path",  # needs no font where it is shown
    "svg.hashsalt": "figures",  # element ids are the same each time
    "pdf.fonttype": 42,  # TrueType, which journals ask for
    "savefig.dpi": DPI,
    "figure.dpi": DPI,
    "figure.constrained_layout.w_pad": 0.03,
    "figure.constrained_layout.h_pad": 0.03,
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """matplotlib's defaults with `SETTINGS`, whatever the user's own file says; put back at the end."""
    import matplotlib

    defaults: dict[Any, Any] = {
        key: value
        for key, value in matplotlib.rcParamsDefault.items()
        if not key.startswith(("backend", "interactive", "toolbar", "timezone", "webagg", "date.epoch"))
    }
    settings: Any = {**defaults, **SETTINGS}
    with matplotlib.rc_context(settings):
        yield


def figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches; it belongs to no window and no global list."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(made)
    return made


def rendered(drawn: "Figure") -> dict[str, bytes]:
    """svg, pdf and png of a figure, without dates or versions; its layout is worked out once."""
    drawn.draw_without_rendering()
    drawn.set_layout_engine("none")
    without: dict[str, dict[str, None]] = {
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
        "png": {"Software": None},
    }
    found = {}
    for kind, metadata in without.items():
        buffer = io.BytesIO()
        drawn.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
        found[kind] = buffer.getvalue()
    return found


# ---------------------------------------------------------------------------------------------------------- words


def metric_label(metric: str, arrow: bool = True) -> str:
    """`test/kl_nats` -> `test KL (nats)`, with an arrow to where values are better."""
    part, _, _ = metric.rpartition("/")
    bare = base(metric)
    of_table = known(metric)
    unit = of_table.unit or ("nats" if bare.endswith("_nats") else "")
    words = of_table.label or bare.removesuffix("_nats").replace("_", " ")
    text = " ".join([*part.split("/"), words]).strip() + (f" ({unit})" if unit else "")
    return literal(text) + {"lower": " ↓", "higher": " ↑", "": ""}[direction(metric) if arrow else ""]


def literal(text: str) -> str:
    """Text that is drawn as it stands (dollar signs would begin a formula), on one line and not too long."""
    text = " ".join(text.split())
    return (text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…").replace("$", r"\$")


def sentence(text: str) -> str:
    """With a capital at its start; the rest keeps its case."""
    return text[:1].upper() + text[1:]


def key_label(key: str) -> str:
    """`model.latent_dim` -> `latent dim`."""
    return literal(key.rpartition(".")[2].replace("_", " "))


def listed(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


# ----------------------------------------------------------------------------------------------------------- axes


def wide(values: Sequence[float]) -> bool:
    """Whether positive values reach over so many powers of ten that their axis should be logarithmic."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > SPREAD * min(finite)


def numbers_axis(axes: "Axes", values: Sequence[float], which: str = "x") -> None:
    """Ticks exactly at the values of a swept key, on a logarithmic axis where they are far apart."""
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    values = sorted(set(values))
    axis = axes.xaxis if which == "x" else axes.yaxis
    logarithmic = wide(values) or (len(values) > 2 and min(values) > 0 and _geometric(values))
    if logarithmic:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = values[0], values[-1]
    shown = [value for at, value in enumerate(values) if _apart(at, values, logarithmic)]
    axis.set_major_locator(FixedLocator(shown))
    axis.set_minor_locator(FixedLocator(values) if len(shown) < len(values) else NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    if logarithmic:
        room = (high / low) ** 0.06
        limits = low / room, high * room
    else:
        room = (high - low) * 0.06 or 1.0
        limits = low - room, high + room
    (axes.set_xlim if which == "x" else axes.set_ylim)(*limits)


def _geometric(values: Sequence[float]) -> bool:
    """Whether values grow by about a factor (1, 2, 4, 8), so that a linear axis would crowd the small ones."""
    ratios = [after / before for before, after in itertools.pairwise(values)]
    return max(values) / min(values) >= 8 and max(ratios) / min(ratios) < 3 and min(ratios) >= 1.5


def _apart(at: int, values: Sequence[float], logarithmic: bool) -> bool:
    """Whether a tick has room for its label: none of the labels kept before it is nearer than 8 % of the axis."""
    place = [math.log(value) if logarithmic else value for value in values]
    span = (place[-1] - place[0]) or 1.0
    last = -math.inf
    for index in range(at + 1):
        if place[index] - last >= 0.08 * span:
            last = place[index]
            if index == at:
                return True
    return False


def value_axis(axes: "Axes", values: Sequence[float], which: str = "y") -> None:
    """A logarithmic axis with readable ticks where values reach far."""
    from matplotlib.ticker import LogFormatterSciNotation, MaxNLocator

    if wide(values):
        (axes.set_yscale if which == "y" else axes.set_xscale)("log")
        axis = axes.yaxis if which == "y" else axes.xaxis
        axis.set_minor_formatter(LogFormatterSciNotation(labelOnlyBase=False, minor_thresholds=(1, 0.4)))
        axis.get_minor_formatter()
    else:
        (axes.yaxis if which == "y" else axes.xaxis).set_major_locator(MaxNLocator(5))


def shades() -> Any:
    """White to dark blue, its lightness falling evenly, so that it reads in grey."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shades", [(0.96, 0.96, 0.96), (0.03, 0.25, 0.45)])


def legend_above(drawn: "Figure", handles: Sequence[Any], labels: Sequence[str], title: str = "") -> None:
    """A legend above all axes, in as many columns as fit; it never covers data."""
    if not handles:
        return
    width = float(drawn.get_figwidth())
    longest = max(len(label) for label in labels) * 0.052 + 0.42  # inches: mean width of a letter, line and gap
    columns = max(1, min(len(labels), int((width - 0.1) / longest)))
    rows = -(-len(labels) // columns)
    columns = -(-len(labels) // rows)
    drawn.set_figheight(float(drawn.get_figheight()) + 0.155 * max(0, rows - 2))  # two rows are planned for
    drawn.legend(handles, labels, loc="outside upper center", ncols=columns, title=title or None, columnspacing=1.2)


def label_points(drawn: "Figure", labels: Sequence[tuple["Axes", float, float, str]], size: float = 6.0) -> None:
    """Short texts at the upper right of points; one that would lie over another is left out."""
    drawn.draw_without_rendering()  # places axes; positions are right from here on
    taken: list[tuple[float, float]] = []
    unit = float(drawn.dpi) / 72
    for axes, x, y, text in labels:
        across, down = axes.transData.transform((x, y))
        if all(abs(across - a) > 12 * unit or abs(down - d) > 7 * unit for a, d in taken):
            taken.append((across, down))
            axes.annotate(text, (x, y), (2.5, 2.5), textcoords="offset points", fontsize=size, color=GREY, zorder=6)
