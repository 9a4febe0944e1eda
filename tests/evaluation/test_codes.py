from types import SimpleNamespace

import jax
import numpy as np
import pytest

from research.evaluation import baselines, plots
from research.evaluation.codes import active_units, probes, study_projector
from research.evaluation.pictures import MAP, code_map
from research.evaluation.subject import Findings
from research.evaluation.views import channel_names, class_colors, class_names, grid, most_active, pixels, traversal
from research.runs import batches


def test_active_units_are_dimensions_whose_mean_moves():
    codes = np.random.default_rng(0).normal(size=(2000, 4)).astype(np.float32) * [1.0, 0.3, 0.05, 0.0] + [0, 9, 9, 9]
    assert active_units(codes, 0.01) == 2
    assert active_units(codes, 0.001) == 3


def test_probes_tell_linear_from_near():
    generator = np.random.default_rng(0)
    x = generator.uniform(-1, 1, (800, 2))
    label = ((x[:, 0] > 0) ^ (x[:, 1] > 0)).astype(int)  # no line separates these
    found = probes(x[:600], label[:600], x[600:], label[600:], neighbors=5, iterations=100)
    assert found["knn_accuracy"] > 0.93
    assert found["probe_accuracy"] < 0.65
    label = (x[:, 0] > 0).astype(int)
    found = probes(x[:600], label[:600], x[600:], label[600:], neighbors=5, iterations=100)
    assert found["probe_accuracy"] > 0.98


def test_the_linear_probe_is_standardised_and_a_constant_dimension_harmless():
    generator = np.random.default_rng(0)
    x = np.stack([generator.normal(size=400) * 1e-5, np.full(400, 3.0)], -1)
    label = (x[:, 0] > 0).astype(int)
    assert probes(x, label, x, label, neighbors=5, iterations=100)["probe_accuracy"] > 0.97


@pytest.mark.parametrize("rows", [200, 12])  # more and fewer rows than features
def test_components_are_those_of_scikit_learn(rows):
    from sklearn.decomposition import PCA

    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows + 50, 4, 5)) * np.linspace(0.1, 2, 20).reshape(4, 5) + 1
    train, test = x[:rows], x[rows:]
    fitted = baselines.components(train.astype(np.float32))
    for size in (1, 3, 10):
        reference = PCA(size).fit(train.reshape(rows, -1))
        flat = test.reshape(len(test), -1)
        expected = np.square(flat - reference.inverse_transform(reference.transform(flat))).mean()
        codes = fitted.encode(test, size)
        assert baselines.reconstruction_error(fitted, test, size) == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(np.abs(codes), np.abs(reference.transform(flat)), rtol=1e-3, atol=1e-4)
    assert baselines.reconstruction_error(fitted, test, 0) == pytest.approx(
        np.square(test - train.mean(0)).mean(), rel=1e-5
    )


def test_grid_places_tiles_row_by_row():
    tiles = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1) * np.ones((1, 2, 2, 3), np.uint8)
    picture = grid(tiles, 2)
    assert picture.shape == (5, 5, 3)
    assert picture[0, 0, 0] == 0
    assert picture[0, 3, 0] == 1
    assert picture[3, 0, 0] == 2
    assert (picture[2] == 255).all()
    assert (picture[3:, 3:] == 255).all()


def test_pixels_scale_clip_and_enlarge():
    x = np.array([[[-1.0, 0.0], [1.0, 5.0]]])
    found = pixels(x, low=-1.0, high=1.0)
    assert found.shape == (1, 24, 24, 3)
    assert found.dtype == np.uint8
    assert found[0, 0, 0, 0] == 0
    assert found[0, 0, -1, 0] == 128
    assert found[0, -1, -1, 2] == 255
    assert pixels(np.full((2, 30, 40, 3), np.nan), 0, 1).shape == (2, 30, 40, 3)
    assert pixels(np.zeros((1, 30, 40, 2)), 0, 1).shape == (1, 30, 40, 3)
    assert (pixels(np.full((1, 30, 30), 3.0), 3.0, 3.0) == 0).all()


