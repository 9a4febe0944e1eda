"""Benchmarks, printed as ratios measured side by side in one run: `python scripts/bench.py [NAME ...]`.

  digits     36 digits runs: one fused sweep, the same sweep one by one, and 36 separate processes
  overhead   what Hydra and bookkeeping cost a job, at 1,000 jobs of a tiny model
  torch      dense VAE on MNIST-sized data: training samples per second against PyTorch eager (needs torch)
  modes      vmap against map over model sizes: calibrates the rule of sweep.mode=auto
  threads    eight GRU autoencoders in map mode on one thread and on two: seconds of training
  widths     dense VAE at group widths 1, 8, 64, 256: samples per second and share of the matrix-product rate
  rows       36 recurrent autoencoders of digits read row by row: one fused sweep against 36 processes
  recurrent  LSTM, GRU and RNN autoencoders: training sequences per second against PyTorch (needs torch)
  cells      the recurrent cells against those of Linen: a gradient of all states, in sequences per second
  first      seconds from the command to the first finished training epoch
  report     a table of 10,000 runs: seconds to read them, to compute the table, to write it, and of the command
  rivals     all of this against Keras, PyTorch, pythae, scikit-learn and other ways to sweep; only when it is named

Numbers of one machine compare with each other, never with those of another. Quote the ratios.
"""

import argparse
import itertools
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import bench_recurrent
import bench_report
import bench_rivals
import numpy as np
from bench_common import ROOT, command, compiling, group_of, rate, results, spec, torch_rate, trained, training

from research.command import run

DIGITS = {"model.latent_dim": (2, 4, 8), "model.beta": (0.5, 1.0, 2.0, 4.0), "seed": (0, 1, 2)}


