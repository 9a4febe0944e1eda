"""Every shipped data config."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from research.tree import build, hints, plain

FILES = sorted((Path(__file__).parents[2] / "conf" / "data").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_config_builds_and_sets_every_key(path):
    config = yaml.safe_load(path.read_text())
    if config.get("path") == "???":
        config["path"] = "mine.csv"
    made = build(config, key="data")
    assert build(plain(made)) == made == build(config)
    assert hash(made) == hash(build(config))
    assert set(config) - {"_target_"} == set(hints(type(made)))
    assert {"root", "split_seed", "folds", "fold"} <= set(config)
    assert all(field.default is dataclasses.MISSING for field in dataclasses.fields(made)), "a default in two places"


def test_configs_were_found():
    assert {"digits", "mnist", "fashion_mnist", "low_rank", "arrays"} <= {path.stem for path in FILES}
