"""Sequences in memory: lists of unequal length, gaps, and lengths beside the rows."""

import numpy as np
import pytest

import research
from research.tree import ConfigError

RANDOM = np.random.default_rng(0)
SMALL = ("model.hidden_dim=4", "trainer.epochs=1", "evaluation=none", "sweep.mode=map")
LENGTHS = RANDOM.integers(5, 10, 60)
SEQUENCES = [RANDOM.normal(size=(int(length), 2)) for length in LENGTHS]
PADDED = np.zeros((60, 9, 2))
for _row, _sequence in zip(PADDED, SEQUENCES, strict=True):
    _row[: len(_sequence)] = _sequence
FULL = RANDOM.normal(size=(60, 9, 2))


def test_a_list_is_a_padded_array_with_its_lengths() -> None:
    listed = research.train(SEQUENCES, "model=recurrent_ae", *SMALL, name="listed")
    padded = research.train(PADDED, "model=recurrent_ae", *SMALL, name="padded", lengths=LENGTHS)
    assert listed.facts is not None
    assert listed.facts.kind == "sequence"
    assert listed.result["data_sha256"] == padded.result["data_sha256"]
    assert np.array_equal(listed.encode(SEQUENCES), padded.encode(PADDED, lengths=LENGTHS))


def test_gaps_are_masked() -> None:
    holes = np.where(FULL > 1.5, np.nan, FULL)
    filled = research.train(np.ma.masked_greater(FULL, 1.5), "model=recurrent_ae", *SMALL, name="masked")
    empty = research.train(holes, "model=recurrent_ae", *SMALL, name="empty")
    assert filled.config == empty.config
    assert np.array_equal(filled.encode(holes), empty.encode(holes))


def test_values_of_sequences_are_predicted() -> None:
    run = research.train(FULL, "model=recurrent_predictor", *SMALL, name="values", y=FULL.sum((1, 2)))
    assert run.predict(FULL).shape == (60, 1)


@pytest.mark.parametrize("lengths", [np.full(60, 70), np.full(60, 0), np.full(60, 2.5)], ids=["long", "none", "half"])
def test_wrong_lengths_are_named(lengths: np.ndarray) -> None:
    with pytest.raises(ConfigError) as refused:
        research.train(PADDED, "model=recurrent_ae", *SMALL, lengths=lengths)
    assert refused.value.key == "lengths"
    assert ".npz" not in str(refused.value)
