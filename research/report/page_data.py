"""What the page says of a sweep beyond its table: the plan, the runs, their configs, the best and the worst run."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from research.metrics import direction, judges
from research.report.cell import COLLAPSED
from research.report.collect import Hole, Run, Runs
from research.report.keys import FOLD, SEED, better, count, distinct, peers, varying
from research.report.run import FINISHED, count_statuses
from research.report.table import Table
from research.report.texts import plural, shown

SHOWN_VALUES = 12
SHOWN_LENGTH = 60  # characters of a value
MEANINGS = {  # of statuses
    "completed": "trained to the end of the budget",
    "stopped": "stopped early, as asked for",
    "diverged": "a loss, gradient or update was not finite",
    "failed": "an error ended it",
    "interrupted": "the command was stopped",
    "pruned": "given up because its peers were better",
    "missing": "planned, and without a result",
    "unreadable": "its files are damaged",
}
BUDGET = ("epochs", "batch_size", "accumulate", "compute_dtype", "evaluate_every", "patience", "target_loss", "keep")
BUDGET += ("monitor", "ema", "warm_start")


# ------------------------------------------------------------------------------------------------------------ the plan


def swept_keys(runs: Runs) -> list[str]:
    """The keys that the sweep varies, in the order of the config, fold and seed last.

    They are those of the plan in `sweep.json`, or without a plan those in which the runs differ.
    """
    planned = runs.plan.get("swept")
    names = [key for key in planned if isinstance(key, str)] if isinstance(planned, list) else []
    known = runs.config_keys()
    names = [key for key in names if key in known and len(distinct(runs, key)) > 1]
    if not names:
        names = varying(runs) + [key for key in (FOLD, SEED) if count(runs, key) > 1]
    return sorted(names, key=lambda key: (key in (FOLD, SEED), known.index(key)))


def plan(runs: Runs) -> dict[str, str]:
    """What was to be done: jobs, compiled programs, objective, budget of a run, and the time that all runs took."""
    facts = {"Jobs": plural(len(runs), "run")}
    groups = runs.plan.get("groups")
    if isinstance(groups, dict) and groups:
        programs = Counter(
            f"{group.get('mode', '?')} of width {group.get('width', '?')}"
            for group in groups.values()
            if isinstance(group, dict)
        )
        kinds = [f"{number} × {text}" for text, number in programs.items()]
        facts["Compiled programs"] = f"{len(groups)}: {', '.join(kinds)}"
    if objectives := sorted({run.objective for run in runs if run.objective}):
        facts["Objective"] = f"{', '.join(objectives)}, handed to sweepers that search"
    budget = []
    for name in BUDGET:
        values = [value for value in distinct(runs, f"trainer.{name}") if not isinstance(value, Hole)]
        if values and values != [None]:
            budget.append(f"{name.replace('_', ' ')} {' or '.join(map(shown, values))}")
    if budget:
        facts["Budget of a run"] = "; ".join(budget)
    seconds = [run.seconds for run in runs if run.seconds is not None]
    if seconds:
        each = f"{min(seconds):.3g} to {max(seconds):.3g} s a run"
        facts["Time on the device"] = f"{sum(seconds):.4g} s in all, {each}, without compiling"
    return facts


def swept(runs: Runs, keys: Iterable[str]) -> list[tuple[str, int, str]]:
    """(key, number of values, the values in words) of the keys that vary."""
    rows = []
    for key in keys:
        values = [value for value in distinct(runs, key) if not isinstance(value, Hole)]
        texts = [text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}…" for text in map(shown, values)]
        rows.append((key, len(values), _ends(texts)))
    return rows


def _ends(texts: list[str]) -> str:
    """The texts in a row; the first ones and the last one, where there are too many to show."""
    return ", ".join(texts if len(texts) <= SHOWN_VALUES else [*texts[: SHOWN_VALUES - 2], "…", texts[-1]])


def statuses(runs: Runs) -> list[tuple[str, int, float, float, str]]:
    """(status, runs, start and width in percent of all runs, meaning): the parts of a bar and of its legend."""
    parts, before = [], 0
    for status, number in count_statuses(runs).items():
        share = 100 / len(runs)
        parts.append((status, number, round(before * share, 3), round(number * share, 3), MEANINGS.get(status, "")))
        before += number
    return parts


# ----------------------------------------------------------------------------------------------- runs and their configs


def link(run: Run, to_sweep: str = "..") -> str:
    """The address of a run's folder, relative to a page from which `to_sweep` leads to the sweep folder."""
    return f"{quote(to_sweep)}/{quote(run.run_id, safe='=,')}/"


