"""Files of the UCR and UEA archives of classified time series: `.ts`, `.tsv` and pairs of `.npy` files."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from research.data.files.arrays import read_npy
from research.data.files.table import EXACT, MOST_CLASSES
from research.errors import nearest
from research.tree import ConfigError

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


# ------------------------------------------------------------------------------------------------------- .ts files


class Header(dict[str, list[str]]):
    """The header of a `.ts` file: `@name value ...` lines by their names in lower case."""

    def says(self, tag: str, switch: str) -> bool:
        """Whether a switch is set to "true" or "false"; neither where the header does not mention it."""
        return self.get(tag, [""])[0].lower() == switch

    def add(self, path: Path, number: int, line: str) -> None:
        """Read one line.

        Raises:
          ConfigError: the line is not part of a header, or says something that is not supported.
        """
        if line[0] != "@":
            raise refuse(path, number, "values before the @data line")
        tag, *values = line[1:].split()
        tag = tag.lower()
        if tag not in TAGS:
            raise refuse(path, number, f"unknown header line @{tag}{nearest(tag, TAGS)}")
        if tag in SWITCHES and (not values or values[0].lower() not in ("true", "false")):
            raise refuse(path, number, f"@{tag} must say true or false")
        if tag in NUMBERS and (len(values) != 1 or not values[0].isdecimal() or int(values[0]) < 1):
            raise refuse(path, number, f"@{tag} must be followed by one number from 1")
        self["dimensions" if tag == "dimension" else tag] = values
        if tag == "timestamps" and self.says(tag, "true"):
            raise refuse(path, number, "series with time stamps are not supported; only regular steps are")
        if tag == "targetlabel" and self.says(tag, "true"):
            raise refuse(path, number, "these are targets of a regression, not classes")
        if tag == "classlabel" and self.says(tag, "true") and len(values) < 2:
            raise refuse(path, number, "@classLabel true must be followed by the names of the classes")
        if tag == "data" and "classlabel" not in self:
            raise refuse(path, number, "the header does not say @classLabel true (with the names) or false")


def read_ts(path: Path) -> Series:
    """A `.ts` file: `#` comments, a header of `@name value` lines up to `@data`, then one series per line.

    A line holds the channels, separated by `:`, and the class as the last of them; a channel holds its steps,
    separated by `,`, with `?` or NaN for a missing value. Every line is checked against everything the header says.

    Raises:
      ConfigError: naming the file and the line.
    """
    header, values, classes = Header(), [], []
    for number, line in enumerate(_lines(path), start=1):
        line = line.strip()
        if not line or line[0] in "#%":
            continue
        if "data" not in header:
            header.add(path, number, line)
            continue
        fields = line.split(":")
        if header.says("classlabel", "true"):
            name, declared = fields.pop().strip(), header["classlabel"][1:]
            if name not in declared:
                shown = f"{', '.join(declared[:12])}{', ...' if len(declared) > 12 else ''}"
                problem = f"class '{name[:40]}' is not declared{nearest(name, declared)}; @classLabel names {shown}"
                raise refuse(path, number, problem if fields else "there is no class after the values")
            classes.append(name)
        channels = [_steps(path, number, text, ",") for text in fields]
        _check_series(path, number, channels, values, header)
        values.append(np.stack(channels, axis=1))
    if "data" not in header:
        raise refuse(path, None, "there is no @data line" if header else "it is empty")
    if not values:
        raise refuse(path, None, "there are no series after @data")
    return Series(values, classes if header.says("classlabel", "true") else None)


def _lines(path: Path) -> list[str]:
    # Comments of published files are not always UTF-8; different bytes stay different.
    return path.read_bytes().decode("utf-8-sig", errors="backslashreplace").splitlines()


def _steps(path: Path, number: int, text: str, separator: str) -> np.ndarray:
    """The steps of one channel, [T] float64, NaN where a value is missing."""
    cells = [cell.strip() for cell in text.split(separator)]
    steps = np.zeros(len(cells))
    for index, cell in enumerate(cells):
        try:
            steps[index] = np.nan if cell == "?" else float(cell)
        except ValueError:
            steps[index] = np.inf
        if np.isinf(steps[index]) or "_" in cell:  # Python reads 1_000 as 1000
            raise refuse(path, number, f"'{cell[:40]}' (value {index + 1}) is not a finite number")
    return steps


def _check_series(
    path: Path, number: int, channels: list[np.ndarray], before: list[np.ndarray], header: Header
) -> None:
    """Compare one series with the header and with the first series."""
    if not channels:
        raise refuse(path, number, "there are no values")
    if header.says("univariate", "true") and len(channels) != 1:
        raise refuse(path, number, f"{len(channels)} channels, but the header says @univariate true")
    if "dimensions" in header and len(channels) != int(header["dimensions"][0]):
        raise refuse(path, number, f"{len(channels)} channels, but the header says {header['dimensions'][0]}")
    if before and len(channels) != before[0].shape[1]:
        raise refuse(path, number, f"{len(channels)} channels, but {before[0].shape[1]} in the first series")
    length = len(channels[0])
    for index, channel in enumerate(channels):
        if len(channel) != length:
            raise refuse(path, number, f"channel {index + 1} has {len(channel)} steps, channel 1 has {length}")
        if header.says("missing", "false") and np.isnan(channel).any():
            step = int(np.argmax(np.isnan(channel))) + 1
            raise refuse(path, number, f"value {step} is missing, but the header says @missing false")
    fixed = "serieslength" in header and not header.says("equallength", "false")
    if fixed and length != int(header["serieslength"][0]):
        raise refuse(path, number, f"{length} steps, but the header says @seriesLength {header['serieslength'][0]}")
    if header.says("equallength", "true") and before and length != len(before[0]):
        raise refuse(path, number, f"{length} steps, but {len(before[0])} in the first series and @equalLength true")
    if all(np.isnan(channel).all() for channel in channels):
        raise refuse(path, number, "every value is missing")


# ------------------------------------------------------------------------------------------------------ .tsv files


def read_tsv(path: Path) -> Series:
    """A `.tsv` file of the UCR archive of 2018: per line the class, then the steps of one channel, separated by tabs.

    The archive fills shorter series up with NaN to equal length, so NaN at the end of a line is not a step.

    Raises:
      ConfigError: naming the file and the line.
    """
    values, classes, width = [], [], None
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        name, _, rest = line.strip(" ").partition("\t")
        if not rest or not name.strip():
            raise refuse(path, number, "expected a class and values, separated by tabs")
        steps = _steps(path, number, rest, "\t")
        width = len(steps) if width is None else width
        if len(steps) != width:
            raise refuse(path, number, f"{len(steps)} values, but {width} in the first line")
        known = np.flatnonzero(~np.isnan(steps))
        if not len(known):
            raise refuse(path, number, "every value is missing")
        values.append(steps[: known[-1] + 1, None])
        classes.append(_class_name(path, name.strip()))
    if not values:
        raise refuse(path, None, "it is empty")
    return Series(values, classes)


# ---------------------------------------------------------------------------------------------------- pairs of .npy


def read_arrays(x_train: Path, y_train: Path, x_test: Path, y_test: Path) -> list[Series]:
    """Pairs of `.npy` files: series [N, T] or [N, T, C], NaN where a value is missing, and a class or value each [N].

    Text and whole numbers are classes. Numbers with fractions in either file are values, and so are floats of which
    most are different.

    Raises:
      ConfigError: naming the file.
    """
    series = [_read_series(path) for path in (x_train, x_test)]
    beside = [_read_beside(path) for path in (y_train, y_test)]
    for values, targets, x_path, y_path in zip(series, beside, (x_train, x_test), (y_train, y_test), strict=True):
        if targets.shape != values.shape[:1] or targets.dtype.kind not in "iufU":
            expected = f"expected a class or a value for each series of {x_path.name}"
            raise refuse(y_path, None, f"{targets.dtype} of shape {targets.shape}; {expected}")
    if all(targets.dtype.kind != "U" for targets in beside):
        joined = np.concatenate(beside)
        different = len(np.unique(joined))
        scattered = different > max(MOST_CLASSES, len(joined) / 2)
        if joined.dtype.kind == "f" and ((joined != np.round(joined)).any() or scattered):
            pairs = zip(series, beside, strict=True)
            return [Series(list(values), None, targets.astype(np.float64)[:, None]) for values, targets in pairs]
        if scattered:
            remedy = "if they are values to predict, store them as floats"
            raise refuse(y_train, None, f"{different} different whole numbers for {len(joined)} series; {remedy}")
    names = [
        [_class_name(path, str(name)) for name in targets.tolist()]
        for targets, path in zip(beside, (y_train, y_test), strict=True)
    ]
    return [Series(list(values), classes) for values, classes in zip(series, names, strict=True)]


def _read(path: Path) -> np.ndarray:
    try:
        return read_npy(path, None, None)[0]
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
