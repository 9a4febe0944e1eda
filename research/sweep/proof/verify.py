"""The command `verify.py`: every file of a sweep is intact, and runs that are trained again have the same outcome."""

import argparse
import os
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from research import environment
from research.errors import did_you_mean, nearest, nearest_folder
from research.runs.files import LOST, LeaseLost
from research.runs.folder import TRAINED, RunFolder, check_sweep_folder, no_sweep
from research.sweep.begun import rebuilt, shipped
from research.sweep.device import device_kind, use_compile_cache
from research.sweep.folder import locked, runs_in
from research.sweep.manifest import read_manifest
from research.sweep.options import Options
from research.sweep.proof.intact import Finding, check_files
from research.sweep.proof.replay import replay
from research.sweep.proof.retrain import retrain
from research.sweep.train.display import Display, printable
from research.sweep.train.ledger import commit
from research.tree import ConfigError, build

PROVEN, WRONG, REFUSED = 0, 1, 2


def verify(
    folder: Path,
    members: int,
    seed: int | None,
    root: str | None,
    trusted: Sequence[str],
    options: Options,
    display: Display,
) -> int:
    """Check all files and train some runs again.

    Args:
      folder: of a sweep.
      members: how many runs are trained again.
      seed: chooses these runs; None means a random seed.
      root: where the data lie; None means where the runs' own commands found them.
      trusted: packages whose classes the runs may name.
      options: of a sweep on one device.
      display: prints one line for every finding.

    Returns:
      The exit code of the command.

    Raises:
      ConfigError: the folder holds no sweep, or another command holds it.
    """
    check_folder(folder)
    with locked(folder) as lease:
        findings = check_files(folder)
        for finding in findings:
            if finding.bad:
                display.note(str(finding))
        counts = [sum(finding.outcome == word for finding in findings) for word in ("whole", "not finished", "damaged")]
        display.note(f"{len(findings)} runs: {counts[0]} whole, {counts[1]} not finished, {counts[2]} damaged")
        good = {finding.run for finding in findings if finding.outcome == "whole"}
        paths = [path for path in sorted(runs_in(folder).values()) if path.name in good]
        trained = [path for path in paths if (RunFolder(path).read_result() or {})["status"] in TRAINED]
        seed = secrets.randbelow(1 << 32) if seed is None else seed
        chosen = sorted(np.random.default_rng(seed).permutation(len(trained))[:members])
        if chosen:
            display.note(f"training {len(chosen)} of {len(trained)} again, drawn with --seed {seed}")
        for path in [trained[index] for index in chosen]:
            findings.append(_again(RunFolder(path, lease), root, trusted, options, trained))
            display.note(str(findings[-1]))
    if any(finding.bad for finding in findings):
        return WRONG
    return REFUSED if any(finding.outcome == "not checked" for finding in findings) else PROVEN


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds no sweep, and continue with the settings of jax that the sweep was begun with."""
    check_sweep_folder(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        raise no_sweep(folder, "no sweep.json is here")
    environment.go_on(manifest.get("environment"))


def _again(
    run: RunFolder, root: str | None, trusted: Sequence[str], options: Options, peers: Sequence[Path]
) -> Finding:
    """Train one run again and write the finding into its result, unless the run could not be trained."""
    path = run.path
    try:
        bound = rebuilt(path, root, trusted, shipped("evaluation", "none"))  # evaluations are not made again
        finding = retrain(path, bound, options, peers)
    except ConfigError as error:
        return Finding(path.name, "not checked", hinted(error, root))
    except Exception as error:  # the other runs are checked all the same
        reason = (str(error).strip().splitlines() or [""])[0]
        return Finding(path.name, "not checked", f"{type(error).__name__}: {reason}")
    stamp(run, finding)
    return finding


def hinted(error: ConfigError, root: str | None) -> str:
    """Text of a refusal, with the option of this command that may help."""
    if "_target_" in error.key:
        return f"{error}; for your own classes here: --trust PACKAGE"
    if error.key.startswith("data") and root is None:
        return f"{error}; where the data have moved: --data-root FOLDER"
    return str(error)


def stamp(run: RunFolder, finding: Finding) -> None:
    """Write a finding into `result.json`; the time of the file stays that of the training."""
    result, times = run.read_result(), run.result.stat()
    assert result is not None
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    verified = {"outcome": finding.outcome, "detail": finding.detail, "at": now}
    run.write_result({**result, "verified": verified | {"commit": commit(), "device_kind": device_kind()}})
    os.utime(run.result, ns=(times.st_atime_ns, times.st_mtime_ns))


# -------------------------------------------------------------------------------------------------------------- command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="verify.py",
        description="Check that every file of a sweep is whole, and train some of its runs again to compare.",
        epilog="example: python scripts/verify.py outputs/first --members 3",
    )
    parser.add_argument("folder", metavar="SWEEP_FOLDER", type=Path, help="outputs/NAME")
    parser.add_argument("--members", type=int, default=3, metavar="N", help="runs to train again (default: 3; 0: none)")
    parser.add_argument("--seed", type=int, metavar="N", help="which ones are drawn (default: others every time)")
    parser.add_argument(
        "--replay", metavar="RUN", help="train this diverged run again and name what was first not finite"
    )
    parser.add_argument("--data-root", metavar="FOLDER", help="where the data lie, if not where the sweep found them")
    parser.add_argument(
        "--trust", action="append", default=[], metavar="PACKAGE", help="package of the runs' own models"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `scripts/verify.py`.

    Returns:
      0 if everything is as it was; 1 if something is damaged or different, or a replay stayed finite; 2 if the command
      was refused or a run could not be checked; 4 if another command took the folder over; 130 if it was interrupted.
    """
    chosen = _parser().parse_args(arguments)
    display, folder, root = Display(), chosen.folder.expanduser().absolute(), chosen.data_root
    use_compile_cache()
    try:
        for name in ("members", "seed"):
            if (getattr(chosen, name) or 0) < 0:
                raise ConfigError(f"--{name}", getattr(chosen, name), "must not be negative")
        if root is not None and not Path(root).expanduser().is_dir():
            meant = did_you_mean(nearest_folder(Path(root).expanduser()), "--data-root=")
            raise ConfigError("--data-root", root, f"no such folder{meant}")
        options = _options()
        if chosen.replay is None:
            return verify(folder, chosen.members, chosen.seed, root, chosen.trust, options, display)
        check_folder(folder)
        runs = {path.name: path for path in runs_in(folder).values()}
        if chosen.replay not in runs:
            raise ConfigError("--replay", chosen.replay, f"no such run in {folder}{nearest(chosen.replay, runs)}")
        return PROVEN if replay(runs[chosen.replay], root, chosen.trust, options, display) else WRONG
    except ConfigError as error:
        sys.stderr.write(f"error: {printable(hinted(error, root))}\n")
        return REFUSED
    except LeaseLost as error:
        sys.stderr.write(f"error: {error}\n")
        return LOST
    except KeyboardInterrupt:
        return 130


def _options() -> Options:
    """The shipped settings of a sweep, for one program at a time on one device."""
    settings = {**shipped("train")["sweep"], "mode": "map", "concurrency": 1, "devices": 1}
    return build(settings, Options, key="sweep")
