"""The record of one run: status, config values, metrics, and what else its `result.json` says."""

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

FINISHED = ("completed", "stopped")
STATUSES = (*FINISHED, "diverged", "failed", "interrupted", "pruned", "missing", "unreadable")
EVALUATION = "evaluation."  # prefix of the keys of what is computed after training
RECORDED = ("run_id", "data_sha256")  # keys that comparisons use although no config has them


class Hole(Enum):
    """Why a run has no value for a key."""

    ABSENT = "–"  # the config of the run has no such key
    UNKNOWN = "?"  # the config could not be read, or was never written
    ANY = ""  # only in the row of a baseline: the key does not change its value


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
      run_id: name of the run folder.
      status: one of `STATUSES`.
      reason: why the run did not finish.
      values: flat config (`model.latent_dim`), and the choice of each group under its bare name (`model`).
      known: whether `values` is the whole config; otherwise it holds what the sweep planned.
      metrics: name -> number; None where the number was not finite.
      null_reasons: metric -> why it is None.
      overrides: what the command line changed, as `key=value`.
      program: mode and kind of device, in words.
      written: when `result.json` was written, in seconds since 1970.
      depends: metric -> keys that change what it measures; None if the result does not say so.
      command: the command that trains this run alone.
      seconds: the run's share of the training time of its program.
      objective: the metric that sweepers which search were given.
      versions: package -> version.
      included: whether the run is averaged although it did not finish, because the user asked for it.
    """

    run_id: str
    status: str
    reason: str | None = None
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    known: bool = True
    metrics: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    null_reasons: Mapping[str, str] = dataclasses.field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    data_sha256: str | None = None
    commit: str | None = None
    program: str | None = None
    written: float | None = None
    depends: Mapping[str, tuple[str, ...]] | None = None
    command: str | None = None
    seconds: float | None = None
    objective: str | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    included: bool = False

    @property
    def finished(self) -> bool:
        """Whether the run has numbers that may be averaged."""
        return self.included or self.status in FINISHED

    def value(self, key: str) -> Any:
        """The value of a key, or the `Hole` in its place; the keys of `RECORDED` have values too."""
        try:
            return self.values[key]
        except KeyError:
            if key in RECORDED:
                return getattr(self, key)
            if not self.known:
                return Hole.UNKNOWN
            section, _, name = key.rpartition(".")
            return _default(self.values.get(f"{section}._target_"), name)

    def at(self, keys: Iterable[str]) -> tuple[Any, ...]:
        """The values of several keys."""
        return tuple(map(self.value, keys))


@functools.cache
def _default(target: Any, name: str) -> Any:
    """The value of a key that configs leave out while it has its default (`added` in research.tree), else a hole."""
    from research.tree import ConfigError, keys, resolve_target  # importing it loads JAX, and few reports need it

    try:
        key = keys(resolve_target(target)).get(name)
    except ConfigError:  # there is no target, or it is a class of another package
        return Hole.ABSENT
    return Hole.ABSENT if key is None or key.added is dataclasses.MISSING else frozen(key.added)


def frozen(value: Any) -> Any:
    """The value with tuples for lists and JSON text for mappings, so that it can be compared and hashed."""
    if isinstance(value, (list, tuple)):
        return tuple(map(frozen, value))
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value


def union(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """The keys of all mappings, in order of first appearance."""
    merged: dict[str, Any] = {}
    for mapping in mappings:
        merged.update(mapping)
    return list(merged)


def count_statuses(runs: Iterable[Run]) -> dict[str, int]:
    """Status -> number of runs, in the order of `STATUSES`."""
    counts = Counter(run.status for run in runs)
    return {status: counts[status] for status in dict.fromkeys((*STATUSES, *counts)) if counts[status]}
