"""From a recipe to the data set that models train on: read, divide, scale, and state the facts."""

import dataclasses
import functools
import hashlib
from collections.abc import Hashable, Sequence
from typing import Literal

import jax
import numpy as np

from research.data import hiding, scaling
from research.data.examples import Dataset, Draw, Examples, Facts, Split, Windows, compact
from research.data.mapped import Mapped
from research.data.preparation import CHUNK, SCALING, TAIL, Binarize, Preparation, bernoulli, zero_tails
from research.data.seen import seen
from research.data.source import Source, Splitting
from research.data.splits import Rows, absent_notes, check_parts, divide, pack
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
    del stamp  # a part of the key of the cache
    try:
        return assemble(recipe, recipe.read())
    except ConfigError as error:
        raise error.under("data") from error.__cause__


# --------------------------------------------------------------------------------------------------- making a data set


def assemble(recipe: Splitting, source: Source) -> Dataset:
    """Divide, scale and, where the recipe says so, binarize what was read.

    Raises:
      ConfigError: a part is empty, parts overlap, or values cannot be scaled or binarized as the recipe says.
    """
    binarize: Literal["none", "once", "dynamic"] = getattr(recipe, "binarize", "none")
    if binarize != "none":
        _check_probabilities(recipe, source, binarize)
    method, drawn = "none" if source.scaled else recipe.scaling, None
    if binarize == "once":
        drawn = scaling.fit(method, source.examples, np.arange(0), unit=source.unit)
        x = draw(source.examples.x, drawn, recipe.split_seed)
        source, method = dataclasses.replace(source, examples=dataclasses.replace(source.examples, x=x)), "none"
    examples = source.examples

    classes = examples.label if source.stratify else None
    parts = divide(recipe, len(examples), source.test, source.validation, source.unused, classes)
    check_parts(parts, examples)
    source = hiding.hide(recipe, source, parts)
    examples = source.examples
    if source.anomaly and any(examples.label[rows.train].any() for rows in parts):
        raise ConfigError("", source.name, "anomalous rows are among the training rows")
    fits = _fit(method, source, parts)
    targets = fits if source.scale_target else _fit_targets(method, source, parts)
    facts = _facts(source, parts, fits, targets)
    scaling.check_precision("x", examples, fits[0], parts[0].train, source.columns, source.kind == "sequence")
    if examples.has_values:
        scaling.check_precision("the target", _targets(examples), targets[0], parts[0].train, None, True)
    offsets = scaling.offset(fits[0]), scaling.offset(targets[0])
    reference = {}
    if source.reference is not None and recipe.scaling == "none":  # scaling changes densities
        reference = source.reference(examples.take(parts[0].test))
    for array in jax.tree.leaves(examples):
        if not isinstance(array, Mapped):
            array.flags.writeable = False
    return Dataset(
        name=source.name,
        examples=examples,
        splits=pack(parts, fits, targets),
        facts=facts if binarize == "none" else dataclasses.replace(facts, low=0.0, high=1.0, counts=True),
        sha256=digest(compact(examples, *offsets), *offsets),
        preparation=_preparation(recipe, source, drawn, binarize != "none"),
        draw=_draw(recipe, source, binarize),
        split_seed=recipe.split_seed,
        reference=reference,
        offset=offsets[0],
        target_offset=offsets[1],
        notes=(*source.notes, *_tail_notes(source), *absent_notes(parts, source)),
    )


def _draw(recipe: Splitting, source: Source, binarize: str) -> Draw | None:
    """What makes every training batch anew."""
    if binarize == "dynamic":
        return Binarize()
    if recipe.hide_train is not None:
        return hiding.Hide(share=recipe.hide_train, length=hiding.block_length(recipe))
    return source.draw


