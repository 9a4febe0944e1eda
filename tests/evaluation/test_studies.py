"""What every recurrent family is evaluated by, on a few rows of untrained networks."""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml

from research import evaluation, tree
from research.data.examples import Examples, Facts
from research.evaluation import STUDIES, Study, Subject, anomaly, baselines, clustering, forecasting, generation
from research.evaluation import rows as lazy_rows

from . import asking

STANDARD = Path(__file__).parents[2] / "conf" / "evaluation" / "standard.yaml"
STEPS, CHANNELS, HORIZON, SEASON = 6, 2, 3, 2
ROWS = {"train": slice(0, 40), "validation": slice(40, 52), "test": slice(52, 72)}
AGREEMENT = ("ari", "nmi", "rand_index", "cluster_accuracy", "silhouette")
GENERATION = (
    *("discriminative_score", "predictive_score", "classifier_score", "classifier_null", "classifier_p_value"),
    *("energy_distance", "diversity", "memorization"),
)


def recipe(**changes):
    return tree.build(yaml.safe_load(STANDARD.read_text()) | {"cluster_starts": 1, "nll_samples": 2} | changes)


def sequences(**fields):
    generator = np.random.default_rng(0)
    label = np.arange(72) % 2
    x = generator.random((72, STEPS, CHANNELS)) * 0.3 + 0.5 * label[:, None, None]
    return Examples(x=x.astype(np.float32), **{"label": label, **fields})


@functools.cache
def fresh(model):
    """Parameters of a bound model, made once."""
    return model.fresh(jax.random.key(0))


def evaluate(model, examples, settings, params=None, *, classes=2, **options):
    facts = Facts("sequence", (STEPS, CHANNELS), 0.0, 1.0, classes, 40, 12, 20, **options.pop("facts", {}))
    model = model.bind(facts)
    params = fresh(model) if params is None else params
    parts = options.pop("parts", None) or {name: examples.take(rows) for name, rows in ROWS.items()}
    return asking.listed_findings(Subject(model, params, parts, settings, facts, jax.random.key(0), **options))


def named(prefix, *names):
    return {f"{prefix}/{name}" for name in names}


def test_a_question_that_joins_the_table_leaves_the_lists_of_other_questions_alone(autoencoder, monkeypatch):
    """And what it finds under a name of theirs is missed there."""
    studies = {row.study for row in STUDIES}
    assert studies >= asking.LISTED
    expected = evaluate(autoencoder, sequences(), recipe())
    for name in ("code_norm", "knn_accuracy"):
        more = Study(lambda subject, findings, name=name: findings.add({name: 1.0}, "test/"), ())
        monkeypatch.setattr(evaluation, "STUDIES", (*STUDIES, more))
        monkeypatch.setattr(asking, "STUDIES", (*STUDIES, more))
        metrics = evaluate(autoencoder, sequences(), recipe()).metrics
        assert (metrics == expected.metrics) == (name == "code_norm")


AUTOENCODER = named("test", "knn_accuracy", "probe_accuracy") | {
    *(f"baseline/{name}/reconstruction_mse{raw}" for name in ("mean", "pca") for raw in ("", "_raw")),
    *("baseline/pca/knn_accuracy", "baseline/pca/probe_accuracy"),
}


@pytest.fixture(scope="module")
def autoencoder(build_model):
    return build_model("recurrent_ae", latent_dim=2, hidden_dim=4)


@pytest.fixture(scope="module")
def forecaster(build_model):
    return build_model("recurrent_forecaster", hidden_dim=4)


def test_an_autoencoder_and_clusters_of_its_codes(autoencoder):
    found = evaluate(autoencoder, sequences(), recipe(clustering="classes"))
    assert set(found.metrics) == {
        *AUTOENCODER,
        *named("test", "clusters", *AGREEMENT),
        *named("baseline/raw_kmeans", *AGREEMENT),
        *named("baseline/pca_kmeans", *AGREEMENT),
        "validation/silhouette",
    }
    assert found.metrics["test/clusters"] == 2
    assert found.metrics["baseline/raw_kmeans/ari"] == found.metrics["baseline/pca_kmeans/ari"] == 1
    assert set(found.pictures) == {"codes", "reconstructions"}
    assert not found.curves
    assert not found.null_reasons
    assert found.codes.shape == (20, 2)


