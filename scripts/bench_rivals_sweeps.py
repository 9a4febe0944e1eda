"""Sweeps in the benchmark `rivals`: a fused sweep against processes, and against Hydra's launcher of joblib."""

import dataclasses
import importlib.util
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

from bench_common import Comparison, Context, Sides, command


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A fused sweep against one process for each run, of which some are measured, and against joblib's launcher.

    Attributes:
      swept: key -> values; the keys that change the program stand first, the seed last.
      measured: processes that are measured in each repeat, spread over the points.
      joblib: whether Hydra's launcher of joblib also runs the sweep, with a process for each of two cores.
    """

    swept: dict[str, tuple[Any, ...]]
    fixed: tuple[str, ...]
    measured: int
    joblib: bool = False

    @property
    def points(self) -> list[tuple[str, ...]]:
        """Overrides of every run."""
        keyed = ([f"{key}={value}" for value in values] for key, values in self.swept.items())
        return list(itertools.product(*keyed))

    def comparisons(self) -> tuple[Comparison, ...]:
        processes = f"{len(self.points)} processes in turn, extrapolated from {self.measured} a repeat"
        losses = ("processes/loss_here", "processes/loss")
        made = (
            Comparison("sweep, cold cache", processes, "ours/command_cold", "processes/command", losses=losses),
            Comparison("sweep, warm cache", processes, "ours/command_warm", "processes/command", losses=losses),
        )
        if not self.joblib:
            return made
        losses = ("ours/loss", "joblib/loss")
        of_joblib = "ours/command_warm", "joblib/command"
        return (
            *made,
            Comparison("sweep, warm cache", "Hydra's joblib launcher, 2 processes", *of_joblib, losses=losses),
        )

    def measure(self, context: Context) -> Sides:
        """Ours, some processes, joblib; the caches are warm but for our first command of all."""
        run = {"cache": str(context.folder / "cache")}
        out = f"output_root={context.folder}"
        swept = [f"{key}={','.join(map(str, values))}" for key, values in self.swept.items()]
        ours: dict[str, Any] = {}
        if context.repeat == 0:
            ours["command_cold"] = command("-m", *self.fixed, *swept, out, "name=cold", **run)
        name = f"fused{context.repeat}"
        ours["command_warm"] = command("-m", *self.fixed, *swept, out, f"name={name}", **run)
        here = losses_of_runs(context.folder / name)
        ours["loss"] = statistics.fmean(here.values())
        seconds, there = [], {}
        stride = len(self.points) // self.measured
        first = context.repeat % len(self.swept["seed"])  # other seeds in every repeat, the same programs
        for number in range(first, self.measured * stride, stride):
            alone = (*self.fixed, *self.points[number], out)
            if context.repeat == 0:
                command(*alone, f"name=warm{number}", **run)
            name = f"process{context.repeat}_{number}"
            seconds.append(command(*alone, f"name={name}", **run))
            there |= losses_of_runs(context.folder / name)
        processes = {
            "command": statistics.fmean(seconds) * len(self.points),
            "loss": statistics.fmean(there.values()),
            "loss_here": statistics.fmean(here[run_hash] for run_hash in there),
        }
        sides = {"ours": ours, "processes": processes}
        return sides | {"joblib": self.by_joblib(swept, context)} if self.joblib else sides

    def by_joblib(self, swept: list[str], context: Context) -> dict[str, Any]:
        """The same sweep by Hydra's launcher of joblib. Each job has a folder of its own: a folder has one writer."""
        if importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is None:
            return {"missing": "not installed: pip install hydra-joblib-launcher"}
        folder = context.folder / f"joblib{context.repeat}"
        launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
        out = f"output_root={folder}/${{oc.select:hydra.job.num,all}}"
        try:
            overrides = (*self.fixed, *swept, *launcher, out, "name=joblib")
            seconds = command("-m", *overrides, cache=str(context.folder / "cache"))
        except SystemExit as error:
            return {"missing": f"failed: {str(error).strip().splitlines()[-1]}"}
        return {"command": seconds, "loss": statistics.fmean(losses_of_runs(folder).values())}


def losses_of_runs(folder: Path) -> dict[str, float]:
    """config_hash -> validation loss of all runs below a folder."""
    of_runs = [json.loads(path.read_text()) for path in folder.rglob("result.json")]
    return {result["config_hash"]: result["metrics"]["validation/loss"] for result in of_runs}


DIGITS = {"model.latent_dim": (2, 4, 8), "model.beta": (0.5, 1.0, 2.0, 4.0), "seed": (0, 1, 2)}
RECURRENT = {"model.cell": ("rnn", "gru", "lstm"), "model.latent_dim": (2, 4, 8, 16), "seed": (0, 1, 2)}
SMALL = {
    "model.beta": (0.5, 1.0, 2.0, 3.0, 4.0, 8.0),
    "optimizer.learning_rate": (1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 1e-2),
    "seed": (0, 1, 2, 3, 4, 5),
}
OF_RECURRENT = ("model=recurrent_ae", "data=digits_rows", "trainer.epochs=20")
OF_SMALL = ("model.hidden_dims=[16]", "model.latent_dim=2", "trainer.epochs=10", "evaluation=none")
SWEEPS = {
    "sweep_digits": ("36 digits VAEs, 50 epochs", Sweep(DIGITS, (), 3, joblib=True)),
    "sweep_recurrent": ("36 recurrent autoencoders of digits by rows, 20 epochs", Sweep(RECURRENT, OF_RECURRENT, 3)),
    "sweep_small": ("216 small digits VAEs, 10 epochs", Sweep(SMALL, OF_SMALL, 2)),
}
