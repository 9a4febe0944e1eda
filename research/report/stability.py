"""How stable codes are over seeds: the codes of the runs of one setting, compared on the same test rows."""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.compiling import compiled
from research.evaluation.similarity import (
    IncomparableError,
    between,
    check_count,
    jackknifed,
    linear_cka,
    mean_cca,
    mean_of_pairs,
    prepared,
)
from research.evaluation.views import BATCH, spread
from research.inputs import INIT, purpose_key
from research.models.abilities import Encodes, able, methods
from research.report.again import UnavailableError, dataset_of, load
from research.report.collect import Run, Runs
from research.report.keys import CODE_CCA, CODE_CKA, SEED, UNSHOWN
from research.report.methods import name_of
from research.report.run import EVALUATION
from research.runs import batches
from research.tree import group

MEASURES = {CODE_CKA: linear_cka, CODE_CCA: mean_cca}
CHOICES = frozenset({"evaluation", "experiment"})  # they change no training
ROWS = 10_000  # most test rows that are compared

Once = Callable[[Hashable, Callable[[], Any]], Any]


def compared(runs: Runs, folder: Path) -> Runs:
    """The runs of a sweep folder with `MEASURES` among their metrics, and naive methods beside them.

    A setting is all of a config but the seed. Its finished runs are compared pair by pair on the same test rows, at
    most 10,000 at even distances. A run gets the pseudo-value of the jackknife over seeds (`similarity.jackknifed`):
    the mean of these is the mean over all pairs, and their standard deviation over sqrt(n) its standard error.
    `Run.similar` has the similarities themselves.

    The naive methods are `untrained`, the parameters from which the same seeds started, and `permuted`, the codes
    themselves with the rows of one of each pair in random order. What cannot be compared is null, with a reason.
    """
    left_out = {SEED, *UNSHOWN, *CHOICES}
    keys = [key for key in runs.config_keys() if key not in left_out and not key.startswith(EVALUATION)]
    finished = [run for run in runs if run.finished and run.known]
    kept: dict[Hashable, Any] = {}

    def once(key: Hashable, compute: Callable[[], Any]) -> Any:
        if key not in kept:
            kept[key] = compute()
        return kept[key]

    new: dict[str, Run] = {}
    for setting in group(finished, lambda run: run.at([*keys, "data_sha256"])):
        new |= {run.run_id: run for run in _compared(setting, folder, once)}
    return dataclasses.replace(runs, records=tuple(new.get(run.run_id, run) for run in runs))


def _compared(runs: Sequence[Run], folder: Path, once: Once) -> Sequence[Run]:
    """The runs of one setting with the similarities of their codes, or with the reason why there are none."""
    try:
        check_count(len(runs))
        if len({run.value(SEED) for run in runs}) < len(runs):
            raise IncomparableError("two runs of the setting have the same seed")
        pairs = [_codes(run, folder, once) for run in runs]
        trained = [prepared(codes) for codes, _ in pairs]
    except (IncomparableError, UnavailableError) as error:
        for name in MEASURES:
            runs = _without(runs, name, str(error))
        return runs
    untrained = functools.cache(lambda: [prepared(codes) for _, codes in pairs])
    for name, measure in MEASURES.items():
        try:
            table = between(measure, trained)
        except IncomparableError as error:
            runs = _without(runs, name, str(error))
            continue
        runs = [
            dataclasses.replace(run, similar={**run.similar, name: _others(runs, table, at)})
            for at, run in enumerate(runs)
        ]
        runs = _with(runs, name, jackknifed(table))
        chance = mean_of_pairs(between(measure, trained, permuted=True))
        runs = _with(runs, name_of("permuted", name), np.full(len(runs), chance))
        try:
            start = mean_of_pairs(between(measure, untrained()))
            runs = _with(runs, name_of("untrained", name), np.full(len(runs), start))
        except IncomparableError as error:
            runs = _without(runs, name_of("untrained", name), str(error))
    return runs


def _others(runs: Sequence[Run], table: np.ndarray, at: int) -> dict[str, float]:
    """Id of every other run -> its similarity to one run."""
    return {run.run_id: float(table[at, other]) for other, run in enumerate(runs) if other != at}


def _with(runs: Sequence[Run], name: str, numbers: np.ndarray) -> list[Run]:
    return [
        dataclasses.replace(run, metrics={**run.metrics, name: float(number)})
        for run, number in zip(runs, numbers, strict=True)
    ]


def _without(runs: Sequence[Run], name: str, reason: str) -> list[Run]:
    return [
        dataclasses.replace(run, metrics={**run.metrics, name: None}, null_reasons={**run.null_reasons, name: reason})
        for run in runs
    ]


@compiled()
def _fresh(model: Any, key: Any, train: Any) -> Any:
    return model.init(key, train)


def _codes(run: Run, folder: Path, once: Once) -> tuple[np.ndarray, np.ndarray]:
    """Codes of test rows by a run, and by the parameters from which it started, both [N, ...].

    Raises:
      UnavailableError: the run or its data cannot be loaded.
      IncomparableError: its model has no codes.
    """
    loaded, (parts, _) = load(folder, run), dataset_of(folder, run, once)
    model = loaded.model
    if not able(model, Encodes):
        raise IncomparableError(f"a {type(model).__name__} does not {methods(Encodes)[0]}")
    rows = parts["test"].take(spread(len(parts["test"]), ROWS))

    def encoded(params: Any) -> np.ndarray:
        function = lambda batch, _: batches.call(model, params, batch, "encode")
        return np.asarray(batches.over(function, rows, min(BATCH, len(rows))))

    key = purpose_key(run.value(SEED), INIT)
    return encoded(loaded.params), encoded(_fresh(model, key, parts["train"]))
