import numpy as np
import pytest

from research.evaluation import generation
from research.evaluation.generation import (
    classifier_score,
    discriminative_score,
    diversity,
    energy_distance,
    halves,
    memorization,
    predictive_score,
    shuffled,
)

ROWS, STEPS, CHANNELS = 64, 6, 2
FITTED = int(0.8 * ROWS)  # rows that a published classifier is fitted to; the honest one shares its program
UNITS = generation.CLASSIFIER_UNITS


def noise(rows=ROWS, seed=0, channels=CHANNELS):
    return np.random.default_rng(seed).random((rows, STEPS, channels)).astype(np.float32)


@pytest.fixture
def quick(monkeypatch):
    """The published judges with a tenth of the steps, of one size."""
    original = generation.timegan_judge
    short = lambda channels, steps: original(channels, steps // 10)._replace(rate=0.02, units=UNITS)
    monkeypatch.setattr(generation, "timegan_judge", short)


@pytest.fixture
def short(monkeypatch):
    """An honest classifier of fewer steps."""
    monkeypatch.setattr(generation, "CLASSIFIER_STEPS", (200, 200))


def test_the_published_judge_is_half_as_wide_as_the_data():
    assert generation.timegan_judge(6, 2000) == (3, 2000, 1e-3, 128)
    assert generation.timegan_judge(1, 5000).units == 1


def test_the_classifier_cannot_tell_real_rows_from_real_ones_but_noise_from_a_constant(short):
    real, constant = noise(2 * ROWS), np.full((ROWS, STEPS, CHANNELS), 0.5, np.float32)
    same = classifier_score((real[:FITTED], noise(seed=1)), (real[ROWS:], noise(seed=2)), 1)
    assert same["classifier_score"] < 3 * same["classifier_null"]
    assert same["classifier_p_value"] > 0.05
    assert (
        0.02 < same["classifier_null"] < 0.06
    )  # mean of |accuracy - .5| over 128 fair guesses: .5 sqrt(2 / (128 pi)) = .035
    other = classifier_score((real[:FITTED], constant), (real[ROWS:], constant), 0)
    assert other["classifier_score"] > 0.45
    assert other["classifier_p_value"] == pytest.approx(1 / 1001)  # no permutation is as good


@pytest.mark.parametrize(("rows", "steps"), [(32, 1000), (1600, 1000), (2000, 1240), (9000, 2000)])
def test_few_rows_do_not_make_the_classifier_weak(monkeypatch, rows, steps):
    """32 rows are one batch an epoch: 40 epochs would be 40 steps."""
    judges = []

    def classify(train, test, judge, seed):
        judges.append(judge)
        return np.arange(2 * rows) % 2, np.arange(2 * rows) < rows

    monkeypatch.setattr(generation, "_classify", classify)
    real = np.zeros((rows, 1, 1), np.float32)
    assert classifier_score((real, real), (real, real), 0, permutations=9)["classifier_score"] == 0
    assert judges[0].steps == steps
    assert judges[0].batch == min(128, 2 * rows)


def test_both_kinds_are_judged_in_equal_numbers(short):
    """With many more generated rows a classifier that always says so would score well."""
    found = classifier_score(
        (noise(FITTED), noise(3 * ROWS, 1)), (noise(ROWS, 2), noise(3 * ROWS, 3)), 0, permutations=9
    )
    assert found["classifier_score"] < 0.2


def test_the_published_scores_order_good_before_bad(quick):
    steps = np.arange(STEPS)[None, :, None]
    phase = np.random.default_rng(0).uniform(0, 6, (2 * ROWS, 1, 1))
    waves = (0.5 + 0.5 * np.sin(steps + phase + [[[0.0, 1.0]]])).astype(np.float32)
    real, good, bad = waves[:ROWS], waves[ROWS:], np.zeros((ROWS, STEPS, CHANNELS), np.float32)
    assert discriminative_score(real, good, 0) < 0.3 < discriminative_score(real, bad, 0) <= 0.5
    # the second channel is the first, one step later: x1[t + 1] = x0[t + 2]
    found = [predictive_score(real, rows, 0) for rows in (good, bad)]
    assert 2 * found[0] < found[1]
    assert found[1] == pytest.approx(0.5, abs=0.1)  # mean of the waves, of a network that has learned to say 0
    with pytest.raises(ValueError, match="one channel only"):
        predictive_score(real[:, :, :1], good[:, :, :1], 0)


def test_the_energy_distance_is_that_of_the_definition():
    real, fake = np.array([[[0.0]], [[2.0]]]), np.array([[[3.0]], [[4.0]], [[8.0]]])
    between = 2 * (3 + 4 + 8 + 1 + 2 + 6) / 6
    assert energy_distance(real, fake, 0) == pytest.approx((between - 2 - (1 + 5 + 4) / 3) / between)
    assert energy_distance(1000 * real, 1000 * fake, 0) == pytest.approx(energy_distance(real, fake, 0))
    assert energy_distance(np.ones((3, 2, 1)), np.ones((4, 2, 1)), 0) == 0  # no row differs from another


def test_the_energy_distance_of_alike_rows_is_about_0():
    found = np.array([energy_distance(noise(50, seed), noise(80, 100 + seed), 0) for seed in range(60)])
    assert abs(found.mean()) < 3 * found.std() / 60**0.5  # without a bias of few rows, of about 1 / 50 here
    assert found.std() < 0.01
    assert energy_distance(noise(200), noise(200, 1) + 0.1, 0) > 0.01
    constant = np.full((200, STEPS, CHANNELS), 0.5, np.float32)
    assert energy_distance(noise(200), constant, 0) > 0.25
    assert energy_distance(noise(200), constant + 99, 0) > 0.95
    waves = np.sin(np.arange(STEPS)[None, :, None] + np.random.default_rng(0).uniform(0, 6, (200, 1, CHANNELS)))
    assert abs(energy_distance(waves[:100], waves[100:], 0)) < 0.01 < energy_distance(waves, shuffled(waves, 0), 0)


def test_diversity():
    real = noise(200)
    assert diversity(real, noise(200, 1), 0) == pytest.approx(1, abs=0.03)
    assert diversity(real, 0.5 * noise(200, 1), 0) == pytest.approx(0.5, abs=0.03)
    assert diversity(real, np.repeat(real[:1], 200, 0), 0) < 1e-6
    pair = np.zeros((2, 1, 2)), np.array([[[0.0, 0]], [[3.0, 4]]])
    assert diversity(pair[1], 2 * pair[1], 0) == pytest.approx(2)
    assert np.isnan(diversity(np.ones((4, 2, 1)), pair[1], 0))
    # of many rows some are drawn
    assert diversity(real, noise(200, 1), 0, most=50) == pytest.approx(1, abs=0.1)
    assert diversity(real, noise(200, 1), 0, most=50) != diversity(real, noise(200, 1), 0)


def test_memorization():
    train, held_out = noise(200), noise(200, 1)
    assert memorization(train, held_out, noise(200, 2), 0) == pytest.approx(0.5, abs=0.1)
    copies = train + 1e-3 * noise(200, 3)
    assert memorization(train, held_out, copies, 0) > 0.99
    assert memorization(held_out, train, copies, 0) < 0.01
    assert memorization(train, train, noise(200, 2), 0) == 0.5  # ties count half
    # ten times as many training rows would be nearer by their number alone
    assert memorization(noise(1000), noise(100, 1), noise(100, 2), 0) == pytest.approx(0.5, abs=0.15)


def test_shuffled_rows_keep_their_values_and_lose_their_order():
    rows = np.arange(50 * 20 * 2, dtype=np.float32).reshape(50, 20, 2)
    found = shuffled(rows, 0)
    np.testing.assert_array_equal(np.sort(found, 1), rows)
    np.testing.assert_array_equal(found[..., 1] - found[..., 0], 1)  # channels of a step stay together
    order = np.argsort(found[..., 0], 1)
    assert (order != np.arange(20)).any(1).all()
    assert len(np.unique(order, axis=0)) == 50  # every row has an order of its own
    np.testing.assert_array_equal(found, shuffled(rows, 0))
    assert (found != shuffled(rows, 1)).any()


@pytest.mark.parametrize("size", [4, 5])
def test_halves_are_disjoint_neighbours_and_of_one_size(size):
    one, two = halves(np.arange(size))
    assert one.tolist() == [0, 1]
    assert two.tolist() == [2, 3]


def test_draws_depend_on_the_seed_alone(quick, short):
    real, fake = noise(), noise(seed=1)
    verdict = classifier_score((real[:FITTED], fake), (fake, real), 3, permutations=99)
    found = discriminative_score(real, fake, 3), verdict
    np.random.seed(1)  # a global state that must not matter
    np.random.random(5)
    again = classifier_score((real[:FITTED], fake), (fake, real), 3, permutations=99)
    assert found == (discriminative_score(real, fake, 3), again)
