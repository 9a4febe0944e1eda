"""The rows of the benchmark `rivals`: what each side runs, and what is compared.

`Program` is a training that our command and a program of another library do with the same rows, networks, optimizer,
batches and epochs. `Training` compares speeds of training alone with PyTorch. Sweeps: `bench_rivals_sweeps.py`.
"""

import dataclasses
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pooch
from bench_common import Comparison, Context, Sides, child, command, results
from bench_rivals_sweeps import SWEEPS


class Row(NamedTuple):
    """Lines of the table that are measured together; `measure` does one repeat."""

    name: str
    title: str
    note: str
    comparisons: tuple[Comparison, ...]
    measure: Callable[[Context], Sides]


# ------------------------------------------------------------------------------------- whole programs, command and fit


LIBRARIES = {
    "keras": "Keras 3 (TensorFlow)",
    "pythae": "pythae (PyTorch)",
    "sklearn": "scikit-learn's MLPRegressor",
}


@dataclasses.dataclass(frozen=True)
class Program:
    """A training that both sides do as a whole command; whole batches fill an epoch, because we skip what is left over.

    Attributes:
      rivals: the other libraries' programs, as `bench_rival_programs.py` names them.
      keys: our overrides besides those of `measure`.
      arrays: rows of `data=arrays`, which are written to a file; None: the keys name the data.
    """

    rivals: tuple[str, ...]
    keys: tuple[str, ...]
    batch: int
    epochs: int
    arrays: Callable[[], dict[str, Any]] | None = None

    def comparisons(self) -> tuple[Comparison, ...]:
        made = []
        for rival in self.rivals:
            library = rival.partition(":")[0]
            for what, ours, theirs in (
                ("whole command, cold cache", "command_cold", "command"),
                ("whole command, warm cache", "command_warm", "command"),
                ("fit with compilation, cold cache", "fit_cold", "fit"),
                ("fit with compilation, warm cache", "fit_warm", "fit"),
                ("training alone", "training", "training"),
            ):
                losses = "ours/loss", f"{library}/loss"
                pair = f"ours/{ours}", f"{library}/{theirs}"
                made.append(Comparison(what, LIBRARIES[library], *pair, losses=losses))
        return tuple(made)

    def measure(self, context: Context) -> Sides:
        """Ours, in the first repeat also with a fresh compile cache, then theirs. The seed is the repeat's number."""
        overrides = self.overrides(context)
        rows = context.folder / "rows_of_rival.npz"
        if not rows.exists():
            np.savez(rows, **rows_of(overrides))
        ours: dict[str, Any] = {}
        for state in ("cold", "warm") if context.repeat == 0 else ("warm",):
            name = f"{state}{context.repeat}"
            of_run = (f"seed={context.repeat}", f"output_root={context.folder}", f"name={name}")
            ours[f"command_{state}"] = command(*overrides, *of_run, cache=str(context.folder / "cache"))
            (result,) = results(context.folder / name)
            ours["training"] = result["seconds_wall_group"]
            ours[f"fit_{state}"] = result["seconds_wall_group"] + result["seconds_compile_group"]
            ours["loss"] = result["metrics"]["validation/loss"]
        sides = {"ours": ours}
        settings = json.dumps({"batch": self.batch, "epochs": self.epochs, "seed": context.repeat})
        for rival in self.rivals:
            started = time.perf_counter()
            measured = child(context.python, "bench_rival_programs.py", rival, str(rows), settings)
            sides[rival.partition(":")[0]] = measured | {"command": time.perf_counter() - started}
        return sides

    def overrides(self, context: Context) -> tuple[str, ...]:
        """The keys of our command."""
        budget = (f"trainer.epochs={self.epochs}", f"trainer.evaluate_every={self.epochs}")
        keys = (*self.keys, *budget, f"trainer.batch_size={self.batch}", "trainer.keep=last", "evaluation=none")
        keys = (*keys, "optimizer.eps=1e-7")  # Keras' default
        if self.arrays is not None:
            file = context.folder / "rows.npz"
            if not file.exists():
                np.savez(file, **self.arrays())
            return (*keys, "data=arrays", f"data.path={file}", "data.scaling=none")
        return (*keys, f"data.root={context.data_root or downloaded()}") if "data=mnist" in keys else keys


@functools.cache
def downloaded() -> Path:
    """The folder of downloads, with MNIST in it: our commands have other caches, and would download it again."""
    rows_of(("data=mnist",))
    return pooch.os_cache("latent-loom")


