"""The words around a table: what is averaged over, what marks mean, which runs are left out, where it comes from."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from research.metrics import direction
from research.report.cell import count_statuses
from research.report.collect import FINISHED, Run, Runs
from research.report.keys import FOLD, SEED, apart, comparison_keys, distinct
from research.report.methods import FITTED, PERFECT, REAL, SIZED, label
from research.report.run import EVALUATION
from research.report.statistics import SMALLEST
from research.report.table import COLLAPSE, DEGENERATE, WORSE, WORSE_THAN_MEAN, Table
from research.report.texts import plural, shown
from research.tree import group

SHOWN_REASONS = 5
SHOWN_COPIES = 3
HASH_DIGITS = 12


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


def caption(table: Table, parts: Sequence[str] = ("sd",)) -> str:
    """What a cell is, `parts` being what it shows beside the mean."""
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
        deviation = "mean" if table.n == 1 or "sd" not in parts else "mean ± standard deviation (n-1)"
        text += f"{deviation} over {_listed(dimensions)}"
        if over.folds > 1 and not over.over_folds:
            text += f", each the mean over {folds}"
        if table.n is not None:
            holes = " that has a number" if any(not cell.n for cell in table.cells.values()) else ""
            text += f"; n={table.n} in every cell{holes}" + (": no standard deviation" if table.n == 1 else "")
    text += "."
    return text + _marks(table)


def _marks(table: Table) -> str:
    """What bold and underlined means say, and which tests that rests on."""
    if not any(cell.best for cell in table.cells.values()):
        return ""
    text = " Bold: the best mean of a column among cells all of whose runs finished"
    tests = [judged.seeds for judged in table.judged.values() if judged.seeds is not None]
    small = [judged.untested for judged in table.judged.values() if judged.untested is not None]
    untested = f"There is no test with {plural(min(small), 'seed')}" if small else ""
    needed = f"it needs {SMALLEST} that all rows have"
    if not tests:
        text += f". {untested}: {needed}."
    else:
        low, high = min(low for low, _ in tests), max(high for _, high in tests)
        rows = max(judged.rows for judged in table.judged.values())
        several = f" with Holm's correction for up to {rows} rows" if rows > 1 else ""
        text += f", and all that are not significantly worse (n={low if low == high else f'{low} to {high}'}; both by a"
        text += f" paired t test{several} and by permuting the rows within the seeds, 5 %, two-sided)"
        text += f". {untested} ({needed}): the best mean alone is bold." if untested else "."
    if any(cell.second for cell in table.cells.values()):
        text += " Underlined: the second best mean."
    return text


def notes(table: Table) -> list[tuple[str, str]]:
    """(mark, text) of everything that a reader must know beside the numbers."""
    found = []
    if table.averaging.keys:
        found.append(
            (
                "",
                f"Warning: the means are also over {_listed(table.averaging.keys)};"
                f" make {'it a row or a column' if len(table.averaging.keys) == 1 else 'them rows or columns'}.",
            )
        )
    found += [("", text) for text in _copies(table)]
    separated: dict[tuple[str, ...], list[str]] = {}
    for metric in table.metrics:
        if keys := _separating(table, metric):
            separated.setdefault(tuple(keys), []).append(metric)
    for keys, metrics in separated.items():
        verb = "is" if len(metrics) == 1 else "are"
        found.append(("", f"{_listed(metrics)} {verb} compared only between runs of equal {_listed(keys)}."))
    found += [("", text) for text in [*_games(table), *_incomplete(table), *_untested(table), *_selected(table)]]
    for (metric, reason), mark in table.null_marks.items():
        found.append((mark, f"{metric} is null: {reason}."))
    found += [(WORSE, text) for text in _worse(table)]
    found += [(WORSE_THAN_MEAN, text) for text in _worse_than_mean(table)]
    found += [(COLLAPSE, text) for text in _collapsed(table)]
    found += [(DEGENERATE, text) for text in _degenerate(table)]
    found += [("", text) for text in _origins(table)]
    for reason, count in table.unpublished.items():
        found.append(("", f"Not shown: {plural(count, 'published value')} {reason}."))
    found += [("", text) for text in [*_included(table.runs), *_left_out(table.runs)]]
    found += [("", f"{problem}.") for problem in table.runs.problems]
    return found


def _copies(table: Table) -> list[str]:
    """Runs that count twice: copies of a folder, or runs that differ in what no config tells."""
    keys = (*table.row_keys, *table.column_keys, *table.averaging.keys, SEED, FOLD)
    same = group([run for run in table.runs if run.finished and run.known], lambda run: tuple(map(run.value, keys)))
    copies = [run.run_id for own in same for run in own[1:]]
    if not copies:
        return []
    named = _listed(copies) if len(copies) <= SHOWN_COPIES else f"{', '.join(copies[:SHOWN_COPIES])}, ..."
    return [f"Warning: n counts {plural(len(copies), 'run')} of the same setting and seed as another: {named}."]


def _games(table: Table) -> list[str]:
    """Metrics of which no value is better, for the models that have them."""
    finished = [run for run in table.runs if run.finished]
    of_games = [name for name in table.metrics if direction(name) and "run_id" in comparison_keys(name, finished)]
    return [f"{_listed(of_games)}: of this model neither low nor high values are better."] if of_games else []


def _incomplete(table: Table) -> list[str]:
    """The seeds and folds that some cells lack and others have."""
    texts = []
    for (row, column), pairs in table.lacks.items():
        values = [
            f"{SEED}={shown(seed)}" + (f" {FOLD}={fold}" if isinstance(fold, int) else "") for seed, fold in pairs
        ]
        listed = (
            values if len(values) <= SHOWN_COPIES else [*values[:SHOWN_COPIES], f"{len(values) - SHOWN_COPIES} more"]
        )
        texts.append(f"{', '.join(map(shown, (*row, *column))) or 'all runs'} lacks {_listed(listed)}")
    if not texts:
        return []
    cut = texts if len(texts) <= SHOWN_REASONS else [*texts[:SHOWN_REASONS], f"{len(texts) - SHOWN_REASONS} more cells"]
    return [f"incomplete: without the seeds or folds of other cells, and never the best: {'; '.join(cut)}."]


def _untested(table: Table) -> list[str]:
    """Why the folds of one seed are no numbers for a test."""
    untested = any(judged.untested is not None for judged in table.judged.values())
    return ["No test: folds of one seed are not independent."] if untested and table.averaging.over_folds else []


def _selected(table: Table) -> list[str]:
    """What was chosen on the validation rows."""
    selection = table.selection
    if selection is None:
        return []

    def named(place: tuple[Any, Any]) -> str:
        keys = (*table.row_keys, *table.column_keys)
        where = ", ".join(map(shown, (*place[0], *place[1]))) if keys else "all runs"
        values = zip(selection.keys, selection.chosen[place], strict=True)
        return f"{where}: {', '.join(f'{key}={shown(value)}' for key, value in values)}"

    chosen = [named(place) for place in selection.chosen if place not in selection.blind]
    texts = [
        f"Chosen by the mean of {selection.by} among up to {selection.offered} settings"
        f" ({plural(selection.left_out, 'run')} of others not shown): {'; '.join(chosen)}."
    ]
    texts = texts if chosen else []
    if selection.stood_back:
        its = "its" if selection.stood_back == 1 else "their"
        texts.append(
            f"{plural(selection.stood_back, 'setting')} could not be chosen, because some of {its} runs did not"
            f" finish, are absent or have no {selection.by}."
        )
    if selection.seeds:
        texts.append("Beware: " + "; ".join(selection.seeds) + ": a choice among seeds, which flatters the mean.")
    if selection.incomplete:
        cells = "; ".join(named(place) for place in selection.incomplete)
        texts.append(
            f"Chosen among incomplete settings only, each without {selection.by} for some seed or fold: {cells}."
        )
    if selection.blind:
        cells = "; ".join(named(place) for place in selection.blind)
        texts.append(f"Shown without a choice, because no setting has a number of {selection.by}: {cells}.")
    return texts


def _worse(table: Table) -> list[str]:
    """What the mark of means that lose against a naive row says: against which."""
    named = {method: label(method) + " at the same latent size" * (method in SIZED) for method in table.worse}
    if len(named) < 2:
        return [f"worse than {name}." for name in named.values()]
    parts = [f"{named[method]} for {_listed(metrics)}" for method, metrics in table.worse.items()]
    return [f"worse than the best naive row: {'; '.join(parts)}."]


def _worse_than_mean(table: Table) -> list[str]:
    """What the mark of means that lose against predicting one value says."""
    methods = {cell.worse_than_mean for cell in table.cells.values() if cell.worse_than_mean}
    named = ["predicting the most frequent class"] if "majority" in methods else []
    named = ["predicting the mean"] * bool(methods - {"majority"}) + named
    return [f"worse than {' or '.join(named)}."] if named else []


def _degenerate(table: Table) -> list[str]:
    """What the mark of likelihoods whose importance weights are degenerate says."""
    counts = {(cell.degenerate, cell.averaged) for cell in table.cells.values() if cell.degenerate}
    if not counts:
        return []
    degenerate, averaged = max(counts)
    runs = f"{degenerate} of {plural(averaged, 'run')}" if len(counts) == 1 else "some runs"
    return [
        f"in {runs} the importance weights have an effective sample size below a tenth of the samples: this upper bound"
        " of the NLL may lie far above it."
    ]


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
        elif method == PERFECT:
            origin = "known, a bound and not a floor"
        elif method in REAL:
            origin = "the score of real data, a bound and not a floor"
        origins.setdefault(origin, []).append(label(method))
    return [f"{_listed(names)}: {origin}{folds}." for origin, names in origins.items()]


def _separating(table: Table, metric: str) -> list[str]:
    """The keys that keep some rows of a metric from being compared with others."""
    if not direction(metric):
        return []
    shown = {*table.row_keys, *table.averaging.keys}
    keys = [key for key in comparison_keys(metric, table.runs) if key in shown or key.startswith(EVALUATION)]
    keys = [key for key in keys if len(distinct((run for run in table.runs if run.known), key)) > 1]
    return keys or [key for key in apart(metric, table.runs) if key == "data_sha256"]


def _included(runs: Iterable[Run]) -> list[str]:
    """Runs that are averaged though they did not finish."""
    found = count_statuses([run for run in runs if run.finished and run.status not in FINISHED])
    return [f"Averaged as asked: {plural(count, 'run')} {status}." for status, count in found.items()]


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


def provenance(table: Table) -> str:
    """Runs by status, hash of the sweep, data, code, modes, n, and the time of the newest result."""
    runs = table.everything
    statuses = ", ".join(f"{count} {status}" for status, count in count_statuses(list(runs)).items())
    results = [run for run in runs if run.written is not None]
    parts = [f"{plural(len(runs), 'run')}: {statuses}", f"sweep {sweep_hash(runs)}"]

    def distinctly(noun: str, values: Iterable[str | None]) -> str:
        found = sorted({value or "unknown" for value in values})
        return f"{noun} {', '.join(found)}"

    if results:
        counts = sorted({cell.n for cell in table.cells.values()})
        parts += [
            distinctly("data sha256", (run.data_sha256 and run.data_sha256[:HASH_DIGITS] for run in results)),
            distinctly("commit", (run.commit and run.commit[:HASH_DIGITS] for run in results)),
            distinctly("mode", (run.program for run in results)),
            f"n={counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else ""),
        ]
        newest = datetime.fromtimestamp(max(run.written or 0 for run in results), UTC)
        parts.append(f"newest result {newest:%Y-%m-%d %H:%M} UTC")
    return "; ".join(parts) + "."


def sweep_hash(runs: Runs) -> str:
    """First digits of the SHA-256 of the run ids (which hold the hashes of their configs), sorted, one a line."""
    return hashlib.sha256("\n".join(sorted(run.run_id for run in runs)).encode()).hexdigest()[:HASH_DIGITS]
