"""`research.train` and `research.sweep`: the training command as two functions.

They compose, check, train and resume as `scripts/train.py` does, and write the same folders. What the command prints as
an error is raised here.
"""

import contextlib
import re
import shlex
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf

from research import app, environment
from research.api.sweeps import Sweep
from research.compose import CONF, check_count, compose, explained, first_choices, parse, refused
from research.config import folder_of, job_of_config, register_resolvers
from research.data.files.memory import FOLDER, Rows, rows_of
from research.runs.files import write_atomically
from research.runs.load import load
from research.runs.run import Run
from research.sweep.device import use_compile_cache
from research.sweep.folder import Outcome, hold, locked, release
from research.sweep.train.signals import session
from research.tree import ConfigError

RESOLVERS = ("run_id", "choices")
COMMAND = re.compile(r"python scripts/train\.py -m ((?:[^;']|'[^']*')*[^; '])")
OF_X = ("path", "key", "root", "test_path")  # keys of `data=memory` that a call sets itself

_one_at_a_time = threading.RLock()  # Hydra keeps its state for the whole process


def train(x: Any = None, *overrides: str, y: Any = None, lengths: Any = None, name: str | None = None) -> Run:
    """Train one run, as `python scripts/train.py` does; the same call again returns the finished run.

    >>> run = train(x, "model=vae", "model.latent_dim=2", name="mine")

    Args:
      x: rows: an array [N, ...], a masked array, a list of arrays of unequal length, or a pandas table. Without it the
        data are those of the override `data=...`.
      overrides: `key=value`, as on the command line. The first one may stand in the place of x.
      y: class or value of each row [N], or the name of a column of a table.
      lengths: number of steps of each sequence [N], for sequences that are padded.
      name: of the sweep folder below `output_root`; None takes the time, which is a new folder.

    Raises:
      ConfigError: something cannot be used; nothing was written.
      RuntimeError: the run diverged or failed; the text says why, and names its folder.
      KeyboardInterrupt: the training was interrupted; the same call goes on from the last evaluation.
    """
    _, config, outcomes = call(x, overrides, y=y, lengths=lengths, name=name, several=False)
    return trained(config, outcomes)


def trained(config: DictConfig, outcomes: Sequence[Outcome]) -> Run:
    """The run that a call has trained.

    Raises:
      ConfigError: the call asked for the plan only.
      RuntimeError: the run diverged or failed.
    """
    if not outcomes:
        remedy = "a plan has no run; leave it out, or see the plan by research.sweep"
        raise ConfigError("sweep.plan_only", True, remedy)
    (outcome,) = outcomes
    if outcome.status not in ("completed", "stopped"):
        raise RuntimeError(f"the run {outcome.status}: {outcome.result['reason']} (folder {outcome.folder})")
    return load(outcome.folder, config.trusted_packages)


def sweep(x: Any = None, *overrides: str, y: Any = None, lengths: Any = None, name: str | None = None) -> Sweep:
    """Train a sweep of runs, as `python scripts/train.py -m` does.

    >>> sweep = sweep(x, "model.latent_dim=2,4", "seed=range(3)", name="mine")

    The same call again trains nothing, and a call with more values adds runs. A run that diverged or failed does not
    end the sweep; its status stands in `Sweep.frame()`.

    Args:
      x, overrides, y, lengths, name: as of `train`; here an override may have several values.

    Raises:
      ConfigError: something cannot be used; nothing was written.
      KeyboardInterrupt: the training was interrupted; the same call goes on with the rest.
    """
    folder, config, _ = call(x, overrides, y=y, lengths=lengths, name=name, several=True)
    return Sweep(folder, config.trusted_packages)


def call(
    x: Any,
    overrides: Sequence[str],
    *,
    several: bool,
    y: Any = None,
    lengths: Any = None,
    name: str | None = None,
    quiet: bool = False,
) -> tuple[Path, DictConfig, list[Outcome]]:
    """Do what a command does.

    Args:
      x, overrides, y, lengths, name: as of `train`.
      several: whether overrides may have several values.
      quiet: print nothing.

    Returns:
      The sweep folder, the config of the first point, and the outcomes of a single run. There are none if the call asks
      for the plan only.
    """
    if isinstance(x, str):
        x, overrides = None, (x, *overrides)
    settings = _checked(overrides, several, name)
    rows = None
    if x is not None:
        rows = rows_of(x, y, lengths)
        _check_data(settings, rows)
    for argument, value in (("y", y), ("lengths", lengths)):
        if x is None and value is not None:
            raise ConfigError(argument, type(value).__name__, "it belongs to the rows of x, which are not given")
    with _one_at_a_time, session(), _clean_hydra(), _printing(quiet), _blaming(rows), explained(settings):
        environment.check()
        register_resolvers()
        use_compile_cache()
        if several:
            check_count(parse(settings))
        try:
            with _rows_in_place(rows, settings, several) as reading:
                return _run([*settings, *reading], several)
        finally:
            release()


def _run(settings: list[str], several: bool) -> tuple[Path, DictConfig, list[Outcome]]:
    """Check and train, as `app.check_command` and Hydra do."""
    job, config, more = app.first_point(settings, several)
    outcomes: list[Outcome] = []
    if several:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3", job_name="train"):
            running: Any = GlobalHydra.instance().hydra
            running.multirun("train", app.point, [*settings, *more], with_log_configuration=False)
    elif not app.check([job], config):
        outcomes = app.train([job], config, (), _register(config))
    return folder_of(config), config, outcomes


