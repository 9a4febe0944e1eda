"""The benchmark `report`: a table of a sweep of 10,000 runs, whose files are copies of one real run's."""

import contextlib
import copy
import hashlib
import io
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench_common
import numpy as np

POINTS = {
    "model.latent_dim": range(1, 11),
    "model.beta": [round(0.1 * step, 1) for step in range(1, 11)],
    "optimizer.learning_rate": [round(0.001 * step, 3) for step in range(1, 11)],
}


def report(runs: int) -> None:
    """Seconds to collect and to table runs: three keys by ten values by seeds; the system still holds their files."""
    from research.report.collect import collect
    from research.report.formats import markdown
    from research.report.table import table
    from research.report.texts import Layout

    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "many"
        fill(folder, one_run(Path(root)), runs)
        with timed("collect"):
            runs_of_folder = collect(folder)
        with timed("table"):
            result = table(runs_of_folder)
        with timed("text of the table"):
            markdown(result, Layout())
        with timed("the command"):
            command(folder)


@contextlib.contextmanager
def timed(name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    print(f"{name:30} {time.perf_counter() - started:8.2f} s", flush=True)


def command(folder: Path) -> None:
    """`report.py FOLDER --format markdown`, in this process."""
    from research.report.cli import main

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main([str(folder), "--format", "markdown"]) == 0


def one_run(root: Path) -> Path:
    """The folder of a run of two epochs."""
    bench_common.command("trainer.epochs=2", f"output_root={root}", "name=one")
    return next((root / "one").glob("*/result.json")).parent


def fill(folder: Path, run: Path, runs: int) -> None:
    """Write `runs` run folders and their `sweep.json` like those of `run`."""
    config = json.loads((run / "config.json").read_text())
    result = json.loads((run / "result.json").read_text())
    base = json.loads((run.parent / "sweep.json").read_text())
    generator = np.random.default_rng(0)
    entries: dict[str, Any] = {}
    seeds = range(-(-runs // 1000))
    for number, (*values, seed) in enumerate(itertools.islice(itertools.product(*POINTS.values(), seeds), runs)):
        point = {**dict(zip(POINTS, values, strict=True)), "seed": seed}
        changed_config = copy.deepcopy(config)
        for key, value in point.items():
            *sections, last = key.split(".")
            section = changed_config["config"]
            for name in sections:
                section = section[name]
            section[last] = value
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        overrides = [f"{key}={value}" for key, value in point.items()]
        name = f"{'-'.join(text.rpartition('.')[2] for text in overrides)}-{digest[:12]}"
        noise = np.exp(0.1 * generator.standard_normal(len(result["metrics"]))).tolist()
        metrics = {
            metric: value * factor if isinstance(value, float) and not metric.startswith("baseline/") else value
            for (metric, value), factor in zip(result["metrics"].items(), noise, strict=True)
        }
        changed = {"run_id": name, "overrides": overrides, "config_hash": digest, "metrics": metrics}
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(changed_config | {"config_hash": digest}, indent=1))
        (folder / name / "result.json").write_text(json.dumps(result | changed, indent=1))
        entries[name] = {"overrides": overrides, "config_hash": digest, "data_sha256": result["data_sha256"]}
    (folder / "sweep.json").write_text(json.dumps(base | {"runs": entries}, indent=1))
    os.sync()
