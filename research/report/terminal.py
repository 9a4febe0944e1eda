"""A table for a terminal: bold and underlined means, at most as wide as the terminal.

What does not go to a terminal (a pipe, a file) is the Markdown of `formats`, whose lines do not depend on a width.
"""

import dataclasses
import functools
import re
import sys
from collections.abc import Collection, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as Grid
from rich.text import Text

from research.metrics import direction
from research.report.collect import Runs
from research.report.document import PUBLISHED, Notes, Rows, document
from research.report.formats import MARKDOWN, markdown
from research.report.methods import methods_of, name_of
from research.report.table import Table
from research.report.texts import PLAIN, Layout, Style, named, naming

LOSS = "test/loss"
WIDEST = 48  # letters of one line of a cell; a longer cell takes several lines
BOLD, UNDERLINE = "\x01", "\x02"  # switch a style on and off inside a text; no name or number holds them


def _printable(text: str) -> str:
    """Text on one line without control characters, so that text from a folder cannot control the terminal."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(text.split()))


TERMINAL = Style(
    escape=_printable,
    name=_printable,
    best=lambda text: f"{BOLD}{text}{BOLD}",
    second=lambda text: f"{UNDERLINE}{text}{UNDERLINE}",
    mark=MARKDOWN.mark,
    power=MARKDOWN.power,
    plus_minus="±",
    dash="—",
    better=MARKDOWN.better,
)
ASCII = dataclasses.replace(  # in an encoding that may lack the other signs
    TERMINAL,
    escape=lambda text: _printable(text).replace("±", "+-"),
    mark=lambda mark: re.sub(r"(\d+)", r"[\1]", mark.translate(str.maketrans("†‡§¶", "+=$!"))),
    plus_minus="+-",
    dash="-",
    better={"lower": " (lower)", "higher": " (higher)"},
)


def terminal() -> Console | None:
    """The console of stdout; None if that is no terminal, or one that cannot show bold text."""
    console = Console(highlight=False)
    return console if console.is_terminal and sys.stdout.isatty() and not console.is_dumb_terminal else None


def show(table: Table, layout: Layout = PLAIN) -> None:
    """Print a table on stdout: drawn if that is a terminal, otherwise as Markdown."""
    if (console := terminal()) is not None:
        draw_table(table, console, layout)
    else:
        Console(highlight=False).print(markdown(table, layout), markup=False, soft_wrap=True)


def draw_table(table: Table, console: Console, layout: Layout = PLAIN) -> None:
    """Print the caption, the table, its notes, published values and the provenance, at most as wide as the console.

    A metric that equals another one in every run has no column. The last columns are left out if there is no room for
    them. Notes below the table name both.
    """
    copies = copies_of(table.metrics, table.runs)
    style = TERMINAL if console.encoding.startswith("utf") else ASCII
    texts = document(_without(table, copies), style, layout)
    heads = [f"{column}: {metric}" if column else metric for column in texts.columns for metric in texts.metrics]
    keys = len(texts.keys)
    rows = [[*texts.keys, *heads], *texts.models, *texts.baselines]
    narrow = [[_folded(*column) for column in zip(*rows, strict=True)], *rows[1:]]
    grid, shown = _grid(rows, keys, len(texts.models)), len(heads)
    fewer = iter(range(len(heads), 0, -1))
    while _width(grid, console) > console.width and (count := next(fewer, None)) is not None:
        grid, shown = _grid([row[: keys + count] for row in narrow], keys, len(texts.models)), count
    console.print(_styled(f"{texts.caption}\n"))
    console.print(grid)
    console.print()
    if missing := heads[shown:]:
        names = ", ".join(functools.reduce(str.removesuffix, style.better.values(), name) for name in missing)
        console.print(_styled(f"Left out for want of room: {names}. A wider terminal or --format markdown shows all."))
    with naming(table.names):
        equal = [("", f"{named(copy)}: equal to {named(metric)} in every run.") for copy, metric in copies.items()]
    _print_notes(console, [*equal, *texts.notes])
    if texts.published:
        console.print()
        _print_published(console, texts.published)
        console.print()
        _print_notes(console, texts.sources)
    console.print(Text(texts.provenance, "dim"))


def _without(table: Table, metrics: Collection[str]) -> Table:
    """The table without the columns of some metrics."""
    cells = {where: cell for where, cell in table.cells.items() if where[2] not in metrics}
    return dataclasses.replace(table, metrics=tuple(name for name in table.metrics if name not in metrics), cells=cells)


def copies_of(names: Sequence[str], runs: Runs) -> dict[str, str]:
    """Metric -> another one that says the same: equal numbers in every run, of the models and of naive methods.

    Both have the same direction. Of two equal metrics the loss is the copy, or else the later one.
    """
    copies: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (name != LOSS, -names.index(name))):
        others = [other for other in names if other != name and other not in copies]
        if direction(name) and (twin := next((other for other in others if _says(other, name, runs)), None)):
            copies[name] = twin
    return copies


def _says(twin: str, name: str, runs: Runs) -> bool:
    """Whether all runs that have a metric have the same numbers of its twin, and some run has one."""
    values = [(run.metrics.get(name), run.metrics.get(twin)) for run in runs if run.finished]
    known = any(value is not None for value, _ in values)
    if not known or direction(name) != direction(twin) or any(value != of_twin for value, of_twin in values):
        return False
    return all(
        run.metrics[name_of(method, name)] == run.metrics.get(name_of(method, twin))
        for run in runs
        for method in methods_of(run, name)
    )


def _grid(rows: Sequence[Sequence[str]], keys: int, models: int) -> Grid:
    """A head, the rows of `models` models, and below a line those of naive methods; `keys` columns have no numbers."""
    grid = Grid(box=box.HORIZONTALS, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="")
    for number, head in enumerate(rows[0]):
        grid.add_column(
            Text(head),
            justify="left" if number < keys else "right",
            vertical="bottom",
            max_width=WIDEST,
            overflow="fold",
        )
    for row in rows[1 : models + 1]:
        grid.add_row(*map(_styled, row))
    grid.add_section()
    for row in rows[models + 1 :]:
        grid.add_row(*map(_styled, row), style="dim")
    return grid


def _width(grid: Grid, console: Console) -> int:
    """Columns of the terminal that a grid takes if nothing in it is broken into lines."""
    return Measurement.get(console, console.options.update(max_width=sys.maxsize), grid).maximum


def _folded(head: str, *cells: str) -> str:
    """A head in lines that are no wider than the cells below it, if its words (`test/`, `elbo_`, `nats`) are not."""
    pieces = re.split(r"(?<=[/_. ])(?=\w)", head)
    room = max(cell_len(text) for text in [*pieces, *(cell for cell in cells if cell_len(cell) <= WIDEST)])
    lines = [""]
    for piece in pieces:
        if cell_len(lines[-1] + piece) > room:
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


def _styled(marked: str) -> Text:
    """A text whose marks `BOLD` and `UNDERLINE` have become styles."""
    text, active = Text(), {"bold": False, "underline": False}
    for part in re.split(f"([{BOLD}{UNDERLINE}])", marked):
        if part in (BOLD, UNDERLINE):
            name = "bold" if part == BOLD else "underline"
            active[name] = not active[name]
        else:
            text.append(part, " ".join(name for name, on in active.items() if on) or None)
    return text


def _print_published(console: Console, rows: Rows) -> None:
    """Print published values as a table, or as sentences in a terminal that is too narrow for one."""
    grid = _grid([list(PUBLISHED), *rows], len(PUBLISHED), len(rows))
    if _width(grid, console) <= console.width:
        console.print(grid)
        return
    texts = ["; ".join(f"{head}: {cell}" for head, cell in zip(PUBLISHED, row, strict=True) if cell) for row in rows]
    _print_notes(console, [("", text) for text in texts])


def _print_notes(console: Console, notes: Notes) -> None:
    for mark, text in notes:
        console.print(_styled(f"- {mark} {text}".replace("-  ", "- ")))