@pytest.mark.parametrize("latent_dim", [1, 2, 5])
def test_map_shows_classes_in_their_colours(latent_dim):
    codes = np.random.default_rng(0).normal(size=(40, latent_dim))
    codes[:20, 0] += 20
    codes[3] = np.nan
    picture = code_map(codes, np.repeat([0, 1], 20))
    assert picture.shape == (MAP, MAP, 3)
    colors = {tuple(color) for color in picture.reshape(-1, 3).tolist()}
    assert colors == {(255, 255, 255), (0, 114, 178), (213, 94, 0)}  # Okabe & Ito's blue and vermilion
    assert (code_map(np.full((3, latent_dim), np.nan), None) == 255).all()


def test_names_of_classes_stand_above_the_map_in_the_colors_of_their_points(monkeypatch):
    written = []
    monkeypatch.setattr(plots, "write", lambda picture, text, *place, **options: written.append(text))
    names = ["walking", "running", *"cdefgh"]  # rows of two of eight classes, which have other colors than two have
    codes = np.random.default_rng(0).normal(size=(40, 2))
    picture = code_map(codes, np.repeat([0, 1], 20), names)
    assert written == names
    above, below = picture[:-MAP], picture[-MAP:]
    shown = {tuple(color) for color in below.reshape(-1, 3).tolist()}
    blue, orange = (tuple(int(color[at : at + 2], 16) for at in (1, 3, 5)) for color in class_colors(8)[:2])
    assert shown == {(255, 255, 255), blue, orange}
    assert all((np.abs(above.astype(int) - color) <= 60).all(-1).any() for color in (blue, orange))
    assert code_map(codes, np.zeros(40), [str(at) for at in range(31)]).shape == (MAP, MAP, 3)  # too many to be read


def test_classes_have_the_names_of_the_data():
    facts = lambda classes, anomaly=False: SimpleNamespace(classes=classes, anomaly=anomaly)
    assert class_names(("a", "a name of more than sixteen letters"), facts(2)) == ["a", "a name of more …"]
    alike = ("walking upstairs, fast", "walking upstairs, slowly")
    assert class_names(alike, facts(2)) == ["0 walking upsta…", "1 walking upsta…"]
    assert channel_names(alike, 1) == ["1 walking upsta…"]
    assert class_names(None, facts(3)) == ["0", "1", "2"]
    assert class_names(None, facts(2, anomaly=True)) == ["normal", "anomalous"]
    assert channel_names(("OT",), 1) == ["OT"]
    assert channel_names(None, 2) == ["channel 1", "channel 2"]


def test_the_projector_has_the_names_of_classes():
    facts, test = SimpleNamespace(classes=2, anomaly=False), SimpleNamespace(label=np.array([1, 0, 1]))
    names = ("walking upstairs, fast", "walking upstairs, slowly")  # whole, since they tell classes apart
    for classes, expected in ((names, [names[1], names[0], names[1]]), (None, [1, 0, 1])):
        subject = SimpleNamespace(classes=classes, facts=facts, test=test, codes=lambda part: np.zeros((3, 2)))
        findings = Findings()
        study_projector(subject, findings)
        assert findings.labels.tolist() == expected


def test_traversals_move_one_latent_at_a_time_the_most_active_first():
    codes = np.random.default_rng(0).normal(size=(50, 3)) * [1, 3, 2] + 7
    latents, steps = most_active(codes, 3), np.array([-1.0, 0.0, 2.0])
    assert list(latents) == [1, 2, 0]
    assert list(most_active(codes, 2)) == [1, 2]
    z = traversal(codes, latents, steps, prior=True)
    np.testing.assert_allclose(z[0], [[0, -1, 0], [0, 0, 0], [0, 2, 0]])
    z = traversal(codes, latents, steps, prior=False)
    np.testing.assert_allclose(z[1, :, 2], codes[:, 2].mean() + steps * codes[:, 2].std(), rtol=1e-5)
    np.testing.assert_allclose(z[1, :, 0], codes[:, 0].mean(), rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 24, 25])
def test_batches_cover_every_row_once(rows):
    x = np.arange(rows, dtype=np.float32)
    for array in (x, jax.numpy.asarray(x)):
        sizes = set()

        def double(batch, numbers, sizes=sizes):
            sizes.add((len(batch), len(numbers)))
            return {"double": 2 * batch, "row": numbers}

        found = batches.over(double, array, 8)
        np.testing.assert_array_equal(found["double"], 2 * x)
        np.testing.assert_array_equal(found["row"], np.arange(rows))
        assert sizes == {(8, 8)}
    assert batches.even(359, 256) == 180
    assert batches.even(5, 256) == 5
