"""`--help NAME`: what the keys of a config group, of one of its choices or of a section mean, read from `conf/`.

A key is explained by the comment beside it in its YAML file, or else by the docstring of the class that has it. Its
choices are those of the type of the field.
"""

import inspect
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import OmegaConf
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from research.compose import CONF, compose
from research.errors import ConfigError, nearest
from research.tree import flatten, hints, resolve_target

WIDTH = 120  # of what goes to a pipe or a file
PRIMARY = "train.yaml"
SECTIONS = {  # section -> its class
    "sweep": "research.sweep.options.Options",
    "search": "research.sweep.search.study.Search",
    "report": "research.report.spec.Report",
}
COMMENT = re.compile(r"\s+# *(.*)")


@dataclass(frozen=True)
class Line:
    """A key of a YAML file.

    Attributes:
      key: dotted, below the section of the file.
      comment: beside the key; empty if there is none.
      title: the first line of the file that has the key first; empty for the primary config.
    """

    key: str
    comment: str
    title: str


def explain(topics: Sequence[str], config_dir: str | None = None) -> None:
    """Print the keys of every topic: a group (`model`), a choice (`model=vae`), a section (`sweep`) or a key.

    Args:
      topics: of the command.
      config_dir: a further folder of config groups.

    Raises:
      ConfigError: there is no such name.
    """
    folders = [CONF] if config_dir is None else [CONF, Path(config_dir)]
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    config = compose([topic for topic in topics if "=" in topic], config_dir)
    chosen: Mapping[str, Any] = config.hydra.runtime.choices
    tree: Any = OmegaConf.to_container(config, resolve=False)
    tree.pop("hydra")
    for topic in topics:
        name = topic.partition("=")[0].lstrip("+/")
        section, _, key = name.partition(".")
        if section not in (known := [*groups(), *tree]):
            remedy = (
                f"there is no such group, section or key{nearest(name, known)}; known: {', '.join(sorted({*known}))}"
            )
            raise ConfigError("--help", topic, remedy)
        if section == "experiment":
            _print_experiments(console, folders, chosen.get(section))
            continue
        if not key and "=" not in topic and len(files_of(folders, section)) > 1:
            _print_choices(console, folders, section, chosen[section])
        _print_keys(console, folders, section, chosen.get(section), tree, key)


def topics_of(overrides: Sequence[str]) -> list[str]:
    """The words of a command that name a group, choice, section or key; without any, `--help` is Hydra's."""
    return [text for text in overrides if "=" not in text or text.partition("=")[0] in groups()]


def groups() -> list[str]:
    """The config groups: the folders of `conf/`."""
    return sorted(path.name for path in CONF.iterdir() if path.is_dir())


def files_of(folders: Sequence[Path], group: str) -> list[Path]:
    """The files of the choices of a group."""
    return sorted(path for folder in folders for path in (folder / group).glob("*.yaml"))


def _print_choices(console: Console, folders: Sequence[Path], group: str, default: str | None) -> None:
    """The choices of a group with the first line of their files."""
    grid = _grid("choice", "what it is")
    for path in files_of(folders, group):
        grid.add_row(Text(f"{group}={path.stem}", "bold" if path.stem == default else ""), title_of(path))
    console.print(grid)
    console.print(f"\nThe keys of {group}={default}; --help {group}=CHOICE explains those of another.\n", markup=False)


def _print_experiments(console: Console, folders: Sequence[Path], chosen: str | None) -> None:
    """All experiments, or the head of the file of one."""
    for path in files_of(folders, "experiment"):
        if chosen in (None, path.stem):
            console.print(Text(f"experiment={path.stem}", "bold"))
            lines = _head(path) if chosen else [re.split(r"(?<!al)\. ", " ".join(_head(path)))[0].removesuffix(".")]
            console.print(Padding(Text("\n".join(lines)), (0, 0, 0, 2)))


def _print_keys(
    console: Console, folders: Sequence[Path], section: str, choice: str | None, tree: Mapping[str, Any], only: str
) -> None:
    """The keys of a section with value, meaning and choices; `only` one of them, or those below it.

    Raises:
      ConfigError: the section has no such key.
    """
    values = flatten({section: tree[section]})
    lines = {line.key: line for line in lines_of(folders, section, choice)}
    known = [key for key in values if not key.endswith("_target_")]
    keys = [key for key in known if not only or f"{key}.".startswith(f"{section}.{only}.")]
    if not keys:
        files = [path.stem for path in files_of(folders, section)]
        keys_of = {name: [line.key for line in lines_of(folders, section, name)] for name in files}
        having = [name for name in files if f"{section}.{only}" in keys_of[name]]
        where = f"; it is a key of {', '.join(f'{section}={name}' for name in having)}" if having else ""
        remedy = f"no such key{'' if having else nearest(f'{section}.{only}', known)}{where}"
        raise ConfigError("--help", f"{section}.{only}", f"{remedy}; --help {section} explains all")
    grid, title = _grid("key", "default", "meaning"), ""
    order = [key for key in lines if key in keys]
    for key in [*order, *(key for key in keys if key not in lines)]:
        line = lines.get(key, Line(key, "", title))
        if line.title not in (title, "") and not only:
            grid.add_section()
            grid.add_row("", "", Text(line.title, "bold"))
            title = line.title
        options = choices_of(section, key, tree)
        meaning = line.comment or documented(section, key, tree)
        if missing := [option for option in options if not re.search(rf"\b{re.escape(option)}\b", meaning)]:
            meaning += f" {'Choices' if len(missing) == len(options) else 'Further choices'}: {', '.join(missing)}."
        grid.add_row(Text(key), Text(_written(values[key])), Text(meaning.strip()))
    console.print(grid)


