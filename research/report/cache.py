"""What the runs of a sweep say, kept in one file, so that a report reads only the files that changed since.

The file is `.report-cache` in the sweep folder: hidden and no folder, so it is never taken for a run. Its first line
names the code that wrote it and the SHA-256 of the rest, which is one JSON object of columns. JSON because it tells
1, 1.0, true and null apart and returns every float as it was, expands to nothing and runs nothing when it is read.

The cache decides nothing: a run is taken from it only while the identity of both its files is what it was, and a cache
that is damaged, foreign, or of other code is as good as none.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import math
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from research.report import run
from research.report.run import Run
from research.runs.folder import refuse_links, write_atomically
from research.runs.held import ALONE
from research.tree import ConfigError

NAME = ".report-cache"
SMALLEST = 500  # runs; fewer are read as fast as a cache is written
LARGEST = 1 << 30  # bytes
RENEW = 0.01  # share of runs read anew from which writing again pays
RECENT = 2.0  # seconds: times are that coarse on some disks, so that a later change may leave them as they are
FIELDS = ("status", "reason", "null_reasons", "overrides", "data_sha256", "commit", "program", "depends")

Identity = tuple[int, ...]  # modified, changed, size, inode of config.json and of result.json; -1 where it is not there
_ABSENT = (-1, -1, -1, -1)
_WIDTH = 2 * len(_ABSENT)


def identity(config: os.stat_result | None, result: os.stat_result | None) -> Identity | None:
    """What changes when one of the files is written; None where a run must be read every time."""
    found: list[int] = []
    for file in (config, result):
        if file is None:
            found += _ABSENT
        elif not stat.S_ISREG(file.st_mode) or abs(time.time() - file.st_mtime) < RECENT:
            return None
        else:
            found += (file.st_mtime_ns, file.st_ctime_ns, file.st_size, file.st_ino)
    return tuple(found) if config or result else None


@functools.cache
def _writer() -> bytes:
    """The code that makes records: a cache of any other may hold something else."""
    sources = [Path(path).read_bytes() for path in (__file__, run.__file__)]
    return hashlib.sha256(b"".join(sources)).hexdigest().encode()


def save(folder: Path, records: Sequence[tuple[Identity, Run]]) -> None:
    """Write the cache of a sweep; a folder that cannot be written goes without."""
    content = json.dumps(packed(records), separators=(",", ":")).encode()
    if len(content) > LARGEST:
        return
    with contextlib.suppress(ConfigError, OSError):
        write_atomically(folder / NAME, _header(content) + content, ALONE)  # any process may, and reads what fits


def load(folder: Path, identities: Mapping[str, Identity]) -> dict[str, dict[str, Any]]:
    """Run -> its fields, of the runs whose files are still those that were read."""
    path = folder / NAME
    try:
        refuse_links(path)
        if path.stat().st_size > LARGEST:
            return {}
        header, _, content = path.read_bytes().partition(b"\n")
        if header + b"\n" != _header(content):
            return {}
        return unpacked(json.loads(content), identities)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
        return {}


def _header(content: bytes) -> bytes:
    return b"report cache %b %b\n" % (_writer(), hashlib.sha256(content).hexdigest().encode())


# ------------------------------------------------------------------------------------------------------------- writing


def packed(records: Sequence[tuple[Identity, Run]]) -> dict[str, Any]:
    """Records as columns: of identities, of fields, and for every set of keys of its values and metrics."""
    runs = [run for _, run in records]
    return {
        "names": [run.run_id for run in runs],
        "files": list(zip(*(own for own, _ in records), strict=True)),
        "fields": [_column([getattr(run, name) for run in runs]) for name in FIELDS],
        "values": _tables([run.values for run in runs]),
        "metrics": _tables([run.metrics for run in runs]),
    }


def _tables(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    members: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        members.setdefault(tuple(row), []).append(index)
    return [
        {"keys": keys, "rows": own, "columns": [_column([rows[index][key] for index in own]) for key in keys]}
        for keys, own in members.items()
    ]


def _column(values: list[Any]) -> list[Any]:
    """The values; one alone if all are the same, which 1, 1.0 and true are not."""
    first = values[0] if values else None
    kind, text = type(first), repr(first)
    same = all(value is first or (type(value) is kind and repr(value) == text) for value in values)
    return values[:1] if same else values


# ------------------------------------------------------------------------------------------------------------- reading


def unpacked(content: Any, identities: Mapping[str, Identity]) -> dict[str, dict[str, Any]]:
    """Run -> its fields, of the records whose identity is the one given.

    Raises:
      ValueError, TypeError, LookupError, AttributeError, OverflowError: `content` is not what `packed` makes.
    """
    names: list[str] = content["names"]
    files: list[list[int]] = content["files"]
    _check(names, str)
    if len(files) != (_WIDTH if names else 0) or len(set(names)) != len(names):
        raise ValueError("names or identities")
    chosen: dict[int, str] = {}
    for index, (name, *found) in enumerate(zip(names, *files, strict=True)):
        if identities.get(name) == tuple(found):
            chosen[index] = name
    # no file holds more keys than bytes: a small cache cannot unfold into records larger than the files they are of
    sizes = {index: (identities[name][2], identities[name][6]) for index, name in chosen.items()}
    values = _rows(content["values"], {index: size for index, (size, _) in sizes.items()}, _value)
    metrics = _rows(content["metrics"], {index: size for index, (_, size) in sizes.items()}, _number)
    fields = [
        _chosen(column, len(names), list(chosen), convert)
        for column, convert in zip(content["fields"], _CONVERTERS, strict=True)
    ]
    return {
        name: dict(zip(FIELDS, own, strict=True)) | {"values": values[index], "metrics": metrics[index]}
        for (index, name), own in zip(chosen.items(), zip(*fields, strict=True), strict=True)
    }


def _rows(tables: Iterable[Any], sizes: Mapping[int, int], convert: Any) -> dict[int, dict[str, Any]]:
    """Number of a record -> its row, of the records in `sizes`: how many keys it may have at most."""
    found: dict[int, dict[str, Any]] = {}
    for table in tables:
        keys, members = table["keys"], table["rows"]
        _check(keys, str)
        _check(members, int)
        places = [place for place, index in enumerate(members) if index in sizes]
        if not places:
            continue
        if len(keys) > max(0, min(sizes[members[place]] for place in places)):
            raise ValueError("more keys than the file has bytes")
        columns = [_chosen(column, len(members), places, convert) for column in table["columns"]]
        if len(columns) != len(keys):
            raise ValueError("columns")
        rows: Iterator[tuple[Any, ...]] = zip(*columns, strict=True) if columns else itertools.repeat(())
        for place, row in zip(places, rows, strict=bool(columns)):
            found[members[place]] = dict(zip(keys, row, strict=True))
    return found


def _chosen(column: list[Any], count: int, places: Sequence[int], convert: Any) -> Iterable[Any]:
    """The values of a column of `count` at these places, each checked and converted."""
    if not isinstance(column, list) or len(column) not in (1, count):
        raise ValueError("length of a column")
    if len(column) == 1:
        return itertools.repeat(convert(column[0]), len(places))
    if len(places) == count:
        return list(map(convert, column))
    return [convert(column[place]) for place in places]


def _check(items: list[Any], kind: type) -> None:
    if not isinstance(items, list) or not all(type(item) is kind for item in items):
        raise TypeError(f"expected a list of {kind.__name__}")


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        raise TypeError("a value that cannot be compared")
    return tuple(map(_value, value)) if isinstance(value, list) else value


def _number(value: Any) -> Any:
    if value is None or math.isfinite(value):
        return value
    raise ValueError("a number that is not finite")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _optional(value: Any) -> str | None:
    return None if value is None else _text(value)


def _texts(value: Any) -> tuple[str, ...]:
    _check(value, str)
    return tuple(value)


def _reasons(value: Any) -> dict[str, str]:
    return {_text(name): _text(reason) for name, reason in value.items()}


def _depends(value: Any) -> dict[str, tuple[str, ...]] | None:
    return None if value is None else {_text(name): _texts(keys) for name, keys in value.items()}


_CONVERTERS = (_text, _optional, _reasons, _texts, _optional, _optional, _optional, _depends)  # of `FIELDS`
