"""The notes below a table: everything that a reader must know beside the numbers."""

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from research.metrics import direction
from research.report.cell import Values
from research.report.collect import FINISHED, Run
from research.report.duels import Duel
from research.report.keys import CODE_CCA, CODE_CKA, FOLD, SEED, apart, comparison_keys, distinct
from research.report.methods import (
    BOUNDS,
    FITTED,
    ORIGINS,
    PERFECT,
    REAL,
    SIZED,
    Baseline,
    known_methods,
    label,
    name_of,
    position,
)
from research.report.run import EVALUATION, count_statuses
from research.report.table import COLLAPSE, DEGENERATE, WORSE, WORSE_THAN_MEAN, Table
from research.report.texts import listed, named, named_metric, plural, settings, shortened, shown
from research.tree import group

EPOCHS, BATCH_SIZE, MONITOR = "trainer.epochs", "trainer.batch_size", "trainer.monitor"
SHOWN_REASONS = 5
SHOWN_COPIES = 3
FEW_STEPS, FEW_IN_ALL = 10, 1000  # training steps of an epoch and of a run below which a note names what to raise
UNFINISHED = "none of the runs finished"
SHOWN_PAIRS = 3  # of seed and fold that a cell lacks


def notes(table: Table) -> list[tuple[str, str]]:
    """(mark, text) of every note; notes without a mark have an empty one."""
    plain = [
        *_averaged(table),
        *_copies(table),
        *_compared(table),
        *_games(table),
        *_between(table),
        *_few_steps(table),
        *_ended_early(table),
        *_incomplete(table),
        *_untested(table),
        *_duels(table),
        *_selected(table),
    ]
    nulls = [(mark, f"{metric} is null: {reason}.") for (metric, reason), mark in table.null_marks.items()]
    marked = {
        WORSE: _worse(table),
        WORSE_THAN_MEAN: _worse_than_mean(table),
        COLLAPSE: _some_runs(table.collapses, "{} collapsed: the decoder ignores its code."),
        DEGENERATE: _some_runs(
            {(cell.degenerate, cell.averaged) for cell in table.cells.values() if cell.degenerate},
            "in {} the importance weights have an effective sample size below a tenth of the samples: this upper bound"
            " of the NLL may lie far above it.",
        ),
    }
    last = [
        *_origins(table),
        *_missing_baselines(table),
        *_unpublished(table),
        *_included(table.runs),
        *_left_out(table.runs),
    ]
    last += [f"{problem}." for problem in table.runs.problems]
    return [
        *(("", text) for text in plain),
        *nulls,
        *((mark, text) for mark, texts in marked.items() for text in texts),
        *(("", text) for text in last),
    ]


def _cell_name(row: Values, column: Values, empty: str = "all runs") -> str:
    return ", ".join(map(shown, (*row, *column))) or empty


# ------------------------------------------------------------------------------------------------ what is in the means


def _averaged(table: Table) -> list[str]:
    """Warn of keys other than seed and fold that the means are over."""
    keys = [key for key in table.averaging.keys if key not in table.averaging.over]
    if not keys:
        return []
    remedy = "make it a row or a column" if len(keys) == 1 else "make them rows or columns"
    return [f"Warning: the means are also over {listed([*map(named, keys)])}; {remedy}."]


def _copies(table: Table) -> list[str]:
    """Warn of runs that count twice: copies of a folder, or runs that differ in what no config says."""
    keys = (*table.row_keys, *table.column_keys, *table.averaging.keys, SEED, FOLD)
    alike = group([run for run in table.runs if run.finished and run.known], lambda run: run.at(keys))
    copies = [run.run_id for runs in alike for run in runs[1:]]
    if not copies:
        return []
    names = listed(copies) if len(copies) <= SHOWN_COPIES else f"{', '.join(copies[:SHOWN_COPIES])}, ..."
    return [f"Warning: n counts {plural(len(copies), 'run')} of the same setting and seed as another: {names}."]


