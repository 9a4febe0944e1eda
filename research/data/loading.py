"""From a recipe to the data set that models train on."""

import dataclasses
import functools
import hashlib
from collections.abc import Hashable
from typing import Literal

import numpy as np

from research.data import scaling
from research.data.examples import Dataset, Examples, Facts, Split
from research.data.splits import Source, Splitting, divide, pack
from research.tree import ConfigError


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

    parts = divide(recipe, len(examples), source.test, source.validation)
    fits = [
        scaling.fit(method, examples, rows.train, unit=unit, by_channel=source.kind == "sequence")
        for rows in (parts if method in ("standard", "minmax") else parts[:1])
    ]
    ranges = [scaling.extremes(examples, fitted) for fitted in fits]
    splits = pack(parts, fits if len(fits) == len(parts) else fits * len(parts))
    for field in dataclasses.fields(Examples):
        array = getattr(examples, field.name)
        if array is not None:
            array.flags.writeable = False
    return Dataset(
        name=source.name,
        examples=examples,
        splits=splits,
        facts=Facts(
            kind=source.kind,
            feature_shape=tuple(examples.x.shape[1:]),
            low=0.0 if binarize != "none" else min(low for low, _ in ranges),
            high=1.0 if binarize != "none" else max(high for _, high in ranges),
            classes=0 if examples.label is None else int(examples.label.max()) + 1,
            train_size=min(len(rows.train) for rows in parts),
            validation_size=min(len(rows.validation) for rows in parts),
            test_size=min(len(rows.test) for rows in parts),
        ),
        sha256=digest(examples),
        binarize=binarize,
        split_seed=recipe.split_seed,
        # Densities change with the scaling, so a known value holds for unscaled data only.
        reference=source.reference(examples.take(parts[0].test))
        if source.reference and recipe.scaling == "none"
        else {},
    )


def draw(x: np.ndarray, fitted: scaling.Scaling | Split, seed: int) -> np.ndarray:
    """x ~ Bernoulli((x - shift) * scale) for every value, uint8 of the same shape."""
    random = np.random.Generator(np.random.PCG64(seed))
    drawn = np.empty(x.shape, np.uint8)
    for start in range(0, len(x), scaling.CHUNK):
        probability = (x[start : start + scaling.CHUNK].astype(np.float32) - fitted.shift) * fitted.scale
        drawn[start : start + scaling.CHUNK] = random.random(probability.shape, np.float32) < probability
    return drawn


def digest(examples: Examples) -> str:
    """SHA-256 (64 hex digits) over name, type, shape and bytes of every field that is present."""
    total = hashlib.sha256()
    for field in dataclasses.fields(Examples):
        array = getattr(examples, field.name)
        if array is not None:
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
