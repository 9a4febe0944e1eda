"""From a recipe to the data set that models train on."""

import dataclasses
import functools
import hashlib
from collections.abc import Hashable, Sequence
from typing import Literal

import jax
import numpy as np

from research.data import scaling
from research.data.draws import Binarize
from research.data.examples import Dataset, Examples, Facts, Split, Windows, compact
from research.data.new_rows import TAIL, zero_tails
from research.data.preparation import SCALING, Preparation, bernoulli
from research.data.splits import Source, Splitting, absent_note, check_parts, divide, pack
from research.tree import ConfigError

PARTS: tuple[Literal["train"], Literal["validation"], Literal["test"]] = ("train", "validation", "test")


def load(recipe: Splitting) -> Dataset:
    """The data set of a recipe, with the splits of all folds; kept in memory for the next call.

    Recipes that differ in `fold` alone share one data set. Its arrays are read-only.

    Raises:
      ConfigError: below the key `data`.
    """
    return _load(dataclasses.replace(recipe, fold=None), recipe.stamp())


@functools.lru_cache(maxsize=16)
def _load(recipe: Splitting, stamp: Hashable) -> Dataset:
    try:
        return assemble(recipe, recipe.read())
    except ConfigError as error:
        raise error.under("data") from error.__cause__


def assemble(recipe: Splitting, source: Source) -> Dataset:
    """Divide, scale and, where asked, binarize what was read."""
    binarize: Literal["none", "once", "dynamic"] = getattr(recipe, "binarize", "none")
    examples, method, unit = source.examples, recipe.scaling, source.unit
    drawn: scaling.Scaling | None = None
    if binarize != "none":
        if method not in ("none", "unit"):
            raise ConfigError(
                "binarize", binarize, f"data.scaling={method} does not give probabilities; use data.scaling=unit"
            )
        plain = scaling.fit(method, examples, np.arange(0), unit=unit)
        low, high = scaling.extremes(examples, plain)
        if low < 0 or high > 1 + 1e-6:
            raise ConfigError(
                "binarize",
                binarize,
                f"values must lie in [0, 1], these reach from {low:g} to {high:g}; use data.scaling=unit",
            )
        if binarize == "once":
            examples, method = dataclasses.replace(examples, x=draw(examples.x, plain, recipe.split_seed)), "none"
            drawn = plain

    classes = examples.label if source.stratify else None
    parts = divide(recipe, len(examples), source.test, source.validation, source.unused, classes)
    check_parts(parts, examples)
    if source.anomaly and any(examples.label[rows.train].any() for rows in parts):
        raise ConfigError("", source.name, "anomalous rows are among the training rows")
    settings = {"unit": unit, "by_channel": source.kind == "sequence", "with_target": source.scale_target}
    settings["binary"] = source.binary
    fits = [
        scaling.fit(method, examples, rows.train, **settings)
        for rows in (parts if method in ("standard", "minmax") else parts[:1])
    ]
    targets = fits if source.scale_target else [scaling.IDENTITY]
    spread = lambda several: several if len(several) == len(parts) else several * len(parts)
    splits = pack(parts, spread(fits), spread(targets))
    low, high = _range("x", examples, fits)
    target = examples.target
    with_values = target is not None and target.dtype.kind != "i"
    named = (source.columns, source.kind == "sequence")
    scaling.check_precision("x", examples, fits[0], parts[0].train, *named)
    if with_values:
        values = Examples(target, observed=examples.target_observed)
        scaling.check_precision("the target", values, targets[0], parts[0].train, None, True)
    target_range = (
        _range("target", Examples(target, observed=examples.target_observed), targets) if with_values else (0.0, 0.0)
    )
    offsets = [scaling.offset(several[0]) for several in (fits, targets)]
    for array in jax.tree.leaves(examples):
        array.flags.writeable = False
    classes = _class_count(source)
    return Dataset(
        name=source.name,
        examples=examples,
        splits=splits,
        facts=Facts(
            kind=source.kind,
            feature_shape=tuple(examples.x.shape[1:]),
            low=0.0 if binarize != "none" else low,
            high=1.0 if binarize != "none" else high,
            classes=classes,
            train_size=min(len(rows.train) for rows in parts),
            validation_size=min(len(rows.validation) for rows in parts),
            test_size=min(len(rows.test) for rows in parts),
            target_shape=None if target is None else tuple(target.shape[1:]),
            target_follows=source.scale_target,
            target_classes=0 if target is None or with_values else _highest(target) + 1,
            target_low=target_range[0],
            target_high=target_range[1],
            season=source.season,
            anomaly=source.anomaly,
        ),
        sha256=digest(compact(examples, *offsets), *offsets),
        preparation=dataclasses.replace(
            source.preparation,
            kind=source.kind,
            stored_shape=source.preparation.stored_shape or tuple(examples.x.shape[1:]),
            whole=None if source.unit is None or examples.x.dtype.kind == "f" else int(source.unit),
            columns=source.columns,
            classes=source.classes,
            class_count=classes,
            missing=tuple(mark for mark in getattr(recipe, "missing", None) or () if not isinstance(mark, str)),
            time_column=getattr(recipe, "time_column", None),
            time_step=source.time_step,
            masked=examples.length is not None or examples.observed is not None,
            binarize=binarize != "none",
            split_seed=recipe.split_seed,
            **({} if drawn is None else drawn._asdict()),
        ),
        offset=offsets[0],
        target_offset=offsets[1],
        notes=(*source.notes, *_tail_note(source), *absent_note(parts, source)),
        draw=Binarize() if binarize == "dynamic" else source.draw,
        split_seed=recipe.split_seed,
        # Densities change with the scaling, so a known value holds for unscaled data only.
        reference=source.reference(examples.take(parts[0].test))
        if source.reference and recipe.scaling == "none"
        else {},
    )


