"""The table, the figure and the slopes of the benchmark `rivals`, from its record alone (see `bench_rivals.record`)."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

BUSY = 0.2  # share of the cores that other programs may use
SAME_LOSS = 0.05  # losses whose ranges lie apart and whose medians differ by a larger share are told

METHOD = f"""\
Medians (range) of repeats that took turns; a cold cache is measured once. Every program runs in a process of its own.
A ratio above 1 means that we are faster; where we are slower, the last column says so. Losses are of the validation
rows after the last epoch (of the training rows for PyTorch), ours / theirs. Every repeat of a whole program has its
own seed. Losses are said to differ if their ranges lie apart and their medians by more than {SAME_LOSS:.0%}; with three
repeats on each side, ranges lie apart by chance in one case of ten."""


class Line(NamedTuple):
    """A line of the table.

    Attributes:
      what: the row, and what of it is compared.
      ours, theirs: every measurement, in seconds or in samples per second.
      unit: s, or samples/s.
      losses: every loss of ours and of theirs; none: no loss is compared.
      missing: why there is no measurement of theirs.
    """

    row: str
    what: str
    rival: str
    ours: Sequence[float]
    theirs: Sequence[float]
    unit: str
    losses: Sequence[Sequence[float]]
    missing: str | None

    @property
    def ratio(self) -> float:
        """How many times as fast we are, of medians."""
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        return theirs / ours if self.unit == "s" else ours / theirs

    @property
    def verdict(self) -> str:
        """Who is faster, in words, and whether the losses are alike."""
        if self.missing:
            return self.missing
        if overlap(self.ours, self.theirs):
            said = "no clear difference: the ranges overlap"
        else:
            said = "faster here" if self.ratio > 1 else "**slower here**"
        if not self.losses or overlap(*self.losses):
            return said
        ours, theirs = map(statistics.median, self.losses)
        apart = abs(ours - theirs) / max(abs(ours), abs(theirs))
        return said if apart <= SAME_LOSS else f"{said}; **losses differ by {apart:.0%}**"


def overlap(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether the ranges of two sets of measurements have a value in common."""
    return min(first) <= max(second) and min(second) <= max(first)


def lines(record: dict[str, Any]) -> list[Line]:
    """The lines of the table: every comparison of every row whose own side was measured."""
    made = []
    for row in record["rows"].values():
        for comparison in row["comparisons"]:
            measured, side = row["measured"], comparison["theirs"].partition("/")[0]
            missing = row["missing"].get(side) or row["missing"].get("ours")
            losses = [measured[key] for key in comparison["losses"] if key in measured]
            made.append(
                Line(
                    row["title"],
                    comparison["what"],
                    comparison["rival"],
                    measured.get(comparison["ours"], []),
                    measured.get(comparison["theirs"], []),
                    comparison["unit"],
                    losses if len(losses) == 2 else (),
                    missing,
                )
            )
    return made


def shown(values: Sequence[float]) -> str:
    """Median and range of measurements; one alone has no range."""
    if not values:
        return ""
    median = number(statistics.median(values))
    return median if len(values) == 1 else f"{median} ({number(min(values))}-{number(max(values))})"


