"""Composes the config before Hydra does, and refuses bad overrides in one line with the nearest key."""

import contextlib
import math
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from research.command import REFUSED, known, one_line
from research.errors import most_similar, nearest
from research.runs.files import LOST, LeaseLost
from research.target import resolve_target
from research.tree import ConfigError, HasOwnKeys, flatten, keys

CONF = Path(__file__).parents[1] / "conf"
MOST_JOBS = 100_000  # of one command
MOST_NODES = 100_000  # values of a YAML file
MOST_LEVELS = 50  # lists and sections within each other
LONGEST_SHOWN = 100  # characters of an override in a message
LONGEST_VALUE = 80  # characters of a value that an error shows whole
# Hydra writes into the folder of the sweep and of its runs, which output_root and name choose.
PLACES = {
    "hydra.run.dir": "${output_root}/${name}/${run_id:}",
    "hydra.sweep.dir": "${output_root}/${name}",
    "hydra.sweep.subdir": "${run_id:}",
    "hydra.job.chdir": False,
    "hydra.output_subdir": ".hydra",
}


# Hydra raises these for an override without a key, for a file that holds no section, and for circular defaults.
UNCOMPOSABLE = (ValueError, OSError, RecursionError)


@contextlib.contextmanager
def explained(overrides: Sequence[str] = ()) -> Iterator[None]:
    """Turn errors of Hydra, OmegaConf and YAML that the user can mend into a ConfigError.

    Raises:
      ConfigError, LeaseLost: also where Hydra or OmegaConf has wrapped one in an error of its own.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise _wrapped(error) or explain(error, overrides) from None
    except yaml.YAMLError as error:
        raise ConfigError("", None, known(error) or "") from None


def _wrapped(error: BaseException | None) -> ConfigError | LeaseLost | None:
    """The error of this project that an error of a library was raised for."""
    while error is not None and not isinstance(error, ConfigError | LeaseLost):
        error = error.__cause__ or error.__context__
    return error


@contextlib.contextmanager
def refusals(overrides: Sequence[str] = ()) -> Iterator[None]:
    """The top of a command: turn errors that the user can mend into one line on stderr and an exit code.

    The code is 2 for a refusal, and 4 if another command took the sweep folder over.
    """
    try:
        with explained(overrides):
            yield
    except LeaseLost as error:
        _exit(str(error), LOST)
    except Exception as error:
        if (message := known(error)) is None:
            raise
        _exit(message, REFUSED)


def _exit(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"error: {one_line(message)}\n")
    raise SystemExit(code)


def refused(setting: str | None, remedy: str) -> ConfigError:
    """The refusal of a setting as it was written: an override, an option, or a file."""
    key, equals, value = (setting or "").partition("=")
    if key and equals and len(value) <= LONGEST_VALUE:
        return ConfigError(key, value, remedy)
    return ConfigError("", None, f"{setting}: {remedy}")


def check_count(overrides: Sequence[Any]) -> None:
    """Refuse a sweep of more than `MOST_JOBS` jobs. The values are counted before any job is made."""
    jobs, longest, most = 1, "", 0
    for override in overrides:
        if not override.is_discrete_sweep() or isinstance(override.value(), Glob):
            continue
        values = override.value()
        if isinstance(values, RangeSweep):
            number = _count(override.input_line, values)
        else:
            number = len(values.list)
        jobs *= number
        if number > most:
            longest, most = override.input_line, number
    if jobs > MOST_JOBS:
        shown = f"{jobs:,}" if jobs < 10**15 else "10^15 or more"
        raise refused(longest, f"{shown} jobs in one command; at most {MOST_JOBS:,}, sweep fewer values")


def _count(text: str, values: RangeSweep) -> int:
    """The number of values in a range. A range without an end is refused."""
    assert values.start is not None
    assert values.stop is not None
    try:
        return max(0, math.ceil((Fraction(values.stop) - Fraction(values.start)) / Fraction(values.step)))
    except (OverflowError, ValueError, ZeroDivisionError):  # inf, nan, a step of 0
        raise refused(text, "this range has no end; give numbers for its ends, and a step other than 0") from None


def check_files(folder: str | Path) -> None:
    """Refuse a folder with a YAML file that is nested too deeply, or whose aliases unfold to too many values."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for path in sorted(Path(folder).rglob("*.yaml")):
        too_deep = refused(str(path), f"more than {MOST_LEVELS} lists or sections within each other; write it flatter")
        try:
            text = path.read_text(encoding="utf-8")
            level = 0
            for event in yaml.parse(text, Loader=loader):
                level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                if level > MOST_LEVELS:
                    raise too_deep
            number = _unfolded(yaml.compose(text, Loader=loader), {})
        except RecursionError:  # an alias refers to the node that contains it
            number = MOST_NODES + 1
        except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
            if "maximum nesting depth" in str(error):  # the limit of PyYAML itself, from version 6.0.4 on
                raise too_deep from None
            continue  # if Hydra reads the file, it reports the error
        if number > MOST_NODES:
            raise refused(str(path), f"its aliases stand for more than {MOST_NODES:,} values; write out what is needed")


