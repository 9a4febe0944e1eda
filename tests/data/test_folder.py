"""Folders of images, of scikit-learn's digits written as files."""

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from configs import shipped
from PIL import Image
from sklearn.datasets import load_digits

from research.data import Dataset, folder, load
from research.data.preparation import Preparation
from research.tree import ConfigError, build

PIXELS = (load_digits().images[:60] * 15).astype(np.uint8)
DIGITS = load_digits().target[:60]


def write(place: Path, rows: range, ending: str = "png", classes: bool = True) -> Path:
    """Some digits as files below a folder, each in the folder of its class."""
    for row in rows:
        inner = place / f"digit {DIGITS[row]}" if classes else place
        inner.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[row]).save(inner / f"{row:03}.{ending}")
    return place


def images(path: Path, **changes) -> Dataset:
    return load(build(shipped("data", "folder") | {"path": str(path), "scaling": "none"} | changes, key="data"))


def png_of_16_bits() -> bytes:
    """A PNG of 8 by 8 pixels with 16 bits for each of three colors, which Pillow cannot write."""
    piece = lambda kind, content: struct.pack(">I", len(content)) + kind + content + crc(kind + content)
    crc = lambda content: struct.pack(">I", zlib.crc32(content))
    header = piece(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    pixels = piece(b"IDAT", zlib.compress((b"\0" + bytes(range(48))) * 8))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + piece(b"IEND", b"")


def refused(match: str, path: Path, **changes) -> ConfigError:
    with pytest.raises(ConfigError, match=match) as caught:
        images(path, **changes)
    return caught.value


def test_images_come_in_the_order_of_classes_and_names(tmp_path):
    dataset = images(write(tmp_path / "digits", range(60)))
    order = np.argsort(DIGITS, kind="stable")
    np.testing.assert_array_equal(dataset.examples.x, PIXELS[order])
    np.testing.assert_array_equal(dataset.examples.label, DIGITS[order])
    assert dataset.examples.x.dtype == np.uint8
    assert dataset.preparation.classes == tuple(f"digit {digit}" for digit in range(10))
    assert (dataset.name, dataset.facts.kind, dataset.facts.classes) == ("digits", "image", 10)
    assert images(tmp_path / "digits", scaling="unit").facts.high == np.float32(PIXELS.max() / 255)


def test_every_part_has_its_share_of_every_class_unless_folders_fix_the_parts(tmp_path):
    dataset = images(write(tmp_path / "all", range(60)), test_fraction=0.5)
    assert set(dataset.examples.label[dataset.split(None).rows("test")]) == set(range(10))
    write(tmp_path / "fixed" / "train", range(40))
    write(tmp_path / "fixed" / "test", range(40, 60))
    dataset = images(tmp_path / "fixed")
    np.testing.assert_array_equal(dataset.split(None).rows("test"), np.arange(40, 60))
    np.testing.assert_array_equal(np.sort(dataset.examples.label[40:]), np.sort(DIGITS[40:]))
    shutil.rmtree(tmp_path / "fixed" / "test")
    remedy = refused("no folder test beside train", tmp_path / "fixed").remedy
    assert "data.path=" in remedy
    assert "if train is a class, call its folder otherwise" in remedy


def test_the_same_images_again_are_no_test_images(tmp_path):
    write(tmp_path / "train", range(20))
    write(tmp_path / "test", range(15, 20))
    error = refused("5 of 5 test rows are among the training rows", tmp_path)
    assert error.key == "data.path"
    shutil.rmtree(tmp_path / "test")
    write(tmp_path / "test", range(20, 40))
    shutil.copy(tmp_path / "train" / "digit 1" / "001.png", tmp_path / "test" / "digit 2")  # as another class
    refused("1 of 21 test rows are among the training rows", tmp_path)


def test_an_image_in_the_folders_of_two_classes_is_pointed_out(tmp_path):
    write(tmp_path, range(20))
    assert not [note for note in images(tmp_path).notes if "images" in note or "rows occur" in note]
    shutil.copy(tmp_path / "digit 1" / "001.png", tmp_path / "digit 2")
    notes = images(tmp_path).notes
    assert "1 of 20 different images lie in the folders of several classes; keep each in one" in notes
    assert "2 of 21 rows occur more than once; copies may lie in training and test rows" in notes


def test_a_flat_folder_has_no_classes(tmp_path):
    dataset = images(write(tmp_path / "flat", range(30), classes=False))
    np.testing.assert_array_equal(dataset.examples.x, PIXELS[:30])
    assert (dataset.examples.label, dataset.facts.classes) == (None, 0)
    for row in range(30):
        (tmp_path / "one" / "inner").mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[row]).save(tmp_path / "one" / "inner" / f"{row}.png")
    dataset = images(tmp_path / "one")
    assert dataset.examples.label is None
    assert dataset.notes == ("all images are in the folder inner, so there are no classes",)


def test_images_of_several_sizes_need_one(tmp_path):
    write(tmp_path, range(20))
    Image.fromarray(np.zeros((6, 9), np.uint8)).save(tmp_path / "digit 3" / "wide.jpg")
    error = refused(r"wide.jpg has 6 by 9 pixels, and .*000.png has 8 by 8; .* data.size=28", tmp_path)
    assert error.key == "data.size"
    assert images(tmp_path, size=12).facts.feature_shape == (12, 12)
    assert "are stretched" in images(tmp_path, size=12).notes[0]
    dataset = images(tmp_path, size=[6, 9])
    assert dataset.facts.feature_shape == (6, 9)
    np.testing.assert_array_equal(images(write(tmp_path / "other", range(20)), size=[8, 8]).facts.feature_shape, (8, 8))


