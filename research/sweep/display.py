"""What the terminal shows: the plan, a progress bar with rate and time left, what went wrong."""

import contextlib
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

from research.sweep.plan import Group, describe


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def printable(text: str) -> str:
    """Text without control characters: what was read from a folder cannot steer the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


class Display:
    """Writes to one console; errors go to stderr."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.progress: Progress | None = None
        self.tasks: list[Any] = []
        self.counts: list[int] = []
        self.last_line = 0.0

    def note(self, text: str) -> None:
        """One line."""
        self.console.print(Text(printable(text)), soft_wrap=True)

    def plan(self, groups: Sequence[Group], done: int) -> None:
        """The groups, and why each stands apart from the one before."""
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
                len(group.bounds),
                group.width,
                group.padding,
                group.mode,
                f"{group.parameters:,}",
                size(group.bytes),
            ]
            table.add_row(*map(str, cells), escape(group.reason))
        self.console.print(table)
        notes = [note for group in groups for bound in group.bounds for note in bound.dataset.notes]
        for note in dict.fromkeys(notes):
            self.note(f"note: {note}")
        for key in dict.fromkeys(key for group in groups for key in group.unread):
            programs = [str(number) for number, group in enumerate(groups, 1) if key in group.unread]
            where = f"program{'s' * (len(programs) > 1)} {', '.join(programs)}"
            self.note(f"note: {key} changes nothing in {where}: runs there that differ in it alone are equal")

    @contextlib.contextmanager
    def training(self, groups: Sequence[Group]) -> Iterator[None]:
        """Show progress while groups train: a live bar in a terminal, else a line now and then."""
        self.counts = [len(group.bounds) for group in groups]
        # by unit: epochs in all, and done
        self.total = [
            [unit.bounds[0].job.trainer.epochs * len(unit.bounds) for unit in group.units] for group in groups
        ]
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
            disable=not self.console.is_terminal or bool(os.environ.get("CI")),
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

    def begin(self, number: int) -> None:
        """A unit of a group starts; the first chunk of the first one includes compiling."""
        assert self.progress is not None
        if self.started[number]:
            return
        self.started[number] = time.monotonic()
        self.progress.start_task(self.tasks[number])
        self.progress.update(self.tasks[number], loss="compiling")

    def chunk(self, number: int, epochs: int, metrics: Mapping[str, Any], unit: int = 0) -> None:
        """Epochs that a unit of a group has done, with the median loss of its members."""
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
        """A unit is trained; its members are evaluated."""
        assert self.progress is not None
        self.done[number][unit] = self.total[number][unit]
        self.progress.update(self.tasks[number], completed=sum(self.done[number]), loss="evaluating")

    def finished(self, number: int, result: Mapping[str, Any]) -> None:
        """One run has its result."""
        if result["status"] not in ("completed", "stopped"):
            line = f"[yellow]{result['status']}[/yellow] {escape(result['run_id'])}: {escape(str(result['reason']))}"
            self.console.print(line, soft_wrap=True)

    def error(self, error: BaseException) -> None:
        """A group failed."""
        Console(stderr=True, highlight=False).print("".join(traceback.format_exception(error)), markup=False)