def _unfolded(node: Any, known: dict[int, int]) -> int:
    """The number of values in a YAML node with all aliases written out."""
    if id(node) not in known:
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(_unfolded(part, known) for part in parts)
    return known[id(node)]


def parse(overrides: Sequence[str]) -> list[Any]:
    """Parse overrides. The first one that cannot be parsed is refused."""
    parser, parsed = OverridesParser.create(), []
    for override in overrides:
        shown = override if len(override) <= LONGEST_SHOWN else f"{override[:LONGEST_SHOWN]}..."
        if _levels(override) > MOST_LEVELS:
            raise refused(shown, f"more than {MOST_LEVELS} brackets within each other; write it flatter")
        if not override.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in override):
            raise refused(shown, "these bytes are no text in the encoding of this console; set PYTHONUTF8=1")
        try:
            parsed += parser.parse_overrides([override])
        except (HydraException, ValueError) as error:  # ValueError comes from an integer with thousands of digits
            if meant := _meant(overrides, override):
                raise refused(shown, f"no override; write {meant}") from None
            remedy = f"no override; write key=value ({str(error)[:LONGEST_SHOWN].splitlines()[0]})"
            raise refused(shown, remedy) from None
    return parsed


def _meant(overrides: Sequence[str], wrong: str) -> str | None:
    """How an override that cannot be parsed was perhaps meant, for a shell; None if nothing like it can be parsed."""
    key, equals, value = wrong.partition("=")
    how = ""
    number = list(overrides).index(wrong)
    before = overrides[number - 1] if number else ""
    after, second = [*overrides[number + 1 : number + 3], "", ""][:2]
    if value.endswith(",") and after and "=" not in after:  # beta=1, 4
        guess = wrong + after
    elif not equals and before.endswith("="):  # beta= 8
        guess = before + wrong.strip()
    elif not equals and ":" in wrong:  # beta:8
        guess = wrong.replace(":", "=", 1)
    elif not equals:  # beta 8, beta = 8 and beta =8
        value_beside = second if after == "=" else after.removeprefix("=")
        if not value_beside or "=" in value_beside:
            return None
        guess = f"{wrong}={value_beside}"
    elif re.fullmatch(r"\([^()]*\)", value):  # hidden_dims=(64,32)
        guess = f"{key}=[{value[1:-1]}]"
    elif (  # a list, a section, a function, quotes, or a number that is too long: nothing to guess
        re.match(r"[\[{]|\w+\(", value)
        or set(value) & set("'\"\\")
        or value.isdecimal()
        or len(value) > 10 * LONGEST_SHOWN
    ):
        return None
    else:
        guess, how = f'{key}="{value}"', "it in quotes: "
    try:
        OverridesParser.create().parse_overrides([guess])
    except (HydraException, ValueError):
        return None
    return how + shlex.quote(guess)


def _levels(text: str) -> int:
    """The deepest nesting of brackets in a text."""
    level = most = 0
    for character in text:
        level = max(0, level + (character in "[{(") - (character in ")}]"))
        most = max(most, level)
    return most


def check_places(config: DictConfig) -> None:
    """Refuse other folders for Hydra's files than that of the sweep, since the runs would not be written there.

    Raises:
      ConfigError: one of the keys of `PLACES` was changed.
    """
    for key, shipped in PLACES.items():
        section, _, name = key.rpartition(".")
        value = OmegaConf.to_container(OmegaConf.select(config, section), resolve=False)[name]  # type: ignore[index]
        if value != shipped:
            remedy = "runs lie in output_root/name/RUN; choose the place with output_root=FOLDER name=NAME"
            raise ConfigError(key, value, remedy)


def first_choices(overrides: Sequence[str]) -> list[str]:
    """The overrides of the first point of a sweep."""
    chosen = []
    for override in parse(overrides):
        if isinstance(override.value(), Glob):
            continue  # any choice of the group will do, so its default stays
        if override.is_discrete_sweep():
            first = next(iter(override.sweep_string_iterator()), None)
            if first is None:
                raise refused(override.input_line, "there is no value in it, so there would be no run")
            chosen.append(f"{override.get_key_element()}={first}")
        elif not override.is_sweep_override():
            chosen.append(override.input_line or "")
    return chosen


