"""What the page says of a sweep beyond its table: the plan, what was swept, and what became of the runs."""

from collections.abc import Iterable

from research.report.collect import Hole, Runs
from research.report.keys import FOLD, SEED, count, distinct, varying
from research.report.run import count_statuses
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
BUDGET = ("epochs", "batch_size", "evaluate_every", "patience", "target_loss", "keep", "monitor", "warm_start")


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
        programs = [
            f"{group.get('mode', '?')} of width {group.get('width', '?')}"
            for group in groups.values()
            if isinstance(group, dict)
        ]
        counts = [f"{programs.count(text)} × {text}" for text in dict.fromkeys(programs)]
        facts["Compiled programs"] = f"{len(groups)}: {', '.join(counts)}"
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
        rows.append((key, len(values), ", ".join(ends(texts))))
    return rows


def ends(texts: list[str]) -> list[str]:
    """The first texts and the last one, where there are too many to show."""
    return texts if len(texts) <= SHOWN_VALUES else [*texts[: SHOWN_VALUES - 2], "…", texts[-1]]


def statuses(runs: Runs) -> list[tuple[str, int, float, float, str]]:
    """(status, runs, start and width in percent of all runs, meaning): the parts of a bar and of its legend."""
    parts, before = [], 0
    for status, number in count_statuses(runs).items():
        share = 100 / len(runs)
        parts.append((status, number, round(before * share, 3), round(number * share, 3), MEANINGS.get(status, "")))
        before += number
    return parts
