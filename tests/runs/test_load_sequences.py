"""A finished run of a recurrent model as an object, on data that are standardised channel by channel."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from research import tree
from research.data.examples import Examples, Facts
from research.runs import batches
from research.runs.files import ALONE
from research.runs.folder import RunFolder
from research.runs.load import load
from research.tree import ConfigError

STEPS, CHANNELS, HORIZON = 5, 2, 3
CHANNEL_SHIFT, CHANNEL_SCALE = np.array([10, -4], np.float32), np.array([0.5, 2], np.float32)
SEQUENCES = Facts("sequence", (STEPS, CHANNELS), -3.0, 3.0, 3, 8, 2, 2)


@pytest.fixture
def trained(tmp_path, build_model):
    """A run of a shipped model with fresh parameters, or zeros."""

    def make(name, facts=SEQUENCES, zeros=False, **settings):
        unbound = build_model(name, hidden_dim=4, **settings)
        fresh = unbound.bind(facts).fresh
        if zeros:
            shapes = jax.eval_shape(fresh, jax.random.key(0))
            params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        else:
            params = fresh(jax.random.key(0))
        config, run = (
            {"model": tree.plain(unbound), "seed": 0},
            RunFolder(tmp_path / str(len(list(tmp_path.iterdir()))), ALONE),
        )
        record = {"config": config, "config_hash": tree.config_hash(config), "facts": dataclasses.asdict(facts)}
        run.write_config(json.loads(json.dumps(record)))
        scaling = {"shift": CHANNEL_SHIFT, "scale": CHANNEL_SCALE}
        run.save_parameters(params, scaling | {f"target_{part}": value for part, value in scaling.items()})
        return load(run.path)

    return make


@pytest.fixture
def sequences():
    values = np.random.default_rng(0).normal(size=(4, STEPS, CHANNELS)) / CHANNEL_SCALE + CHANNEL_SHIFT
    return values.astype(np.float32)


def test_errors_of_steps_are_parts_of_the_error_of_a_row(trained, sequences):
    run, length = trained("recurrent_ae", latent_dim=2), np.array([5, 3, 1, 4], np.int32)
    padded, scaled = Examples(x=sequences, length=length), (sequences - CHANNEL_SHIFT) * CHANNEL_SCALE
    found = run.score_steps(padded)
    valid = np.arange(STEPS)[None] < length[:, None]
    np.testing.assert_array_equal(np.isfinite(found), valid)
    rebuilt = (run.reconstruct(padded) - CHANNEL_SHIFT) * CHANNEL_SCALE
    np.testing.assert_allclose(found[valid], np.square(scaled - rebuilt).mean(-1)[valid], rtol=1e-4)
    np.testing.assert_allclose(np.nanmean(found, -1), run.score(padded), rtol=1e-5)  # the loss of this model
    whole = run.score_steps(Examples(x=sequences, observed=np.ones(sequences.shape, bool)))
    observed = np.ones(sequences.shape, bool)
    observed[0, 1], observed[0, 2, 0] = False, False
    found = run.score_steps(Examples(x=np.where(observed, sequences, np.nan), observed=observed))
    assert np.isnan(found[0, 1])
    assert np.isfinite(found).sum() == found.size - 1
    np.testing.assert_allclose(found[1:], whole[1:], rtol=1e-5)


@pytest.mark.parametrize("reads_mask", [False, True])
def test_imputed_rows_are_the_reconstruction_where_a_value_is_missing(trained, sequences, reads_mask):
    run = trained("recurrent_ae", latent_dim=2, code="state", bidirectional=True, reads_mask=reads_mask)
    missing = np.random.default_rng(1).random(sequences.shape) < 0.3
    rows = np.where(missing, np.nan, sequences)
    filled = run.impute(rows)
    np.testing.assert_array_equal(filled[~missing], sequences[~missing])
    np.testing.assert_array_equal(filled[missing], run.reconstruct(rows)[missing])
    np.testing.assert_array_equal(run.impute(sequences, observed=~missing), filled)
    np.testing.assert_array_equal(run.impute(sequences), sequences)
    assert np.isnan(rows[missing]).all()  # the rows of the caller stay
    filled = run.impute(rows, lengths=[5, 3, 2, 4])
    inside = np.arange(STEPS)[None, :, None] < np.array([5, 3, 2, 4])[:, None, None]
    np.testing.assert_array_equal(np.isfinite(filled), ~missing | inside)


@pytest.mark.parametrize("code", ["state", "step"])
def test_codes_of_every_step_are_decoded_to_the_reconstruction(trained, sequences, code):
    run = trained("recurrent_ae", latent_dim=2, code=code)
    rows = Examples(jax.numpy.asarray((sequences - CHANNEL_SHIFT) * CHANNEL_SCALE, "float32"))
    codes = np.asarray(run.model.full_code(run.params, rows))
    assert codes.shape == (4, STEPS, 2)
    np.testing.assert_allclose(run.decode(codes), run.reconstruct(sequences), rtol=1e-5)
    for wrong in (run.encode(sequences), codes[:, 1:], codes[..., :1], codes[0, 0]):
        with pytest.raises(ConfigError, match=rf"expected codes of shape \[N, {STEPS}, 2\]"):
            run.decode(wrong)


def test_forecasts_are_on_the_raw_scale(trained, sequences):
    facts = dataclasses.replace(SEQUENCES, target_shape=(HORIZON, CHANNELS), target_follows=True)
    last = np.repeat(sequences[:, -1:], HORIZON, 1)
    quantile = {"normalize": "last", "objective": "quantile"}
    found = trained("recurrent_forecaster", facts, zeros=True, **quantile).forecast(sequences)
    np.testing.assert_allclose(found.median, last, rtol=1e-5)
    np.testing.assert_allclose(found.quantiles, np.repeat(last[..., None], 3, -1), rtol=1e-5)
    assert found.deviation is None
    settings = {"normalize": "none", "objective": "gaussian"}
    found = trained("recurrent_forecaster", facts, zeros=True, **settings).forecast(sequences)
    np.testing.assert_allclose(found.mean, np.broadcast_to(CHANNEL_SHIFT, last.shape))
    np.testing.assert_allclose(found.deviation, np.broadcast_to(1 / CHANNEL_SCALE, last.shape))  # exp(0) when scaled
    assert found.quantiles is None
    run = trained("recurrent_forecaster", facts, **quantile)
    found, scaled = run.forecast(sequences), (sequences - CHANNEL_SHIFT) * CHANNEL_SCALE
    assert found.quantiles.shape == (4, HORIZON, CHANNELS, 3)
    assert (np.diff(found.quantiles, axis=-1) >= 0).all()
    np.testing.assert_array_equal(found.quantiles[..., 1], found.median)
    forecast = lambda batch, _: batches.call(run.model, run.params, batch, "forecast")
    own = batches.over(forecast, Examples(x=scaled), 256)
    raw = np.asarray(own.quantiles) / CHANNEL_SCALE[:, None] + CHANNEL_SHIFT[:, None]
    np.testing.assert_allclose(found.quantiles, raw, rtol=1e-4)


def test_predictions_are_probabilities_or_raw_values(trained, sequences):
    found = trained("recurrent_predictor").predict(sequences)
    assert found.shape == (4, 3)
    np.testing.assert_allclose(found.sum(-1), 1)
    assert (found > 0).all()
    facts = dataclasses.replace(SEQUENCES, target_shape=(STEPS,), target_classes=7)
    found = trained("recurrent_predictor", facts).predict(sequences)
    assert found.shape == (4, STEPS, 7)
    np.testing.assert_allclose(found.sum(-1), 1)
    facts = dataclasses.replace(SEQUENCES, target_shape=(2,), target_low=0.0, target_high=1.0)
    found = trained("recurrent_predictor", facts, zeros=True, objective="cross_entropy").predict(sequences)
    np.testing.assert_array_equal(found, np.full((4, 2), 0.5))
    found = trained("recurrent_predictor", facts, zeros=True).predict(sequences)
    np.testing.assert_array_equal(found, np.tile(CHANNEL_SHIFT, (4, 1)))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("recurrent_ae", {"latent_dim": 3, "summary": "mean", "cell": "lstm", "layers": 2}),
        ("recurrent_vae", {"latent_dim": 3, "conditional": True}),
        ("recurrent_predictor", {"summary": "max"}),
    ],
)
def test_step_after_step_is_the_code_of_the_sequence_so_far(trained, sequences, name, settings):
    run, label = trained(name, **settings), np.array([0, 1, 2, 0])
    state = run.start(4)
    for step in range(STEPS):
        state, codes = run.step(state, sequences[:, step], label if settings.get("conditional") else None)
        so_far = Examples(x=sequences, length=np.full(4, step + 1, np.int32), label=label)
        if name == "recurrent_predictor":
            odds = np.exp(codes - codes.max(-1, keepdims=True))
            np.testing.assert_allclose(odds / odds.sum(-1, keepdims=True), run.predict(so_far), rtol=1e-4)
        else:
            np.testing.assert_allclose(codes, run.encode(so_far), rtol=1e-4, atol=1e-5)


def test_wrong_sizes_and_missing_abilities_are_refused(trained, sequences):
    autoencoder = trained("recurrent_ae", zeros=True, latent_dim=2)
    with pytest.raises(ConfigError, match=r"x=\(4, 3\): expected one step \[N, 2\]"):
        autoencoder.step(autoencoder.start(4), np.zeros((4, 3)))
    with pytest.raises(ConfigError, match=r"x=\(3, 2\): the state is of 4 sequences"):
        autoencoder.step(autoencoder.start(4), np.zeros((3, 2)))
    with pytest.raises(ConfigError, match=r"\[N, 5, 2\], as in training"):
        autoencoder.score_steps(sequences[:, :4])
    for ability in ("forecast", "predict"):
        with pytest.raises(ConfigError, match=f"a RecurrentAE cannot {ability}; choose another model"):
            getattr(autoencoder, ability)(sequences)
    with pytest.raises(ConfigError, match="a RecurrentPredictor cannot reconstruct"):
        trained("recurrent_predictor", zeros=True).score_steps(sequences)
    with pytest.raises(ConfigError, match="a RecurrentForecaster cannot step"):
        trained(
            "recurrent_forecaster",
            dataclasses.replace(SEQUENCES, target_shape=(HORIZON, CHANNELS), target_follows=True),
            zeros=True,
        ).start(2)
    with pytest.raises(ConfigError, match=r"bidirectional=True.*model.bidirectional=false"):
        trained("recurrent_vae", zeros=True, latent_dim=2, bidirectional=True).start(2)
    conditional = trained("recurrent_ae", zeros=True, latent_dim=2, conditional=True)
    with pytest.raises(ConfigError, match="label=null: this model is conditional"):
        conditional.step(conditional.start(4), sequences[:, 0])