def _grid(*heads: str) -> Table:
    grid = Table(box=box.HORIZONTALS, show_edge=False, pad_edge=False, header_style="dim")
    for number, head in enumerate(heads):
        last = number == len(heads) - 1
        grid.add_column(head, no_wrap=number == 0, overflow="fold", max_width=None if last else 40)
    return grid


def _written(value: Any) -> str:
    """A value as a YAML file has it on one line."""
    if value == "???":
        return "must be given"
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()


# ------------------------------------------------------------------------------------------------------- YAML files


def lines_of(folders: Sequence[Path], section: str, choice: str | None = None) -> list[Line]:
    """The keys of a section in the order of the files, those of included files first.

    Args:
      folders: of config groups.
      section: a config group, or a section or key of the primary config.
      choice: of the group.
    """
    name, prefix = (PRIMARY, "") if choice is None else (f"{section}/{choice}.yaml", f"{section}.")
    lines: dict[str, Line] = {}
    for line in _lines(folders, name, prefix):
        earlier = lines.get(line.key, line)
        lines[line.key] = Line(line.key, line.comment or earlier.comment, earlier.title)
    return [line for key, line in lines.items() if key == section or key.startswith(f"{section}.")]


def _lines(folders: Sequence[Path], name: str, prefix: str) -> Iterator[Line]:
    """The keys of a file, after those of the files that its defaults list names."""
    path = next(folder / name for folder in folders if (folder / name).is_file())
    text = path.read_text(encoding="utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    defaults = next((value for key, value in root.value if key.value == "defaults"), None)
    included = [] if defaults is None or path.name == PRIMARY else [entry.value for entry in defaults.value]
    for entry in (entry for entry in included if isinstance(entry, str) and entry != "_self_"):
        file, _, package = entry.partition("@")
        inner = f"{prefix}{package}." if package not in ("", "_here_") else prefix
        beside = file.removeprefix("/") if file.startswith("/") else (Path(name).parent / file).as_posix()
        yield from _lines(folders, f"{beside}.yaml", inner)
    title = title_of(path) if prefix else ""  # the primary config is about everything
    yield from _keys(root, text.splitlines(), prefix, title)


def _keys(node: yaml.MappingNode, lines: Sequence[str], prefix: str, title: str) -> Iterator[Line]:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if name in ("defaults", "hydra") or key.value in ("defaults", "_target_"):
            continue
        if isinstance(value, yaml.MappingNode) and value.value:
            yield Line(name, _comment(lines, key), title)
            yield from _keys(value, lines, f"{name}.", title)
        else:
            yield Line(name, _comment(lines, value), title)


def _comment(lines: Sequence[str], node: yaml.Node) -> str:
    """What stands behind a value, or a key, on its line."""
    end = node.end_mark
    if end.line >= len(lines):
        return ""
    match = COMMENT.search(lines[end.line][end.column :])
    return match[1].strip() if match else ""


def title_of(path: Path) -> str:
    """The first line of a file that is a comment for people."""
    return next(iter(_head(path)), "")


def _head(path: Path) -> list[str]:
    """The comment at the top of a file, without Hydra's line on its package."""
    head = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            head.append(line.removeprefix("#").removeprefix(" "))
    return head


# ----------------------------------------------------------------------------------------------------------- classes


def _owner(section: str, key: str, tree: Mapping[str, Any]) -> type | None:
    """The class of the section that a key stands in."""
    holder: Any = tree
    for step in key.split(".")[:-1]:
        holder = holder[step]
    target = holder.get("_target_") if isinstance(holder, Mapping) else None
    target = target or (SECTIONS.get(section) if key.count(".") == 1 else None)
    return None if target is None else resolve_target(target)


def choices_of(section: str, key: str, tree: Mapping[str, Any]) -> list[str]:
    """The texts that a key may have, if its type names them."""
    owner = _owner(section, key, tree)
    hint = None if owner is None else hints(owner).get(key.rpartition(".")[2])
    members = [hint, *typing.get_args(hint)]
    return [
        str(value) for member in members if typing.get_origin(member) is Literal for value in typing.get_args(member)
    ]


def documented(section: str, key: str, tree: Mapping[str, Any]) -> str:
    """What the docstring of its class says of a key, on one line; empty if it says nothing."""
    owner = _owner(section, key, tree)
    name = key.rpartition(".")[2]
    for cls in () if owner is None else owner.__mro__:
        text = inspect.cleandoc(vars(cls).get("__doc__") or "")
        entry = re.search(rf"^  (?:\w+, )*{name}(?:, \w+)*: (.*(?:\n    .*)*)", text, re.MULTILINE)
        if entry:
            return " ".join(entry[1].split())
    return ""