def test_the_number_of_clusters_without_labels(autoencoder):
    unlabelled = sequences(label=None)
    settings = recipe(clustering="silhouette", cluster_range=[2, 5])
    found = evaluate(autoencoder, unlabelled, settings, classes=0)
    assert set(found.metrics) == {
        *(f"baseline/{name}/reconstruction_mse{raw}" for name in ("mean", "pca") for raw in ("", "_raw")),
        *("test/clusters", "test/silhouette", "validation/silhouette"),
        *("baseline/raw_kmeans/silhouette", "baseline/pca_kmeans/silhouette"),
    }
    assert 2 <= found.metrics["test/clusters"] <= 5


def test_clusters_of_codes_that_are_not_numbers(autoencoder):
    params = fresh(autoencoder.bind(Facts("sequence", (STEPS, CHANNELS), 0.0, 1.0, 2, 40, 12, 20)))
    broken = jax.tree.map(lambda leaf: leaf * np.float32(np.nan), params)
    found = evaluate(autoencoder, sequences(), recipe(clustering="classes", pictures=False), broken)
    assert found.null_reasons["test/ari"] == found.null_reasons["test/probe_accuracy"] == "some codes are not finite"


def test_what_depends_on_the_data_alone_is_computed_once(autoencoder, monkeypatch):
    calls = []
    count = lambda name, function: lambda *given: calls.append(name) or function(*given)
    monkeypatch.setattr(baselines, "components", count("components", baselines.components))
    monkeypatch.setattr(clustering, "centres_of", count("kmeans", clustering.centres_of))
    shared, settings = {}, recipe(clustering="classes", pictures=False)
    found = [
        evaluate(autoencoder, sequences(), settings, shared=shared, data_key=key, seed=seed).metrics
        for key, seed in [("a", 0), ("a", 0), ("b", 0)]
    ]
    assert found[0] == found[1] == found[2]
    # codes of test and validation rows three times; raw and reduced rows once for each name of the data
    assert calls.count("kmeans") == 3 * 2 + 2 * 2
    assert calls.count("components") == 2


def test_components_that_are_too_many_are_a_reason_and_no_end(autoencoder, monkeypatch):
    monkeypatch.setattr(baselines, "LARGEST", 5)
    found = evaluate(autoencoder, sequences(), recipe(clustering="classes", pictures=False))
    assert "too large" in found.null_reasons["baseline/pca_kmeans/ari"]
    assert found.metrics["baseline/raw_kmeans/ari"] == 1
    assert found.metrics["test/ari"] is not None
    odd = evaluate(autoencoder, sequences(), recipe(pictures=False), facts={"anomaly": True}, parts=normal(sequences()))
    assert "too large" in odd.null_reasons["baseline/pca_residual/auroc"]
    assert odd.metrics["test/auroc"] is not None


def normal(examples):
    """Parts of which only the test part has rows of class 1."""
    parts = {name: examples.take(rows) for name, rows in ROWS.items()}
    return {name: part if name == "test" else part.take(part.label == 0) for name, part in parts.items()}


def test_anomalous_rows(autoencoder):
    parts = normal(sequences())
    found = evaluate(autoencoder, None, recipe(), facts={"anomaly": True}, parts=parts)
    assert set(found.metrics) == {
        *named("test", "auroc", "auprc", "precision", "recall", "false_positive_rate"),
        *(f"baseline/{name}/{area}" for name in anomaly.METHODS for area in anomaly.AREAS),
        *(f"baseline/{name}/reconstruction_mse{raw}" for name in ("mean", "pca") for raw in ("", "_raw")),
    }
    assert found.metrics["baseline/mean_distance/auroc"] == 1  # they lie far away
    assert found.metrics["baseline/knn_distance/auprc"] == pytest.approx(1)
    without = parts | {"test": parts["test"].take(parts["test"].label == 0)}
    found = evaluate(autoencoder, None, recipe(), facts={"anomaly": True}, parts=without)
    assert found.null_reasons["test/auroc"] == "no anomalous rows"


def test_a_variational_autoencoder(build_model):
    model = build_model("recurrent_vae", latent_dim=2, hidden_dim=4)
    found = evaluate(model, sequences(), recipe())
    assert set(found.metrics) == {
        *AUTOENCODER,
        *named(
            "test", "nll_nats", "nll_standard_error", "nll_effective_samples", "nll_effective_share", "active_units"
        ),
        *named("test", "shuffled_nats", "collapsed", "total_correlation", "mutual_information_nats"),
    }
    assert set(found.pictures) == {"codes", "reconstructions", "samples"}
    assert set(found.curves) == {"kl_per_dimension"}
    few = dict.fromkeys(named("test", "total_correlation", "mutual_information_nats"), "fewer than 100 rows")
    assert found.null_reasons == few


