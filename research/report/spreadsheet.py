"""A table as CSV: exact numbers, and in columns what other formats say in words."""

from typing import Any

import numpy as np

from research.metrics import direction
from research.report.cell import Values
from research.report.collect import STATUSES
from research.report.statistics import interquartile_mean, interval
from research.report.table import Table
from research.report.texts import PLAIN, Layout, shown
from research.runs.csv_text import csv_text


def spreadsheet(table: Table, layout: Layout = PLAIN) -> str:
    """One line for each cell, with the number of runs of each status and the ids of all runs of the cell."""
    statuses = list(dict.fromkeys([*STATUSES, *(status for cell in table.cells.values() for status in cell.counts)]))
    keys = [*table.row_keys, *table.column_keys]
    chosen = () if table.selection is None else table.selection.keys
    summaries = ["mean", "sd", "n", "low", "high", "median", "iqm"]  # low and high are the 95 % interval of the mean
    numbers = [*summaries, "best", "second", "p", "worse_than", "worse_than_mean", "degenerate_weights"]
    beside = ["null", "null_reasons", "without_metric", "without_all_folds", "lacks", "collapsed", "runs"]
    heads = [*keys, *(f"chosen {key}" for key in chosen), "kind", "metric", "better"]
    lines: list[list[Any]] = [[*heads, *numbers, *statuses, *beside]]

    def exact(number: float | None) -> str:
        return "" if number is None else repr(number)

    def head(row: Values, column: Values, kind: str, metric: str) -> list[str]:
        values = () if table.selection is None else table.selection.chosen.get((row, column), [""] * len(chosen))
        return [*map(shown, (*row, *column, *values)), kind, metric, direction(metric)]

    for (row, column, metric), cell in table.cells.items():
        low, high = interval(cell.values, layout.interval) or (None, None)
        middle = (float(np.median(cell.values)), interquartile_mean(cell.values)) if cell.values else (None, None)
        summary = [exact(cell.mean), exact(cell.sd), cell.n, *map(exact, (low, high, *middle))]
        summary += [int(cell.best), int(cell.second), exact(cell.p), cell.worse or ""]
        summary += [cell.worse_than_mean or "", cell.degenerate]
        counts = [cell.counts.get(status, 0) for status in statuses]
        left_out = [sum(cell.nulls.values()), "; ".join(cell.nulls), cell.absent, cell.partial, cell.lacks]
        left_out += [cell.collapsed, ";".join(cell.runs)]
        lines.append([*head(row, column, "model", metric), *summary, *counts, *left_out])
    for baseline in table.baselines:
        for (column, metric), value in baseline.cells.items():
            empty = [""] * (len(numbers) - 1 + len(statuses) + len(beside))
            lines.append([*head(baseline.row, column, baseline.method, metric), exact(value), *empty])
    return csv_text(lines)


def published(table: Table) -> str:
    """One line for each published value and cell of ours beside which it is printed."""
    keys = [*table.row_keys, *table.column_keys]
    heads = ["label", "metric", *keys, "ours", "sd", "n", "theirs", "error", "difference", "allowed"]
    lines: list[list[Any]] = [[*heads, "verdict", "reason", "source"]]
    for entry in table.published:
        theirs, cell = entry.published, entry.cell
        about = map(shown, (*entry.row, *entry.column))
        numbers = [cell.mean, cell.sd, cell.n, theirs.value, theirs.error, entry.difference, entry.allowed]
        line = [theirs.label, theirs.metric, *about, *("" if value is None else value for value in numbers)]
        lines.append([*line, entry.verdict, entry.reason, theirs.source])
    return csv_text(lines)