def _range(field: str, examples: Examples, fits: Sequence[scaling.Scaling]) -> tuple[float, float]:
    """Smallest and largest value of `examples.x` under any of the scalings."""
    ranges = [scaling.extremes(examples, fitted) for fitted in fits]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    if not np.isfinite(low + high):
        raise ConfigError("", None, f"{field} holds values that are not finite and that no mask marks as missing")
    return low, high


def _tail_note(source: Source) -> tuple[str, ...]:
    """Says how many sequences without lengths end in steps of zeros, which may be padding."""
    x = source.examples.x
    unknown = source.kind == "sequence" and source.examples.length is None and source.preparation.layout == "image"
    if not unknown or isinstance(x, Windows) or x.ndim != 3:
        return ()
    count = int((zero_tails(x) >= TAIL).sum())
    text = f"{count} of {len(x)} sequences end in {TAIL} or more steps of zeros in every channel"
    return (f"{text}; if that is padding, the data need their lengths",) if count else ()


def _class_count(source: Source) -> int:
    if source.examples.label is None:
        return 0
    return int(source.examples.label.max()) + 1 if source.classes is None else len(source.classes)


def _highest(target: np.ndarray | Windows) -> int:
    return int((target.series if isinstance(target, Windows) else target).max())


def draw(x: np.ndarray, fitted: scaling.Scaling | Split, seed: int) -> np.ndarray:
    """x ~ Bernoulli((x - shift) * scale) for every value, uint8 of the same shape."""
    shift, scale = (np.asarray(value, np.float32) for value in (fitted.shift, fitted.scale))
    return bernoulli(lambda rows: (x[rows].astype(np.float32) - shift) * scale, x.shape, seed)


def digest(examples: Examples, *offsets: np.ndarray) -> str:
    """SHA-256 (64 hex digits) over name, type, shape and bytes of every field that is present, and over the offsets.

    Of windows it is over the series, the first steps and the size.
    """
    total = hashlib.sha256()
    for offset in offsets:
        if offset.any():
            total.update(f"offset {offset.shape}\n".encode() + np.ascontiguousarray(offset, np.float64).tobytes())
    for field in dataclasses.fields(Examples):
        content = getattr(examples, field.name)
        if isinstance(content, Windows):
            total.update(f"{field.name} windows of {content.size}\n".encode())
        for array in jax.tree.leaves(content):
            array = np.ascontiguousarray(array)
            total.update(f"{field.name} {array.dtype.str} {array.shape}\n".encode())
            total.update(array.data)
    return total.hexdigest()


def binarized(dataset: Dataset, repetition: int = 0) -> Examples:
    """All rows drawn once as x ~ Bernoulli(x), uint8 0 or 1: what dynamic data are scored on.

    It depends on `split_seed`, the row and the repetition only, so that all runs are scored on the same draws.
    """
    x = draw(dataset.examples.x, dataset.splits[0], dataset.split_seed + 1_000_003 * repetition)
    return dataclasses.replace(dataset.examples, x=x)


def scored(dataset: Dataset, fold: int | None) -> dict[str, Examples]:
    """All rows of a fold, part by part, as models see them: scaled, and binarised as scores see them."""
    split = dataset.split(fold)
    # in the order of the data set: windows of a series in the order of time
    rows = {name: np.sort(split.rows(name)) for name in PARTS}
    if isinstance(dataset.draw, Binarize):
        drawn = binarized(dataset)
        return {name: floats(drawn.take(own)) for name, own in rows.items()}
    return {name: split.prepare(dataset.examples.take(own)) for name, own in rows.items()}


def floats(rows: Examples) -> Examples:
    """Binarised rows as numbers."""
    return dataclasses.replace(rows, x=rows.x.astype(np.float32))


def preparation_of(dataset: Dataset, fold: int | None) -> Preparation:
    """How the rows of a data set become what models see in one fold: what a run folder keeps."""
    if dataset.draw is None and dataset.preparation.binarize:  # drawn once: the rows here are zeros and ones already
        return dataset.preparation
    split = dataset.split(fold)
    return dataclasses.replace(dataset.preparation, **{name: getattr(split, name) for name in SCALING})
