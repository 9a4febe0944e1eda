"""The output of a command: the plan, a progress bar with rate and time left, and errors."""

import contextlib
import importlib.util
import os
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from research.sweep.device import amount
from research.sweep.plan import JobGroup, describe


def printable(text: str) -> str:
    """Text without control characters, so that text from a folder cannot control the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


class Display:
    """Writes to stdout, or below the cell of a notebook; errors go to stderr.

    Args:
      quiet: print nothing but errors.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(highlight=False, quiet=quiet)
        self.progress: Progress | None = None
        self.tasks: list[Any] = []
        self.counts: list[int] = []
        self.last_line = 0.0

    def note(self, text: str) -> None:
        """Print one line."""
        self.console.print(Text(printable(text)), soft_wrap=True)

    def plan(self, groups: Sequence[JobGroup], done: int) -> None:
        """Print the groups, in which settings each differs from the one before, and notes; `done` runs are finished."""
        line = describe(groups) + (f" ({done} more finished already)" if done else "")
        self.console.print(f"[bold]{line}[/bold]")
        if not groups:
            return
        table = Table(box=None, pad_edge=False, header_style="dim")
        columns = [("program", "right"), ("jobs", "right"), ("width", "right"), ("padding", "right"), ("mode", "left")]
        for name, justify in [*columns, ("parameters", "right"), ("memory", "right")]:
            table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        table.add_column("apart by", overflow="fold")
        for number, group in enumerate(groups, 1):
            cells = [
                number,
                len(group.members),
                group.width,
                group.padding,
                group.mode,
                f"{group.parameters:,}",
                amount(group.bytes),
            ]
            table.add_row(*map(str, cells), escape(group.reason))
        self.console.print(table)
        notes = [note for group in groups for bound in group.members for note in bound.dataset.notes]
        for note in dict.fromkeys(notes):
            self.note(f"note: {note}")
        for key in dict.fromkeys(key for group in groups for key in group.unread):
            programs = [str(number) for number, group in enumerate(groups, 1) if key in group.unread]
            where = f"program{'s' * (len(programs) > 1)} {', '.join(programs)}"
            self.note(f"note: {key} changes nothing in {where}: runs there that differ in it alone are equal")

    @contextlib.contextmanager
    def training(self, groups: Sequence[JobGroup]) -> Iterator[None]:
        """Show progress while groups train: a live bar in a terminal, otherwise a line now and then."""
        self.counts = [len(group.members) for group in groups]
        # Epochs of all members of each unit: in total, and done.
        epochs = lambda unit: unit.members[0].job.trainer.epochs * len(unit.members)
        self.total = [[epochs(unit) for unit in group.units] for group in groups]
        self.done = [[0 for _ in group.units] for group in groups]
        if not groups:
            yield
            return
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs  {task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
            console=self.console,
            disable=not self._moves(),
            transient=True,
        )
        self.started = [0.0] * len(groups)
        self.tasks = [
            self.progress.add_task(f"program {number}", total=sum(total), start=False, rate="", loss="waiting")
            for number, total in enumerate(self.total, 1)
        ]
        with self.progress:
            yield
        self.progress = None

    def _moves(self) -> bool:
        """Whether the console can show a bar that moves; elsewhere a line is printed now and then."""
        if self.console.is_jupyter:  # rich draws its bar with widgets
            return importlib.util.find_spec("ipywidgets") is not None
        return self.console.is_terminal and not os.environ.get("CI")

    def begin(self, number: int) -> None:
        """A unit of a group starts; its first chunk may include compiling."""
        assert self.progress is not None
        if self.started[number]:
            return
        self.started[number] = time.monotonic()
        self.progress.start_task(self.tasks[number])
        self.progress.update(self.tasks[number], loss="compiling")

    def chunk(self, number: int, epochs: int, metrics: Mapping[str, Any], unit: int = 0) -> None:
        """Show the epochs that a unit of a group has done, and the median loss of its members."""
        assert self.progress is not None
        members = self.counts[number] // len(self.done[number])
        self.done[number][unit] = epochs * members
        done, total = sum(self.done[number]), sum(self.total[number])
        rate = done / max(time.monotonic() - self.started[number], 1e-9)
        losses = np.asarray(metrics.get("validation/loss", np.nan))[:members]
        loss = f"loss {np.nanmedian(losses):.4g}" if np.isfinite(losses).any() else "loss not finite"
        self.progress.update(self.tasks[number], completed=done, rate=f"{rate:.3g}/s", loss=loss)
        if self.progress.disable and time.monotonic() - self.last_line > 10:
            self.last_line = time.monotonic()
            self.note(f"program {number + 1}: epoch {done}/{total} of all members, {rate:.3g} epochs/s, {loss}")

    def evaluating(self, number: int, unit: int = 0) -> None:
        """A unit is trained, and its members are evaluated now."""
        assert self.progress is not None
        self.done[number][unit] = self.total[number][unit]
        self.progress.update(self.tasks[number], completed=sum(self.done[number]), loss="evaluating")

    def finished(self, number: int, result: Mapping[str, Any]) -> None:
        """Print the result of a run, unless it is a good one."""
        if result["status"] not in ("completed", "stopped"):
            line = f"[yellow]{result['status']}[/yellow] {escape(result['run_id'])}: {escape(str(result['reason']))}"
            self.console.print(line, soft_wrap=True)

    def goodput(self, spent: Mapping[str, float]) -> None:
        """Print which shares of the time of all programs went to what (`ledger.SPENT`)."""
        total = sum(spent.values())
        if not total:
            return self.note("goodput: nothing was trained")
        share = {kind: f"{seconds / total:.0%}" for kind, seconds in spent.items()}
        self.note(
            f"goodput: of {total:.1f} s of all threads {share['learn']} trained members that learn, {share['compile']} "
            f"compiled, {share['idle']} went to padding and members that had ended, {share['write']} to files, "
            f"{share['wait']} to waiting"
        )

    def error(self, error: BaseException) -> None:
        """Print the traceback of an exception."""
        Console(stderr=True, highlight=False).print("".join(traceback.format_exception(error)), markup=False)
