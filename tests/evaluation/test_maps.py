"""Maps of codes keep neighbours, depend on nothing but the codes, and say what they do not mean."""

import importlib.util
import sys
import types

import jax
import numpy as np
import pytest

from research import tree
from research.data.examples import Examples, Facts
from research.evaluation import Subject, maps
from research.tree import ConfigError

from . import asking
from .test_studies import recipe

RANDOM = np.random.default_rng(0)
CENTRES = np.eye(6)[:3] * 30
LABEL = np.arange(60) % 3
CODES = (CENTRES[LABEL] + RANDOM.normal(size=(60, 6))).astype(np.float32)


class Coder:
    """Its codes are the rows."""

    def encode(self, params, batch):
        return batch.x


def subject(codes=CODES, label=LABEL, **keys):
    rows = Examples(x=codes, label=label)
    facts = Facts("vector", codes.shape[1:], 0.0, 1.0, 3, 60, 60, len(codes))
    subject = Subject(Coder(), {}, dict.fromkeys(("train", "validation", "test"), rows), recipe(**keys), facts, None)  # type: ignore[arg-type]
    subject._codes["test"] = codes
    return subject


def test_neighbours_stay_neighbours_and_equal_codes_give_equal_maps():
    points, setting = maps.embed(CODES, "tsne")
    assert setting == "perplexity 19"
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(60)
    assert (LABEL[distances.argmin(1)] == LABEL).all()
    jax.random.normal(jax.random.key(1), (3,))
    np.random.default_rng(5).random(7)
    np.testing.assert_array_equal(points, maps.embed(CODES, "tsne")[0])
    assert maps.embed(CODES[:12, :1], "tsne")[0].shape == (12, 2)  # one latent has one principal component


def test_the_picture_is_coloured_by_class_and_its_lines_tell_rows_and_settings(monkeypatch):
    written, seen = [], []
    caption = maps.captioned
    monkeypatch.setattr(maps, "captioned", lambda picture, text: written.append(text) or caption(picture, text))
    monkeypatch.setattr(maps, "embed", lambda codes, method: (seen.append((codes, method)) or codes[:, :2], "set 7"))
    picture = asking.ask(subject(map="tsne"), maps.study).pictures["codes_tsne"]
    other = asking.ask(subject(label=LABEL[::-1].copy(), map="tsne"), maps.study).pictures["codes_tsne"]
    assert picture.shape == other.shape
    assert (picture != other).any()
    assert " ".join(written[:3]) == (
        "t-SNE of the codes of 60 test rows, set 7, seed 0. "
        "Distances between groups, their sizes and densities carry no meaning."
    )
    monkeypatch.setattr(maps, "LARGEST", 20)
    monkeypatch.setattr(importlib.util, "find_spec", lambda *given: given)  # as if umap-learn were installed
    broken = CODES.copy()
    broken[0] = np.nan
    asking.ask(subject(broken, map="umap"), maps.study)
    assert "UMAP of the codes of 19 of 60 test rows," in written
    np.testing.assert_array_equal(seen[-1][0], CODES[np.linspace(0, 59, 20).astype(int)[1:]])
    assert seen[-1][1] == "umap"


def test_no_map_is_drawn_unasked_or_of_codes_that_are_not_finite():
    assert not asking.ask(subject(), maps.study).pictures
    found = asking.ask(subject(np.full_like(CODES, np.nan), map="tsne"), maps.study)
    assert not found.pictures
    assert found.null_reasons == {"test/codes_tsne": "fewer than 10 rows have finite codes"}


def test_no_map_is_drawn_of_equal_codes(monkeypatch):
    """They would end the process: the positions at which t-SNE starts are divided by their deviation of 0."""
    monkeypatch.setattr(maps, "embed", lambda codes, method: pytest.fail("equal codes have a map"))
    for equal in (np.full_like(CODES, 0.3), CODES * np.float32(1e-30)):
        found = asking.ask(subject(equal, map="tsne"), maps.study)
        assert not found.pictures
        assert found.null_reasons == {"test/codes_tsne": "all codes are equal, so none is nearer than another"}


def test_umap_gets_a_seed_and_one_thread(monkeypatch):
    given = {}

    class Fake:
        def __init__(self, **settings):
            given.update(settings)

        def fit_transform(self, codes):
            return codes[:, :2]

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Fake))
    points, setting = maps.embed(CODES[:12], "umap")
    assert (points.shape, setting) == ((12, 2), "11 neighbours")
    assert given == {"n_neighbors": 11, "random_state": 0, "n_jobs": 1}


def test_what_cannot_be_drawn_is_refused_before_training(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "umap" else find(name, *rest))
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[maps\]', or set map=tsne") as error:
        recipe(map="umap")
    assert error.value.key == "map"
    few = Facts("vector", (6,), 0.0, 1.0, 3, 60, 60, 9)
    with pytest.raises(ConfigError, match="9 test rows, and a map needs 10; set map=none"):
        recipe(map="tsne").check(few)
    recipe().check(few)


def test_a_recipe_without_a_map_is_that_of_earlier_runs():
    assert "map" not in tree.plain(recipe())
    assert tree.plain(recipe(map="tsne"))["map"] == "tsne"