def test_padded_rows_leave_out_what_has_no_meaning(autoencoder):
    examples = sequences(length=np.tile([3, 6], 36).astype(np.int32))
    found = evaluate(autoencoder, examples, recipe())
    assert found.null_reasons == {"baseline/pca/reconstruction_mse": "rows are padded or have missing values"}
    train, test = (examples.take(ROWS[part]) for part in ("train", "test"))
    errors = []  # by hand: every step is predicted by its mean over the training rows that reach it
    for x, length in zip(test.x, test.length, strict=True):
        means = [train.x[train.length > step, step].mean(0) for step in range(length)]
        errors.append(np.square(x[:length] - means).mean())
    assert found.metrics["baseline/mean/reconstruction_mse"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert set(found.pictures) == {"codes", "reconstructions"}


def levels():
    """Two classes of constant level 5 and 6, whose lengths have nothing to do with the class."""
    label = np.arange(72) % 2
    length = np.where(np.arange(72) % 4 < 2, 2, STEPS).astype(np.int32)
    x = (5 + label[:, None, None] + 0.01 * np.random.default_rng(0).normal(size=(72, STEPS, CHANNELS))).astype(
        np.float32
    )
    return Examples(x=np.where((np.arange(STEPS) < length[:, None])[..., None], x, 0), length=length, label=label)


def test_naive_methods_do_not_take_padding_for_values(autoencoder, build_model):
    """With zeros behind the end, k-means finds the lengths: an index of 0."""
    examples = levels()
    zeros = clustering.kmeans(examples.x.reshape(72, -1).astype(float), 2, 5, 0)
    assert clustering.cluster_scores(zeros, examples.label, examples.x.reshape(72, -1))[0]["ari"] < 0.05
    found = evaluate(autoencoder, examples, recipe(clustering="classes", pictures=False, probes=False)).metrics
    methods = [f"{prefix}_{name}_kmeans" for prefix in ("padded", "resampled") for name in ("raw", "pca")]
    assert {name for name in found if "kmeans" in name} == {
        f"baseline/{method}/{score}" for method in methods for score in AGREEMENT
    }
    assert [found[f"baseline/{method}/ari"] for method in methods] == [1.0] * 4
    found = evaluate(build_model("recurrent_predictor", hidden_dim=4), examples, recipe(pictures=False)).metrics
    assert found["baseline/padded_logistic/accuracy"] == found["baseline/resampled_logistic/accuracy"] == 1
    assert "baseline/logistic/accuracy" not in found


def test_scores_of_anomalies_without_training_say_why_they_are_absent(autoencoder):
    parts = normal(dataclasses.replace(levels(), label=np.arange(72) % 2))
    found = evaluate(autoencoder, None, recipe(pictures=False), facts={"anomaly": True}, parts=parts)
    assert found.null_reasons["baseline/mean_distance/auroc"] == "rows are padded or have missing values"
    assert found.metrics["test/auroc"] is not None


def test_a_predictor_of_classes(build_model):
    found = evaluate(build_model("recurrent_predictor", hidden_dim=4), sequences(), recipe())
    assert set(found.metrics) == {
        *named("test", "gradient_reach", "gradient_reach_at_start"),
        *named("baseline", "majority/accuracy", "majority/cross_entropy", "logistic/accuracy"),
    }
    assert set(found.pictures) == {"codes", "gradient_norm"}
    assert set(found.curves) == {"gradient_norm/trained", "gradient_norm/at_start"}
    assert all(curve.shape == (STEPS,) for curve in found.curves.values())
    assert not found.null_reasons
    assert found.metrics["test/gradient_reach"] != found.metrics["test/gradient_reach_at_start"]


def test_a_predictor_at_every_step(build_model):
    model = build_model("recurrent_predictor", hidden_dim=4)
    examples = sequences(label=None, target=(np.arange(72 * STEPS).reshape(72, STEPS) % 3).astype(np.int32))
    facts = {"target_shape": (STEPS,), "target_classes": 3}
    found = evaluate(model, examples, recipe(), classes=0, facts=facts)
    assert set(found.metrics) == named("baseline/memoryless", "accuracy", "cross_entropy")
    assert set(found.pictures) == {"codes"}
    assert not found.curves


SHIFT, SCALE = np.array([10.0, -4.0], np.float32), np.array([0.5, 2.0], np.float32)


def series(**fields):
    """Raw windows with gaps, scaled as `Split.prepare` does."""
    generator = np.random.default_rng(1)
    raw = generator.normal(size=(72, STEPS + HORIZON, CHANNELS)) * 3 + np.array([10.0, 30.0])
    there = generator.random(raw.shape) > 0.1
    scaled = np.where(there, (raw - SHIFT) * SCALE, 0).astype(np.float32)
    examples = Examples(
        x=scaled[:, :STEPS],
        target=scaled[:, STEPS:],
        observed=there[:, :STEPS],
        target_observed=there[:, STEPS:],
        naive_error=generator.uniform(1, 2, (72, CHANNELS)).astype(np.float32),
    )
    return dataclasses.replace(examples, **fields), raw


FORECAST = {"target_shape": (HORIZON, CHANNELS), "target_follows": True, "season": SEASON}
ERRORS = ("mse", "mae", "mse_raw", "mae_raw", "smape", "mase")


def test_a_forecaster_and_naive_forecasts(forecaster):
    examples, raw = series()
    scaling = {"shift": SHIFT, "scale": SCALE}
    found = evaluate(forecaster, examples, recipe(), classes=0, facts=FORECAST, **scaling)
    naive = "repeat_last", "seasonal_naive", "linear", "constant"
    assert set(found.metrics) == named("test", *ERRORS).union(*(named(f"baseline/{name}", *ERRORS) for name in naive))
    assert set(found.curves) == {f"forecast_{name}" for name in ERRORS if not name.endswith("_raw")}
    assert all(curve.shape == (HORIZON,) for curve in found.curves.values())
    assert set(found.pictures) == {"forecasts"}
    assert not found.null_reasons
    # the naive row by hand: the last observed raw value, errors over all observed raw values of the horizon
    test = examples.take(ROWS["test"])
    past, future = raw[ROWS["test"], :STEPS], raw[ROWS["test"], STEPS:]
    sums = {name: [] for name in ERRORS}
    for row in range(20):
        for channel in range(CHANNELS):
            known = np.flatnonzero(test.observed[row, :, channel])
            last = past[row, known[-1], channel]
            for step in np.flatnonzero(test.target_observed[row, :, channel]):
                miss = abs(future[row, step, channel] - last)
                sums["mae"].append(miss * SCALE[channel])
                sums["mse"].append((miss * SCALE[channel]) ** 2)
                sums["mae_raw"].append(miss)
                sums["mse_raw"].append(miss**2)
                sums["smape"].append(200 * miss / (abs(future[row, step, channel]) + abs(last)))
                sums["mase"].append(miss / test.naive_error[row, channel])
    # predicting the mean by hand
    target, there = (field[ROWS["train"]] for field in (examples.target, examples.target_observed))
    means = np.where(there, target, 0).sum((0, 1)) / there.sum((0, 1))
    squares = np.square(test.target - means)[test.target_observed]
    assert found.metrics["baseline/constant/mse"] == pytest.approx(squares.mean(), rel=1e-5)
    for name, values in sums.items():
        assert found.metrics[f"baseline/repeat_last/{name}"] == pytest.approx(np.mean(values), rel=1e-4)


def test_naive_forecasts_need_what_the_data_may_not_have(forecaster):
    examples, _ = series(naive_error=None)
    found = evaluate(forecaster, examples, recipe(), classes=0, facts=FORECAST | {"season": None})
    names = ("mse", "mae", "mse_raw", "mae_raw", "smape")
    assert set(found.metrics) == {
        *named("test", *names),
        *named("baseline/repeat_last", *names),
        *named("baseline/linear", *names),
        *named("baseline/constant", *names),
    }
    found = evaluate(forecaster, examples, recipe(pictures=False), classes=0, facts=FORECAST | {"season": STEPS + 1})
    assert found.null_reasons["baseline/seasonal_naive/mse"] == "the look-back of 6 steps is shorter than a season of 7"


def test_naive_forecasts_are_made_once_and_errors_do_not_depend_on_slices(forecaster, monkeypatch):
    calls = []
    original = forecasting.repeat_last
    monkeypatch.setattr(forecasting, "repeat_last", lambda *given: calls.append(len(given[0])) or original(*given))
    examples, _ = series()
    options = {"classes": 0, "facts": FORECAST, "shared": {}, "data_key": "a"}
    whole = evaluate(forecaster, examples, recipe(pictures=False), **options).metrics
    assert evaluate(forecaster, examples, recipe(pictures=False), **options).metrics == whole
    assert calls == [20]
    monkeypatch.setattr(lazy_rows, "CHUNK", 8)
    cut = evaluate(forecaster, examples, recipe(pictures=False), classes=0, facts=FORECAST).metrics
    assert calls == [20, 8, 8, 4]
    assert cut == {name: pytest.approx(value, rel=1e-6) for name, value in whole.items()}


@pytest.fixture
def cheap(monkeypatch):
    """No networks are trained: the score of rows is their first value, the classifier's is 0."""
    calls = []
    score = lambda real, fake, seed: calls.append(len(real)) or float(fake[0, 0, 0])
    monkeypatch.setattr(generation, "discriminative_score", score)
    monkeypatch.setattr(generation, "predictive_score", score)
    monkeypatch.setattr(generation, "classifier_score", lambda *given: dict.fromkeys(GENERATION[2:5], 0.0))
    return calls


def test_a_generator(build_model, cheap):
    model = build_model("recurrent_gan", hidden_dim=4, noise_dim=2)
    options = {"shared": {}, "data_key": "a"}
    found = evaluate(model, sequences(label=None), recipe(generation=True), classes=0, **options)
    assert set(found.metrics) == {
        *named("test", *GENERATION),
        "validation/energy_distance",
        *named("baseline/shuffled", *GENERATION),
        *named("baseline/real_vs_real", *GENERATION),
    }
    assert set(found.pictures) == {"samples", "data"}
    assert not found.null_reasons
    assert cheap == [40, 40, 40, 40, 20, 20]  # the generator's, the shuffled, and halves against halves
    evaluate(model, sequences(label=None), recipe(generation=True, pictures=False), classes=0, **options)
    assert len(cheap) == 8  # the other rows are of the data alone


def test_a_generator_has_cheap_scores_by_default(build_model, cheap):
    model = build_model("recurrent_gan", hidden_dim=4, noise_dim=2)
    found = evaluate(model, sequences(label=None), recipe(pictures=False), classes=0)
    assert set(found.metrics) == {
        *named("test", *generation.DISTANCES),
        "validation/energy_distance",
        *named("baseline/shuffled", *generation.DISTANCES),
        *named("baseline/real_vs_real", *generation.DISTANCES),
    }
    assert not cheap  # no network was trained
    real = found.metrics["baseline/real_vs_real/energy_distance"]
    assert abs(real) < 0.1 < found.metrics["test/energy_distance"]  # it is not trained
    assert not evaluate(model, sequences(label=None), recipe(pictures=False, distances=False), classes=0).metrics
    padded = sequences(label=None, length=np.full(72, STEPS, np.int32))
    reasons = evaluate(model, padded, recipe(pictures=False), classes=0).null_reasons
    assert reasons == dict.fromkeys(named("test", *generation.DISTANCES), "rows are padded or have missing values")
    other = build_model("recurrent_vae", latent_dim=2, hidden_dim=4)  # it has codes and an ELBO
    assert generation.DISTANCES[0] not in str(evaluate(other, sequences(), recipe(pictures=False)).metrics)


def test_a_key_that_earlier_runs_lack_evaluates_none_of_them_again():
    assert "distances" not in tree.plain(recipe())
    assert tree.plain(recipe(distances=False))["distances"] is False


def test_scores_of_a_generator_that_do_not_exist(build_model, cheap):
    model = build_model("recurrent_gan", hidden_dim=4, noise_dim=2)
    settings = recipe(generation=True, pictures=False, baselines=False)
    padded = sequences(label=None, length=np.full(72, STEPS, np.int32))
    reasons = evaluate(model, padded, settings, classes=0).null_reasons
    assert set(reasons.values()) == {"rows are padded or have missing values"}
    few = {name: sequences(label=None).take(slice(3)) for name in ROWS}
    reasons = evaluate(model, None, settings, classes=0, parts=few).null_reasons
    assert set(reasons.values()) == {"fewer than 4 rows"}
    assert "test/classifier_score" in reasons
    assert not cheap


def test_a_conditional_model_generates_classes_as_they_occur(build_model, cheap, monkeypatch):
    model = build_model("recurrent_vae", latent_dim=2, hidden_dim=4, conditional=True)
    labels = []
    original = generation.batches.sample
    monkeypatch.setattr(generation.batches, "sample", lambda *given: labels.append(given[-1]) or original(*given))
    settings = recipe(generation=True, pictures=False, baselines=False, nll_samples=None)
    found = evaluate(model, sequences(), settings)
    assert found.metrics["test/diversity"] is not None
    assert set(np.unique(labels[0])) == {0, 1}
    assert 0.3 < np.mean(labels[0]) < 0.7