def compose(
    overrides: Sequence[str], config_dir: str | None = None, folder: Path = CONF, name: str = "train"
) -> DictConfig:
    """Compose the config of one run, with its `hydra` node, as Hydra does. A bad override is refused.

    Args:
      config_dir: a further folder of config groups.
      folder, name: where the primary config is.
    """
    for override in parse(overrides):
        if override.is_sweep_override():
            remedy = f"the same command with -m: {shlex.join(['python', 'scripts/train.py', '-m', *overrides])}"
            if override.is_choice_sweep() and "(" not in str(override.input_line):
                listed = re.sub(r"=(.*)", r"=[\1]", str(override.input_line))
                remedy += f"; for a key that holds a list: {shlex.quote(listed)}"
            raise refused(override.input_line, f"several values make a sweep; {remedy}")
    extra = [] if config_dir is None else [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"]
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with (
            explained([*overrides, *extra]),
            hydra.initialize_config_dir(str(folder), version_base="1.3", job_name="train"),
        ):
            config = hydra.compose(name, overrides=[*overrides, *extra], return_hydra_config=True)
    except ConfigError:
        raise
    except (*UNCOMPOSABLE, AssertionError) as error:  # an override has no key, or a group has no choice
        for override in parse(overrides):
            options = sorted(path.stem for path in (CONF / (override.key_or_group or "-")).glob("*.yaml"))
            if not override.key_or_group or (options and not isinstance(override.value(), str)):
                remedy = f"name a choice: {', '.join(options)}" if options else "no override; write key=value"
                raise refused(override.input_line, remedy) from None
        problem = f"these overrides and files make no configuration ({error}): {shlex.join(overrides)}"
        raise ConfigError("", None, problem) from None
    finally:
        GlobalHydra.instance().hydra = running
    HydraConfig.instance().set_config(config)
    return config


def explain(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """Hydra's error about an override in one line, with the nearest key or option."""
    text = str(error).strip()
    missing = re.search(r"Could not override '([^']+)'", text)
    if missing:
        key = missing.group(1)
        override = next((o for o in overrides if o.partition("=")[0].lstrip("+~") == key), key)
        apart = _two_commands(overrides, key)
        if apart:
            return refused(override, apart)
        deletions = [text for text in overrides if text.startswith("~") and _covers(text[1:].partition("=")[0], key)]
        if deletions and override != deletions[0]:
            return refused(override, f"{deletions[0]} takes this key away; leave one of them out")
        of_files, of_class = known_keys(overrides, key), _class_keys(overrides, key.rpartition(".")[0])
        if key in of_class and key not in of_files:
            return refused(override, f"no file of conf/ has this key, so it needs a +: {shlex.quote(f'+{override}')}")
        near = most_similar(key, (name for name in [*of_files, *of_class] if name != key))
        added = near in of_class and near not in of_files
        spelled = f"+{near}={override.partition('=')[2]}" if added else near
        meant = "" if near is None else f" (did you mean '{spelled}'?)"
        others = "" if meant else _choices_with(key)
        return refused(
            override, f"no such key{meant}{others}; all keys: python scripts/train.py {_help(overrides, key)}"
        )
    option = re.search(r"Could not find '([^/']+(?:/[^/']+)*)/([^']*)'", text)
    if option:
        group, name = option.groups()
        for key, _, value in (text.lstrip("+").partition("=") for text in overrides):
            if f"{key}/{value}" == f"{group}/{name}":  # the name may contain a stroke too
                group, name = key, value
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE) or sorted(
            path.stem for path in (CONF / group).glob("*.yaml")
        )
        from research.data.tables import FILES

        if group == "data" and Path(name).suffix.lower() in FILES:
            file = shlex.join(["data=arrays", f"data.path={name}"])
            remedy = f"no such choice; to read a file: {file}; for one long series data=series"
            return refused(f"{group}={name}", remedy)
        near = nearest(name, options) or nearest(name.lower(), options)
        return refused(f"{group}={name}", f"no such choice{near}; known: {', '.join(options)}")
    if "does not support sweep type" in text:
        override = next((o for o in overrides if "interval(" in o), "")
        return refused(
            override, "an interval is searched, not swept; say how many of its points are tried: search.trials=64"
        )
    cause = error.__cause__
    more = f" ({str(cause).strip().splitlines()[0]})" if cause and str(cause).strip() else ""
    return ConfigError("", None, text + more)


def _help(overrides: Sequence[str], key: str) -> str:
    """The option that lists the keys beside a key, such as `--help data=arrays`."""
    group, _, name = key.partition(".")
    chosen = [text for text in overrides if re.fullmatch(rf"{re.escape(group)}=[\w.-]+", text)] if name else []
    return f"--help {chosen[-1]}" if chosen else "--cfg job"


def _choices_with(key: str) -> str:
    """The choices of a group that have a key, `; it is a key of model=iwae, model=vae`; or the empty string."""
    group, _, name = key.partition(".")
    files = sorted((CONF / group).glob("*.yaml")) if name else []
    having = [f"{group}={file.stem}" for file in files if name in _keys_of(file)]
    return f"; it is a key of {', '.join(having)}" if having else ""


def _keys_of(file: Path) -> set[str]:
    """The keys of a YAML file of a group, with those of the files that its defaults list names."""
    config: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    bases = [base for base in config.pop("defaults", []) if base != "_self_" and "@" not in base]
    return {*flatten(config)}.union(*(_keys_of(file.parent / f"{base}.yaml") for base in bases))


def _covers(section: str, key: str) -> bool:
    """Whether a key is the section itself or lies in it."""
    return key == section or key.startswith(f"{section}.")


def _two_commands(overrides: Sequence[str], key: str) -> str | None:
    """The remedy if only some choices of a swept group have a key: one command for these and one for the others."""
    group = key.partition(".")[0]
    swept = [parsed for parsed in parse(overrides) if parsed.key_or_group == group and parsed.is_sweep_override()]
    if not swept or not (CONF / group).is_dir():
        return None
    value: Any = swept[-1].value()
    names = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    choices = value.filter(names) if isinstance(value, Glob) else list(swept[-1].sweep_string_iterator())
    others = [text for text in overrides if text.partition("=")[0] != group]
    having = [choice for choice in choices if key in known_keys([*others, f"{group}={choice}"], "")]
    lacking = [choice for choice in choices if choice not in having]
    if not having:
        return None
    if not lacking:  # Hydra first applies fixed overrides to the default choice, which lacks the key
        override = next(text for text in overrides if text.partition("=")[0].lstrip("+~") == key)
        spelled = shlex.quote(f"{key}=choice({override.partition('=')[2]})")
        return f"the default {group} has no such key; write it as one that is swept: {spelled}"
    named_by_time = re.compile(r"name=\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(_\d+)?")
    others = [text for text in others if not named_by_time.fullmatch(text)]
    rest = [text for text in others if text.partition("=")[0].lstrip("+~") != key]
    rest = [f"{text}-{lacking[0]}" if text.startswith("name=") else text for text in rest]  # a folder holds one sweep
    commands = [
        shlex.join(["python", "scripts/train.py", "-m", f"{group}={','.join(chosen)}", *unswept])
        for chosen, unswept in ((having, others), (lacking, rest))
    ]
    verb = "has" if len(lacking) == 1 else "have"
    return f"{group}={','.join(lacking)} {verb} no such key; give two commands: {commands[0]} ; {commands[1]}"


def known_keys(overrides: Sequence[str], wrong: str) -> list[str]:
    """The dotted keys of the config that the group choices of a command compose."""
    config = _choices_alone(overrides, wrong)
    if config is None:
        return []
    tree: Any = OmegaConf.to_container(config, resolve=False)
    tree.pop("hydra")
    return [key for key in [*flatten(tree), *tree] if not key.endswith("_target_")]


def _class_keys(overrides: Sequence[str], section: str) -> list[str]:
    """The dotted keys that the class of a section has, also those that no file has; none if it cannot be imported."""
    config = _choices_alone(overrides, "")
    target = None if config is None or not section else OmegaConf.select(config, f"{section}._target_")
    if target is None:
        return []
    try:
        cls = resolve_target(target, OmegaConf.to_container(config)["trusted_packages"])  # type: ignore[index, call-overload]
    except ConfigError:
        return []
    return [] if issubclass(cls, HasOwnKeys) else [f"{section}.{name}" for name in keys(cls)]


def _choices_alone(overrides: Sequence[str], wrong: str) -> DictConfig | None:
    """The config of those overrides of a command that choose files and classes; None if they cannot be composed."""
    kept = []
    for override in overrides:
        key = override.partition("=")[0].lstrip("+")
        is_group = "." not in key and (CONF / key).is_dir()
        if (is_group and key != wrong) or key.endswith("._target_") or key in ("trusted_packages", "hydra.searchpath"):
            kept.append(override)
    try:
        return compose(first_choices(kept))
    except ConfigError:
        return None
