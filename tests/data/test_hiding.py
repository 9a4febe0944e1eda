"""Values that models do not see: which they are, and what rows then hold."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configs import shipped

from research.data import Dataset, Examples, Source, Windows
from research.data.hiding import Hide
from research.data.loading import assemble, scored
from research.tree import ConfigError, build, plain, recipe

from .test_windows import KEYS, Free, free

ROWS, STEPS, CHANNELS = 60, 24, 3


def arrays(**changes) -> Examples:
    x = np.random.default_rng(0).normal(3, 2, (ROWS, STEPS, CHANNELS)).astype(np.float32)
    return Examples(**({"x": x} | changes))


def windows() -> Examples:
    series = np.random.default_rng(0).normal(3, 2, (2000, CHANNELS)).astype(np.float32)
    return Examples(x=Windows(series, np.arange(0, 1977, 2, dtype=np.int32), STEPS))


def dataset_of(examples: Examples, **settings):
    ends = np.arange(len(examples)) / len(examples)
    gap = np.abs(ends[:, None] - [0.5, 0.75]).min(1) < 0.02 if isinstance(examples.x, Windows) else None
    source = Source(
        "mine",
        "sequence",
        dataclasses.replace(examples, x=examples.x),
        test=(ends >= 0.75),
        validation=(ends >= 0.5) & (ends < 0.75),
        unused=gap,
    )
    return assemble(free(**({"hide": 0.2, "scaling": "standard"} | settings)), source)


def seen(dataset: Dataset) -> dict[str, Examples]:
    """The parts of a data set as models see them, dense."""
    return {name: part.take(slice(None)) for name, part in scored(dataset, None).items()}


@pytest.mark.parametrize("make", [arrays, windows])
@pytest.mark.parametrize("by", ["points", "blocks"])
def test_a_share_of_the_values_of_validation_and_test_rows_is_hidden(make, by):
    dataset = dataset_of(make(), hide_by=by, hide_length=4)
    rows = seen(dataset)
    for part in ("validation", "test"):
        hidden = rows[part].hidden
        assert hidden.mean() == pytest.approx(0.2, abs=0.08), part
        np.testing.assert_array_equal(rows[part].mask, ~hidden)
        assert (rows[part].x[hidden] == 0).all()
        assert rows[part].score_mask.all()
        np.testing.assert_array_equal(rows[part].truth[~hidden], rows[part].x[~hidden])
        raw = dataset.examples.take(np.sort(dataset.split(None).rows(part))).x
        np.testing.assert_allclose(rows[part].truth / dataset.split(None).scale + dataset.split(None).shift, raw, 1e-4)
    assert not rows["train"].hidden.any()
    assert rows["train"].mask.all()
    np.testing.assert_array_equal(rows["train"].truth, rows["train"].x)


def test_a_program_sees_the_same_rows_as_the_evaluation():
    for examples in (arrays(), windows()):
        dataset = dataset_of(examples)
        numbers = np.sort(dataset.split(None).rows("test"))
        on_device = jax.device_put(dataset.compact)
        prepared = dataset.compact_split(None).prepare(on_device.take(jnp.asarray(numbers)))
        for name in ("x", "truth", "hidden", "observed"):
            theirs = getattr(seen(dataset)["test"], name)
            np.testing.assert_allclose(getattr(prepared, name), theirs, rtol=1e-4, atol=1e-5)


def test_a_step_is_hidden_in_all_windows_that_hold_it():
    rows = seen(dataset_of(windows()))["test"].hidden
    np.testing.assert_array_equal(rows[:-1, 2:], rows[1:, :-2])


def test_blocks_are_runs_of_their_length():
    hidden = seen(dataset_of(arrays(), hide_by="blocks", hide_length=6))["test"].hidden
    for series in np.moveaxis(hidden, 1, 2).reshape(-1, STEPS):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], series.astype(int), [0]])))
        for start, end in edges.reshape(-1, 2):
            assert (end - start) % 6 == 0 or start == 0 or end == STEPS


def test_only_the_seed_of_hiding_moves_the_hidden_values():
    hidden = lambda **settings: seen(dataset_of(arrays(), **settings))["test"].hidden
    usual = hidden()
    np.testing.assert_array_equal(hidden(split_seed=5, train_size=10, validation_size=3, scaling="none"), usual)
    few = dataset_of(arrays(), test_size=4)
    place = np.sort(few.split(None).rows("test")) - int(0.75 * ROWS)  # among all test rows, which are the last ones
    np.testing.assert_array_equal(seen(few)["test"].hidden, usual[place])
    assert (hidden(hide_seed=1) != usual).any()


def test_missing_values_and_padding_are_never_hidden():
    observed = np.random.default_rng(1).random((ROWS, STEPS, CHANNELS)) < 0.7
    length = np.random.default_rng(2).integers(5, STEPS, ROWS).astype(np.int32)
    rows = seen(dataset_of(arrays(observed=observed, length=length), hide=0.5))["test"]
    inside = np.broadcast_to(np.arange(STEPS)[None, :, None] < rows.length[:, None, None], rows.x.shape)
    assert rows.hidden.any()
    assert not (rows.hidden & ~inside).any()
    before = arrays(observed=observed, length=length).take(np.arange(ROWS) / ROWS >= 0.75)
    np.testing.assert_array_equal(rows.score_mask, before.mask)
    np.testing.assert_array_equal(rows.mask, before.mask & ~rows.hidden)
    assert (rows.truth[~rows.score_mask] == 0).all()


def test_other_hidden_values_are_other_data_and_no_hidden_values_are_the_same_as_before():
    usual = dataset_of(arrays(), hide=None)
    assert usual.examples.hidden is None
    assert usual.examples.observed is None
    assert usual.draw is None
    digests = {dataset_of(arrays(), **settings).sha256 for settings in ({}, {"hide_seed": 1}, {"hide": 0.3})}
    assert len(digests | {usual.sha256}) == 4
    assert not [name for name in plain(free()) if name.startswith("hide")]  # hashes of earlier runs stay


@pytest.mark.parametrize("shape", [(12,), (4, 5), (4, 5, 3)])
def test_values_of_vectors_and_images_are_hidden_as_well(shape):
    x = np.random.default_rng(0).integers(0, 256, (200, *shape)).astype(np.uint8)
    source = Source("mine", "vector" if len(shape) == 1 else "image", Examples(x=x), unit=255)
    rows = seen(assemble(free(hide=0.2, scaling="unit"), source))["test"]
    assert rows.hidden.mean() == pytest.approx(0.2, abs=0.05)
    assert (rows.x[rows.hidden] == 0).all()
    assert rows.truth[rows.hidden].mean() == pytest.approx(0.5, abs=0.1)
    batch = Hide(share=0.3, length=1).draw(Examples(x=jnp.asarray(rows.truth)), jax.random.key(0))
    assert batch.hidden.mean() == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("length", [1, 4])
def test_every_training_batch_hides_other_values(length):
    batch = Examples(x=jnp.asarray(arrays().x), observed=jnp.asarray(arrays().x > 0))
    hide = dataset_of(
        arrays(), hide=None, hide_train=0.3, hide_by="blocks" if length > 1 else "points", hide_length=4
    ).draw
    assert isinstance(hide, Hide)
    assert hide == Hide(share=0.3, length=length)
    drawn = [hide.draw(batch, jax.random.key(seed)) for seed in range(2)]
    assert (drawn[0].hidden != drawn[1].hidden).any()
    for rows in drawn:
        assert float(rows.hidden.sum() / batch.observed.sum()) == pytest.approx(0.3, abs=0.06)
        assert not (rows.hidden & ~batch.observed).any()
        np.testing.assert_array_equal(rows.mask, batch.observed & ~rows.hidden)
        np.testing.assert_array_equal(rows.truth, batch.x)
        np.testing.assert_array_equal(rows.x, jnp.where(rows.hidden, 0, batch.x))
        np.testing.assert_array_equal(rows.score_mask, batch.mask)


def test_padding_changes_no_draw():
    x = jnp.asarray(arrays().x)
    longer = Examples(x=jnp.pad(x, ((0, 0), (0, 5), (0, 0))), length=jnp.full(ROWS, STEPS))
    for length in (1, 4):
        hide = Hide(share=0.3, length=length)
        short, padded = (hide.draw(rows, jax.random.key(3)).hidden for rows in (Examples(x=x), longer))
        np.testing.assert_array_equal(padded[:, :STEPS], short)
        assert not padded[:, STEPS:].any()


@pytest.mark.parametrize(
    ("settings", "changes", "key", "remedy"),
    [
        ({"hide_by": "blocks"}, {"kind": "image"}, "hide_by", "set data.hide_by=points"),
        ({}, {"scale_target": True}, "hide", "set data.hide=null"),
        ({"folds": 3, "fold": 0}, {}, "hide", "data.folds=null data.fold=null"),
        ({"hide_by": "blocks", "hide_length": STEPS}, {}, "hide_length", "make it smaller"),
        ({"hide_train": 0.1}, {"draw": Hide(share=0.1, length=1)}, "hide_train", "set data.hide_train=null"),
    ],
)
def test_what_cannot_be_hidden_is_refused(settings, changes, key, remedy):
    source = Source("mine", "sequence", arrays(), test=np.arange(ROWS) % 4 == 0)
    with pytest.raises(ConfigError) as refusal:
        assemble(free(**({"hide": 0.2} | settings)), dataclasses.replace(source, **changes))
    error = refusal.value.under("data")
    assert error.key == f"data.{key}"
    assert remedy in str(error)


@pytest.mark.parametrize("examples", [arrays(), windows()], ids=["dense", "windows"])
def test_a_share_that_hides_no_value_is_refused(examples):
    with pytest.raises(ConfigError, match=r"hides no value of the .* validation rows; make it larger"):
        dataset_of(examples, hide=1e-6)


def test_data_whose_horizon_is_no_key_are_refused_without_it():
    m4 = build(shipped("data", "m4") | {"hide": 0.1}, key="data")
    source = Source("mine", "sequence", arrays(), test=np.arange(ROWS) % 4 == 0, scale_target=True)
    with pytest.raises(ConfigError) as refusal:
        assemble(m4, source)
    assert str(refusal.value.under("data")).endswith("set data.hide=null")


@recipe
class Odd(Free):
    zscore: bool = False
    binarize: str = "none"


@pytest.mark.parametrize(
    ("changes", "remedy"), [({"zscore": True}, "data.zscore=false"), ({"binarize": "once"}, "data.binarize=none")]
)
def test_z_scores_and_binary_draws_are_refused(changes, remedy):
    binary = Examples(x=(arrays().x > 3).astype(np.float32))
    settings = Odd(**(KEYS | {"hide": 0.2} | changes))
    with pytest.raises(ConfigError, match=remedy):
        assemble(settings, Source("mine", "sequence", binary))
