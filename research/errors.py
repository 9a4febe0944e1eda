"""The error of a setting that cannot be used. This file loads no heavy library."""

import difflib
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class ConfigError(ValueError):
    """A setting cannot be used. The text names the key, the value and the remedy.

    In a remedy `{key}` stands for the full key, `model.beta`, and `{section}` for what stands before its last name,
    `model.`, so that a user can paste the remedy as it stands.

    Attributes:
      key: the dotted key; empty where no single key is to blame.
      value: what it was set to.
      template: the remedy, in which `{key}` and `{section}` are not yet replaced.
    """

    def __init__(self, key: str, value: Any, remedy: str):
        self.key, self.value, self.template = key, value, remedy
        super().__init__(f"{key}={shown(value)}: {self.remedy}" if key else self.remedy)

    @property
    def remedy(self) -> str:
        """The remedy with the full key."""
        section, dot, _ = self.key.rpartition(".")
        return self.template.replace("{key}", self.key).replace("{section}", section + dot)

    def under(self, prefix: str) -> "ConfigError":
        """The same error with its key below `prefix`."""
        key = f"{prefix}.{self.key}" if prefix and self.key else prefix or self.key
        return type(self)(key, self.value, self.template)


def shown(value: Any) -> str:
    """A value as a command line has it, in at most 80 characters."""
    text = "null" if value is None else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the most similar known name, or the empty string."""
    match = most_similar(name, known)
    return "" if match is None else f" (did you mean '{match}'?)"


def nearest_key(name: str, known: Iterable[str], present: Iterable[str] = ()) -> str:
    """` (did you mean 'model.x'?)` for the most similar known key, with a + unless it is among the present keys.

    The text belongs into a remedy. Hydra takes a key that no file has with a + only.
    """
    match = most_similar(name, known)
    return "" if match is None else f" (did you mean '{'' if match in present else '+'}{{section}}{match}'?)"


def most_similar(name: str, known: Iterable[str]) -> str | None:
    """The most similar known name; None if none is similar.

    Keys of one section, such as model.beta and model.noise, are similar if their last parts are, or share a word.
    """
    section, _, last = str(name).rpartition(".")
    for match in difflib.get_close_matches(str(name), list(known), n=5, cutoff=0.5):
        same_section = section and section == match.rpartition(".")[0]
        other = match.rpartition(".")[2]
        alike = difflib.SequenceMatcher(None, last, other).ratio() >= 0.7
        shares_word = bool(set(last.split("_")) & set(other.split("_")))
        if alike or shares_word or not (same_section or match == section.partition(".")[0]):
            return match
    return None


def nearest_folder(path: Path) -> Path | None:
    """The folder that a path means: itself if it exists, else the one with the most similar name at every level."""
    current = Path(path.anchor)
    try:
        for name in path.parts[1:] if path.anchor else path.parts:
            names = [name]
            if not (current / name).is_dir():
                beside = [entry.name for entry in current.iterdir() if entry.is_dir()]
                names = difflib.get_close_matches(name, beside, n=1)
            if not names:
                return None
            current /= names[0]
    except OSError:  # a folder cannot be read, or the name is too long
        return None
    return current


def did_you_mean(path: Path | None, setting: str = "") -> str:
    """` (did you mean 'data.root=data'?)`, with the setting that the path belongs to; empty without a path."""
    if path is None:
        return ""
    text = f"{setting}{path}"
    if setting and not setting.startswith("-") and not re.fullmatch(r"[\w./@%+-]*", str(path), re.ASCII):
        text = f'{setting}"{path}"'  # Hydra's grammar takes other letters in quotes only
    quoted = shlex.quote(text) if "'" in text else f"'{text}'"
    return f" (did you mean {quoted}?)"
