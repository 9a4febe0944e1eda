"""What is compiled, counted in new processes with a cache of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from collections import Counter
import jax
sys.path[:0] = [sys.argv[1]]
from research import app

counts = Counter()
jax.monitoring.register_event_listener(lambda name, **_: counts.update([name.rpartition("/")[2]]))
sys.argv = ["train.py", *sys.argv[2:]]
try:
    app.main()
finally:  # it exits
    print("\\n" + json.dumps(counts))
"""
SWEEP = ["-m", "model.latent_dim=2", "model.hidden_dims=[4]", "trainer.epochs=2", "trainer.evaluate_every=1"]
SWEEP += ["data.train_size=64", "evaluation=none", "sweep.mode=map", "name=sweep"]


def compiled(folder: Path, *overrides: str) -> tuple[int, int]:
    """Programs that were compiled by a command, and those that came from the cache."""
    settings = {"COMPILATION_CACHE_DIR": str(folder / "cache"), "PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    settings |= {"PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0"}
    environment = {**os.environ, **{f"JAX_{name}": value for name, value in settings.items()}}
    command = [sys.executable, "-c", SCRIPT, str(ROOT), *SWEEP, f"output_root={folder}", *overrides]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found.get("cache_misses", 0), found.get("cache_hits", 0)


def test_threads_and_members_added_later_compile_nothing_more(tmp_path: Path) -> None:
    programs, _ = compiled(tmp_path, "seed=0,1", "sweep.concurrency=2")
    assert programs > 0
    # the finished sweep gets another seed and another learning rate, in a new process of one thread
    more = ["seed=0,1,2", "optimizer.learning_rate=0.001,0.002", "sweep.concurrency=1"]
    misses, hits = compiled(tmp_path, *more)
    assert len(list(tmp_path.glob("sweep/*/result.json"))) == 6
    assert (misses, hits) == (0, programs)  # two threads compiled none twice
