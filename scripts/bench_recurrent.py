"""The recurrent benchmarks of `scripts/bench.py`."""

import importlib
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_common import command, group_of, rate, spec, torch_rate
from bench_torch import BATCH, CHANNELS, HIDDEN, LATENT, STEPS

ROWS = "model.cell=rnn,gru,lstm", "model.latent_dim=2,4,8,16", "seed=0,1,2"


def autoencoder(cell: str, **changes: Any) -> Any:
    """The autoencoder that is measured."""
    return spec("recurrent_ae", "model", cell=cell, hidden_dim=HIDDEN, latent_dim=LATENT, **changes)


def sequences_per_second(model: Any, rows: int = 1280) -> float:
    """Training sequences per second of one job."""
    program, samples = group_of(model, 1, "map", rows, (STEPS, CHANNELS), BATCH)
    return rate(program, samples, 1, repeats=2)


def against_torch(python: str) -> None:
    """LSTM, GRU and RNN autoencoders, alternately here and in PyTorch of another interpreter."""
    for cell in ("lstm", "gru", "rnn"):
        ours, theirs = [], []
        for _ in range(3):
            ours.append(sequences_per_second(autoencoder(cell)))
            theirs.append(torch_rate(python, cell, 1280, epochs=3))
        here, there = max(ours), max(theirs)
        print(f"{cell:4}: {here:7,.0f} sequences/s here, {there:7,.0f} PyTorch: {here / there:.2f} x", flush=True)


def cells() -> None:
    """Our cell against Linen's, each under `nn.RNN`: a gradient of all states, in turn, medians of seven rounds."""
    import flax.linen as nn
    import jax

    from research.networks.cells import Cell

    linen = {"rnn": [nn.SimpleCell], "gru": [nn.GRUCell], "lstm": [nn.OptimizedLSTMCell, nn.LSTMCell]}
    print(f"{jax.devices()[0].device_kind}; hidden {HIDDEN}, batch {BATCH}: ours over Linen's in sequences/s")
    for steps, channels in ((STEPS, CHANNELS), (8, 8)):
        x = jax.random.normal(jax.random.key(0), (BATCH, steps, channels))
        for kind, classes in linen.items():
            programs = {"ours": _gradient(nn.RNN(Cell(kind, HIDDEN)), x)}
            programs |= {cls.__name__: _gradient(nn.RNN(cls(HIDDEN)), x) for cls in classes}
            seconds: dict[str, list[float]] = {name: [] for name in programs}
            for _ in range(7):
                for name, program in programs.items():
                    started = time.perf_counter()
                    for _ in range(30):
                        jax.block_until_ready(program())
                    seconds[name].append(time.perf_counter() - started)
            ours = statistics.median(seconds.pop("ours"))
            ratios = {name: statistics.median(times) / ours for name, times in seconds.items()}
            shown = ", ".join(f"{ratio:.2f} x {name}" for name, ratio in ratios.items())
            print(f"T {steps:3} {kind:4}: {30 * BATCH / ours:9,.0f} sequences/s, {shown}", flush=True)


def _gradient(rnn: Any, x: Any) -> Any:
    """A compiled gradient of the mean square of all states, warm."""
    import jax
    import jax.numpy as jnp

    params = rnn.init(jax.random.key(1), x)["params"]
    compiled = jax.jit(jax.grad(lambda params, x: jnp.square(rnn.apply({"params": params}, x)).mean()))
    jax.block_until_ready(compiled(params, x))
    return lambda: compiled(params, x)


def rows(processes: int) -> None:
    """36 autoencoders of digits read row by row: one fused sweep against 36 processes, caches warm."""
    fixed = ["model=recurrent_ae", "data=digits_rows"]
    points = [(cell, size, seed) for cell in ("rnn", "gru", "lstm") for size in (2, 4, 8, 16) for seed in (0, 1, 2)]
    with tempfile.TemporaryDirectory() as folder:
        out = f"output_root={folder}"
        command("-m", *fixed, *ROWS, out, "name=warm")
        fused = min(command("-m", *fixed, *ROWS, out, f"name=fused{i}") for i in range(2))
        alone = []
        for number, (cell, size, seed) in enumerate(points):
            if number % max(1, len(points) // processes) == 0:
                point = [f"model.cell={cell}", f"model.latent_dim={size}"]
                command(*fixed, *point, "seed=9", out, f"name=warm{number}")
                alone.append(command(*fixed, *point, f"seed={seed}", out, f"name=alone{number}"))
    separate = sum(alone) * len(points) / len(alone)
    print(f"fused sweep, command to results    {fused:8.1f} s")
    print(f"36 separate processes              {separate:8.1f} s  ({len(alone)} measured)")
    print(f"fused against separate processes   {separate / fused:8.2f} x")


def threads(epochs: int = 12, repeats: int = 3) -> None:
    """Eight GRU autoencoders of digits read row by row, in map mode on one thread and on two, in turn."""
    fixed = ["-m", "model=gru_ae", "data=digits_rows", "seed=range(8)", "sweep.mode=map", "evaluation=none"]
    fixed += [f"trainer.epochs={epochs}", "trainer.evaluate_every=1"]
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        command(*fixed, "trainer.epochs=1", f"output_root={folder}", "name=warm")
        for repeat in range(repeats):
            for number, spans in seconds.items():
                name = f"threads{number}_{repeat}"
                command(*fixed, f"sweep.concurrency={number}", f"output_root={folder}", f"name={name}")
                spans.append(span(Path(folder) / name))
    for single, double in zip(*seconds.values(), strict=True):
        print(f"training on one thread {single:6.1f} s, on two {double:6.1f} s: {single / double:.2f} x", flush=True)


def span(folder: Path) -> float:
    """Seconds from the first evaluation of any run of a sweep to the last one."""
    module: Any = importlib.import_module("research.runs.events")
    files = [path.read_bytes() for path in folder.glob(f"*/{module.NAME}")]
    events = [module.Event.FromString(data) for file in files for data in module._records(file)]
    times = [event.wall_time for event in events if any(v.tag == "train/loss" for v in event.summary.value)]
    return max(times) - min(times)
