"""What specs say of the settings that change what their metrics measure."""

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import yaml

from research.data import Splitting
from research.metrics import (
    CHOOSING,
    METRICS,
    ROWS,
    SCALING,
    dependencies,
    direction,
    judges,
    nearest_metric,
    undirected,
)
from research.models.vae import VAE
from research.tree import from_data, hints, inline, resolve_target, spec

CONFIGS = sorted((Path(__file__).parents[1] / "conf" / "model").glob("*.yaml"))
CLASSES = {
    resolve_target(content["_target_"]): path.stem
    for path in CONFIGS
    if "_target_" in (content := yaml.safe_load(path.read_text()))
}


@pytest.mark.parametrize("cls", CLASSES, ids=CLASSES.get)
def test_settings_that_change_a_metric_are_settings_of_the_model(cls):
    # `code` is a field of the recurrent one of two families
    assert {key for keys in dependencies(cls, "model").values() for key in keys} <= {
        *(f"model.{name}" for name in hints(cls)),
        "model.code",
    }


def test_the_keys_that_choose_rows_are_keys_of_the_data():
    """A key that is renamed there must be renamed in the table, or runs on other rows would be compared."""
    fields = {f"data.{name}" for name in hints(Splitting)}
    assert {key for keys in ROWS.values() for key in keys} | {SCALING} <= fields


@spec
class Tilted(VAE):
    """Says nothing of its own number."""

    tilt: float
    norm: Literal["one", "two"]
    width: int = from_data(0)


def test_settings_that_a_spec_says_nothing_of_are_parts_of_its_loss():
    of_parent, of_tilted = dependencies(VAE, "model"), dependencies(Tilted, "model")
    assert set(of_tilted["loss"]) - set(of_parent["loss"]) == {"model.tilt", "model.norm"}
    assert of_tilted["elbo_nats"] == of_parent["elbo_nats"]


@spec
class Forgetful:
    """Says which of its choices change the loss, and of its numbers only that one does not."""

    weight: float
    rate: float | None
    norm: Literal["one", "two"]
    layers: int

    depends: ClassVar[dict[str, tuple[str, ...]]] = {"loss": ("norm",)}
    unscored: ClassVar[tuple[str, ...]] = ("rate",)


def test_a_number_is_part_of_the_loss_unless_its_class_says_otherwise():
    assert dependencies(Forgetful, "model") == {"loss": ["model.norm", "model.weight"]}


@spec
class Weighted:
    """A part that says nothing of its numbers."""

    weight: float
    strength: float


@spec
class Owner:
    part: Weighted = inline(weight=1.0)


def test_a_key_that_an_owner_fixes_of_a_part_is_no_key_of_its_config():
    assert dependencies(Owner, "model") == {"loss": ["model.strength"]}


def test_an_unknown_metric_is_answered_by_the_nearest_one():
    assert "did you mean 'validation/loss'" in undirected("validation/los")
    assert "did you mean 'validation/elbo_nats'" in undirected("validation/elbo")
    assert nearest_metric("validation/reconstuction_mse") == "validation/reconstruction_mse"
    assert nearest_metric("validation/kl_nats") == "validation/loss"  # known, but neither low nor high is better
    assert nearest_metric("validation/xyz") == "validation/loss"


def test_what_chooses_has_a_direction_and_counts_have_none():
    assert all(direction(name) for name in CHOOSING)
    assert judges(["test/active_units", "test/nll_nats"])[0] == "validation/nll_nats"
    assert judges(())[:3:2] == ["validation/imputation_mae", "validation/iwae_nats"]
    assert [direction(name) for name in ("active_units", "clusters", "codebook_used", "r2")] == [""] * 4
    assert all(dataclasses.is_dataclass(metric) for metric in METRICS.values())
