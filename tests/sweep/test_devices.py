"""Several devices in one process: members are spread over them, and in map mode have the bits of a run alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from pathlib import Path
import jax, numpy as np, yaml
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests/sweep", sys.argv[1] + "/tests"]
import conftest
from research.sweep.job import Job, bind
from research.sweep.options import Options
from research.sweep.plan import JobGroup, plan
from research.sweep.device import on_device, use_compile_cache
from research.sweep.programs import program_of
from research.sweep.command import prepare
from research.sweep.command import run
from research.sweep.train.display import Display
from research.tree import ConfigError

use_compile_cache()
found = {}
settings = yaml.safe_load(Path(sys.argv[1], "conf", "train.yaml").read_text())["sweep"]
options = lambda **changes: Options(**{**settings, "mode": "map", "concurrency": 1, **changes})

def job(*overrides):
    config, choices = conftest.composed([*conftest.TINY, "trainer.epochs=4", *overrides])
    return Job.from_config(config, choices, overrides)

jobs = [job(f"seed={seed}") for seed in range(6)] + [job("optimizer.learning_rate=1e30")]
bounds = [bind(job) for job in jobs]

def trained(group, device=None):
    program = program_of(group, on_device(bounds[0].dataset, device), None, device)
    metrics = [program.read(program.train(1)) for _ in range(3)]
    state = program.collect()
    return (metrics, state, program.score(state)), program

def member(results, index):
    return [np.asarray(leaf)[index] for leaf in jax.tree.leaves(results)]

def same(one, other):
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))

unit = lambda index: JobGroup((bounds[index],), "map", 1, 0, 0, "")
for index in (0, 2, 5, 6):
    alone, _ = trained(unit(index))
    device = jax.local_devices()[3]
    results, program = trained(unit(index), device)
    found.setdefault("same", []).append(same(member(results, 0), member(alone, 0)))
    found.setdefault("places", []).append(sorted(d.id for d in program.state.step.sharding.device_set))
(group,) = plan(bounds[:6], options(mode="vmap"))
results, _ = trained(group)
one, _ = trained(JobGroup((bounds[2], bounds[3]), group.mode, group.width, 0, 0, ""))
pairs = zip(member(results, 2), member(one, 0), strict=True)
found["vmap"] = {
    "width": group.width, "devices": group.devices,
    "largest": max(float(np.max(np.abs(a - b) / (np.abs(a) + 1e-3))) if a.size else 0.0 for a, b in pairs),
}

class Killed(BaseException):
    pass

class Breaking(Display):
    epochs = 3
    def chunk(self, number, epochs, metrics, unit=0):
        if epochs == self.epochs:
            raise Killed
    def note(self, text):
        found.setdefault("notes", []).append(text)

def sweep(name, display, **changes):
    chosen = options(checkpoint_every=1, **changes)
    folder = Path(sys.argv[2], name)
    about = {"name": name, "objective": "", "options": chosen, "display": display}
    return run(prepare(jobs, folder, chosen), jobs, **about)

try:
    sweep("broken", Breaking(), mode="vmap")
except Killed:
    pass
try:
    jax.local_device_count, all_devices = (lambda: 2), jax.local_device_count
    sweep("broken", Display(), mode="vmap")
except ConfigError as error:
    found["fewer"] = str(error)
finally:
    jax.local_device_count = all_devices
whole = Breaking()
whole.epochs = 99
again, undisturbed = sweep("broken", whole, mode="vmap"), sweep("whole", whole, mode="vmap")
found["resumed"] = [outcome.result["resumed_at"] for outcome in again]
found["program"] = again[0].result["program"]
found["statuses"] = [outcome.status for outcome in again]
files = "params.safetensors", "metrics.csv"
equal = lambda one, other: [
    all((a.folder / name).read_bytes() == (b.folder / name).read_bytes() for name in files)
    for a, b in list(zip(one, other, strict=True))[:6]
]
found["equal"] = equal(again, undisturbed)
# threads of map mode have a device each
found["threads"] = equal(sweep("one", whole, concurrency=1), sweep("two", whole, concurrency=2))
print(json.dumps(found))
"""


def test_members_are_spread_over_four_devices(tmp_path: Path) -> None:
    """One process sees it all, since most of its time is compiling."""
    environment = {**os.environ, "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"}
    command = [sys.executable, "-W", "error::UserWarning", "-c", SCRIPT, str(ROOT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    # in map mode every member has the bits of a run alone
    assert found["places"] == [[3]] * 4
    assert found["same"] == [True] * 4
    assert found["threads"] == [True] * 6
    # in vmap mode those of one device at that width, up to rounding: partitioned programs are simplified in other ways
    assert (found["vmap"]["devices"], found["vmap"]["width"]) == (4, 2)
    assert found["vmap"]["largest"] < 1e-3
    # a checkpoint is restored on as many devices, with equal bits, and refused on fewer
    assert found["resumed"] == [[2]] * 7
    assert found["statuses"] == ["completed"] * 6 + ["diverged"]
    assert all(found["equal"])
    assert found["program"]["devices"] == 4
    assert "begun on 4 devices, and here are 2; continue on a machine with as many" in found["fewer"]
