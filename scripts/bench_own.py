"""Our side of benchmarks, in a process of its own: `python scripts/bench_own.py vae:32 ROWS EPOCHS`, or `growth`.

The data, the networks, the first parameters' distributions and Adam's numbers are those of `bench_torch.py`.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench_common import group_of, spec
from bench_torch import BATCH, CHANNELS, HIDDEN, LATENT, STEPS

# What grows in the benchmark `growth`: members of a vmap group (VAE 64-64-8, batch 32; one member: map), steps of a gru
# autoencoder (hidden 64, batch 64), the width of a VAE 784-H-50 (batch 64), the batch of a VAE 784-200-50.
GROWTH = {
    "members": (1, 2, 8, 32),
    "T": (25, 50, 200, 400),
    "parameters": (64, 160, 400, 1000),  # widths H; the points have the number of parameters
    "batch": (16, 32, 128, 256),
}
GROWTH_EPOCHS = 3


def model_of(name: str) -> tuple[Any, tuple[int, ...], int]:
    """The model of a name (see `bench_torch.train`), the shape of its rows, and its batch size."""
    kind, _, batch = name.partition(":")
    if kind == "vae":
        changes = {"activation": "tanh", "kernel_init": "glorot_uniform", "output_bias": "zero"}
        return spec("vae", "model", latent_dim=50, hidden_dims=[200, 200], **changes), (784,), int(batch)
    changes = {"cell": kind, "hidden_dim": HIDDEN, "latent_dim": LATENT, "output_bias": "zero"}
    return spec("recurrent_ae", "model", **changes), (STEPS, CHANNELS), BATCH


def speeds(name: str, rows: int, epochs: int) -> dict[str, Any]:
    """Samples per second of every epoch but the first: of one run, and of a sweep of two runs on two threads.

    The loss is the mean of the last epoch of the first run.
    """
    model, shape, batch = model_of(name)
    measured: dict[str, Any] = {}
    for quantity, members in (("rates", 1), ("rates_of_two", 2)):
        programs, samples = group_of(model, members, "map", rows, shape, batch)
        measured[quantity] = []
        for epoch in range(epochs):
            started = time.perf_counter()
            metrics = advance(programs)
            if epoch:
                measured[quantity].append(samples / (time.perf_counter() - started))
        if members == 1:
            measured["loss"] = float(metrics["train/loss"])
    return measured


def advance(programs: list[Any], epochs: int = 1) -> Any:
    """Train every program for some epochs; the metrics of the first one."""
    import jax

    with ThreadPoolExecutor(min(len(programs), len(os.sched_getaffinity(0)))) as threads:
        first, *_ = threads.map(lambda program: jax.block_until_ready(program.train(epochs)), programs)
    return first


def growth(repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Seconds of `GROWTH_EPOCHS` epochs while one size grows: axis -> points {value, seconds of every repeat}.

    All points of an axis have the same number of rows. All points are timed in turn.
    """
    points, programs = {}, {}
    for axis, values in GROWTH.items():
        points[axis] = []
        for value in values:
            programs[axis, value] = grown(axis, value)
            size = parameters(programs[axis, value]) if axis == "parameters" else value
            points[axis].append({"value": size, "seconds": []})
    advance([program for of_point in programs.values() for program in of_point])  # compiles
    for _ in range(repeats):
        for axis, values in GROWTH.items():
            for point, value in zip(points[axis], values, strict=True):
                started = time.perf_counter()
                advance(programs[axis, value], GROWTH_EPOCHS)
                point["seconds"].append(time.perf_counter() - started)
    return points


def grown(axis: str, value: int) -> list[Any]:
    """The programs of a point of `growth`."""
    match axis:
        case "members":
            mode = "map" if value == 1 else "vmap"
            return group_of(spec("vae", "model", latent_dim=8), value, mode, 1280, (64,), 32)[0]
        case "T":
            return group_of(model_of("gru")[0], 1, "map", 256, (value, CHANNELS), BATCH)[0]
        case "parameters":
            return group_of(spec("vae", "model", latent_dim=50, hidden_dims=[value]), 1, "map", 2560, (784,), 64)[0]
        case _:
            return group_of(spec("vae", "model", latent_dim=50, hidden_dims=[200]), 1, "map", 2560, (784,), value)[0]


def parameters(programs: list[Any]) -> int:
    """Number of parameters of a member."""
    import jax

    return sum(leaf.size for leaf in jax.tree.leaves(programs[0].state.params))


def main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    name, *sizes = sys.argv[1:]
    measured = growth(int(sizes[0])) if name == "growth" else speeds(name, *map(int, sizes))
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
