"""The words around a table: what is averaged over, what marks mean, which runs are left out, where it comes from."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from research.metrics import direction
from research.report.cell import count_statuses
from research.report.collect import Run, Runs
from research.report.keys import FOLD, SEED, comparison_keys, distinct
from research.report.methods import FITTED, REAL, SIZED, label
from research.report.table import COLLAPSE, WORSE, Table

SHOWN_REASONS = 5


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def merged(reasons: Iterable[str]) -> list[str]:
    """Reasons without repetitions; those that differ in one number only as one: `first bad step 12 to 20`."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for reason in dict.fromkeys(reasons):
        parts = tuple(re.split(r"\d+", reason))
        alike.setdefault(parts if len(parts) == 2 else (reason,), []).append(reason)
    texts = []
    for parts, same in alike.items():
        numbers = sorted(int(number) for reason in same for number in re.findall(r"\d+", reason)[:1])
        texts.append(f"{numbers[0]} to {numbers[-1]}".join(parts) if len(same) > 1 else same[0])
    return texts


def caption(table: Table) -> str:
    """What a cell is."""
    over = table.averaging
    dimensions = [f"{SEED} ({over.seeds} values)"] if over.seeds > 1 else []
    dimensions += [f"{key} ({plural(len(distinct(table.runs, key)), 'value')})" for key in over.keys]
    folds = f"{FOLD} ({over.folds} values)"
    if over.over_folds:
        seeds = distinct(table.runs, SEED)
        dimensions = [folds + (f" at the one seed {seeds[0]}" if len(seeds) == 1 else "")]
    text = f"{table.runs.name}: "
    if not dimensions:
        text += "one run in every cell"
    else:
        deviation = "mean" if table.n == 1 else "mean ± standard deviation (n-1)"
        text += f"{deviation} over {_listed(dimensions)}"
        if over.folds > 1 and not over.over_folds:
            text += f", each the mean over {folds}"
        if table.n is not None:
            text += f"; n={table.n} in every cell" + (": no standard deviation" if table.n == 1 else "")
    text += "."
    if any(cell.best for cell in table.cells.values()):
        text += " Bold: best mean of a column among cells all of whose runs finished."
    return text


def notes(table: Table) -> list[tuple[str, str]]:
    """(mark, text) of everything that a reader must know beside the numbers."""
    found = []
    if table.averaging.keys:
        found.append(
            ("", f"Warning: the means are also over {_listed(table.averaging.keys)}; make it a row or a column.")
        )
    separated: dict[tuple[str, ...], list[str]] = {}
    for metric in table.metrics:
        if keys := _separating(table, metric):
            separated.setdefault(tuple(keys), []).append(metric)
    for keys, metrics in separated.items():
        verb = "is" if len(metrics) == 1 else "are"
        found.append(("", f"{_listed(metrics)} {verb} compared only between runs of equal {_listed(keys)}."))
    for (metric, reason), mark in table.null_marks.items():
        found.append((mark, f"{metric} is null: {reason}."))
    found += [(WORSE, text) for text in _worse(table)]
    found += [(COLLAPSE, text) for text in _collapsed(table)]
    found += [("", text) for text in _origins(table)]
    found += [("", text) for text in _left_out(table.runs)]
    found += [("", f"{problem}.") for problem in table.runs.problems]
    return found


def _worse(table: Table) -> list[str]:
    """What the mark of means that lose against a naive row says: against which."""
    named = {method: label(method) + " at the same latent size" * (method in SIZED) for method in table.worse}
    if len(named) < 2:
        return [f"worse than {name}." for name in named.values()]
    parts = [f"{named[method]} for {_listed(metrics)}" for method, metrics in table.worse.items()]
    return [f"worse than the best naive row: {'; '.join(parts)}."]


def _collapsed(table: Table) -> list[str]:
    if not table.collapses:
        return []
    collapsed, averaged = max(table.collapses)
    count = f"{collapsed} of {plural(averaged, 'run')}" if len(table.collapses) == 1 else "some runs"
    return [f"{count} collapsed: the decoder ignores its code."]


def _origins(table: Table) -> list[str]:
    """Where the rows come from that are no models."""
    folds = f", averaged over {FOLD}" if table.averaging.folds > 1 else ""
    origins: dict[str, list[str]] = {}
    for method in dict.fromkeys(baseline.method for baseline in table.baselines):
        origin = "computed from the data without training"
        if method in FITTED:
            origin = "fitted to the training rows"
        elif method in REAL:
            origin = "the score of real data, a bound and not a floor"
        origins.setdefault(origin, []).append(label(method))
    return [f"{_listed(names)}: {origin}{folds}." for origin, names in origins.items()]


def _separating(table: Table, metric: str) -> list[str]:
    """The keys that keep some rows of a metric from being compared with others."""
    if not direction(metric):
        return []
    shown = {SEED, FOLD, *table.row_keys, *table.averaging.keys}
    keys = [key for key in comparison_keys(metric, table.runs) if key in shown]
    return [key for key in keys if len(distinct((run for run in table.runs if run.known), key)) > 1]


def _left_out(runs: Iterable[Run]) -> list[str]:
    """For each status that is never averaged: how many runs, and why."""
    left = [run for run in runs if not run.finished]
    texts = []
    for status, count in count_statuses(left).items():
        shown = merged(run.reason for run in left if run.status == status and run.reason)
        if status != "unreadable" and len(shown) > SHOWN_REASONS:
            shown = [*shown[:SHOWN_REASONS], f"{len(shown) - SHOWN_REASONS} more reasons"]
        texts.append(
            f"Not averaged: {plural(count, 'run')} {status}" + (f": {'; '.join(shown)}" if shown else "") + "."
        )
    return texts


def provenance(runs: Runs) -> str:
    """Runs by status, data, code, modes and the time of the newest result."""
    statuses = ", ".join(f"{count} {status}" for status, count in count_statuses(list(runs)).items())
    results = [run for run in runs if run.written is not None]
    parts = [f"{plural(len(runs), 'run')}: {statuses}"]

    def distinctly(noun: str, values: Iterable[str | None]) -> str:
        found = sorted({value or "unknown" for value in values})
        return f"{noun} {', '.join(found)}"

    if results:
        parts += [
            distinctly("data sha256", (run.data_sha256 and run.data_sha256[:12] for run in results)),
            distinctly("commit", (run.commit and run.commit[:12] for run in results)),
            distinctly("mode", (run.program for run in results)),
        ]
        newest = datetime.fromtimestamp(max(run.written or 0 for run in results), UTC)
        parts.append(f"newest result {newest:%Y-%m-%d %H:%M} UTC")
    return "; ".join(parts) + "."
