"""Images of one shape with known factors."""

import jax
import numpy as np
import pytest
from configs import shipped

from research.data import Examples, load
from research.data.sprites import FACTORS, SHAPES, SIZE, TOTAL, Sprites, images
from research.tree import ConfigError, build

SIZES = tuple(FACTORS.values())
IMAGES = jax.jit(images)
SQUARE, ELLIPSE, HEART = range(3)


def sprites(**changes) -> Sprites:
    return build(shipped("data", "sprites") | {"rows": 400} | changes, key="data")


@pytest.fixture(scope="module")
def centered() -> np.ndarray:
    """Every shape, scale and rotation in the middle of the frame, [3, 6, 40, 64, 64] bool."""
    return drawn(np.indices(SIZES[:3]).reshape(3, -1).T, 16, 16).reshape(*SIZES[:3], SIZE, SIZE)


def drawn(first: np.ndarray, x: int, y: int) -> np.ndarray:
    """Images of shapes, scales and rotations [N, 3] at one place, bool [N, 64, 64]."""
    place = np.broadcast_to([x, y], (len(first), 2))
    return np.asarray(IMAGES(np.concatenate([first, place], axis=1).astype(np.int32)))


def exact(scale: int, rotation: int) -> list[np.ndarray]:
    """How far outside its border every pixel of the middle lies, for the three shapes: float64, by complex numbers."""
    right, down = np.meshgrid(np.arange(SIZE) - 32, np.arange(SIZE) - 32)
    point = (right - 1j * down) * np.exp(-2j * np.pi * rotation / 40) / (0.5 + 0.1 * scale)
    square = np.maximum(abs(point.real), abs(point.imag)) / 11.3 - 1
    ellipse = abs(point.real / 15.2 + 1j * point.imag / 8.4) - 1
    point = point / 12.2 + 0.2935j
    return [square, ellipse, abs(point) ** 2 - 1 - np.cbrt(point.real**2) * point.imag]


def centroid(image: np.ndarray) -> np.ndarray:
    """Mean column and row of the white pixels."""
    return np.argwhere(image).mean(0)[::-1]


def test_factors_have_the_sizes_of_dsprites():
    assert FACTORS == {"shape": 3, "scale": 6, "rotation": 40, "x": 32, "y": 32}
    assert TOTAL == 737_280
    assert SHAPES == ("square", "ellipse", "heart")


def test_a_pixel_is_white_where_its_center_is_inside_and_none_is_near_a_border(centered):
    for scale in range(6):
        for rotation in range(40):
            for shape, outside in enumerate(exact(scale, rotation)):
                np.testing.assert_array_equal(centered[shape, scale, rotation], outside <= 0)
                assert np.abs(outside).min() > 1e-4  # no device rounds so badly


def test_areas_grow_with_the_square_of_the_scale(centered):
    areas, scale = centered.sum((3, 4)), np.linspace(0.5, 1, 6)[:, None]
    for shape, area in ((SQUARE, 22.6**2), (ELLIPSE, np.pi * 15.2 * 8.4), (HEART, 3.662 * 12.2**2)):
        assert np.abs(areas[shape] / (area * scale**2) - 1).max() < 0.12  # 11 pixels a side: 11.3 or 12 of them
        np.testing.assert_allclose(areas[shape].mean(1) / (area * scale[:, 0] ** 2), 1, atol=0.05)
    np.testing.assert_array_equal(areas[SQUARE, :, 0], [121, 169, 225, 361, 441, 529])  # (2 floor(11.3 scale) + 1)^2


def test_the_place_is_the_centroid_and_a_step_is_a_pixel(centered):
    kinds = np.array([[SQUARE, 5, 3], [ELLIPSE, 0, 7], [HEART, 3, 11]])
    for x, y in ((0, 0), (31, 0), (0, 31), (31, 31), (5, 20)):
        for image, (shape, scale, rotation) in zip(drawn(kinds, x, y), kinds, strict=True):
            middle = centered[shape, scale, rotation]
            np.testing.assert_array_equal(image, np.roll(middle, (y - 16, x - 16), axis=(0, 1)))
            np.testing.assert_allclose(centroid(image), [16 + x, 16 + y], atol=0.25)
            np.testing.assert_allclose(centroid(image) - centroid(middle), [x - 16, y - 16], atol=1e-12)


def test_every_shape_lies_wholly_inside_the_frame(centered):
    kinds = np.indices(SIZES[:3]).reshape(3, -1).T
    for x, y in ((0, 0), (31, 31)):
        at_corner = drawn(kinds, x, y)
        np.testing.assert_array_equal(at_corner.sum((1, 2)), centered.sum((3, 4)).ravel())
        for edge in (at_corner[:, 0], at_corner[:, -1], at_corner[:, :, 0], at_corner[:, :, -1]):
            assert not edge.any()


