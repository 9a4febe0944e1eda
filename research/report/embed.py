"""Runs and configs as the page's script gets them: JSON beside the markup."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from research.metrics import direction
from research.report.collect import Hole, Run, Runs
from research.report.keys import distinct
from research.report.record import SHOWN_VALUES, Record
from research.report.table import Table, Values
from research.report.texts import shown


def link(run: Run, way: str = "..") -> str:
    """The run's folder as seen from the page's, from which `way` leads to the sweep."""
    return f"{quote(way)}/{quote(run.run_id, safe='=,')}/"


def configs(table: Table, first: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The keys that differ between runs, those that were swept first, and the value of every other."""
    differing, common = list(first), {}
    for key in table.everything.config_keys():
        values = [value for value in distinct(table.everything, key) if value is not Hole.UNKNOWN]
        if len(values) == 1:
            common[key] = values[0]
        elif key not in differing:
            differing.append(key)
    return [key for key in differing if key not in common], common


def counted(runs: Runs, key: str) -> str:
    """The values of a key with the number of runs of each."""
    counts = Counter(run.value(key) for run in runs)
    texts = [f"{shown(value)} ({counts[value]})" for value in distinct(runs, key)]
    cut = SHOWN_VALUES
    return ", ".join(texts if len(texts) <= cut else [*texts[: cut - 2], "…", texts[-1]])


def blob(
    table: Table, records: Sequence[Record], keys: Sequence[str], differing: Sequence[str], way: str = ".."
) -> str:
    """What the script shows of the runs, as JSON that no HTML parser takes for an end of the element."""
    names = list(dict.fromkeys([*table.metrics, *sorted(table.everything.metric_names())]))
    index = {run.run_id: number for number, run in enumerate(table.everything)}
    columns = [differing.index(key) for key in keys if key in differing]
    content = {
        "keys": differing,
        "columns": columns,
        "metrics": names,
        "main": len(table.metrics),
        "lower": [direction(name) != "higher" for name in names],
        "groups": [
            [index[run_id] for run_id in _members(table, row, column)] for row in table.rows for column in table.columns
        ],
        "runs": [
            {
                "name": run.run_id,
                "link": link(run, way),
                "status": run.status,
                "reason": run.reason or "",
                "values": [shown(run.value(key)) for key in differing],
                "numbers": [_compact(run.metrics.get(name, "")) for name in names],
                "seconds": one.seconds and float(f"{one.seconds:.4g}"),
                "overrides": list(run.overrides),
                "command": one.command or "",
                "nulls": dict(run.null_reasons),
            }
            for run, one in zip(table.everything, records, strict=True)
        ],
    }
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _compact(value: float | str | None) -> float | str | None:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _members(table: Table, row: Values, column: Values) -> Sequence[str]:
    cell = table.cells.get((row, column, table.metrics[0]))
    return () if cell is None else cell.runs
