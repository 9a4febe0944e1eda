"""Every shipped data config."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from research.tree import build, hints, plain

FOLDER = Path(__file__).parents[2] / "conf" / "data"
FILES = sorted(FOLDER.glob("*.yaml"))


def content(path: Path) -> dict:
    """The keys of a config, and below them those of the config that it starts from."""
    config = yaml.safe_load(path.read_text())
    bases = config.pop("defaults", ["_self_"])
    assert bases[-1] == "_self_", "a config overrides what it starts from"
    for base in reversed(bases[:-1]):
        config = content(FOLDER / f"{base}.yaml") | config
    return config


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_config_builds_and_sets_every_key(path):
    config = content(path)
    required = {"path": "mine.csv", "problem": "BasicMotions"}
    config |= {key: value for key, value in required.items() if config.get(key) == "???"}
    made = build(config, key="data")
    assert build(plain(made)) == made == build(config)
    assert hash(made) == hash(build(config))
    assert set(config) - {"_target_"} == set(hints(type(made)))
    assert {"root", "split_seed", "folds", "fold"} <= set(config)
    assert all(field.default is dataclasses.MISSING for field in dataclasses.fields(made)), "a default in two places"


def test_configs_were_found():
    own = {"arrays", "ucr"}
    images = {"digits", "mnist", "fashion_mnist", "digits_rows", "mnist_rows", "mnist_pixels"}
    drawn = {"low_rank", "sines", "ar", "adding", "copy", "sprites"}
    assert own | images | drawn | {"mnist1d", "polyphonic"} <= {path.stem for path in FILES}


def test_a_layout_config_is_the_image_config_but_for_the_layout():
    rows, images = content(FOLDER / "mnist_rows.yaml"), content(FOLDER / "mnist.yaml")
    assert rows == images | {"layout": "rows"} != images
