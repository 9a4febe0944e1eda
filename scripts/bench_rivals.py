"""The benchmark `rivals`: this project against what people use, side by side on one machine.

Programs of other libraries run in the interpreter of `--rivals-python`. Every program, ours too, is a process of its
own; the sides take turns. The table, the figure and all times are written to `--output`.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_common import ROOT, Context
from bench_rivals_report import draw, markdown
from bench_rivals_rows import ROWS, Row

from research.errors import ConfigError, nearest

PACKAGES = ("tensorflow", "keras", "torch", "pythae", "scikit-learn", "numpy")
OWN_PACKAGES = ("jax", "flax", "optax", "numpy", "hydra-core", "hydra-joblib-launcher")
GROWTH = "growth"


def rivals(arguments: argparse.Namespace) -> None:
    """Measure the chosen rows, and write the record after every repeat, so that an interrupt loses one repeat."""
    python, output = interpreter(arguments.rivals_python), Path(arguments.output)
    names = chosen(arguments.rows)
    if arguments.repeats < 1:
        raise ConfigError("--repeats", arguments.repeats, "must be at least 1; leave it out for 3")
    data_root = arguments.data_root and str(Path(arguments.data_root).absolute())  # commands run in another folder
    output.mkdir(parents=True, exist_ok=True)
    rows = [row for row in ROWS if row.name in names]
    record = {"about": about(python, arguments), "rows": {row.name: blank(row) for row in rows}, "growth": {}}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(arguments.repeats):
            record["about"]["load"].append(os.getloadavg()[0])
            for row in rows:
                record["about"]["busy"].append(busy())
                started = time.perf_counter()
                context = Context(Path(folder) / row.name, repeat, python, data_root)
                context.folder.mkdir(exist_ok=True)
                add(record["rows"][row.name], row.measure, context)
                seconds = time.perf_counter() - started
                print(f"repeat {repeat + 1} of {arguments.repeats}: {row.name} took {seconds:.0f} s", flush=True)
            write(record, output)
    if GROWTH in names:
        command = [sys.executable, str(ROOT / "scripts" / "bench_own.py"), GROWTH, str(arguments.repeats)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        record["growth"] = json.loads(done.stdout.splitlines()[-1])
        write(record, output)
    print(markdown(record))


def interpreter(path: str | None) -> str:
    """The interpreter of the other libraries; this one if none is named."""
    if path is not None and not os.access(path, os.X_OK):
        raise ConfigError("--rivals-python", path, "no such program; name a Python: --rivals-python=.venv/bin/python")
    return path or sys.executable


def chosen(rows: str | None) -> list[str]:
    """Names of the rows to measure."""
    known = [*(row.name for row in ROWS), GROWTH]
    names = known if rows is None else rows.split(",")
    for name in names:
        if name not in known:
            raise ConfigError("--rows", name, f"unknown{nearest(name, known)}; known: {', '.join(known)}")
    return names


def blank(row: Row) -> dict[str, Any]:
    """The record of a row before it is measured.

    measured: "side/quantity" -> all measurements. missing: side -> why it has none.
    """
    comparisons = [dataclasses.asdict(comparison) for comparison in row.comparisons]
    return {"title": row.title, "note": row.note, "comparisons": comparisons, "measured": {}, "missing": {}}


def add(row: dict[str, Any], measure: Callable[[Context], dict[str, dict[str, Any]]], context: Context) -> None:
    """Measure a row once more. A side that says why it has no measurement is missing; so is one that was."""
    try:
        sides = measure(context)
    except ConfigError as error:
        sides = {"ours": {"missing": f"not measured: {error}"}}
    for side, quantities in sides.items():
        if "missing" in quantities:
            row["missing"][side] = quantities["missing"]
            continue
        for quantity, value in quantities.items():
            row["measured"].setdefault(f"{side}/{quantity}", []).append(value)


def about(python: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Machine, versions, date and command; folders of this machine are left out."""
    command = f"python scripts/bench.py rivals --repeats {arguments.repeats}"
    command += "" if arguments.rows is None else f" --rows {arguments.rows}"
    command += "" if arguments.rivals_python is None else " --rivals-python PYTHON"
    command += "" if arguments.data_root is None else " --data-root FOLDER"
    return {
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{processor()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}",
        "versions": {name: version for name in OWN_PACKAGES if (version := installed(name))},
        "rival_versions": rival_versions(python),
        "load": [],
        "busy": [],
    }


def busy(seconds: float = 0.5) -> float | None:
    """Share of the machine's time that other programs use while this one waits; None if the system does not tell."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None

    def times() -> tuple[int, int]:
        ticks = [int(text) for text in stat.read_text().splitlines()[0].split()[1:9]]  # of all cores
        return sum(ticks), ticks[3] + ticks[4]  # idle, and waiting for a disk

    before = times()
    time.sleep(seconds)
    total, idle = (now - then for now, then in zip(times(), before, strict=True))
    return 1 - idle / max(total, 1)


def processor() -> str:
    """The model of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def installed(name: str) -> str | None:
    """The version of a package here; None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def rival_versions(python: str) -> dict[str, str]:
    """Versions of the other libraries in their interpreter."""
    script = (
        "import importlib.metadata as m, json, sys; "
        "has = {d.metadata['Name'].lower(): d.version for d in m.distributions()}; "
        "print(json.dumps({name: has[name] for name in sys.argv[1:] if name in has}))"
    )
    done = subprocess.run([python, "-c", script, *PACKAGES], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def write(record: dict[str, Any], output: Path) -> None:
    """Write rivals.json, rivals.md and rivals.png."""
    (output / "rivals.json").write_text(json.dumps(record, indent=1) + "\n")
    (output / "rivals.md").write_text(markdown(record))
    draw(record, output / "rivals.png")
