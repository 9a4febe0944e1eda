"""Laws of recurrent models: padding and missing values are nothing, steps add up to sequences, scores run free."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.clock import Clock
from research.data import Examples, Facts
from research.data.examples import prepare
from research.data.hiding import Hide
from research.models.abilities import uses_of
from research.models.decoding import Autoencodes, outputs_of
from research.networks.base import Networks, Training
from research.networks.steps import flip

QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # of compiling
FACTS = Facts("sequence", (4, 2), -3.0, 3.0, 3, 24, 4, 4)
LENGTH = jnp.array([4, 2, 3, 1, 4])
X = jnp.where(jnp.arange(4)[None, :, None] < LENGTH[:, None, None], jax.random.normal(jax.random.key(0), (5, 4, 2)), 0)
PADDED = Examples(x=X, length=LENGTH, label=jnp.arange(5) % 3)
WHOLE = Examples(x=jax.random.normal(jax.random.key(3), (5, 4, 2)), label=jnp.arange(5) % 3)
KEYS = jax.random.split(jax.random.key(1), 5)
CLOCK = Clock(*(jnp.float32(value) for value in (12, 3, 0.3, 24)))
STEP_CLASSES = {"target_shape": (4,), "target_classes": 3}
STEP_VALUES = {"target_shape": (4, 2), "target_high": 1.0}
SUMMARIES = ("last", "mean", "max")


def small(build_model, name: str, facts: dict[str, Any] | None = None, **options: Any) -> Any:
    sizes = {"hidden_dim": 4} | ({"latent_dim": 2} if name in ("recurrent_ae", "recurrent_vae") else {})
    return build_model(name, **(sizes | options)).bind(dataclasses.replace(FACTS, **(facts or {})))


def start(model: Any, batch: Examples = WHOLE) -> Any:
    """Parameters in general position: no bias is zero. They are drawn by numpy, which compiles nothing."""
    random, shapes = np.random.default_rng(0), jax.eval_shape(model.init, jax.random.key(0), batch)
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(0.1, 0.5, leaf.shape), jnp.float32), shapes)


def linear(params: Any, x: jax.Array) -> jax.Array:
    return x @ params["kernel"] + params["bias"].reshape((1,) * (x.ndim - 1) + (-1,))


def quickly(function: Any, *arguments: Any) -> Any:
    return jax.jit(function, compiler_options=QUICKLY)(*arguments)


def close(ours: Any, theirs: Any, rtol: float = 1e-6, atol: float = 1e-6) -> None:
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol, atol, err_msg=str(path))


@pytest.mark.parametrize("name", ["recurrent_ae", "recurrent_predictor", "recurrent_forecaster", "recurrent_gan"])
def test_a_model_can_be_asked_for_abilities_before_it_knows_its_data(name: str, build_model):
    model = build_model(name)
    assert uses_of(model) <= 1
    assert not isinstance(model, Autoencodes) or isinstance(model.networks, Networks)


# ------------------------------------------------------------------------------------------------------------- padding


def longer(array: jax.Array, steps: int = 3) -> jax.Array:
    return jnp.pad(array, ((0, 0), (0, steps)) + ((0, 0),) * (array.ndim - 2))


@pytest.mark.parametrize(("cell", "bidirectional"), [("rnn", False), ("irnn", True), ("gru", True), ("lstm", False)])
def test_padding_changes_no_summary(cell: str, bidirectional: bool, build_model):
    layers = 2 if bidirectional else 1  # a second layer that runs forwards reads no padding before its end
    options = {"cell": cell, "bidirectional": bidirectional, "layers": layers, "layer_norm": True}
    models = {how: small(build_model, "recurrent_predictor", **options, summary=how) for how in SUMMARIES}
    params = start(models["last"])

    def summaries(batch: Examples) -> dict[str, jax.Array]:
        return {how: model.encode(params, batch) for how, model in models.items()}

    short = quickly(summaries, PADDED)
    close(quickly(summaries, dataclasses.replace(PADDED, x=longer(X))), short)
    row = quickly(summaries, Examples(x=X[1:2, :2]))  # a row alone, without any padding
    close(jax.tree.map(lambda values: values[1:2], short), row)
    assert all(np.abs(short["last"] - short[how]).max() > 0.01 for how in SUMMARIES[1:])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("recurrent_ae", {"cell": "lstm", "decoder": "first_state", "reverse": True, "conditional": True}),
        ("recurrent_ae", {"cell": "rnn", "decoder": "free_running", "reverse": True, "gaussian_noise": 0.5}),
        ("recurrent_ae", {"decoder": "teacher_forced", "teacher_dropout": 0.3, "reverse": True, "masking_noise": 0.3}),
        ("recurrent_ae", {"code": "step", "summary": "mean", "contractive": 0.1}),
        ("recurrent_ae", {"code": "state", "bidirectional": True, "reads_mask": True}),
        ("recurrent_ae", {"cell": "irnn", "dropout": 0.4, "layers": 2, "bidirectional": True, "summary": "max"}),
        ("recurrent_vae", {"dropout": 0.4, "layers": 2, "decoder": "teacher_forced", "summary": "mean", "samples": 2}),
    ],
    ids=str,
)
def test_padding_changes_no_code_score_or_loss(name: str, options: dict[str, Any], build_model):
    """The training loss too, with its draws: they are made for each time step by itself."""
    model, other = (small(build_model, name, {"feature_shape": (steps, 2)}, **options) for steps in (4, 7))
    params = start(model, PADDED)

    def everything(model: Any, batch: Examples) -> Any:
        loss = model.loss(params, batch, jax.random.key(4), CLOCK)
        return model.encode(params, batch), model.evaluate(params, batch, KEYS), loss

    longer_batch = dataclasses.replace(PADDED, x=longer(X))
    close(quickly(everything, other, longer_batch), quickly(everything, model, PADDED), rtol=2e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_states_that_would_grow_without_end_over_padding_harm_no_gradient(bidirectional: bool, build_model):
    model = small(build_model, "recurrent_predictor", cell="irnn", bidirectional=bidirectional)
    params = start(model)
    for layer in params["layers"].values():
        layer["recurrent_kernel"] = 3 * jnp.abs(layer["recurrent_kernel"])  # 3^128 is no number of 32 bits
    slope = jax.grad(lambda params, batch: model.loss(params, batch, jax.random.key(0), CLOCK)[0])
    longer_batch = dataclasses.replace(PADDED, x=longer(X, 150))
    close(quickly(slope, params, longer_batch), quickly(slope, params, PADDED), rtol=1e-5)


@pytest.mark.parametrize(
    ("facts", "objective"), [(STEP_CLASSES, "auto"), (STEP_VALUES, "mse"), (STEP_VALUES, "cross_entropy")]
)
def test_padding_changes_no_score_of_steps(facts: dict[str, Any], objective: str, build_model):
    model = small(build_model, "recurrent_predictor", facts, objective=objective, bidirectional=True)
    target = jax.random.uniform(jax.random.key(5), (5, *facts["target_shape"]))
    target = (3 * target).astype(int) if "target_classes" in facts else target
    params, batch = start(model), dataclasses.replace(PADDED, target=target)
    more = dataclasses.replace(PADDED, x=longer(X), target=longer(target))
    scores = quickly(model.evaluate, params, batch, KEYS)
    close(quickly(model.evaluate, params, more, KEYS), scores)
    one = quickly(model.evaluate, params, Examples(x=X[1:2, :2], target=target[1:2, :2]), KEYS[1:2])
    close(one, {name: values[1:2] for name, values in scores.items()})


@pytest.mark.parametrize("name", ["dense_ae", "vae"])
def test_what_a_dense_decoder_says_about_padding_is_not_scored(name: str, build_model):
    options: dict[str, Any] = {"likelihood": "gaussian"} if name == "vae" else {}
    model = build_model(name, latent_dim=2, hidden_dims=[3], **options).bind(FACTS)
    params, batch = start(model, PADDED), dataclasses.replace(PADDED, length=jnp.full(5, 2))
    changed = jax.tree.map(lambda leaf: leaf, params)
    changed["decoder"]["output"]["bias"] = params["decoder"]["output"]["bias"].reshape(4, 2).at[2:].add(9).reshape(-1)
    judge = jax.jit(lambda params: (model.evaluate(params, batch, KEYS), model.reconstruct(params, batch)))
    scores, reconstruction = judge(params)
    close(judge(changed)[0], scores, atol=0, rtol=0)
    np.testing.assert_allclose(
        scores["reconstruction_mse"], np.square(batch.x - reconstruction)[:, :2].mean((1, 2)), rtol=1e-5
    )


# ------------------------------------------------------------------------------------------------------ missing values


@pytest.mark.parametrize("name", ["dense_ae", "vae", "recurrent_ae", "recurrent_vae"])
def test_missing_values_of_x_are_neither_scored_nor_felt(name: str, build_model):
    options: dict[str, Any] = {"latent_dim": 2, "likelihood": "gaussian"}
    model = build_model(name, **options).bind(FACTS)
    observed = jax.random.bernoulli(jax.random.key(6), 0.6, X.shape)
    raw = dataclasses.replace(WHOLE, x=jnp.where(observed, WHOLE.x, jnp.nan), observed=observed)
    batch = prepare(raw, 0.1, 2.0)
    params = start(model, batch)
    train = jax.jit(jax.value_and_grad(model.loss, has_aux=True), compiler_options=QUICKLY)
    gradient = train(params, batch, jax.random.key(0), CLOCK)[1]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    deaf = {**params, "encoder": jax.tree.map(jnp.zeros_like, params["encoder"])}  # then x is only what is scored
    other = dataclasses.replace(batch, x=jnp.where(observed, batch.x, 99.0))
    close(train(deaf, other, jax.random.key(0), CLOCK), train(deaf, batch, jax.random.key(0), CLOCK), atol=0, rtol=0)
    seen = dataclasses.replace(batch, x=jnp.where(observed, 99.0, batch.x))
    assert train(deaf, seen, jax.random.key(0), CLOCK)[0][0] != train(deaf, batch, jax.random.key(0), CLOCK)[0][0]


HIDING: list[tuple[str, dict[str, Any]]] = [
    ("recurrent_ae", {"code": "state", "bidirectional": True, "reads_mask": True}),
    ("recurrent_ae", {"gaussian_noise": 0.1, "masking_noise": 0.1, "decoder": "teacher_forced"}),
    ("recurrent_vae", {}),
    ("dense_ae", {"reads_mask": True}),
    ("vae", {"reads_mask": True, "bound": "iwae", "samples": 2}),
]


@pytest.mark.parametrize(("name", "options"), HIDING, ids=str)
def test_hidden_values_are_scored_and_not_seen(name: str, options: dict[str, Any], build_model):
    model = build_model(name, latent_dim=2, likelihood="gaussian", **options).bind(FACTS)
    batch = Hide(share=0.4, length=1).draw(WHOLE, jax.random.key(6))
    params = start(model, batch)

    def everything(batch: Examples) -> Any:
        loss = model.loss(params, batch, jax.random.key(0), CLOCK)
        return loss, model.evaluate(params, batch, KEYS), model.reconstruct(params, batch), model.encode(params, batch)

    (loss, scores, *outputs), again = quickly(everything, batch), batch.truth
    other = dataclasses.replace(batch, truth=jnp.where(batch.hidden, 1000.0, again))
    (other_loss, other_scores, *other_outputs) = quickly(everything, other)
    close(other_outputs, outputs, atol=0, rtol=0)  # what models make of rows knows nothing of hidden values
    close(other_scores["reconstruction_mse"], scores["reconstruction_mse"], atol=0, rtol=0)
    has_hidden = np.asarray(batch.hidden).any((1, 2))
    assert (np.asarray(other_scores["loss"] != scores["loss"]) == has_hidden).all()
    assert other_loss[0] != loss[0]
    missing = dataclasses.replace(batch, hidden=None, truth=None)  # the same rows, whose missing values nobody knows
    close(quickly(everything, missing)[2:], outputs, atol=0, rtol=0)


def test_the_loss_of_hidden_values_is_that_of_the_reconstruction(build_model):
    model = build_model("recurrent_ae", code="state", bidirectional=True).bind(FACTS)
    batch = Hide(share=0.4, length=1).draw(WHOLE, jax.random.key(6))
    params = start(model, batch)
    scores, rebuilt = quickly(lambda: (model.evaluate(params, batch, KEYS), model.reconstruct(params, batch)))
    error, seen = np.square(np.asarray(rebuilt) - np.asarray(WHOLE.x)), np.asarray(batch.mask)
    np.testing.assert_allclose(scores["loss"], error.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(scores["reconstruction_mse"], error.mean((1, 2), where=seen), rtol=1e-5)


@pytest.mark.parametrize("name", ["recurrent_ae", "dense_ae"])
def test_an_encoder_that_reads_masks_tells_a_missing_value_from_0(name: str, build_model):
    x = WHOLE.x.at[:, 1].set(0.0)
    observed = jnp.ones(x.shape, bool).at[:, 1].set(False)
    for reads_mask in (False, True):
        model = build_model(name, latent_dim=2, reads_mask=reads_mask).bind(FACTS)
        params = start(model)
        codes = [
            quickly(model.encode, params, dataclasses.replace(WHOLE, x=x, observed=mask)) for mask in (None, observed)
        ]
        assert (np.abs(codes[0] - codes[1]).max() > 1e-3) == reads_mask


@pytest.mark.parametrize("objective", ["cross_entropy", "mse", "mae"])
@pytest.mark.parametrize("shape", [(3,), (4, 2)])
def test_missing_targets_are_not_scored(shape: tuple[int, ...], objective: str, build_model):
    facts = {"target_shape": shape, "target_high": 1.0}
    model = small(build_model, "recurrent_predictor", facts, objective=objective)
    target = jax.random.uniform(jax.random.key(5), (5, *shape))
    observed = jax.random.bernoulli(jax.random.key(6), 0.6, target.shape).at[0].set(False)
    params, batch = start(model), dataclasses.replace(PADDED, target=target, target_observed=observed)
    train = jax.jit(jax.value_and_grad(model.loss, has_aux=True), compiler_options=QUICKLY)
    expected = train(params, batch, jax.random.key(0), CLOCK)
    garbage = dataclasses.replace(batch, target=jnp.where(observed, target, jnp.nan))
    close(train(params, garbage, jax.random.key(0), CLOCK), expected, atol=0, rtol=0)
    scores, predicted = quickly(lambda: (model.evaluate(params, batch, KEYS), model.predict(params, batch)))
    assert scores["loss"][0] == 0  # a row without targets
    error = np.asarray(predicted) - np.asarray(target)
    if objective != "cross_entropy":
        size = np.square(error) if objective == "mse" else np.abs(error)
        axes, there = tuple(range(1, size.ndim)), np.asarray(observed)
        there = there & np.asarray(PADDED.mask) if shape == (4, 2) else there
        mean = size.sum(axes, where=there) / np.maximum(there.sum(axes), 1)
        np.testing.assert_allclose(scores["loss"], mean, rtol=1e-5)


# ------------------------------------------------------------------------------------------- one step at a time = whole


def prefixes(call: Any, batch: Examples) -> Any:
    """call(batch cut after t steps) for t = 1 ... T, [T, ...]."""
    return jax.vmap(lambda steps: call(dataclasses.replace(batch, length=jnp.full(5, steps))))(jnp.arange(1, 5))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("recurrent_ae", {"cell": "rnn", "layers": 2, "layer_norm": True}),
        ("recurrent_ae", {"code": "step", "code_activation": "tanh", "conditional": True}),
        ("recurrent_ae", {"code": "state", "layers": 2, "reads_mask": True}),
        ("recurrent_vae", {"cell": "lstm", "layers": 2, "conditional": True}),
        ("recurrent_predictor", {"cell": "irnn", "layers": 2}),
    ],
    ids=str,
)
def test_steps_one_by_one_give_the_codes_of_every_beginning(name: str, options: dict[str, Any], build_model):
    model = small(build_model, name, **options)
    params = start(model)
    label = WHOLE.label if options.get("conditional") else None

    def both(params: Any) -> Any:
        found = {}
        for how in SUMMARIES:
            own = small(build_model, name, **options, summary=how)
            state, online = own.start(5), []
            for time in range(4):
                state, out = own.step(params, state, WHOLE.x[:, time], label)
                online.append(out)
            call: Any = own.predict if name == "recurrent_predictor" else own.encode
            found[how] = jnp.stack(online), prefixes(functools.partial(call, params), WHOLE)
        return found

    for how, (online, whole) in quickly(both, params).items():
        np.testing.assert_allclose(online, whole, atol=1e-5, err_msg=how)


def test_steps_one_by_one_give_the_prediction_of_every_step(build_model):
    model = small(build_model, "recurrent_predictor", STEP_CLASSES, summary="mean")  # of no consequence here
    params, state = start(model), model.start(5)
    whole, step = quickly(model.predict, params, WHOLE), jax.jit(model.step, compiler_options=QUICKLY)
    for time in range(4):
        state, out = step(params, state, np.asarray(WHOLE.x)[:, time])
        np.testing.assert_allclose(out, whole[:, time], atol=1e-5)


# --------------------------------------------------------------------------------------------- decoders, codes of steps


def test_a_code_at_every_step_by_hand(build_model):
    model = small(build_model, "recurrent_ae", code="step")
    params = start(model)

    def everything() -> Any:
        z = linear(params["encoder"]["output"], WHOLE.x)
        states, _ = model.networks.decoder_module(1).layers.apply({"params": params["decoder"]["layers"]}, z)
        output = params["decoder"]["output"]
        expected = states @ output["kernel"] + z @ params["decoder"]["skip"] + output["bias"][None, None]
        codes = model.full_code(params, WHOLE), model.encode(params, WHOLE)
        return codes, (z, z[:, -1]), model.reconstruct(params, WHOLE), expected

    codes, expected_codes, reconstruction, expected = quickly(everything)
    close(codes, expected_codes)
    np.testing.assert_allclose(reconstruction, expected, atol=1e-5)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_code_of_the_state_at_every_step_knows_what_the_state_knows(bidirectional: bool, build_model):
    model = small(build_model, "recurrent_ae", code="state", bidirectional=bidirectional)
    params = start(model)
    slopes = quickly(jax.jacrev(lambda x: model.full_code(params, Examples(x=x))[0].sum(-1)), WHOLE.x)[:, 0]
    felt = np.abs(slopes).max(-1) > 0  # [steps of the code, steps of x]
    np.testing.assert_array_equal(felt, np.ones((4, 4), bool) if bidirectional else np.tri(4, dtype=bool))


def teacher_forced(build_model, **options: Any) -> Any:
    return small(build_model, "recurrent_ae", decoder="teacher_forced", **options)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dropout", [None, 1.0])
def test_a_teacher_shows_the_true_last_value_or_with_dropout_nothing(reverse: bool, dropout: Any, build_model):
    model = teacher_forced(build_model, reverse=reverse, teacher_start=1.0, teacher_end=1.0, teacher_dropout=dropout)
    params = start(model)
    loss = quickly(model.loss, params, PADDED, jax.random.key(0), CLOCK)[0]
    truth, decoder = flip(X, LENGTH) if reverse else X, params["decoder"]

    def by_steps() -> list[jax.Array]:
        layers = model.networks.decoder_module(1).layers
        carries: Any = ((linear(decoder["start"], model.encode(params, PADDED)),),)
        x, outputs = jnp.zeros((5, 2)), []
        for time in range(4):
            carries, last = layers.apply({"params": decoder["layers"]}, carries, x, method="step")
            outputs.append(linear(decoder["output"], last))
            x = truth[:, time] if dropout is None else jnp.zeros((5, 2))
        return outputs

    outputs = quickly(by_steps)
    error = np.square(np.stack(outputs, 1) - truth).sum((1, 2), where=np.asarray(PADDED.mask)) / (2 * LENGTH)
    assert float(loss) == pytest.approx(float(error.mean()), rel=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_scores_run_free_whatever_the_teacher(reverse: bool, build_model):
    free = small(build_model, "recurrent_ae", decoder="free_running", reverse=reverse)
    model = teacher_forced(build_model, reverse=reverse)
    absent = teacher_forced(build_model, reverse=reverse, teacher_start=0.0, teacher_end=0.0)
    params = start(free)
    train = jax.jit(lambda model, params: model.loss(params, PADDED, jax.random.key(0), CLOCK)[0])
    assert train(absent, params) == train(free, params)
    assert train(model, params) != train(free, params)
    score = jax.jit(lambda model, params: (model.evaluate(params, PADDED, KEYS), model.reconstruct(params, PADDED)))
    expected = score(free, params)
    for other in (model, absent):
        close(score(other, params), expected, atol=0, rtol=0)
    decoded = quickly(lambda: model.decode(params, model.encode(params, PADDED), length=LENGTH))
    np.testing.assert_allclose(expected[1], decoded, atol=1e-6)
    error = np.square(X - decoded).sum((1, 2), where=np.asarray(PADDED.mask)) / (2 * LENGTH)
    np.testing.assert_allclose(expected[0]["loss"], error, rtol=1e-5)


def test_the_share_of_the_teacher_is_a_ramp(build_model):
    model = teacher_forced(build_model, teacher_start=0.9, teacher_end=0.1, teacher_epochs=4.0)
    sudden = teacher_forced(build_model, teacher_start=0.9, teacher_end=0.1, teacher_epochs=0.0)
    for epoch, share in ((0, 0.9), (1, 0.7), (4, 0.1), (9, 0.1)):
        time = CLOCK._replace(epoch=jnp.float32(epoch))
        training = Training(WHOLE, jax.random.key(0), time)
        assert float(model.networks.teaching(training, None).share) == pytest.approx(share)
        assert float(sudden.networks.teaching(training, None).share) == pytest.approx(0.1)


def test_the_penalty_of_a_code_at_every_step_is_of_all_valid_steps(build_model):
    model = build_model("recurrent_ae", code="step", latent_dim=2, hidden_dim=3, activity_l1=1.0).bind(FACTS)
    params, batch = start(model), Examples(x=X[:2], length=LENGTH[:2])
    code, (_, metrics) = quickly(
        lambda: (model.full_code(params, Examples(x=X[:2])), model.loss(params, batch, jax.random.key(2), CLOCK))
    )
    code = np.asarray(code)
    expected = (np.abs(code[0]).sum() + np.abs(code[1, :2]).sum()) / 2
    assert float(metrics["activity_l1"]) == pytest.approx(expected, rel=1e-5)


def test_a_missing_value_is_not_taught(build_model):
    """Where the truth is missing, a taught decoder sees its own output, as a free-running one does."""
    x = jax.random.normal(jax.random.key(1), (3, 4, 2))
    hidden = Examples(x=jnp.zeros_like(x), observed=jnp.zeros(x.shape, bool))
    taught, free = (
        build_model("recurrent_ae", latent_dim=2, hidden_dim=3, decoder=mode, teacher_end=1.0).bind(FACTS)
        for mode in ("teacher_forced", "free_running")
    )
    params, code = start(taught), jnp.ones((3, 2))
    training = Training(hidden, jax.random.key(2), CLOCK)
    seen = training._replace(batch=Examples(x=x))
    outputs, expected, other = quickly(
        lambda: (
            outputs_of(taught, params, code, None, None, training),
            outputs_of(free, params, code, None),
            outputs_of(taught, params, code, None, None, seen),
        )
    )
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)
    assert np.abs(outputs - other).max() > 1e-3