def rows_of(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Training and validation rows of our job as its model sees them: x, x_validation, and targets y, y_validation.

    Rows without a time axis are flat.
    """
    from research.compose import compose
    from research.config import job_of_config, register_resolvers
    from research.sweep.job import bind

    register_resolvers()
    dataset = bind(job_of_config(compose([*overrides, "name=rows"]))).dataset
    (split,) = dataset.splits
    arrays = {}
    for part, end in (("train", ""), ("validation", "_validation")):
        examples = split.prepare(dataset.examples.take(np.asarray(getattr(split, part))))
        x = np.asarray(examples.x, np.float32)
        arrays[f"x{end}"] = x if dataset.facts.kind == "sequence" else x.reshape(len(x), -1)
        if examples.target is not None:
            arrays[f"y{end}"] = np.asarray(examples.target, np.float32)
    return arrays


def uniform_vectors() -> dict[str, np.ndarray]:
    """1,000 random vectors of 10 features."""
    return {"x": np.random.default_rng(0).random((1000, 10), np.float32)}


def sine_windows(steps: int, rows: int) -> np.ndarray:
    """Windows [N, T] of a noisy sine of period 50."""
    noise = 0.05 * np.random.default_rng(0).standard_normal(rows + steps)
    series = np.sin(2 * np.pi * np.arange(rows + steps) / 50) + noise
    return np.lib.stride_tricks.sliding_window_view(series, steps)[:rows].astype(np.float32)


def next_values() -> dict[str, np.ndarray]:
    """20 steps of a sine, and the value that follows."""
    windows = sine_windows(21, 1000)
    return {"x": windows[:, :-1, None], "y": windows[:, -1:]}


def whole_windows() -> dict[str, np.ndarray]:
    """50 steps of a sine."""
    return {"x": sine_windows(50, 1000)[:, :, None]}


DENSE = ("model.kernel_init=glorot_uniform", "model.output_bias=zero")
AE = ("model=dense_ae", *DENSE)
MNIST_AE = (*AE, "data=mnist", "data.train_size=25600", "model.hidden_dims=[]", "model.latent_dim=64")
MNIST_VAE = (
    "model=vae",
    *DENSE,
    "data=mnist",
    "data.train_size=12800",
    "model.hidden_dims=[500]",
    "model.latent_dim=20",
)
RELU_CODE = "model.code_activation=relu"
PREDICTOR = (
    "model=recurrent_predictor",
    "model.cell=lstm",
    "model.hidden_dim=32",
    "data.kind=sequence",
    "data.target=y",
)
LSTM_AE = ("model=lstm_ae", "model.latent_dim=16", "model.output_bias=zero", "data.kind=sequence")
PROGRAMS = {
    "dense_ae": (
        "dense AE 10-5-10, 1,000 random vectors",
        Program(
            ("keras:dense_ae",),
            (*AE, "model.hidden_dims=[]", "model.latent_dim=5", RELU_CODE),
            32,
            50,
            uniform_vectors,
        ),
    ),
    "mnist_ae": (
        "dense AE 784-64-784, MNIST, BCE",
        Program(("keras:mnist_ae",), (*MNIST_AE, RELU_CODE, "model.likelihood=bernoulli"), 256, 5),
    ),
    "deep_ae": (
        "deep AE 64-32-16-8, digits, batch 1",
        Program(
            ("keras:deep_ae",),
            (*AE, "data=digits", "data.train_size=1000", "model.hidden_dims=[32,16]", "model.latent_dim=8"),
            1,
            4,
        ),
    ),
    "lstm_regression": (
        "LSTM regression, next value of a sine",
        Program(("keras:lstm_regression",), PREDICTOR, 32, 20, next_values),
    ),
    "lstm_ae": (
        "LSTM autoencoder, T 50",
        Program(("keras:lstm_ae",), LSTM_AE, 32, 10, whole_windows),
    ),
    "vae": (
        "VAE 784-500-20, MNIST",
        Program(("keras:vae", "pythae"), MNIST_VAE, 128, 5),
    ),
    "sklearn": (
        "AE 784-64-784, MNIST, MSE",
        Program(("sklearn",), (*MNIST_AE, RELU_CODE, "model.likelihood=mse"), 256, 5),
    ),
}


# --------------------------------------------------------------------------------------------- training against PyTorch


@dataclasses.dataclass(frozen=True)
class Training:
    """Training alone, in samples per second: one run, and a sweep of two runs that are dealt to the cores.

    Attributes:
      name: of the model in `bench_own.py` and `bench_torch.py`.
    """

    name: str
    rows: int
    epochs: int = 5

    def comparisons(self) -> tuple[Comparison, ...]:
        rates = {"theirs": "torch/rate", "unit": "samples/s", "losses": ("ours/loss", "torch/loss")}
        return (
            Comparison("one run", "PyTorch eager", "ours/rate", **rates),
            Comparison("both runs of a sweep of two", "PyTorch eager, one run", "ours/rate_of_two", **rates),
        )

    def measure(self, context: Context) -> Sides:
        """Medians over epochs, without the first."""
        arguments = self.name, str(self.rows), str(self.epochs)
        sides = {
            "torch": child(context.python, "bench_torch.py", *arguments),
            "ours": child(sys.executable, "bench_own.py", *arguments),
        }
        for quantities in sides.values():
            for many, single in (("rates", "rate"), ("rates_of_two", "rate_of_two")):
                if many in quantities:
                    quantities[single] = statistics.median(quantities.pop(many))
        return sides


TRAININGS = {
    "torch_vae_128": ("dense VAE 784-200-200-50, batch 128", Training("vae:128", 12_800)),
    "torch_vae_32": ("dense VAE 784-200-200-50, batch 32", Training("vae:32", 12_800)),
    "torch_lstm": ("LSTM autoencoder, T 100, hidden 64, batch 64", Training("lstm", 1280)),
    "torch_gru": ("GRU autoencoder, T 100, hidden 64, batch 64", Training("gru", 1280)),
    "torch_rnn": ("RNN autoencoder, T 100, hidden 64, batch 64", Training("rnn", 1280)),
}


NOTES = {
    "mnist_ae": "the loss is in nats a row: the sum of the cross-entropies of its pixels",
    "vae": "the loss is the negative ELBO in nats a row; pythae also keeps a copy of its best model, as it always does",
    "sklearn": "the loss is the mean squared error of a pixel; scikit-learn trains on half of its sum over pixels",
    "torch_vae_128": "random pixels; losses are means of the last epoch, nats a row",
}

ROWS = tuple(
    Row(name, title, NOTES.get(name, ""), of_row.comparisons(), of_row.measure)
    for name, (title, of_row) in {**PROGRAMS, **TRAININGS, **SWEEPS}.items()
)
