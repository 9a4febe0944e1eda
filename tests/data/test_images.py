"""Image data sets."""

import ast
import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from configs import shipped

from research.data import load
from research.data.files.local import Unusable
from research.data.images import MNIST, parse_idx
from research.data.preparation import shuffle
from research.tree import ConfigError, build

REAL = os.environ.get("LATENT_LOOM_DATA")  # a folder with the folders mnist and fashion_mnist


def config(name: str, **changes) -> dict:
    return shipped("data", name) | changes


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def test_digits_equal_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    expected = load_digits()
    dataset = load(build(config("digits")))
    np.testing.assert_array_equal(dataset.examples.x, expected.images)
    np.testing.assert_array_equal(dataset.examples.label, expected.target)
    assert (dataset.facts.low, dataset.facts.high, dataset.facts.classes) == (0, 1, 10)
    assert dataset.facts.feature_shape == (8, 8)


def test_recipes_of_one_data_set_share_it_across_folds():
    first, second = (load(build(config("digits", folds=3, fold=fold))) for fold in (0, 2))
    assert first is second
    assert len(first.splits) == 3
    assert not first.examples.x.flags.writeable


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A folder of four tiny idx files that count as the published ones."""
    random = np.random.default_rng(0)
    contents = {}
    for part, size in (("train", 20), ("t10k", 6)):
        contents[f"{part}-images-idx3-ubyte"] = idx(random.integers(0, 256, (size, 4, 5), dtype=np.uint8))
        contents[f"{part}-labels-idx1-ubyte"] = idx(np.arange(size, dtype=np.uint8) % 10)

    def publish(**changed: bytes) -> Path:
        contents.update({f"{name}-ubyte".replace("_", "-"): content for name, content in changed.items()})
        for name, content in contents.items():
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        monkeypatch.setattr(MNIST, "sha256", hashes)
        return tmp_path

    return publish


def test_mnist_keeps_the_published_test_part(published):
    dataset = load(build(config("mnist", root=str(published()))))
    assert dataset.facts.feature_shape == (4, 5)
    assert (dataset.facts.train_size, dataset.facts.validation_size, dataset.facts.test_size) == (18, 2, 6)
    np.testing.assert_array_equal(dataset.splits[0].rows("test"), np.arange(20, 26))
    np.testing.assert_array_equal(dataset.examples.label[20:], np.arange(6))


def test_files_that_do_not_belong_together_are_refused(published):
    root = published(train_labels_idx1=idx(np.zeros(19, np.uint8)))
    with pytest.raises(ConfigError, match="20 images but 19 labels") as caught:
        load(build(config("mnist", root=str(root))))
    assert caught.value.key == "data.root"


def test_a_file_that_is_no_idx_file_is_named(published):
    root = published(t10k_images_idx3=idx(np.zeros(19, np.uint8)))
    with pytest.raises(ConfigError, match=r"t10k-images-idx3-ubyte.*magic number 0x00000801"):
        load(build(config("mnist", root=str(root))))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (idx(np.zeros((3, 2, 2), np.uint8))[:-1], "cut short"),
        (idx(np.zeros((3, 2, 2), np.uint8)) + b"0", "too long"),
        (idx(np.zeros((3, 2, 2), np.uint8))[:9], "cut short"),
        (idx(np.zeros((3, 2), np.uint8)) + bytes(8), "magic number 0x00000802, expected 0x00000803"),
        (struct.pack(">4I", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1), "cut short"),
    ],
)
def test_idx_files_are_checked(content, text):
    with pytest.raises(Unusable, match=text):
        parse_idx(content, 3)


if REAL is not None:

    @pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
    def test_real_files(name):
        dataset = load(build(config(name, root=REAL)))
        assert dataset.examples.x.shape == (70_000, 28, 28)
        assert (dataset.facts.train_size, dataset.facts.validation_size, dataset.facts.test_size) == (
            54_000,
            6_000,
            10_000,
        )
        assert (dataset.facts.low, dataset.facts.high, dataset.facts.classes) == (0, 1, 10)
        np.testing.assert_array_equal(np.bincount(dataset.examples.label[60_000:]) > 800, True)


def test_importing_recipes_imports_no_heavy_package():
    research = Path(__file__).parents[2] / "research"
    ground = ("tree", "ranges", "errors", "coercion", "target")  # what recipes build on
    for path in [*(research / f"{name}.py" for name in ground), *(research / "data").rglob("*.py")]:
        for node in ast.parse(path.read_text()).body:  # imports inside functions come later
            module = node.module if isinstance(node, ast.ImportFrom) else None
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(module)]
            packages = {name.partition(".")[0] for name in names}
            assert not packages & {"sklearn", "pandas", "pyarrow", "pooch", "scipy"}, path
            assert "research" not in packages or names[0].startswith(
                ("research.data", *(f"research.{name}" for name in ground))
            )


def test_rows_of_an_image_are_steps_of_a_sequence():
    images, rows = load(build(config("digits"))), load(build(config("digits", layout="rows")))
    np.testing.assert_array_equal(rows.examples.x, images.examples.x)
    assert (rows.facts.kind, rows.facts.feature_shape) == ("sequence", (8, 8))
    assert images.facts.kind == "image"
    scaled = load(build(config("digits", layout="rows", scaling="standard"))).splits[0]
    assert scaled.shift.shape == (8,), "one scaling per channel: a column of the image"


def test_pixels_are_the_rows_one_after_another_and_permuted_pixels_the_same_in_one_other_order():
    images = load(build(config("digits"))).examples
    plain, permuted, other = (
        load(build(config("digits", layout="pixels", permutation_seed=seed))).examples.x for seed in (None, 0, 1)
    )
    np.testing.assert_array_equal(plain[:, :, 0], images.x.reshape(-1, 64))
    order = shuffle(64, 0)
    assert sorted(order) == list(range(64))
    np.testing.assert_array_equal(permuted, plain[:, order])
    assert (permuted != plain).any()
    assert (permuted != other).any()


def test_a_layout_of_mnist_keeps_the_parts(published):
    dataset = load(build(config("mnist", root=str(published()), layout="pixels", permutation_seed=3)))
    assert (dataset.facts.kind, dataset.facts.feature_shape) == ("sequence", (20, 1))
    assert (dataset.facts.train_size, dataset.facts.validation_size, dataset.facts.test_size) == (18, 2, 6)
    assert (dataset.facts.low, dataset.facts.high <= 1) == (0, True)


@pytest.mark.parametrize(
    ("changes", "text"), [({"permutation_seed": 0}, "data.layout=pixels"), ({"permutation_seed": -1}, "negative")]
)
def test_a_permutation_that_no_layout_uses_is_refused(changes, text):
    for layout in ("image", "rows"):
        with pytest.raises(ConfigError, match=text) as caught:
            build(config("digits", layout=layout) | changes, key="data")
        assert caught.value.key == "data.permutation_seed"
