"""Files of the UCR and UEA archives of classified time series: `.ts`, `.tsv` and pairs of `.npy` files."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from research.data.columns import EXACT
from research.data.readers import read_npy
from research.data.targets import MOST
from research.tree import ConfigError, nearest

SWITCHES = ("timestamps", "missing", "univariate", "equallength", "classlabel", "targetlabel")
NUMBERS = ("dimension", "dimensions", "serieslength")
TAGS = ("problemname", *SWITCHES, *NUMBERS, "data")


class Series(NamedTuple):
    """The series of one file, each float64 [T, C] with NaN where a value is missing, and what is known of each.

    Attributes:
      values: the series.
      classes: their names; None without classes.
      targets: values to predict, [N, 1] float64; None for classes.
    """

    values: list[np.ndarray]
    classes: list[str] | None
    targets: np.ndarray | None = None


def refuse(path: Path, line: int | None, problem: str) -> ConfigError:
    """An error that names the file and the line (from 1)."""
    return ConfigError("root", str(path.parent), f"{path.name}{'' if line is None else f', line {line}'}: {problem}")


def read_ts(path: Path) -> Series:
    """A `.ts` file: `#` comments, a header of `@name value` lines up to `@data`, then one series per line.

    A line holds the channels, separated by `:`, and the class as the last of them; a channel holds its steps,
    separated by `,`, with `?` or NaN for a missing value. Every statement of the header is checked on every line.
    """
    header: dict[str, list[str]] = {}
    values: list[np.ndarray] = []
    classes: list[str] = []
    for number, line in enumerate(_lines(path), start=1):
        line = line.strip()
        if not line or line[0] in "#%":
            continue
        if "data" not in header:
            _read_tag(path, number, line, header)
            continue
        fields = line.split(":")
        if _on(header, "classlabel"):
            name, declared = fields.pop().strip(), header["classlabel"][1:]
            if name not in declared:
                shown = f"{', '.join(declared[:12])}{', ...' if len(declared) > 12 else ''}"
                problem = f"class '{name[:40]}' is not declared{nearest(name, declared)}; @classLabel names {shown}"
                raise refuse(path, number, problem if fields else "there is no class after the values")
            classes.append(name)
        channels = [_numbers(path, number, text, header) for text in fields]
        _check(path, number, channels, values, header)
        values.append(np.stack(channels, axis=1))
    if "data" not in header:
        raise refuse(path, None, "there is no @data line" if header else "it is empty")
    if not values:
        raise refuse(path, None, "there are no series after @data")
    return Series(values, classes if _on(header, "classlabel") else None)


def _lines(path: Path) -> list[str]:
    # Comments of published files are not always UTF-8; different bytes stay different.
    return path.read_bytes().decode("utf-8-sig", errors="backslashreplace").splitlines()


def _on(header: dict[str, list[str]], tag: str) -> bool:
    return header.get(tag, [""])[0].lower() == "true"


def _off(header: dict[str, list[str]], tag: str) -> bool:
    return header.get(tag, [""])[0].lower() == "false"


def _read_tag(path: Path, number: int, line: str, header: dict[str, list[str]]) -> None:
    if line[0] != "@":
        raise refuse(path, number, "values before the @data line")
    tag, *rest = line[1:].split()
    tag = tag.lower()
    if tag not in TAGS:
        raise refuse(path, number, f"unknown header line @{tag}{nearest(tag, TAGS)}")
    if tag in SWITCHES and (not rest or rest[0].lower() not in ("true", "false")):
        raise refuse(path, number, f"@{tag} must say true or false")
    if tag in NUMBERS and (len(rest) != 1 or not rest[0].isdecimal() or int(rest[0]) < 1):
        raise refuse(path, number, f"@{tag} must be followed by one number from 1")
    header["dimensions" if tag == "dimension" else tag] = rest
    if tag == "timestamps" and _on(header, tag):
        raise refuse(path, number, "series with time stamps are not supported; only regular steps are")
    if tag == "targetlabel" and _on(header, tag):
        raise refuse(path, number, "these are targets of a regression, not classes")
    if tag == "classlabel" and _on(header, tag) and len(rest) < 2:
        raise refuse(path, number, "@classLabel true must be followed by the names of the classes")
    if tag == "data" and "classlabel" not in header:
        raise refuse(path, number, "the header does not say @classLabel true (with the names) or false")


def _numbers(
    path: Path, number: int, text: str, header: dict[str, list[str]] | None, separator: str = ","
) -> np.ndarray:
    """The steps of one channel, [T] float64, NaN where missing."""
    cells = text.split(separator)
    try:
        steps = np.asarray([np.nan if cell.strip() == "?" else float(cell) for cell in cells])
    except ValueError:
        steps = np.empty(0)
    if not len(steps) or np.isinf(steps).any() or "_" in text:
        index = next(index for index, cell in enumerate(cells) if not _is_step(cell.strip()))
        raise refuse(path, number, f"'{cells[index].strip()[:40]}' (value {index + 1}) is no finite number")
    if header is not None and _off(header, "missing") and np.isnan(steps).any():
        index = int(np.argmax(np.isnan(steps)))
        raise refuse(path, number, f"value {index + 1} is missing, but the header says @missing false")
    return steps


def _is_step(cell: str) -> bool:
    try:
        return cell == "?" or ("_" not in cell and not np.isinf(float(cell)))
    except ValueError:
        return False


def _check(
    path: Path, number: int, channels: list[np.ndarray], before: list[np.ndarray], header: dict[str, list[str]]
) -> None:
    """Compare one series with the header and with the first series."""
    if not channels:
        raise refuse(path, number, "there are no values")
    if _on(header, "univariate") and len(channels) != 1:
        raise refuse(path, number, f"{len(channels)} channels, but the header says @univariate true")
    if "dimensions" in header and len(channels) != int(header["dimensions"][0]):
        raise refuse(path, number, f"{len(channels)} channels, but the header says {header['dimensions'][0]}")
    if before and len(channels) != before[0].shape[1]:
        raise refuse(path, number, f"{len(channels)} channels, but {before[0].shape[1]} in the first series")
    length = len(channels[0])
    for index, channel in enumerate(channels):
        if len(channel) != length:
            raise refuse(path, number, f"channel {index + 1} has {len(channel)} steps, channel 1 has {length}")
    if "serieslength" in header and not _off(header, "equallength") and length != int(header["serieslength"][0]):
        raise refuse(path, number, f"{length} steps, but the header says @seriesLength {header['serieslength'][0]}")
    if _on(header, "equallength") and before and length != len(before[0]):
        raise refuse(path, number, f"{length} steps, but {len(before[0])} in the first series and @equalLength true")
    if all(np.isnan(channel).all() for channel in channels):
        raise refuse(path, number, "every value is missing")


def read_tsv(path: Path) -> Series:
    """A `.tsv` file of the UCR archive of 2018: per line the class, then the steps of one channel, separated by tabs.

    Shorter series are filled up with NaN to equal length there, so NaN at the end of a line is no step.
    """
    values, classes, width = [], [], None
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        name, _, rest = line.strip(" ").partition("\t")
        if not rest or not name.strip():
            raise refuse(path, number, "expected a class and values, separated by tabs")
        steps = _numbers(path, number, rest, None, "\t")
        width = len(steps) if width is None else width
        if len(steps) != width:
            raise refuse(path, number, f"{len(steps)} values, but {width} in the first line")
        seen = np.flatnonzero(~np.isnan(steps))
        if not len(seen):
            raise refuse(path, number, "every value is missing")
        values.append(steps[: seen[-1] + 1, None])
        classes.append(_class_name(path, name.strip()))
    if not values:
        raise refuse(path, None, "it is empty")
    return Series(values, classes)


def read_arrays(x_train: Path, y_train: Path, x_test: Path, y_test: Path) -> list[Series]:
    """Pairs of `.npy` files: series [N, T] or [N, T, C], NaN where a value is missing, and a class or value each [N].

    Text and whole numbers are classes. Numbers with fractions in either file are values, and so are floats of which
    most are different.
    """
    pairs = [(_read_series(x), x, _read_beside(y), y) for x, y in ((x_train, y_train), (x_test, y_test))]
    for values, path, beside, y_path in pairs:
        if beside.shape != values.shape[:1] or beside.dtype.kind not in "iufU":
            problem = (
                f"{beside.dtype} of shape {beside.shape}; expected a class or a value for each series of {path.name}"
            )
            raise refuse(y_path, None, problem)
    numbers = [beside for _, _, beside, _ in pairs if beside.dtype.kind != "U"]
    joined = np.concatenate(numbers) if len(numbers) == len(pairs) else np.empty(0)
    scattered = len(np.unique(joined)) > max(MOST, len(joined) / 2)
    if joined.dtype.kind == "f" and ((joined != np.round(joined)).any() or scattered):
        return [Series(list(values), None, beside.astype(np.float64)[:, None]) for values, _, beside, _ in pairs]
    if scattered:
        remedy = "if they are values to predict, store them as floats"
        raise refuse(
            y_train, None, f"{len(np.unique(joined))} different whole numbers for {len(joined)} series; {remedy}"
        )
    return [
        Series(list(values), [_class_name(path, str(name)) for name in beside.tolist()])
        for values, _, beside, path in pairs
    ]


def _read(path: Path) -> np.ndarray:
    try:
        return read_npy(path, None, None).x
    except ConfigError as error:
        raise refuse(path, None, error.remedy) from None


def _read_series(path: Path) -> np.ndarray:
    """Series [N, T, C] float64 with finite values or NaN."""
    values = _read(path)
    if values.ndim not in (2, 3) or 0 in values.shape or values.dtype.kind not in "iuf":
        problem = f"{values.dtype} of shape {values.shape}; expected numbers of shape [N, T] or [N, T, C]"
        raise refuse(path, None, problem)
    values = np.array(values.reshape(*values.shape[:2], -1), np.float64)
    for problem, bad in (
        ("a value is infinite", np.isinf(values).any((1, 2))),
        ("every value is missing", np.isnan(values).all((1, 2))),
    ):
        if bad.any():
            raise refuse(path, None, f"series {int(np.argmax(bad))} (from 0): {problem}")
    return values


def _read_beside(path: Path) -> np.ndarray:
    """Classes or values of the series, without missing ones."""
    beside = np.array(_read(path))
    if beside.dtype.kind == "f" and not np.isfinite(beside).all():
        row = int(np.argmin(np.isfinite(beside)))
        raise refuse(path, None, f"series {row} (from 0): its class or value is {beside.ravel()[row]}")
    return beside


def _class_name(path: Path, text: str) -> str:
    """A whole number without its decimals: `1.0` in one form of a file is `1` in another."""
    try:
        number = float(text)
    except ValueError:
        return text
    if abs(number) > EXACT:
        raise refuse(path, None, f"class {text} is beyond 2^53, where whole numbers are not exact; use text")
    return str(int(number)) if number.is_integer() else text
