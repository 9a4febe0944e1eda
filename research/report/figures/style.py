"""How every figure looks, how it is written as files with equal bytes each time, and how names are spelled in it."""

import contextlib
import io
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from research.metrics import base, direction
from research.metrics import metric as known
from research.report.texts import given_name, listed, named_metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.3, 6.8  # widths of one and two columns of a paper, inches
DPI = 200
GREY, LIGHT = "#595959", "#D0D0D0"
LONGEST = 60  # letters of a value or a name in a figure
SPREAD = 30  # ratio of largest to smallest value above which an axis is logarithmic

SETTINGS: dict[str, Any] = {  # beside the defaults, whose font comes with matplotlib and is the same everywhere
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
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-4, 5),
    "lines.linewidth": 1.2,
    "lines.markersize": 3.6,
    "hatch.linewidth": 0.5,
    "svg.fonttype": "path",  # needs no font where it is shown
    "svg.hashsalt": "figures",  # element ids are the same each time
    "pdf.fonttype": 42,  # TrueType, which journals ask for
    "figure.dpi": DPI,
    "figure.constrained_layout.w_pad": 0.03,
    "figure.constrained_layout.h_pad": 0.03,
}


def styled() -> contextlib.AbstractContextManager[None]:
    """Give matplotlib its defaults and `SETTINGS`, whatever the user's own file says, and undo this at the end."""
    from matplotlib import style

    return style.context(SETTINGS, after_reset=True)


def rendered(figure: "Figure") -> dict[str, bytes]:
    """svg, pdf and png of a figure, without dates or versions; the layout is computed once for all three."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    without: dict[str, dict[str, None]] = {
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
        "png": {"Software": None},
    }
    files = {}
    for kind, metadata in without.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
        files[kind] = buffer.getvalue()
    return files


def metric_label(metric: str, arrow: bool = True) -> str:
    """`test/kl_nats` -> `test KL (nats)`, or its name in the report; with an arrow that points to better values."""
    arrow_text = {"lower": " ↓", "higher": " ↑", "": ""}[direction(metric) if arrow else ""]
    if given_name(metric) is not None:
        return literal(named_metric(metric)) + arrow_text
    part, _, _ = metric.rpartition("/")
    bare = base(metric)
    of_table = known(metric)
    unit = of_table.unit or ("nats" if bare.endswith("_nats") else "")
    name = of_table.label or bare.removesuffix("_nats").replace("_", " ")
    text = " ".join([*part.split("/"), name]).strip() + (f" ({unit})" if unit else "")
    return literal(text) + arrow_text


def literal(text: str) -> str:
    """Text on one line, cut to `LONGEST` letters; a dollar sign is escaped, since it would begin a formula."""
    text = " ".join(text.split())
    return (text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…").replace("$", r"\$")


def sentence(text: str) -> str:
    """The text with a capital at its start; all else keeps its case."""
    return text[:1].upper() + text[1:]


def key_label(key: str) -> str:
    """`model.latent_dim` -> `latent dim`, or its name in the report."""
    return literal(given_name(key) or key.rpartition(".")[2].replace("_", " "))


def joined(*sentences: Any) -> str:
    """The sentences of a caption; empty ones are left out."""
    return " ".join(text for text in sentences if text)


def not_drawn(number: int) -> str:
    """The sentence of a caption that says how much has no room in the figure."""
    return f"Not drawn for want of room: {number} more." if number > 0 else ""


def by_keys(lines: Sequence[str], panels: Sequence[str]) -> str:
    """`, a line for each model.beta, a panel for each data.problem`: the end of the first sentence of a caption."""
    parts = [f", a {what} for each {listed(keys)}" for what, keys in (("line", lines), ("panel", panels)) if keys]
    return "".join(parts)


def wide(values: Iterable[float]) -> bool:
    """Whether positive values span so many powers of ten that their axis should be logarithmic."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > SPREAD * min(finite)