def _register(config: DictConfig) -> Any:
    """What writes `.hydra/` into the folder of a single run."""
    from hydra_plugins.fused.compose import Base, Composed

    overrides = list(config.hydra.overrides.task)
    composed = Composed(Base.of(config, len(overrides)), [], overrides)
    return lambda bound, run: composed.write(0, run.path, run.lease)


# ----------------------------------------------------------------------------------------------------------- overrides


def _checked(overrides: Sequence[Any], several: bool, name: str | None) -> list[str]:
    """The overrides of a call, with its name."""
    for override in overrides:
        if not isinstance(override, str):
            remedy = "an override is a text, key=value; classes or values of the rows are the argument y"
            raise ConfigError("overrides", type(override).__name__, remedy)
        if override.startswith("-"):
            remedy = "options of the command have no meaning here; research.sweep takes several values"
            raise refused(override, remedy)
    settings = list(overrides)
    parsed = parse(settings)
    if not several:
        for override in parsed:
            if override.is_sweep_override():
                remedy = "several values make a sweep: research.sweep(...)"
                if override.is_choice_sweep() and "(" not in str(override.input_line):
                    listed = str(override.input_line).replace("=", "=[", 1) + "]"
                    remedy += f"; for a key that holds a list: {listed}"
                raise refused(override.input_line, remedy)
    if name is not None:
        if not isinstance(name, str):
            raise ConfigError("name", name, f"expected a text: name={str(name)!r}")
        if any(override.key_or_group == "name" for override in parsed):
            raise ConfigError("name", name, "an override has a name too; leave one of them out")
        settings.append(f"name={quoted(name)}")
    return settings


def _check_data(settings: Sequence[str], rows: Rows) -> None:
    """Refuse overrides that contradict the rows of x."""
    of_x = {f"data.{name}" for name in (*OF_X, *rows.keys)}
    for override in parse(settings):
        key, value = override.key_or_group, override.value()
        if (key == "data" and value != "memory") or key in of_x:
            raise refused(override.input_line, "the rows are those of x; leave it out, or give no x")


def quoted(text: str) -> str:
    """A text as the value of an override, in quotes if it would be read as something else without them."""
    try:
        (read,) = parse([f"name={text}"])
        if not read.is_sweep_override() and type(read.value()) is str and read.value() == text:
            return text
    except ConfigError:
        pass
    return QuotedString(text, Quote.single).with_quotes()


# -------------------------------------------------------------------------------------------------------- rows of x


@contextlib.contextmanager
def _rows_in_place(rows: Rows | None, settings: Sequence[str], several: bool) -> Iterator[list[str]]:
    """Write the rows into the sweep folder, and take them away again if no run came to be there.

    Yields:
      The overrides that read them. They stand after those of the user, which names of run folders then begin with.
    """
    if rows is None:
        yield []
        return
    first = first_choices(settings) if several else settings
    chosen = [] if "data=memory" in settings else ["data=memory"]
    keys = {"path": rows.name, **rows.keys}
    reading = [
        *chosen,
        *(f"data.{key}={'true' if value is True else quoted(str(value))}" for key, value in keys.items()),
    ]
    config = compose([*first, *reading])
    if config.name is None:
        config.name = app.name_by_time(config)
        reading.append(f"name={config.name}")
    job_of_config(config)  # refuses a wrong name, which would be another folder, and all wrong keys
    folder = folder_of(config)
    path = folder / FOLDER / rows.name
    if is_new := not (path.is_file() and path.read_bytes() == rows.content):
        hold(folder)
        with locked(folder) as lease:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, rows.content, lease)
    try:
        yield [*reading, f"data.root={quoted(str(path.parent))}"]
    finally:
        if is_new and not any(rows.name in file.read_text() for file in folder.glob("*/config.json")):
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                path.parent.rmdir()


@contextlib.contextmanager
def _blaming(rows: Rows | None) -> Iterator[None]:
    """Errors about the file of x, y and lengths name the argument; commands in remedies become calls."""
    try:
        yield
    except ConfigError as error:
        template = COMMAND.sub(lambda command: _as_call(command[1], rows), error.template)
        error = ConfigError(error.key, error.value, template.replace("two commands", "two calls"))
        raise (error if rows is None else rows.blame(error)) from None


def _as_call(overrides: str, rows: Rows | None) -> str:
    """The overrides of a command, as a shell has them, as a call of `research.sweep`."""
    arguments = [] if rows is None else ["x"]
    of_x = () if rows is None else {f"data.{name}" for name in (*OF_X, *rows.keys)}
    for override in shlex.split(overrides):
        if override.partition("=")[0] not in of_x and override != "data=memory":
            arguments.append(repr(override))
    arguments += [f"{name}={name}" for name in ("y", "lengths") if rows is not None and name in rows.shown]
    return f"research.sweep({', '.join(arguments)})"


# ------------------------------------------------------------------------------------------------------- the process


@contextlib.contextmanager
def _clean_hydra() -> Iterator[None]:
    """Leave the state of Hydra and OmegaConf, which belongs to the process, as it was."""
    running, config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    base = VersionBase.instance().version_base
    known = [name for name in RESOLVERS if OmegaConf.has_resolver(name)]
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running
        HydraConfig.instance().cfg = config
        VersionBase.instance().version_base = base
        for name in RESOLVERS:
            if name not in known:
                OmegaConf.clear_resolver(name)
        app.statuses.clear()
        app.checked.clear()


@contextlib.contextmanager
def _printing(quiet: bool) -> Iterator[None]:
    """Print no table at the end, and nothing at all if quiet."""
    before = set(app.silent)
    app.silent.update({"table", "progress"} if quiet else {"table"})
    try:
        yield
    finally:
        app.silent.clear()
        app.silent.update(before)
