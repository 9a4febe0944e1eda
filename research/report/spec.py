"""The `report:` section of a config: the table that belongs to an experiment, and what others published."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from research.metrics import direction, undirected
from research.ranges import Finite, NonNegative
from research.tree import ConfigError, build, recipe


@recipe
class Published:
    """A value that somebody published for one cell of the table.

    Attributes:
      label: of the method, as its authors call it.
      metric: of ours that it is held against; it need not be one that the table shows (`baseline/pca/...`).
      where: config key -> value, of the runs that it is held against: the data set (`data: NAME`), and all else that it
        is bound to, such as horizon, scaling and epochs. It is not shown beside other runs; keys that are not named
        match all.
      value: as published.
      error: standard deviation or interval as published, null if none was.
      tolerance: largest difference that counts as reproduced; null: two standard errors of both together.
      source: where the value was read.
      comparable: "yes", or why it is not: another protocol, other data.
    """

    label: str
    metric: str
    where: dict[str, Any] = dataclasses.field(default_factory=dict)
    value: Finite
    error: NonNegative | None = None
    tolerance: NonNegative | None = None
    source: str
    comparable: str = "yes"

    def validate(self) -> None:
        if not self.source.strip():
            raise ConfigError("source", self.source, "say where the value was read")
        if self.comparable == "yes" and self.tolerance is None and self.error is None:
            raise ConfigError("tolerance", None, "the value has no error: say which difference counts as reproduced")


@recipe
class Report:
    """The table of a sweep.

    Attributes:
      rows, columns: config keys; rows null: all that vary but seed and fold.
      metrics: null: the usual ones of the test rows.
      select: config keys whose best value is chosen on the validation rows, cell by cell.
      by: metric that chooses; null: the first that measures the same in all settings, of the validation twins of
        `metrics` and then of `research.metrics.CHOOSING`.
      published: values to hold ours against.
    """

    rows: tuple[str, ...] | None
    columns: tuple[str, ...]
    metrics: tuple[str, ...] | None
    select: tuple[str, ...]
    by: str | None
    published: tuple[Published, ...]

    def validate(self) -> None:
        if self.by is not None and not self.by.startswith("validation/"):
            remedy = "settings are chosen on the validation rows; set {key}=null for one that compares"
            raise ConfigError("by", self.by, remedy)
        if self.by is not None and not direction(self.by):
            raise ConfigError("by", self.by, f"{undirected(self.by)}; set {{key}}=null for one that compares")


def recorded(folder: Path) -> Report:
    """The section that a sweep was started with, from its `sweep.json`; an empty one where there is none.

    Raises:
      ConfigError: what is recorded there is no such section.
    """
    path = folder / "sweep.json"
    content: Any = None
    if path.is_file() and not path.is_symlink():
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, OSError, RecursionError):
            content = None  # told where the runs are collected
    section = content.get("report") if isinstance(content, dict) else None
    empty = {"rows": None, "columns": [], "metrics": None, "select": [], "by": None, "published": []}
    try:
        return build(empty if section is None else section, Report, key="report")
    except ConfigError as error:
        raise ConfigError("report", path, f"what it recorded is damaged ({error}); restore or remove it") from None