def number(value: float) -> str:
    """Three digits, four from 10 on, and thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 10 else f"{value:.3g}"


def slope(points: Sequence[dict[str, Any]]) -> float:
    """Least-squares slope of log(median seconds) against log(value): 1 is a cost in proportion, 0 a fixed cost."""
    x = [math.log(point["value"]) for point in points]
    y = [math.log(statistics.median(point["seconds"])) for point in points]
    return statistics.linear_regression(x, y).slope


def markdown(record: dict[str, Any]) -> str:
    """The whole page."""
    about = record["about"]
    text = [
        "# Against what people use",
        "",
        f"`{about['command']}`, {about['date']}; {about['machine']}; load before each repeat: "
        f"{', '.join(f'{load:.1f}' for load in about['load'])} (of the last minute, so of the benchmark itself too).",
        f"Versions here: {versions(about['versions'])}. Versions there: {versions(about['rival_versions'])}.",
        "",
        *quiet(about["busy"]),
        METHOD,
        "",
        "| what | measured | ours | other | ratio | losses | against, and who is faster |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in lines(record):
        ratio = f"{line.ratio:.2f}" if line.ours and line.theirs else ""
        losses = " / ".join(map(shown, line.losses))
        cells = [line.row, f"{line.what} [{line.unit}]", shown(line.ours), shown(line.theirs), ratio, losses]
        text.append(f"| {' | '.join(cells)} | {line.rival}: {line.verdict} |")
    text += ["", *(f"* {row['title']}: {row['note']}" for row in record["rows"].values() if row["note"])]
    if record["growth"]:
        text += [
            "",
            "Growth of our seconds of training (`log-log slope`; 1 is a cost in proportion, 0 a fixed cost):",
            "",
        ]
        text += ["| what grows | values | median seconds | slope |", "|---|---|---|---|"]
        for axis, points in record["growth"].items():
            values = ", ".join(f"{point['value']:,}" for point in points)
            seconds = ", ".join(number(statistics.median(point["seconds"])) for point in points)
            text.append(f"| {axis} | {values} | {seconds} | {slope(points):.2f} |")
    return "\n".join(text).rstrip() + "\n"


def quiet(busy: Sequence[float | None]) -> list[str]:
    """A warning if other programs used the machine between the rows: idle threads of PyTorch then cost it most."""
    most = max((share for share in busy if share is not None), default=0.0)
    if most <= BUSY:
        return []
    return [f"**Other programs used up to {most:.0%} of the cores before a row: quote no ratio of this table.**", ""]


def colour(line: Line) -> str:
    """The colour of a bar."""
    if overlap(line.ours, line.theirs):
        return "tab:grey"
    return "tab:blue" if line.ratio > 1 else "tab:red"


def versions(of: dict[str, str]) -> str:
    """Names and versions as text."""
    return ", ".join(f"{name} {version}" for name, version in of.items()) or "none"


def draw(record: dict[str, Any], path: Path) -> None:
    """Ratios of all lines on a logarithmic axis, and the growth of our seconds below them."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    compared = [line for line in lines(record) if line.ours and line.theirs]
    height = max(2.0, 0.2 * len(compared))
    figure = Figure(figsize=(10, height + 4), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[height, 3.5])
    labels = [f"{line.row}: {line.what}, {line.rival.partition(' (')[0].partition(',')[0]}" for line in compared]
    colours = [colour(line) for line in compared]
    above.barh(range(len(compared)), [line.ratio - 1 for line in compared], left=1, color=colours)
    above.set_yticks(range(len(compared)), labels, fontsize=7)
    above.set_ylim(len(compared) - 0.5, -0.5)
    above.set_xscale("log")
    above.axvline(1, color="black", linewidth=0.8)
    above.set_xlabel("times as fast as the other (red: slower; grey: the ranges overlap)")
    figure.suptitle("".join(quiet(record["about"]["busy"])).strip("*"), color="tab:red", fontsize=9)
    for axis, points in record["growth"].items():
        first = statistics.median(points[0]["seconds"])
        sizes = [point["value"] / points[0]["value"] for point in points]
        seconds = [statistics.median(point["seconds"]) / first for point in points]
        below.loglog(sizes, seconds, marker="o", label=f"{axis}: slope {slope(points):.2f}")
    for scale in (above.xaxis, below.xaxis, below.yaxis):
        scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        scale.set_minor_formatter(NullFormatter())
    below.set_xlabel("size / smallest size")
    below.set_ylabel("our seconds / at the smallest")
    if record["growth"]:
        below.legend(loc="upper left")
    figure.savefig(path, dpi=110)
