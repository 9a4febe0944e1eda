"""Where the numbers of a report come from: sweep, data, code, mode and date."""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime

from research.report.collect import Runs
from research.report.run import count_statuses
from research.report.table import Table
from research.report.texts import plural

HASH_DIGITS = 12  # of every hash that is shown


def sweep_hash(runs: Runs) -> str:
    """First digits of the SHA-256 of the run ids, sorted, one a line; a run id holds the hash of its config."""
    return hashlib.sha256("\n".join(sorted(run.run_id for run in runs)).encode()).hexdigest()[:HASH_DIGITS]


def origins(runs: Runs) -> dict[str, str]:
    """Kind of origin -> its values, over all runs that have a result."""
    results = [run for run in runs if run.written is not None]
    facts = {"Sweep": sweep_hash(runs)}
    if results:
        facts["Commit"] = _distinct(run.commit and run.commit[:HASH_DIGITS] for run in results)
        facts["Data SHA-256"] = _distinct(run.data_sha256 and run.data_sha256[:HASH_DIGITS] for run in results)
        facts["Mode"] = _distinct(run.program for run in results)
    versions: dict[str, set[str]] = {}
    for run in results:
        for name, text in run.versions.items():
            versions.setdefault(name, set()).add(text)
    if versions:
        facts["Versions"] = ", ".join(f"{name} {' or '.join(sorted(texts))}" for name, texts in versions.items())
    return facts


def _distinct(values: Iterable[str | None]) -> str:
    return ", ".join(sorted({value or "unknown" for value in values}))


def newest(runs: Runs) -> str:
    """The time of the newest result, in words."""
    times = [run.written for run in runs if run.written is not None]
    return f"newest result {datetime.fromtimestamp(max(times), UTC):%Y-%m-%d %H:%M} UTC" if times else "no result yet"


def provenance(table: Table) -> str:
    """One line below a table: runs by status, hashes of sweep, data and code, modes, n, and the newest result."""
    runs = table.everything
    facts = origins(runs)
    statuses = ", ".join(f"{count} {status}" for status, count in count_statuses(runs).items())
    parts = [f"{plural(len(runs), 'run')}: {statuses}", f"sweep {facts['Sweep']}"]
    if "Commit" in facts:
        counts = sorted({cell.n for cell in table.cells.values()})
        parts += [
            f"data sha256 {facts['Data SHA-256']}",
            f"commit {facts['Commit']}",
            f"mode {facts['Mode']}",
            f"n={counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else ""),
            newest(runs),
        ]
    return "; ".join(parts) + "."
