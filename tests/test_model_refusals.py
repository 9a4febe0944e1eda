"""Settings of models that cannot be, and data that do not fit them, are refused with the key and the remedy."""

import dataclasses
from typing import Any

import pytest

from research.data import Facts
from research.tree import ConfigError

DENSE = ("dense_ae", "vae")
CODING = (*DENSE, "recurrent_ae", "recurrent_vae")
QUANTIZED = ("vq_ae", "recurrent_vq_ae")
RECURRENT = ("recurrent_ae", "recurrent_vae", "recurrent_predictor", "recurrent_forecaster", "recurrent_gan")
FACTS = Facts("vector", (5,), 0.0, 1.0, 3, 6, 2, 2)
SEQUENCE = dataclasses.replace(FACTS, kind="sequence", feature_shape=(4, 2))


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [
        ("dense_ae", {"latent_dim": 0}, "latent_dim"),
        ("dense_ae", {"hidden_dims": [3, 0]}, "hidden_dims[1]"),
        ("dense_ae", {"activation": "rellu"}, "activation"),
        ("dense_ae", {"code_activation": "softmax"}, "code_activation"),
        ("dense_ae", {"kernel_init": "zeros"}, "kernel_init"),
        ("dense_ae", {"masking_noise": 1.0}, "masking_noise"),
        ("dense_ae", {"contractive": -1.0}, "contractive"),
        ("dense_ae", {"contractive_probes": 0}, "contractive_probes"),
        ("dense_ae", {"likelihood": "bernouli"}, "likelihood"),
        ("vae", {"likelihood": "mse"}, "likelihood"),
        ("vae", {"beta": -1.0}, "beta"),
        ("vae", {"samples": 0}, "samples"),
        ("vae", {"cycles": 0}, "cycles"),
        ("vae", {"warmup": "linear"}, "warmup_epochs"),
        ("vae", {"free_bits": 0.1, "capacity": 1.0}, "capacity"),
        ("vae", {"bound": "iwae", "free_bits": 0.1}, "bound"),
        ("vae", {"log_variance_range": [2, -6]}, "log_variance_range"),
        ("vae", {"prior": "vamp", "pseudo_inputs": 0}, "pseudo_inputs"),
        ("vae", {"prior": "vamp", "conditional": True}, "prior"),
        ("vae", {"prior": "vamp", "free_bits": 0.1}, "free_bits"),
        ("vae", {"top_dim": 0}, "top_dim"),
        ("vae", {"top_hidden_dims": [3, 0]}, "top_hidden_dims[1]"),
        ("vae", {"penalty_weight": -1.0}, "penalty_weight"),
        ("vae", {"discriminator_dims": [0]}, "discriminator_dims[0]"),
        ("vae", {"dip_diagonal": -1.0}, "dip_diagonal"),
        ("vae", {"penalty": "mmmd"}, "penalty"),
        ("dense_ae", {"penalty": "total_correlation"}, "penalty"),
        *(("dense_ae", {name: -1.0}, name) for name in ("code_l2", "decoder_l2", "decoder_gradient")),
        ("recurrent_ae", {"penalty": "mmd", "code": "step"}, "penalty"),
        *((name, {"entries": 1}, "entries") for name in QUANTIZED),
        *((name, {"latent_dim": 6, "groups": 4}, "groups") for name in QUANTIZED),
        *((name, {"commitment": -0.1}, "commitment") for name in QUANTIZED),
        *((name, {"penalty": "mmd"}, "penalty") for name in QUANTIZED),
        *((name, {"code_l2": 0.1}, "code_l2") for name in QUANTIZED),
        *((name, {"parameters": 0}, "parameters") for name in DENSE + RECURRENT),
        ("dense_ae", {"hidden_dims": [], "parameters": 100}, "parameters"),
        ("dense_ae", {"hidden_dims": [], "dropout": 0.1}, "dropout"),
        ("vae", {"dropout": 1.0}, "dropout"),
        ("recurrent_ae", {"dropout": None}, "dropout"),
        ("recurrent_predictor", {"cell": "grru"}, "cell"),
        ("recurrent_predictor", {"layers": 0}, "layers"),
        ("recurrent_predictor", {"hidden_dim": 0}, "hidden_dim"),
        ("recurrent_predictor", {"unroll": -1}, "unroll"),
        ("recurrent_ae", {"latent_dim": 0}, "latent_dim"),
        ("recurrent_ae", {"teacher_start": 1.5}, "teacher_start"),
        ("recurrent_ae", {"teacher_end": -0.5}, "teacher_end"),
        ("recurrent_ae", {"teacher_epochs": -1}, "teacher_epochs"),
        ("recurrent_ae", {"teacher_dropout": 0.5}, "teacher_dropout"),
        ("recurrent_ae", {"teacher_dropout": 1.5, "decoder": "teacher_forced"}, "teacher_dropout"),
        ("recurrent_ae", {"code": "step", "decoder": "first_state"}, "decoder"),
        ("recurrent_ae", {"code": "step", "bidirectional": True}, "bidirectional"),
        ("recurrent_ae", {"code": "step", "reverse": True}, "reverse"),
        ("recurrent_vae", {"code": "step"}, "code"),
        ("recurrent_vae", {"likelihood": "mse"}, "likelihood"),
        ("recurrent_forecaster", {"segment": 0}, "segment"),
        ("recurrent_forecaster", {"embedding": 0}, "embedding"),
        ("recurrent_forecaster", {"dropout": 1.0}, "dropout"),
        ("recurrent_forecaster", {"objective": "quantile", "quantiles": [0.5, 0.1]}, "quantiles"),
        ("recurrent_forecaster", {"objective": "quantile", "quantiles": [0.1, 0.9]}, "quantiles"),
        ("recurrent_forecaster", {"objective": "quantile", "quantiles": [0.5, 1.0]}, "quantiles[1]"),
        ("recurrent_forecaster", {"bidirectional": True, "decoding": "parallel"}, "bidirectional"),
        ("recurrent_forecaster", {"summary": "mean", "decoding": "recursive"}, "summary"),
        ("recurrent_gan", {"noise_dim": 0}, "noise_dim"),
        ("recurrent_gan", {"generator_activation": "relu"}, "generator_activation"),
        ("recurrent_gan", {"gradient_penalty": -1.0}, "gradient_penalty"),
        ("recurrent_gan", {"game": "wasserstein"}, "gradient_penalty"),
    ],
)
def test_impossible_settings_are_refused(name: str, options: dict[str, Any], key: str, build_model):
    with pytest.raises(ConfigError) as error:
        build_model(name, **options)
    assert error.value.key == f"model.{key}"


