"""The `report:` section of a config: the table of an experiment, and the values that others published."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from research.metrics import direction, undirected
from research.ranges import Finite, NonNegative
from research.tree import ConfigError, build, recipe


@recipe
class Published:
    """A value that somebody published, for the cells of the table that it is about.

    Attributes:
      label: name of the method, as its authors call it.
      metric: our metric beside which it is printed; the table need not show this metric (`baseline/pca/...`).
      where: config key -> value of the runs that it is about: the data set (`data: NAME`) and whatever else the value
        depends on, such as horizon, scaling and epochs. It is not printed beside runs that differ in one of these keys.
      value: as published.
      error: standard deviation or interval as published; null if none was published.
      tolerance: largest difference that counts as reproduced; null for two standard errors of both values together.
      source: where the value was read.
      comparable: "yes", or why the values are not comparable: another protocol, other data.
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
            raise ConfigError(
                "tolerance",
                None,
                "the value has no error, so say which difference counts as reproduced: tolerance: 0.1",
            )


@recipe
class Report:
    """The table of a sweep.

    Attributes:
      rows: config keys; null for all keys that vary, other than seed and fold.
      columns: config keys.
      metrics: names; null for the usual metrics of the test rows.
      select: config keys whose best value is chosen on the validation rows, in every cell.
      by: the metric that chooses; null for the first metric that measures the same in all settings: first the
        validation twins of `metrics` are tried, then `research.metrics.CHOOSING`.
      published: values of others, printed beside ours.
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
    """The section that a sweep was started with, from its `sweep.json`; an empty section if none is recorded.

    Raises:
      ConfigError: the recorded section is damaged.
    """
    path = folder / "sweep.json"
    content: Any = None
    if path.is_file() and not path.is_symlink():
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, OSError, RecursionError):
            content = None  # `collect` reports it as a problem of the sweep
    section = content.get("report") if isinstance(content, dict) else None
    empty = {"rows": None, "columns": [], "metrics": None, "select": [], "by": None, "published": []}
    try:
        return build(empty if section is None else section, Report, key="report")
    except ConfigError as error:
        raise ConfigError("report", path, f"what it recorded is damaged ({error}); restore or remove it") from None
