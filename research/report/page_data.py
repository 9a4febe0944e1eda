"""The runs and configs of a sweep as the script of the page gets them: JSON beside the markup."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from research.metrics import direction
from research.report.collect import Hole, Run, Runs
from research.report.keys import distinct
from research.report.overview import ends
from research.report.table import Table
from research.report.texts import shown


def link(run: Run, to_sweep: str = "..") -> str:
    """The address of a run's folder, relative to a page from which `to_sweep` leads to the sweep folder."""
    return f"{quote(to_sweep)}/{quote(run.run_id, safe='=,')}/"


def configs(table: Table, swept: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The keys that differ between runs, swept ones first, and the value of every key that does not differ."""
    differing, common = list(swept), {}
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
    return ", ".join(ends([f"{shown(value)} ({counts[value]})" for value in distinct(runs, key)]))


def page_data(table: Table, swept: Sequence[str], differing: Sequence[str], to_sweep: str = "..") -> str:
    """What the script shows of the runs, as JSON in which no HTML parser sees the end of the element."""
    names = list(dict.fromkeys([*table.metrics, *sorted(table.everything.metric_names())]))
    index = {run.run_id: number for number, run in enumerate(table.everything)}
    cells = [table.cells.get((row, column, table.metrics[0])) for row in table.rows for column in table.columns]
    content = {
        "keys": differing,
        "columns": [differing.index(key) for key in swept if key in differing],
        "metrics": names,
        "main": len(table.metrics),
        "lower": [direction(name) != "higher" for name in names],
        "groups": [[index[run_id] for run_id in cell.runs] if cell else [] for cell in cells],
        "runs": [
            {
                "name": run.run_id,
                "link": link(run, to_sweep),
                "status": run.status,
                "reason": run.reason or "",
                "values": [shown(run.value(key)) for key in differing],
                "numbers": [_compact(run.metrics.get(name, "")) for name in names],
                "seconds": run.seconds and float(f"{run.seconds:.4g}"),
                "overrides": list(run.overrides),
                "command": run.command or "",
                "nulls": dict(run.null_reasons),
            }
            for run in table.everything
        ],
    }
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _compact(value: float | str | None) -> float | str | None:
    return float(f"{value:.6g}") if isinstance(value, float) else value