def refused(build_model, name: str, words: str, facts: Facts, **options: Any) -> str:
    """The key of the error."""
    with pytest.raises(ConfigError) as error:
        build_model(name, **options).bind(facts)
    assert words in str(error.value)
    return error.value.key


@pytest.mark.parametrize("name", DENSE + RECURRENT)
def test_impossible_data_are_refused(name: str, build_model):
    facts = FACTS if name in DENSE else SEQUENCE
    if name in CODING:
        low = dataclasses.replace(facts, low=-1.0)
        assert refused(build_model, name, "set likelihood=gaussian", low, likelihood="bernoulli") == "likelihood"
        unlabelled = dataclasses.replace(facts, classes=0)
        assert refused(build_model, name, "no labels", unlabelled, conditional=True) == "conditional"
    if name in RECURRENT:
        refused(build_model, name, "row by row", dataclasses.replace(facts, kind="image"))


@pytest.mark.parametrize(
    ("options", "facts", "key", "words"),
    [
        ({}, {"classes": 0}, "", "nothing is to predict"),
        ({}, {"classes": 1}, "", "one class"),
        ({}, {"target_shape": (4,), "target_classes": 1}, "", "one class"),
        ({}, {"target_shape": (3, 2)}, "", "recurrent_forecaster"),
        ({}, {"target_shape": (3,), "target_classes": 2}, "", "every step"),
        ({"objective": "mse"}, {}, "objective", "class"),
        ({"objective": "mae"}, {"target_shape": (4,), "target_classes": 2}, "objective", "class"),
        ({"objective": "cross_entropy"}, {"target_shape": (3,), "target_high": 2.0}, "objective", "[0, 1]"),
    ],
)
def test_targets_that_cannot_be_predicted_are_refused(
    options: dict[str, Any], facts: dict[str, Any], key: str, words: str, build_model
):
    facts_ = dataclasses.replace(SEQUENCE, **facts)
    assert refused(build_model, "recurrent_predictor", words, facts_, **options) == key
