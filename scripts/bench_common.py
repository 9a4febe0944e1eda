"""What the benchmarks share: the training command with its time, and programs of equal jobs on random data."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parents[1]
TRAIN = [sys.executable, str(ROOT / "scripts" / "train.py")]


Sides = dict[str, dict[str, Any]]  # side -> quantity -> one measurement, or {"missing": why there is none}


class Context(NamedTuple):
    """One repeat of one row.

    Attributes:
      folder: of the row; it stays over all repeats.
      repeat: number of the repeat, from 0.
      python: interpreter of the other libraries.
      data_root: folder of MNIST; None downloads it.
    """

    folder: Path
    repeat: int
    python: str
    data_root: str | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A line of the table: two quantities ("side/quantity") of one unit, and the losses of both sides, if compared."""

    what: str
    rival: str
    ours: str
    theirs: str
    unit: str = "s"
    losses: tuple[str, ...] = ()


def command(*arguments: str, cache: str | None = None) -> float:
    """Run the training command; seconds of wall time.

    Args:
      cache: folder of compiled programs and other caches; None: the user's.
    """
    environment = os.environ if cache is None else {**os.environ, "XDG_CACHE_HOME": cache}
    started = time.perf_counter()
    done = subprocess.run([*TRAIN, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - started


def child(python: str, script: str, *arguments: str) -> dict[str, Any]:
    """What a script of this folder prints as its last line; {"missing": why} if it fails or lacks a library."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    whole = [python, str(ROOT / "scripts" / script), *arguments]
    done = subprocess.run(whole, capture_output=True, text=True, env=environment)
    if done.returncode:
        return {"missing": f"failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"}
    return json.loads(done.stdout.splitlines()[-1])


def torch_rate(python: str, name: str, rows: int, epochs: int) -> float:
    """Best training samples per second of an epoch in PyTorch (`bench_torch.train`)."""
    measured = child(python, "bench_torch.py", name, str(rows), str(epochs))
    if "missing" in measured:
        raise SystemExit(f"PyTorch: {measured['missing']}; --rivals-python names a Python that has it")
    return max(measured["rates"])


def results(folder: Path) -> list[dict[str, Any]]:
    """Results of all runs of a sweep."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/result.json"))]


def training(results: list[dict[str, Any]]) -> float:
    """Seconds of training in a command: device shares add up to the groups' times."""
    return sum(result["seconds_device_share"] for result in results)


def trained(folder: str, *arguments: str) -> float:
    """Seconds of training in one command."""
    name = f"train{time.time()}"
    command(*arguments, f"name={name}")
    return training(results(Path(folder) / name))


def compiling(results: list[dict[str, Any]]) -> float:
    """Seconds of initialising and compiling in a command."""
    shares = (result["seconds_device_share"] / result["seconds_wall_group"] for result in results)
    return sum(share * result["seconds_compile_group"] for share, result in zip(shares, results, strict=True))


def spec(name: str, group: str, **changes: Any) -> Any:
    """A shipped model, optimizer or trainer with some keys changed."""
    from omegaconf import OmegaConf

    from research.compose import compose
    from research.tree import build

    config: Any = OmegaConf.to_container(compose([f"{group}={name}"])[group])
    return build(config | changes)


def group_of(model: Any, width: int, mode: str, rows: int, shape: Any, batch: int, epochs: int = 1) -> Any:
    """The programs of `width` equal jobs on random data, and how many samples one chunk of all trains."""
    from research.data.examples import Dataset, Examples, Facts, Split
    from research.sweep.device import on_device
    from research.sweep.job import BoundJob, Job
    from research.sweep.plan import JobGroup
    from research.sweep.programs import program_of

    x = np.random.default_rng(0).integers(0, 256, (rows, *shape), np.uint8)
    number = np.arange(rows, dtype=np.int32)
    ones = np.ones(100, np.float32)
    scale = np.full((), 1 / 255, np.float32)
    split = Split(number, number[:100], ones, number[:100], ones, np.zeros((), np.float32), scale)
    facts = Facts("vector" if len(shape) == 1 else "sequence", shape, 0.0, 1.0, 0, rows, 100, 100)
    dataset = Dataset("random", Examples(x), (split,), facts, "0" * 64)
    trainer = spec("default", "trainer", epochs=1000, batch_size=batch, evaluate_every=epochs, keep="last")
    bounds = []
    for seed in range(width):
        job = Job(model, spec("adam", "optimizer"), trainer, _NoFold(), seed, None)  # type: ignore[arg-type]
        bounds.append(BoundJob(job, model.bind(facts), dataset))
    group = JobGroup(tuple(bounds), mode, 1 if mode == "map" else width, 0, 0, "")  # type: ignore[arg-type]
    programs = [program_of(unit, on_device(dataset)) for unit in group.units]
    return programs, width * (rows // batch) * batch * epochs


@dataclasses.dataclass(frozen=True)
class _NoFold:
    fold: None = None


def rate(programs: Any, samples: int, epochs: int, repeats: int = 3) -> float:
    """Best training samples per second of some chunks, compiled before; several programs are dealt to the cores."""
    import jax

    def chunk(program: Any) -> None:
        jax.block_until_ready((program.train(epochs), program.state))

    chunk(programs[0])
    best = 0.0
    with ThreadPoolExecutor(min(len(programs), len(os.sched_getaffinity(0)))) as threads:
        for _ in range(repeats):
            started = time.perf_counter()
            list(threads.map(chunk, programs))
            best = max(best, samples / (time.perf_counter() - started))
    return best