def digits(processes: int) -> None:
    """The same 36 runs in three ways, with warm compile caches."""
    sweep = [f"{key}={','.join(map(str, values))}" for key, values in DIGITS.items()]
    with tempfile.TemporaryDirectory() as folder:
        out = f"output_root={folder}"
        for size in DIGITS["model.latent_dim"]:
            command(f"model.latent_dim={size}", out, f"name=warm{size}")
        command("-m", *sweep, out, "name=warm_fused")
        fused = [command("-m", *sweep, out, f"name=fused{i}") for i in range(2)]
        basic = command("-m", *sweep, "hydra/launcher=basic", out, "name=basic")
        alone = []
        for number, (latent, beta, seed) in enumerate(_points()):
            if number % max(1, 36 // processes) == 0:
                point = [f"model.latent_dim={latent}", f"model.beta={beta}", f"seed={seed}"]
                alone.append(command(*point, out, f"name=alone{number}"))
        separate = sum(alone) * 36 / len(alone)
        in_fused, in_basic = results(Path(folder) / "fused1"), results(Path(folder) / "basic")
        assert len(in_fused) == len(in_basic) == 36
        assert all(set(a["metrics"]) == set(b["metrics"]) for a, b in zip(in_fused, in_basic, strict=True))
        # training alone: without evaluations in the background, which only a sweep of several programs has
        nothing = ["evaluation=none", out]
        pairs = [
            (trained(folder, "-m", *sweep, *nothing), trained(folder, "-m", *sweep, "hydra/launcher=basic", *nothing))
            for _ in range(2)
        ]
        train_fused, train_basic = (min(times) for times in zip(*pairs, strict=True))
    best = min(fused)
    after = best - training(in_fused) - compiling(in_fused) - _startup()
    print(f"fused sweep, command to results    {best:8.1f} s")
    print(f"one by one in one process          {basic:8.1f} s")
    print(f"36 separate processes              {separate:8.1f} s  ({len(alone)} measured, {np.mean(alone):.2f} s each)")
    print(f"training alone, fused              {train_fused:8.1f} s")
    print(f"training alone, one by one         {train_basic:8.1f} s")
    print(f"fused against separate processes   {separate / best:8.2f} x")
    print(f"fused against one by one, command  {basic / best:8.2f} x")
    print(f"fused against one by one, training {train_basic / train_fused:8.2f} x")
    print(f"after training, added per run      {after / 36:8.3f} s")


def _points() -> list[tuple[Any, ...]]:
    return list(itertools.product(*DIGITS.values()))


def _startup() -> float:
    """Seconds of a command that only plans."""
    return command("sweep.plan_only=true", "name=plan")


def overhead(jobs: int) -> None:
    """Seconds per job that are neither training nor start-up."""
    tiny = ["model.hidden_dims=[8]", "model.latent_dim=2", "trainer.epochs=2", "trainer.evaluate_every=2"]
    tiny += ["trainer.batch_size=256", "evaluation=none", "sweep.max_width=1024"]
    with tempfile.TemporaryDirectory() as folder:
        out = f"output_root={folder}"
        sweep = ["model.beta=1.0,2.0", f"seed=range({jobs // 2})"]
        command("-m", *sweep, *tiny, out, "name=warm")
        total = command("-m", *sweep, *tiny, out, "name=many")
        small = command("-m", "model.beta=1.0,2.0", "seed=0", *tiny, out, "name=few_warm")
        small = command("-m", "model.beta=1.0,2.0", "seed=0", *tiny, out, "name=few")
        trained = training(results(Path(folder) / "many"))
        trained_few = training(results(Path(folder) / "few"))
    rest = (total - trained) - (small - trained_few)
    print(f"{jobs} jobs: {total:.1f} s, of which training {trained:.1f} s and start-up {small - trained_few:.1f} s")
    print(f"Hydra and bookkeeping: {1000 * rest / jobs:.1f} ms a job")


def first() -> None:
    """Seconds from the command to the end of the first epoch, warm cache; imports, data and tracing included."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["trainer.epochs=1", "trainer.evaluate_every=1", "evaluation=none", f"output_root={folder}"]
        command(*arguments, "name=warm")
        seconds = [command(*arguments, f"name=first{i}") for i in range(3)]
    print(f"command to the end of a run of one epoch, digits, warm cache: {min(seconds):.1f} s")


def matmul_rate(size: int = 2048) -> float:
    """Measured float32 matrix-product rate, in FLOP/s."""
    import jax
    import jax.numpy as jnp

    a = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        product(a).block_until_ready()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def vae_flops(hidden: list[int], latent: int, features: int = 784) -> float:
    """FLOP of one training sample of a dense VAE: 2 a multiply-add, forward once and backward twice."""
    sizes = [features, *hidden, 2 * latent]
    back = [latent, *hidden[::-1], features]
    weights = sum(a * b for s in (sizes, back) for a, b in itertools.pairwise(s))
    return 6.0 * weights


def against_torch(python: str, rows: int = 12_800) -> None:
    """Dense VAE 784-200-200-50, alternately here and in PyTorch of another interpreter."""
    peak = matmul_rate()
    model = spec("vae", "model", latent_dim=50, hidden_dims=[200, 200], activation="tanh")
    for batch in (128, 32):
        program, samples = group_of(model, 1, "map", rows, (784,), batch)
        ours, theirs = [], []
        for _ in range(3):
            ours.append(rate(program, samples, 1, repeats=2))
            theirs.append(torch_rate(python, f"vae:{batch}", rows, epochs=2))
        here, there = max(ours), max(theirs)
        share = here * vae_flops([200, 200], 50) / peak
        print(
            f"batch {batch:3}: {here:9,.0f} samples/s here, {there:9,.0f} PyTorch eager: {here / there:.2f} x;", end=" "
        )
        print(f"{share:.0%} of the measured matrix-product rate ({peak / 1e9:.0f} GFLOP/s)")


def modes() -> None:
    """vmap against map, whose members are dealt to the cores, by members and work per step (`plan.step_work`)."""
    import jax

    from research.sweep.plan import step_work

    dense = [(4, [4], 1), (16, [8], 2), (64, [32], 4), (64, [128, 64], 8), (784, [200, 200], 50)]
    cases: list[tuple[str, Any, tuple[int, ...]]] = [
        (f"vae {features}-{hidden}", spec("vae", "model", latent_dim=latent, hidden_dims=hidden), (features,))
        for features, hidden, latent in dense
    ]
    for steps, units in ((8, 4), (8, 16), (50, 32)):
        model = spec("gru_ae", "model", latent_dim=2, hidden_dim=units)
        cases.append((f"gru T {steps}, {units} units", model, (steps, 4)))
    print("model                 batch  members  work per step   map samples/s   vmap samples/s   vmap / map")
    for name, model, shape in cases:
        for batch in (8, 32, 128):
            for members in (2, 8, 32):
                speeds = {}
                for mode in ("map", "vmap"):
                    programs, samples = group_of(model, members, mode, batch * 40, shape, batch)
                    speeds[mode] = rate(programs, samples, 1)
                unit = programs[0].group
                parameters = sum(leaf.size for leaf in jax.tree.leaves(programs[0].state.params)) // members
                print(
                    f"{name:20} {batch:6} {members:8} {step_work(unit.members[0], parameters):14,} "
                    f"{speeds['map']:15,.0f} {speeds['vmap']:16,.0f} {speeds['vmap'] / speeds['map']:12.2f}",
                    flush=True,
                )


def widths() -> None:
    """Dense VAE 784-200-200-50, batch 128, at growing group widths."""
    import jax

    peak = matmul_rate(8192 if jax.default_backend() != "cpu" else 2048)
    model = spec("vae", "model", latent_dim=50, hidden_dims=[200, 200])
    print(f"{jax.devices()[0].device_kind}, float32 matrix product {peak / 1e12:.2f} TFLOP/s")
    for width in (1, 8, 64, 256):
        if jax.default_backend() == "cpu" and width > 8:
            break
        program, samples = group_of(model, width, "vmap" if width > 1 else "map", 12_800, (784,), 128)
        speed = rate(program, samples, 1)
        share = speed * vae_flops([200, 200], 50) / peak
        print(f"width {width:4}: {speed:12,.0f} samples/s of all members, {share:.1%} of that rate")


BENCHMARKS = (
    "digits",
    "overhead",
    "torch",
    "modes",
    "widths",
    "threads",
    "rows",
    "recurrent",
    "cells",
    "first",
    "report",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(BENCHMARKS)}, rivals (all but rivals)"
    )
    parser.add_argument(
        "--processes", type=int, default=36, help="digits, rows: how many of the 36 processes to measure"
    )
    parser.add_argument("--jobs", type=int, default=1000, help="overhead: number of jobs")
    parser.add_argument("--runs", type=int, default=10_000, help="report: number of runs")
    parser.add_argument(
        "--rivals-python", metavar="PATH", help="rivals, torch, recurrent: a Python with their libraries"
    )
    parser.add_argument("--repeats", type=int, default=3, help="rivals: how often each program is measured")
    parser.add_argument("--rows", metavar="NAME,...", help="rivals: the rows to measure (all)")
    parser.add_argument("--data-root", metavar="FOLDER", help="rivals: the folder of MNIST (it is downloaded)")
    parser.add_argument("--output", default=str(ROOT / "outputs/reference/bench"), help="rivals: the folder of results")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in (*BENCHMARKS, "rivals")]
    if unknown:
        parser.error(f"no benchmark {unknown[0]}; choose from {', '.join(BENCHMARKS)}, rivals")
    python = bench_rivals.interpreter(arguments.rivals_python)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for name in arguments.names or BENCHMARKS:
        print(f"--- {name}", flush=True)
        match name:
            case "digits":
                digits(arguments.processes)
            case "overhead":
                overhead(arguments.jobs)
            case "torch":
                against_torch(python)
            case "modes":
                modes()
            case "widths":
                widths()
            case "threads":
                bench_recurrent.threads()
            case "rows":
                bench_recurrent.rows(arguments.processes)
            case "recurrent":
                bench_recurrent.against_torch(python)
            case "cells":
                bench_recurrent.cells()
            case "report":
                bench_report.report(arguments.runs)
            case "rivals":
                bench_rivals.rivals(arguments)
            case _:
                first()


if __name__ == "__main__":
    run(main)
