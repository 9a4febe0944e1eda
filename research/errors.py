"""The error of a setting that cannot be used. This file loads no heavy library."""

import difflib
from collections.abc import Iterable
from typing import Any


class ConfigError(ValueError):
    """A setting cannot be used. The text names the key, the value and the remedy.

    In a remedy `{key}` stands for the full key, `model.beta`, so that a user can paste the remedy as it stands.

    Attributes:
      key: the dotted key; empty where no single key is to blame.
      value: what it was set to.
      template: the remedy, in which `{key}` is not yet replaced.
    """

    def __init__(self, key: str, value: Any, remedy: str):
        self.key, self.value, self.template = key, value, remedy
        super().__init__(f"{key}={shown(value)}: {self.remedy}" if key else self.remedy)

    @property
    def remedy(self) -> str:
        """The remedy with the full key."""
        return self.template.replace("{key}", self.key)

    def under(self, prefix: str) -> "ConfigError":
        """The same error with its key below `prefix`."""
        key = f"{prefix}.{self.key}" if prefix and self.key else prefix or self.key
        return type(self)(key, self.value, self.template)


def shown(value: Any) -> str:
    """A value as a command line has it, in at most 80 characters."""
    text = "null" if value is None else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the most similar known name, or the empty string.

    Keys of one section, such as model.beta and model.noise, are similar if their last parts are, or share a word.
    """
    section, _, last = str(name).rpartition(".")
    for match in difflib.get_close_matches(str(name), list(known), n=5, cutoff=0.5):
        same_section = section and section == match.rpartition(".")[0]
        other = match.rpartition(".")[2]
        alike = difflib.SequenceMatcher(None, last, other).ratio() >= 0.7
        shares_word = bool(set(last.split("_")) & set(other.split("_")))
        if alike or shares_word or not (same_section or match == section.partition(".")[0]):
            return f" (did you mean '{match}'?)"
    return ""