def _check_probabilities(recipe: Splitting, source: Source, binarize: str) -> None:
    """Refuse to binarize values outside [0, 1]; the remedy names a scaling with which they lie inside, if one does."""
    stored = scaling.extremes(source.examples, scaling.IDENTITY)
    unit = source.unit if recipe.scaling == "unit" else 1
    if recipe.scaling not in ("none", "unit"):
        problem = f"data.scaling={recipe.scaling} does not give probabilities"
    elif unit is None:
        problem = "these values have no fixed range that data.scaling=unit could divide by"
    elif not _are_probabilities(stored, unit):
        problem = f"values must lie in [0, 1], these reach from {stored[0] / unit:g} to {stored[1] / unit:g}"
    else:
        return
    remedy = "{key}=none"
    if _are_probabilities(stored, 1):
        remedy = "data.scaling=none"
    elif source.unit is not None and _are_probabilities(stored, source.unit):
        remedy = "data.scaling=unit"
    raise ConfigError("binarize", binarize, f"{problem}; use {remedy}")


def _are_probabilities(stored: tuple[float, float], unit: float) -> bool:
    return stored[0] >= 0 and stored[1] / unit <= 1 + 1e-6


def _fit(method: str, source: Source, parts: Sequence[Rows]) -> list[scaling.Scaling]:
    """The scaling of each training part."""
    fit = lambda rows: scaling.fit(
        method,
        source.examples,
        rows.train,
        unit=source.unit,
        by_channel=source.kind == "sequence",
        with_target=source.scale_target,
        binary=source.binary,
    )
    if method in ("none", "unit"):  # the rows make no difference
        return [fit(parts[0])] * len(parts)
    return [fit(rows) for rows in parts]


def _fit_targets(method: str, source: Source, parts: Sequence[Rows]) -> list[scaling.Scaling]:
    """The scaling of a target that has units of its own, for each training part; most targets are not scaled."""
    if not source.own_target_scale or not source.examples.has_values or method in ("none", "unit"):
        return [scaling.IDENTITY] * len(parts)
    targets = _targets(source.examples)
    binary = np.asarray(np.isin(targets.x, (0, 1)).all(tuple(range(targets.x.ndim - 1))))
    return [scaling.fit(method, targets, rows.train, by_channel=True, binary=binary) for rows in parts]


def _targets(examples: Examples) -> Examples:
    """The targets in place of x."""
    return Examples(examples.target, observed=examples.target_observed)


def _facts(
    source: Source, parts: Sequence[Rows], fits: Sequence[scaling.Scaling], targets: Sequence[scaling.Scaling]
) -> Facts:
    """What models may ask about the data."""
    examples, target = source.examples, source.examples.target
    low, high = _range("x", examples, fits)
    target_low, target_high = _range("target", _targets(examples), targets) if examples.has_values else (0.0, 0.0)
    target_classes = 0
    if target is not None and not examples.has_values:
        target_classes = int((target.series if isinstance(target, Windows) else target).max()) + 1
    return Facts(
        kind=source.kind,
        feature_shape=tuple(examples.x.shape[1:]),
        low=low,
        high=high,
        classes=source.class_count,
        train_size=min(len(rows.train) for rows in parts),
        validation_size=min(len(rows.validation) for rows in parts),
        test_size=min(len(rows.test) for rows in parts),
        target_shape=None if target is None else tuple(target.shape[1:]),
        target_follows=source.scale_target,
        target_classes=target_classes,
        target_low=target_low,
        target_high=target_high,
        season=source.season,
        anomaly=source.anomaly,
        known=0 if examples.known is None else examples.known.shape[-1],
        static=0 if examples.static is None else examples.static.shape[-1],
        counts=not source.scaled and scaling.are_counts(examples, fits),
    )


def _range(field: str, examples: Examples, fits: Sequence[scaling.Scaling]) -> tuple[float, float]:
    """Smallest and largest value of `examples.x` under any of the scalings."""
    different = {id(fitted): fitted for fitted in fits}.values()
    ranges = [scaling.extremes(examples, fitted) for fitted in different]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    if not np.isfinite(low + high):
        raise ConfigError("", None, f"{field} holds values that are not finite and that no mask marks as missing")
    return low, high


