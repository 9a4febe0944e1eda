"""What a page says of a sweep beyond its table: the plan, where the numbers come from, the best and the worst run."""

import dataclasses
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from research.metrics import direction, judges
from research.report.caption import HASH_DIGITS, sweep_hash
from research.report.cell import count_statuses
from research.report.collect import Hole, Run, Runs
from research.report.keys import FOLD, SEED, better, distinct, peers, varying
from research.report.texts import plural, shown

SHOWN_VALUES = 12
SHOWN_LENGTH = 60  # of a value
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


@dataclasses.dataclass(frozen=True)
class Record:
    """What `result.json` holds beside what tables need; None where it holds nothing of that kind.

    Attributes:
      command: reproduces the run alone.
      seconds: share of the program's training time.
    """

    command: str | None = None
    seconds: float | None = None
    objective: str | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _content(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one: what is wrong with a file is told where the runs are collected."""
    if path.is_symlink() or not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, OSError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def record_of(folder: Path, run: Run) -> Record:
    """The record of a run that has a result."""
    if run.written is None or (folder / run.run_id).is_symlink():
        return Record()
    content = _content(folder / run.run_id / "result.json")
    command, seconds, objective, versions = (
        content.get(key) for key in ("command", "seconds_device_share", "objective", "versions")
    )
    return Record(
        command if isinstance(command, str) else None,
        float(seconds) if isinstance(seconds, int | float) else None,
        objective if isinstance(objective, str) else None,
        {str(name): str(text) for name, text in versions.items()} if isinstance(versions, dict) else {},
    )


def swept_keys(folder: Path, runs: Runs) -> list[str]:
    """The keys that the sweep varies, in the order of the config: as planned, or as the runs differ."""
    planned = _content(folder / "sweep.json").get("swept")
    names = [key for key in planned if isinstance(key, str)] if isinstance(planned, list) else []
    known = runs.config_keys()
    names = [key for key in names if key in known and len(distinct(runs, key)) > 1]
    if not names:
        names = varying(runs) + [key for key in (FOLD, SEED) if len(set(distinct(runs, key)) - set(Hole)) > 1]
    return sorted(names, key=lambda key: (key in (FOLD, SEED), known.index(key)))


def plan(folder: Path, runs: Runs, records: Sequence[Record]) -> list[tuple[str, str]]:
    """(what, words) of what was to be done."""
    found = [("Jobs", plural(len(runs), "run"))]
    groups = _content(folder / "sweep.json").get("groups")
    if isinstance(groups, dict) and groups:
        described = [
            f"{about.get('mode', '?')} of width {about.get('width', '?')}"
            for about in groups.values()
            if isinstance(about, dict)
        ]
        counted = [f"{described.count(text)} × {text}" for text in dict.fromkeys(described)]
        found.append(("Compiled programs", f"{len(groups)}: {', '.join(counted)}"))
    if objectives := sorted({record.objective for record in records if record.objective}):
        found.append(("Objective", f"{', '.join(objectives)}, handed to sweepers that search"))
    budget = []
    for name in BUDGET:
        values = [value for value in distinct(runs, f"trainer.{name}") if not isinstance(value, Hole)]
        if values and values != [None]:
            budget.append(f"{name.replace('_', ' ')} {' or '.join(map(shown, values))}")
    found += [("Budget of a run", "; ".join(budget))] if budget else []
    seconds = [record.seconds for record in records if record.seconds is not None]
    if seconds:
        each = f"{min(seconds):.3g} to {max(seconds):.3g} s a run"
        found.append(("Time on the device", f"{sum(seconds):.4g} s in all, {each}, without compiling"))
    return found


def swept(runs: Runs, keys: Iterable[str]) -> list[tuple[str, int, str]]:
    """(key, number of values, the values) of the keys that vary."""
    rows = []
    for key in keys:
        values = [value for value in distinct(runs, key) if not isinstance(value, Hole)]
        texts = [text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}…" for text in map(shown, values)]
        if len(texts) > SHOWN_VALUES:
            texts = [*texts[: SHOWN_VALUES - 2], "…", texts[-1]]
        rows.append((key, len(values), ", ".join(texts)))
    return rows


def origins(runs: Runs, records: Sequence[Record]) -> list[tuple[str, str]]:
    """(what, words) of where the numbers come from."""

    def distinctly(values: Iterable[str | None]) -> str:
        return ", ".join(sorted({value or "unknown" for value in values}))

    written = [run for run in runs if run.written is not None]
    found = [("Sweep", sweep_hash(runs))]
    if written:
        found += [
            ("Commit", distinctly(run.commit and run.commit[:HASH_DIGITS] for run in written)),
            ("Data SHA-256", distinctly(run.data_sha256 and run.data_sha256[:HASH_DIGITS] for run in written)),
            ("Mode", distinctly(run.program for run in written)),
        ]
        versions: dict[str, set[str]] = {}
        for record in records:
            for name, text in record.versions.items():
                versions.setdefault(name, set()).add(text)
        if versions:
            found.append(("Versions", ", ".join(f"{name} {' or '.join(sorted(versions[name]))}" for name in versions)))
    return found


def when(runs: Runs) -> str:
    """Time of the newest result, or nothing."""
    times = [run.written for run in runs if run.written is not None]
    return f"newest result {datetime.fromtimestamp(max(times), UTC):%Y-%m-%d %H:%M} UTC" if times else "no result yet"


def statuses(runs: Runs) -> list[tuple[str, int, float, float, str]]:
    """(status, runs, first and width in percent of all, meaning), for words and a bar."""
    found, before = [], 0
    for status, count in count_statuses(list(runs)).items():
        share = 100 / len(runs)
        found.append((status, count, round(before * share, 3), round(count * share, 3), MEANINGS.get(status, "")))
        before += count
    return found


def tensorboard(folder: Path) -> str:
    """The command that shows the curves of a sweep."""
    return f"tensorboard --logdir {shlex.quote(folder.as_posix())}"


# ------------------------------------------------------------------------------------------------------- best and worst


@dataclasses.dataclass(frozen=True)
class Extremes:
    """The best and the worst of comparable runs by one metric, and in words why by that one."""

    metric: str
    why: str
    best: int  # index in the runs
    worst: int


def extremes(runs: Runs, metrics: Sequence[str]) -> Extremes | None:
    """Best and worst by the metric of the validation rows that most runs may be compared by; None without any.

    Among equally good ones it is the first of `CHOOSING`. Where there is none it is the first of `metrics` that there
    is, of the test rows.
    """
    finished = [run for run in runs if run.finished]
    candidates = []
    for metric in [*judges(()), *judges(metrics), *(name for name in metrics if direction(name))]:
        having = [run for run in finished if run.metrics.get(metric) is not None]
        if having:
            candidates.append((metric, *peers(metric, having)))
    if not candidates:
        return None
    of_validation = [one for one in candidates if one[0].startswith("validation/")]
    metric, compared, keys = max(of_validation or candidates[:1], key=lambda one: len(one[1]))
    best = worst = compared[0]
    for run in compared[1:]:
        value = run.metrics[metric] or 0.0
        best = run if better(value, best.metrics[metric] or 0.0, metric) else best
        worst = run if better(worst.metrics[metric] or 0.0, value, metric) else worst
    why = f"{direction(metric)} is better; among {plural(len(compared), 'finished run')}"
    if keys:
        why += f" of {len(finished)}: others differ in {', '.join(keys)} and are not comparable by it"
    if not of_validation:
        why += "; no metric of the validation rows is at hand, so this is one of the test rows"
    index = {id(run): number for number, run in enumerate(runs)}
    return Extremes(metric, why, index[id(best)], index[id(worst)])