def test_rotations_turn_counterclockwise_and_the_symmetric_shapes_return(centered):
    turned = np.rot90(centered[..., 1:, 1:], axes=(3, 4))  # about pixel 32, 32
    np.testing.assert_array_equal(np.roll(centered, -10, axis=2)[..., 1:, 1:], turned)
    different = [len(np.unique(shape.reshape(240, -1), axis=0)) for shape in centered]
    assert different == [6 * 10, 6 * 20, 6 * 40]
    np.testing.assert_array_equal(centered[SQUARE, :, 0], centered[SQUARE, :, 10])
    np.testing.assert_array_equal(centered[ELLIPSE, :, 0], centered[ELLIPSE, :, 20])
    assert sum(different) * 32 * 32 == 430_080  # as the docstring says
    heart = np.argwhere(centered[HEART, 5, 0])
    assert len(np.unique(heart[heart[:, 0] == heart[:, 0].max(), 1])) < 3  # upright: its tip is below


def test_rows_are_distinct_and_their_factors_independent():
    factors = sprites(rows=6000).distinct_factors()
    assert (factors.shape, factors.dtype) == ((6000, 5), np.int32)
    assert len(np.unique(factors, axis=0)) == 6000
    check_independence(factors)
    np.testing.assert_array_equal(sprites(rows=400).distinct_factors(), factors[:400])


def test_images_are_those_of_the_factors():
    dataset = load(sprites())
    examples, facts = dataset.examples, dataset.facts
    assert (examples.x.shape, examples.x.dtype) == ((400, 64, 64), np.uint8)
    assert set(np.unique(examples.x)) == {0, 1}
    np.testing.assert_array_equal(examples.factors, sprites().distinct_factors())
    np.testing.assert_array_equal(examples.label, examples.factors[:, 0])
    np.testing.assert_array_equal(examples.x, np.asarray(IMAGES(examples.factors)))
    assert (facts.kind, facts.low, facts.high, facts.classes) == ("image", 0, 1, 3)
    assert (facts.test_size, facts.validation_size, facts.train_size) == (160, 24, 216)


def check_independence(factors: np.ndarray) -> None:
    """Chi-squared tests of the marginals and of every pair, at a level of 1e-4 each."""
    from scipy.stats import chi2_contingency, chisquare

    for one, size in enumerate(SIZES):
        assert factors[:, one].min() >= 0
        assert chisquare(np.bincount(factors[:, one], minlength=size)).pvalue > 1e-4
        for other in range(one):
            joint = np.histogram2d(factors[:, one], factors[:, other], bins=(size, SIZES[other]))[0]
            assert chi2_contingency(joint).pvalue > 1e-4


def test_rows_depend_on_data_seed_alone():
    first = load(sprites())
    assert first.sha256 == load(sprites(split_seed=1)).sha256 == load(sprites(streamed=False)).sha256
    assert first.sha256 != load(sprites(data_seed=1)).sha256


def test_streamed_batches_are_drawn_from_all_combinations_by_the_key_alone():
    dataset = load(sprites())
    assert dataset.draw == sprites()
    assert load(sprites(streamed=False)).draw is None
    draw = jax.jit(dataset.draw.draw)
    first, second = (dataset.splits[0].prepare(dataset.examples.take(np.arange(at, at + 8))) for at in (0, 8))
    fresh, other = draw(first, jax.random.key(3)), draw(first, jax.random.key(4))
    for name in ("x", "label", "factors"):
        own = getattr(fresh, name)
        assert (own.shape, own.dtype) == (getattr(first, name).shape, getattr(first, name).dtype)
        np.testing.assert_array_equal(own, getattr(draw(second, jax.random.key(3)), name))
        assert (np.asarray(own) != np.asarray(getattr(other, name))).any()
    np.testing.assert_array_equal(fresh.x, np.asarray(IMAGES(fresh.factors)))
    np.testing.assert_array_equal(fresh.label, fresh.factors[:, 0])


def test_streamed_batches_have_the_marginals():
    keys = jax.random.split(jax.random.key(0), 50)
    batch = Examples(x=np.zeros((200, SIZE, SIZE), np.float32))
    factors = jax.jit(jax.vmap(lambda key: sprites().draw(batch, key).factors))(keys)
    check_independence(np.asarray(factors).reshape(-1, 5))


def test_rows_of_pixels_are_the_steps_of_a_sequence():
    dataset, image = load(sprites(layout="rows")), load(sprites())
    assert (dataset.facts.kind, dataset.facts.feature_shape) == ("sequence", (64, 64))
    np.testing.assert_array_equal(dataset.examples.x, image.examples.x)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 0},
        {"rows": TOTAL + 1},
        {"data_seed": -1},
        {"test_fraction": 1.0},
        {"scaling": "unit"},
        {"layout": "pixels"},
    ],
)
def test_what_makes_no_sense_is_refused_by_its_key(changes):
    with pytest.raises(ConfigError) as caught:
        sprites(**changes)
    assert caught.value.key == f"data.{next(iter(changes))}"