def _preparation(recipe: Splitting, source: Source, drawn: scaling.Scaling | None, binarize: bool) -> Preparation:
    """How the rows were made; `drawn` is the scaling with which they were binarized once."""
    examples = source.examples
    return dataclasses.replace(
        source.preparation,
        kind=source.kind,
        stored_shape=source.preparation.stored_shape or tuple(examples.x.shape[1:]),
        whole=None if source.unit is None or examples.x.dtype.kind == "f" else int(source.unit),
        columns=source.columns,
        classes=source.classes,
        class_count=source.class_count,
        masked=examples.length is not None or examples.observed is not None,
        binarize=binarize,
        split_seed=recipe.split_seed,
        **({} if drawn is None else drawn._asdict()),
    )


def _tail_notes(source: Source) -> list[str]:
    """A note on sequences without lengths that end in steps of zeros, which may be padding."""
    x = source.examples.x
    unknown = source.kind == "sequence" and source.examples.length is None and source.preparation.layout == "image"
    if not unknown or isinstance(x, Windows) or x.ndim != 3:
        return []
    count = sum(int((zero_tails(x[at : at + CHUNK]) >= TAIL).sum()) for at in range(0, len(x), CHUNK))
    text = f"{count} of {len(x)} sequences end in {TAIL} or more steps of zeros in every channel"
    return [f"{text}; if that is padding, the data need their lengths"] if count else []


def digest(examples: Examples, *offsets: np.ndarray) -> str:
    """SHA-256 (64 hex digits) over name, type, shape and bytes of every field that is present, and over the offsets.

    Of windows it covers the series, the first steps and the size.
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
            total.update(f"{field.name} {array.dtype.str} {array.shape}\n".encode())
            size = CHUNK if isinstance(array, Mapped) else max(len(array), 1)
            for start in range(0, len(array), size):
                total.update(np.ascontiguousarray(array[start : start + size]).data)
    return total.hexdigest()


# -------------------------------------------------------------------------------------------------- using a data set


def draw(x: np.ndarray, fitted: scaling.Scaling | Split, seed: int) -> np.ndarray:
    """x ~ Bernoulli((x - shift) * scale) for every value, uint8 of the same shape."""
    shift, scale = (np.asarray(value, np.float32) for value in (fitted.shift, fitted.scale))
    return bernoulli(lambda rows: (x[rows].astype(np.float32) - shift) * scale, x.shape, seed)


def binarized(dataset: Dataset, repetition: int = 0) -> Examples:
    """All rows drawn once as x ~ Bernoulli(x), uint8 0 or 1: the rows on which runs of dynamic data are scored.

    The draws depend on `split_seed`, the row and the repetition only, so that all runs are scored on the same ones.
    """
    x = draw(dataset.examples.x, dataset.splits[0], dataset.split_seed + 1_000_003 * repetition)
    return dataclasses.replace(dataset.examples, x=x)


def scored(dataset: Dataset, fold: int | None) -> dict[str, Examples]:
    """All rows of a fold, part by part, as models see them: scaled, and binarised as scores see them.

    Windows and streamed rows are lazy (`seen.Seen`).
    """
    split = dataset.split(fold)
    # In the order of the data set, so that windows of a series are in the order of time.
    rows = {name: np.sort(split.rows(name)) for name in PARTS}
    if isinstance(dataset.draw, Binarize):
        drawn = binarized(dataset)
        return {name: floats(drawn.take(numbers)) for name, numbers in rows.items()}
    return {name: seen(dataset.examples, numbers, split) for name, numbers in rows.items()}


def floats(rows: Examples) -> Examples:
    """Binarised rows as numbers."""
    return dataclasses.replace(rows, x=rows.x.astype(np.float32))


def preparation_of(dataset: Dataset, fold: int | None) -> Preparation:
    """How the rows of a data set become what models see in one fold; a run folder keeps it."""
    if dataset.draw is None and dataset.preparation.binarize:  # drawn once: the rows are zeros and ones already
        return dataset.preparation
    split = dataset.split(fold)
    return dataclasses.replace(dataset.preparation, **{name: getattr(split, name) for name in SCALING})