def test_colors_transparency_and_orientation(tmp_path):
    random = np.random.default_rng(0)
    for number in range(10):
        pixels = random.integers(0, 256, (4, 5, 4), np.uint8)
        pixels[..., 3] = 255
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    grey = images(tmp_path)
    assert grey.examples.x.shape == (10, 4, 5)
    assert grey.notes == ("10 of 10 images have colors and are read as grey; data.color=rgb keeps them",)
    colors = images(tmp_path, color="rgb")
    np.testing.assert_array_equal(colors.examples.x[-1], pixels[..., :3])
    assert colors.notes == ()
    Image.fromarray(np.zeros((4, 5, 4), np.uint8)).save(tmp_path / "9.png")
    clear = images(tmp_path, color="rgb")
    assert (clear.examples.x[-1] == 255).all()
    assert clear.notes == ("1 of 10 images have transparent pixels, which are laid on white",)
    turned, exif = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)), Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned.save(tmp_path / "turned.png", exif=exif)
    assert folder.decode(tmp_path / "turned.png", "turned.png", "grey", None).shape == (4, 3)


def test_grey_images_are_read_as_sequences_of_rows(tmp_path):
    dataset = images(write(tmp_path, range(20)), layout="rows")
    assert (dataset.facts.kind, dataset.facts.feature_shape) == ("sequence", (8, 8))
    refused("data.color=grey", tmp_path, layout="rows", color="rgb")


def test_an_edited_folder_is_read_anew_and_the_hash_covers_the_pixels(tmp_path):
    write(tmp_path, range(20))
    first = images(tmp_path)
    assert images(tmp_path) is first
    Image.fromarray(255 - PIXELS[0]).save(tmp_path / f"digit {DIGITS[0]}" / "000.png")
    second = images(tmp_path)
    assert second.sha256 != first.sha256
    Image.fromarray(PIXELS[0]).save(tmp_path / f"digit {DIGITS[0]}" / "000.png")
    assert images(tmp_path).sha256 == first.sha256


def test_damaged_huge_and_foreign_files_are_refused_by_name(tmp_path, monkeypatch):
    write(tmp_path, range(20))
    path = tmp_path / "digit 1" / "bad.png"
    whole = (tmp_path / "digit 1" / "001.png").read_bytes()
    for content in (b"", b"no picture", whole[:-30], whole[:40]):
        path.write_bytes(content)
        assert refused("digit 1/bad.png: it is damaged or no PNG", tmp_path).key == "data.path"
    Image.fromarray(PIXELS[:1].repeat(3, 0).reshape(24, 8)).save(path, format="GIF")
    refused("bad.png: it is damaged or no PNG", tmp_path)
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(path)
    refused(": digit 1/bad.png: it has more than 8 bits a channel", tmp_path)
    path.write_bytes(png_of_16_bits())  # Pillow would keep the upper half of the bits
    refused(": digit 1/bad.png: it has more than 8 bits a channel", tmp_path, color="rgb")
    Image.fromarray(PIXELS[0]).save(path, save_all=True, append_images=[Image.fromarray(PIXELS[1])])
    refused(": digit 1/bad.png: it holds several pictures", tmp_path)
    Image.new("L", (9000, 9000)).save(path)
    refused("bad.png: it declares more than 50,000,000 pixels", tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    refused("bad.png: it declares more than 50,000,000 pixels", tmp_path)


def test_links_that_leave_the_folder_are_not_followed(tmp_path):
    write(tmp_path / "mine", range(20))
    write(tmp_path / "secret", range(20, 30), classes=False)
    link = tmp_path / "mine" / "digit 1" / "link.png"
    link.symlink_to(tmp_path / "secret" / "020.png")
    refused("digit 1/link.png is a link that leaves the folder", tmp_path / "mine")
    link.unlink()
    link.symlink_to("nowhere.png")
    refused("broken link", tmp_path / "mine")
    link.unlink()
    link.symlink_to("001.png")
    assert len(images(tmp_path / "mine").examples) == 21
    (tmp_path / "mine" / "other").symlink_to(tmp_path / "secret")
    refused("other is a link that leaves the folder", tmp_path / "mine")


def test_folders_of_another_form_are_refused(tmp_path):
    refused("name your folder", Path("???"))
    refused("did you mean 'mine'", write(tmp_path / "mine", range(10)).with_name("mime"))
    (tmp_path / "mine" / "empty").mkdir()
    refused("empty holds no image", tmp_path / "mine")
    (tmp_path / "mine" / "empty" / "deep").mkdir()
    refused("a folder inside a class folder", tmp_path / "mine")
    shutil.rmtree(tmp_path / "mine" / "empty")
    (tmp_path / "mine" / "notes.txt").write_text("hello")
    (tmp_path / "mine" / ".hidden").write_text("hello")
    note = "files left out, because they do not end in .png, .jpg, .jpeg: notes.txt"
    assert images(tmp_path / "mine").notes[0] == note
    Image.fromarray(PIXELS[0]).save(tmp_path / "mine" / "loose.png")
    refused("loose.png lies beside the folder digit 0", tmp_path / "mine")
    (tmp_path / "none").mkdir()
    refused("no file here ends in", tmp_path / "none")


def test_new_images_of_a_run_need_no_division(tmp_path):
    recipe = build(shipped("data", "folder") | {"path": str(write(tmp_path, range(1)))}, key="data")
    source = recipe.stored_for(Preparation(kind="image", stored_shape=(8, 8), class_count=10))
    assert source.classes == ("digit 0",)
    np.testing.assert_array_equal(source.examples.x, PIXELS[:1])