def configs(runs: Runs, swept: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The keys that differ between runs, swept ones first, and the value of every key that does not differ."""
    differing, common = list(swept), {}
    for key in runs.config_keys():
        values = [value for value in distinct(runs, key) if value is not Hole.UNKNOWN]
        if len(values) == 1:
            common[key] = values[0]
        elif key not in differing:
            differing.append(key)
    return [key for key in differing if key not in common], common


def counted(runs: Runs, key: str) -> str:
    """The values of a key with the number of runs of each."""
    counts = Counter(run.value(key) for run in runs)
    return _ends([f"{shown(value)} ({counts[value]})" for value in distinct(runs, key)])


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


# ------------------------------------------------------------------------------------------------------ best and worst


@dataclasses.dataclass(frozen=True)
class Extremes:
    """The best and the worst of comparable runs by one metric; `why` says in words why by this metric.

    `among` is the number of runs that were compared.
    """

    metric: str
    among: int
    why: str
    best: Run
    worst: Run


def extremes(runs: Runs, metrics: Sequence[str]) -> Extremes | None:
    """The best and the worst run; None if no run has a metric with a direction.

    The metric is the one of the validation rows that may compare most runs, among equal ones the first of `CHOOSING`.
    Without a metric of the validation rows it is the first of `metrics` that some run has.
    """
    finished = [run for run in runs if run.finished]
    candidates: list[tuple[str, list[Run], list[str]]] = []  # metric, comparable runs, keys that separate the others
    for metric in [*judges(()), *judges(metrics), *(name for name in metrics if direction(name))]:
        having = [run for run in finished if run.metrics.get(metric) is not None]
        if having:
            candidates.append((metric, *peers(metric, having)))
    if not candidates:
        return None
    of_validation = [candidate for candidate in candidates if candidate[0].startswith("validation/")]
    metric, comparable, keys = max(of_validation or candidates[:1], key=lambda candidate: len(candidate[1]))
    best = worst = comparable[0]
    for run in comparable[1:]:
        value = run.metrics[metric] or 0.0
        best = run if better(value, best.metrics[metric] or 0.0, metric) else best
        worst = run if better(worst.metrics[metric] or 0.0, value, metric) else worst
    why = f"{direction(metric)} is better; among {plural(len(comparable), 'finished run')}"
    if keys:
        why += f" of {len(finished)}: others differ in {', '.join(keys)} and are not comparable by it"
    if not of_validation:
        why += "; no metric of the validation rows is at hand, so this is one of the test rows"
    return Extremes(metric, len(comparable), why, best, worst)


def best_run(runs: Runs, metrics: Sequence[str]) -> tuple[str, float, Run] | None:
    """A metric of the validation rows, the best run by it, and the run's value.

    None if no such metric may compare all runs that finished, or if there are fewer than two of them.
    """
    finished = tuple(run for run in runs if run.status in FINISHED)
    both = extremes(dataclasses.replace(runs, records=finished), metrics)
    if both is None or not both.metric.startswith("validation/") or not 1 < both.among == len(finished):
        return None
    return both.metric, both.best.metrics[both.metric] or 0.0, both.best


def best_line(metric: str, value: float, run: Run, folder: str) -> str:
    """The line of a command that names what `best_run` found, and says so if its decoder ignores its code."""
    unused = "; its decoder ignores its code (collapsed)" if run.metrics.get(COLLAPSED) == 1 else ""
    return f"best run by {metric} ({value:.6g}): {folder}/{run.run_id}{unused}"
