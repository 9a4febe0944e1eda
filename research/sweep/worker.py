"""What a worker does: train and evaluate one program of a manifest, and write its run folders."""

import dataclasses
import json
import os
import sys
from pathlib import Path

from research.sweep.display import Display
from research.sweep.job import Job, bind
from research.sweep.plan import Options, plan
from research.sweep.prepare import Prepared, finished
from research.sweep.program import use_compile_cache
from research.tree import ConfigError, build


def run_group(manifest: str, number: int) -> None:
    """Train and evaluate one program; its members that have a result keep it, so that a second try is no harm.

    Raises:
      ConfigError: the manifest could have been written by somebody else, or another worker holds the program.
    """
    from research.sweep.run import Sweep

    path = Path(manifest)
    about = path.parent.lstat()
    if about.st_uid != os.geteuid() or about.st_mode & 0o077:
        raise ConfigError("manifest", path, "its folder must belong to this user alone (mode 0700)")
    content = json.loads(path.read_bytes())
    sys.path.extend(place for place in content["paths"] if place not in sys.path)  # of packages that the command trusts
    use_compile_cache()
    described, options = content["groups"][number], build(content["options"], Options)
    rows = described["members"]
    jobs = [Job.from_config(row["config"], row["choices"], row["overrides"]) for row in rows]
    bounds = [bind(job) for job in jobs]
    folder = Path(content["folder"])
    done = finished(jobs, folder, options)
    todo = [bound for bound in bounds if bound.job.hash not in done]
    if not todo:
        return
    (like,) = plan(bounds[:1], options)
    own = {name: described[name] for name in ("mode", "width", "devices")}
    group = dataclasses.replace(like, bounds=tuple(bounds), **own)
    display = Display()
    prepared = Prepared(folder, todo, done, [], [group])
    sweep = Sweep(prepared, jobs, content["name"], content["objective"], options, display)
    sweep.hparams = content["hparams"]  # of the whole sweep: a program does not show what is swept beyond it
    with display.training([group]):
        sweep.train()
