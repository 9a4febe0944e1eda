"""The caption of a table: what the means are over, and what bold and underlined mean."""

from collections.abc import Sequence

from research.report.keys import FOLD, SEED, distinct
from research.report.statistics import SMALLEST
from research.report.table import Table
from research.report.texts import listed, plural


def caption(table: Table, parts: Sequence[str] = ("sd",)) -> str:
    """The caption; `parts` is what a cell shows beside the mean."""
    over = table.averaging
    dimensions = [f"{SEED} ({over.seeds} values)"] if over.seeds > 1 else []
    dimensions += [f"{key} ({plural(len(distinct(table.runs, key)), 'value')})" for key in over.keys]
    folds = f"{FOLD} ({over.folds} values)"
    if over.over_folds:
        seeds = distinct(table.runs, SEED)
        dimensions = [folds + (f" at the one seed {seeds[0]}" if len(seeds) == 1 else "")]
    if not dimensions:
        return f"{table.runs.name}: one run in every cell." + _marks(table)
    mean = "mean" if table.n == 1 or "sd" not in parts else "mean ± standard deviation (n-1)"
    text = f"{table.runs.name}: {mean} over {listed(dimensions)}"
    if over.folds > 1 and not over.over_folds:
        text += f", each the mean over {folds}"
    if table.n is not None:
        numbered = " that has a number" if any(not cell.n for cell in table.cells.values()) else ""
        text += f"; n={table.n} in every cell{numbered}" + (": no standard deviation" if table.n == 1 else "")
    return f"{text}." + _marks(table)


def _marks(table: Table) -> str:
    """Explain bold and underlined, and name the tests."""
    if not any(cell.best for cell in table.cells.values()):
        return ""
    text = " Bold: the best mean of a column among cells all of whose runs finished"
    tests = [judged.seeds for judged in table.judged.values() if judged.seeds is not None]
    untested_seeds = [judged.untested for judged in table.judged.values() if judged.untested is not None]
    untested = f"There is no test with {plural(min(untested_seeds), 'seed')}" if untested_seeds else ""
    needed = f"it needs {SMALLEST} that all rows have"
    if not tests:
        text += f". {untested}: {needed}."
    else:
        low, high = min(low for low, _ in tests), max(high for _, high in tests)
        seeds = f"{low}" if low == high else f"{low} to {high}"
        rows = max(judged.rows for judged in table.judged.values())
        correction = f" with Holm's correction for up to {rows} rows" if rows > 1 else ""
        text += f", and all that are not significantly worse (n={seeds}; both by a paired t test{correction}"
        text += " and by permuting the rows within the seeds, 5 %, two-sided)"
        text += f". {untested} ({needed}): the best mean alone is bold." if untested else "."
    if any(cell.second for cell in table.cells.values()):
        text += " Underlined: the second best mean."
    return text
