"""Every shipped data config."""

import dataclasses

import pytest
from configs import CONF, shipped

from research.tree import build, hints, plain

NAMES = sorted(path.stem for path in (CONF / "data").glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_the_config_builds_and_sets_every_key(name):
    config = shipped("data", name)
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
    assert own | images | drawn | {"mnist1d", "polyphonic"} <= set(NAMES)


def test_a_layout_config_is_the_image_config_but_for_the_layout():
    rows, images = shipped("data", "mnist_rows"), shipped("data", "mnist")
    assert rows == images | {"layout": "rows"} != images


def test_no_two_files_of_shared_keys_have_a_key_in_common():
    """Whichever comes first in `defaults`, a config then gets the same keys."""
    files = [path.stem for path in (CONF / "data" / "shared").glob("*.yaml")]
    keys = [key for name in files for key in shipped("data", f"shared/{name}")]
    own = {"scaling"}  # each kind of data has its own usual one
    assert sorted(set(keys) - own) == sorted(key for key in keys if key not in own)
