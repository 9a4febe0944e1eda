"""Every shipped data config."""

import dataclasses

import numpy as np
import pytest
import yaml
from configs import CONF, shipped

from research.data.loading import load
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


@pytest.mark.parametrize("changes", [{}, {"channels": 1}], ids=str)
@pytest.mark.parametrize("name", [name for name in NAMES if "data_seed" in shipped("data", name)])
def test_the_test_rows_of_drawn_data_are_like_the_training_rows(name, changes):
    """A recipe that draws its rows by the very numbers that `shuffle` orders them by would be tested on one corner."""
    config = shipped("data", name)
    if not changes.keys() <= config.keys():
        return
    dataset = load(build(config | changes | {"rows": 1000}))
    split = dataset.split(None)
    train, test = (dataset.examples.take(split.rows(part)) for part in ("train", "test"))
    for field in ("x", "factors", "target"):
        if getattr(train, field) is None:
            continue
        trained, tested = (
            np.asarray(getattr(rows, field), np.float64).reshape(len(rows), -1) for rows in (train, test)
        )
        error = np.sqrt(trained.var(0) / len(train) + tested.var(0) / len(test))
        both = (trained.var(0) > 0) & (tested.var(0) > 0)  # a pixel may be black in one of the parts
        assert np.all(np.abs(trained.mean(0) - tested.mean(0))[both] < 6 * error[both]), field


def test_configs_were_found():
    own = {"arrays", "folder", "ucr"}
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


@pytest.mark.parametrize("name", ["ecg200", "synthetic_control"])
def test_problems_of_shipped_experiments_stay_z_scored(name):
    """They are read beside published numbers, whatever the default of `data=ucr` is."""
    assert yaml.safe_load((CONF / "data" / f"{name}.yaml").read_text())["zscore"] is True
    for path in sorted((CONF / "experiment").glob("cluster_*.yaml")):
        content = yaml.safe_load(path.read_text())
        if {"override /data": "ucr"} in content["defaults"]:
            assert content["data"]["zscore"] is True