def _included(runs: Iterable[Run]) -> list[str]:
    """Name runs that are averaged although they did not finish."""
    counts = count_statuses(run for run in runs if run.finished and run.status not in FINISHED)
    return [f"Averaged as asked: {plural(count, 'run')} {status}." for status, count in counts.items()]


def _left_out(runs: Iterable[Run]) -> list[str]:
    """For each status that is not averaged: how many runs, and why."""
    left_out = [run for run in runs if not run.finished]
    texts = []
    for status, count in count_statuses(left_out).items():
        reasons = merged(run.reason for run in left_out if run.status == status and run.reason)
        if status != "unreadable":
            reasons = shortened(reasons, SHOWN_REASONS, "reasons")
        why = f": {'; '.join(reasons)}" if reasons else ""
        texts.append(f"Not averaged: {plural(count, 'run')} {status}{why}.")
    return texts


def merged(reasons: Iterable[str]) -> list[str]:
    """Reasons without repetitions; those that differ in one number become one: `first bad step 12 to 20`."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for reason in dict.fromkeys(reasons):
        parts = tuple(re.split(r"\d+", reason))
        alike.setdefault(parts if len(parts) == 2 else (reason,), []).append(reason)
    texts = []
    for parts, same in alike.items():
        numbers = sorted(int(number) for reason in same for number in re.findall(r"\d+", reason))
        texts.append(f"{numbers[0]} to {numbers[-1]}".join(parts) if len(same) > 1 else same[0])
    return texts


# ------------------------------------------------------------------------------------------------ trained long enough?


def _few_steps(table: Table) -> list[str]:
    """Say that runs on few rows took few steps, and which keys make them more."""
    completed = [run for run in table.runs if run.status == "completed"]
    few: list[tuple[int, int, int, Run]] = []  # steps of an epoch, epochs, batch size
    for run in completed:
        steps, epochs, batch_size = run.steps_per_epoch, run.value(EPOCHS), run.value(BATCH_SIZE)
        if steps is None or not isinstance(epochs, int) or not isinstance(batch_size, int):
            continue
        if steps < FEW_STEPS and steps * epochs < FEW_IN_ALL:
            few.append((steps, epochs, batch_size, run))
    if not few:
        return []
    steps, epochs, batch_size, _ = min(few, key=lambda entry: (entry[0] * entry[1], entry[0]))
    at_least = "as few as " if len({entry[:2] for entry in few}) > 1 else ""
    smaller = batch_size * steps // FEW_STEPS  # makes at least ten steps an epoch
    batches = f"{BATCH_SIZE}={smaller} " if smaller else ""
    wanted = max(epochs, -(-FEW_IN_ALL // (FEW_STEPS if smaller else steps)))
    return [
        f"Few steps: {_part_of(few, completed)} took {at_least}{plural(steps, 'step')} an epoch and {steps * epochs} in"
        f" all. Smaller batches and more epochs train longer: {batches}{EPOCHS}={wanted} {_new_name(table)}."
    ]


def _ended_early(table: Table) -> list[str]:
    """Say that the curve of runs was far from flat when their epochs were over."""
    completed = [run for run in table.runs if run.status == "completed"]
    early = [run for run in completed if run.still_improves and isinstance(run.value(EPOCHS), int)]
    if not early:
        return []
    monitors = listed(list(dict.fromkeys(shown(run.value(MONITOR)) for run in early)))
    epochs = max(run.value(EPOCHS) for run in early)
    return [
        f"Ended early: {_part_of(early, completed)} still improved in {monitors} by more than 5 % of its range over the"
        f" last tenth of the epochs. Train longer: {EPOCHS}={2 * epochs} {_new_name(table)}."
    ]


def _part_of(some: Sequence[Any], runs: Sequence[Run]) -> str:
    if len(runs) == 1:
        return "the run"
    return f"{'all' if len(some) == len(runs) else f'{len(some)} of'} {plural(len(runs), 'run')}"


def _new_name(table: Table) -> str:
    """The override that goes with other keys: a sweep folder holds one budget."""
    return f"name={shlex.quote(f'{table.runs.name}_longer')}"


# ------------------------------------------------------------------------------------------------- what may be compared


def _compared(table: Table) -> list[str]:
    """For each metric that compares only some rows: the keys in which these agree."""
    metrics: dict[tuple[str, ...], list[str]] = {}
    for metric in table.metrics:
        if keys := _separating(table, metric):
            metrics.setdefault(tuple(keys), []).append(metric)
    return [
        f"{listed(names)} {'is' if len(names) == 1 else 'are'} compared only"
        f" between runs of equal {listed([*map(named, keys)])}."
        for keys, names in metrics.items()
    ]


def _separating(table: Table, metric: str) -> list[str]:
    """The keys because of which a metric cannot compare some rows of the table.

    The settings of an evaluation stand in results, so that only runs that have a number tell of them.
    """
    if not direction(metric):
        return []
    in_table = {*table.row_keys, *table.averaging.keys} - {*table.averaging.over}
    known = [run for run in table.runs if run.known]
    numbered = [run for run in known if run.finished and run.metrics.get(metric) is not None]
    keys = [
        key
        for key in comparison_keys(metric, table.runs)
        if (key in in_table and len(distinct(known, key)) > 1)
        or (key.startswith(EVALUATION) and len(distinct(numbered, key)) > 1)
    ]
    if keys or table.averaging.over:
        return keys
    return [key for key in apart(metric, table.runs) if key == "data_sha256"]


def _games(table: Table) -> list[str]:
    """Name the losses of games, of which no value is better than another."""
    finished = [run for run in table.runs if run.finished]
    losses = [name for name in table.metrics if direction(name) and "run_id" in comparison_keys(name, finished)]
    return [f"{listed(losses)}: of this model neither low nor high values are better."] if losses else []


def _between(table: Table) -> list[str]:
    """Say what similarities of codes between seeds are means of, and what stands behind ±."""
    metrics = [name for name in (CODE_CKA, CODE_CCA) if name in table.metrics]
    counts = sorted({len(run.similar.get(name, ())) + 1 for run in table.runs for name in metrics} - {1})
    if not counts:
        return []
    pairs = " to ".join(str(n * (n - 1) // 2) for n in dict.fromkeys((counts[0], counts[-1])))
    text = (
        f"{listed([*map(named_metric, metrics)])}: similarity of the codes of the same test rows, mean over all {pairs}"
        " pairs of seeds, 1 at most."
    )
    if SEED in (*table.row_keys, *table.column_keys):
        text += (
            " The number of one seed is its pseudo-value of the jackknife, which may lie outside 0 to 1: only the mean"
            " over all seeds is a similarity."
        )
    elif table.averaging.keys:
        text += " Pairs are of equal settings: a mean over several settings is the mean of theirs."
    else:
        text += (
            " Pairs that share a seed are not independent: ± and intervals are of the jackknife over seeds, and ± over"
            " the root of n is its standard error."
        )
    return [text]


def _incomplete(table: Table) -> list[str]:
    """Name the seeds and folds that some cells lack and others have."""
    texts = []
    for (row, column), pairs in table.lacks.items():
        keys = (*table.averaging.over, SEED)
        values = [
            settings(keys, pair[:-1]).replace(", ", " ") + (f" {FOLD}={pair[-1]}" if isinstance(pair[-1], int) else "")
            for pair in pairs
        ]
        texts.append(f"{_cell_name(row, column)} lacks {listed(shortened(values, SHOWN_PAIRS))}")
    if not texts:
        return []
    cells = "; ".join(shortened(texts, SHOWN_REASONS, "cells"))
    return [f"incomplete: without the seeds or folds of other cells, and never the best: {cells}."]


def _untested(table: Table) -> list[str]:
    """Say why the folds of one seed are not tested."""
    untested = any(judged.untested is not None for judged in table.judged.values())
    return ["No test: folds of one seed are not independent."] if untested and table.averaging.over_folds else []


def _duels(table: Table) -> list[str]:
    """The tests over data sets in which a model takes part, by metric."""
    if not table.averaging.over:
        return []
    over, texts = listed([*map(named, table.averaging.over)]), []
    for (column, metric), judged in table.judged.items():
        pairs = [*judged.duels]
        ordered = [pair for at, pair in enumerate(pairs) if pair[::-1] not in pairs[:at] and isinstance(pair[0], tuple)]
        parts = [_duel(*pair, judged.duels[pair]) for pair in ordered]
        if parts:
            where = ", ".join([named(metric), *map(shown, column)])
            n, tests = next(iter(judged.duels.values())).n, plural(len(pairs) // 2, "pair")
            test = f"Wilcoxon's signed-rank test over {n} values of {over} with Holm's correction for {tests}"
            texts.append(f"{where}, {test}: {'; '.join(parts)}.")
    return texts


def _duel(first: Values, second: Values | str, duel: Duel) -> str:
    other = label(second) if isinstance(second, str) else _cell_name(second, ())
    return f"{_cell_name(first, ())} better than {other} on {duel.better}, worse on {duel.worse} (p = {duel.p:.2g})"


# ------------------------------------------------------------------------------------------------------ what was chosen


def _selected(table: Table) -> list[str]:
    """Name the settings that were chosen on the validation rows, and what speaks against them."""
    selection = table.selection
    if selection is None:
        return []
    choices, by = selection.choices, selection.by
    left_out = len(selection.everything) - sum(len(choice.runs) for choice in choices.values())
    named = [
        (f"{_cell_name(*cell)}: {settings(selection.keys, choice.values)}", choice) for cell, choice in choices.items()
    ]
    scored = [name for name, choice in named if choice.scored]
    incomplete = [name for name, choice in named if choice.scored and not choice.complete]
    blind = [name for name, choice in named if not choice.scored]
    passed_over = sum(choice.passed_over for choice in choices.values())
    few_seeds = [
        f"{_cell_name(*cell, empty='what is shown')} has {choice.seeds[0]} of {choice.seeds[1]} seeds"
        for cell, choice in choices.items()
        if choice.seeds[0] < choice.seeds[1]
    ]
    texts = []
    if scored:
        offered = max(choice.offered for choice in choices.values())
        texts.append(
            f"Chosen by the mean of {by} among up to {offered} settings"
            f" ({plural(left_out, 'run')} of others not shown): {'; '.join(scored)}."
        )
    if passed_over:
        texts.append(
            f"{plural(passed_over, 'setting')} could not be chosen, because some of"
            f" {'its' if passed_over == 1 else 'their'} runs did not finish, are absent or have no {by}."
        )
    if few_seeds:
        texts.append(f"Beware: {'; '.join(few_seeds)}: a choice among seeds, which flatters the mean.")
    if incomplete:
        which = f"each without {by} for some seed or fold"
        texts.append(f"Chosen among incomplete settings only, {which}: {'; '.join(incomplete)}.")
    if blind:
        texts.append(f"Shown without a choice, because no setting has a number of {by}: {'; '.join(blind)}.")
    return texts


# ------------------------------------------------------------------------------------------ marks, naive and published


def _worse(table: Table) -> list[str]:
    """Explain the mark of means that a naive method beats, and name the best method of each metric."""
    metrics: dict[str, dict[str, None]] = {}
    for (_, _, metric), cell in table.cells.items():
        if cell.worse:
            metrics.setdefault(cell.worse, {})[metric] = None
    names = {
        method: label(method) + (" at the same latent size" if method in SIZED else "")
        for method in sorted(metrics, key=position)
    }
    if len(names) < 2:
        return [f"worse than {name}." for name in names.values()]
    parts = [f"{name} for {listed(sorted(metrics[method], key=table.metrics.index))}" for method, name in names.items()]
    return [f"worse than the best naive row: {'; '.join(parts)}."]


def _worse_than_mean(table: Table) -> list[str]:
    """Explain the mark of means that are beaten by predicting one value."""
    methods = {cell.worse_than_mean for cell in table.cells.values() if cell.worse_than_mean}
    predictions = ["predicting the mean"] if methods - {"majority"} else []
    predictions += ["predicting the most frequent class"] if "majority" in methods else []
    return [f"worse than {' or '.join(predictions)}."] if predictions else []


def _some_runs(counts: set[tuple[int, int]], text: str) -> list[str]:
    """Explain a mark of means over runs that have a fault: `counts` are (runs with the fault, all runs) of cells."""
    if not counts:
        return []
    faulty, averaged = max(counts)
    return [text.format(f"{faulty} of {plural(averaged, 'run')}" if len(counts) == 1 else "some runs")]


def _origins(table: Table) -> list[str]:
    """Say where the rows come from that are no models."""
    labels: dict[str, list[str]] = {}
    for method in dict.fromkeys(baseline.method for baseline in table.baselines):
        origin = ORIGINS.get(method, "computed from the data without training")
        if method in FITTED:
            origin = "fitted to the training rows"
        elif method == PERFECT:
            origin = "known, a bound and not a floor"
        elif method in REAL:
            origin = "the score of real data, a bound and not a floor"
        labels.setdefault(origin, []).append(label(method))
    folds = f", averaged over {FOLD}" if table.averaging.folds > 1 else ""
    return [f"{listed(names)}: {origin}{folds}." for origin, names in labels.items()]


def _missing_baselines(table: Table) -> list[str]:
    """Name the naive methods that some cells lack, and say why; models are not compared with them there.

    A method is missing beside a cell if its rows have no value for it, or if a run that has a number of the metric has
    none of the method. A bound that a run does not report is not missing, since most data have none.
    """
    by_id = {run.run_id: run for run in table.runs}
    names = table.runs.metric_names()
    methods = {metric: known_methods(metric, names) for metric in table.metrics}
    rows: dict[str, list[Baseline]] = {}
    for baseline in table.baselines:
        rows.setdefault(baseline.method, []).append(baseline)
    cells: dict[tuple[str, str, str], list[str]] = {}  # method, metric, reason -> cells
    for (row, column, metric), cell in table.cells.items():
        runs = [by_id[run_id] for run_id in cell.runs]
        for method in methods[metric]:
            reason = _why_missing(runs, method, metric)
            if reason == UNFINISHED and (
                method not in rows or any(baseline.value(row, column, metric) is not None for baseline in rows[method])
            ):
                continue  # the value stands in the table all the same, or nowhere in it
            if reason:
                cells.setdefault((method, metric, reason), []).append(_cell_name(row, column))
    metrics: dict[tuple[str, str, str], list[str]] = {}  # method, cells, reason -> metrics
    for (method, metric, reason), of_reason in cells.items():
        where = "; ".join(shortened(of_reason, SHOWN_REASONS, "cells"))
        metrics.setdefault((method, where, reason), []).append(metric)
    return [
        f"{label(method)} for {listed(of_method)} is missing beside {where}: {reason}."
        for (method, where, reason), of_method in sorted(metrics.items(), key=lambda entry: position(entry[0][0]))
    ]


def _why_missing(runs: Sequence[Run], method: str, metric: str) -> str:
    """Why the runs of a cell have no value of a naive method for a metric; empty if they have one or need none."""
    name = name_of(method, metric)
    if not any(run.finished for run in runs):
        return "" if method in BOUNDS else UNFINISHED
    numbered = [run for run in runs if run.finished and run.metrics.get(metric) is not None]
    without = [run for run in numbered if run.metrics.get(name) is None]
    reasons = [run.null_reasons[name] for run in without if name in run.null_reasons]
    if not without or reasons or method in BOUNDS:
        return "; ".join(merged(reasons))
    return f"it is not in the results of {'the' if len(without) == len(numbered) else 'some of the'} runs"


def _unpublished(table: Table) -> list[str]:
    """Count the published values that stand beside no cell, by reason."""
    return [f"Not shown: {plural(count, 'published value')} {reason}." for reason, count in table.unpublished.items()]
