"""The builder, the way back, grouping and stacking, and what a config may name."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, ClassVar, Literal

import hypothesis
import jax
import numpy as np
import pytest
from configs import names, replaced, shipped, value_at
from hypothesis import strategies as st

from research.coercion import coerce
from research.errors import nearest
from research.ranges import StaticShareBelow1
from research.tree import (
    ConfigError,
    added,
    build,
    config_hash,
    flatten,
    group,
    hints,
    inline,
    keys,
    plain,
    recipe,
    resolve_target,
    spec,
    stack,
    structure,
    unstack,
)

SHIPPED = [(group, name) for group in ("model", "optimizer", "trainer") for name in names(group)]


@spec
class Inner:
    weight: float
    kind: Literal["a", "b"] = "a"


@spec
class Outer:
    rate: float
    decay: float | None
    sizes: tuple[int, ...]
    inner: Inner
    extra: dict[str, float]
    limits: tuple[float, float] | None = None
    count: Literal[1, 2] = 1
    title: str | None = None
    flag: bool = False

    def validate(self) -> None:
        if self.rate < 0:
            raise ConfigError("rate", self.rate, "must not be negative")


@recipe
class Budget:
    epochs: int


PLAIN: dict[str, Any] = {"rate": 1, "decay": None, "sizes": [3, 2], "inner": {"weight": 2}, "extra": {"a": 3}}


def outer(**changes: Any) -> Any:
    return build(PLAIN | changes, Outer)


# --------------------------------------------------------------------------------------------------------- the builder


def test_values_get_the_types_of_their_fields():
    made = outer(limits=[1, 2])
    assert made == Outer(
        rate=1.0, decay=None, sizes=(3, 2), inner=Inner(weight=2.0), extra={"a": 3.0}, limits=(1.0, 2.0)
    )
    floats = [made.rate, made.inner.weight, made.extra["a"], *made.limits]
    assert [type(value) for value in floats] == [float] * 5
    assert type(made.sizes) is tuple


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"ratee": 1}, "model.ratee", "did you mean 'model.rate'"),
        ({"inner": {"wieght": 1}}, "model.inner.wieght", "did you mean '+model.inner.weight'"),
        ({"inner": {"weight": 1, "kind": "c"}}, "model.inner.kind", "expected one of a, b"),
        ({"inner": {}}, "model.inner.weight", "must be set to a number; add +model.inner.weight=VALUE"),
        ({"inner": 3}, "model.inner", "section of keys"),
        ({"inner": {"_target_": "research.engine.Trainer"}}, "model.inner._target_", "Inner"),
        ({"rate": {"_target_": "research.distributions.Bernoulli"}}, "model.rate", "expected a number"),
        ({"rate": None}, "model.rate", "null is not allowed"),
        ({"rate": "1"}, "model.rate", "expected a number"),
        ({"rate": True}, "model.rate", "expected a number"),
        ({"rate": float("nan")}, "model.rate", "NaN"),
        ({"rate": 10**400}, "model.rate", "too large"),
        ({"rate": -1}, "model.rate", "must not be negative"),
        ({"sizes": 3}, "model.sizes", "expected a list, for example 'model.sizes=[3]'"),
        ({"sizes": [1, 2.5]}, "model.sizes[1]", "expected an integer"),
        ({"sizes": [True]}, "model.sizes[0]", "expected an integer"),
        ({"limits": [1]}, "model.limits", "a list of 2"),
        ({"limits": [1, "x"]}, "model.limits[1]", "expected a number"),
        ({"extra": {"a": "x"}}, "model.extra.a", "expected a number"),
        ({"extra": 1}, "model.extra", "section of keys"),
        ({"count": 3}, "model.count", "expected one of 1, 2"),
        ({"count": True}, "model.count", "expected one of 1, 2"),
        ({"title": 3}, "model.title", "in quotes"),
        ({"flag": 1}, "model.flag", "true or false"),
    ],
)
def test_a_wrong_value_is_refused_by_its_full_key(changes: dict[str, Any], key: str, words: str):
    with pytest.raises(ConfigError) as error:
        build(PLAIN | changes, Outer, key="model")
    assert error.value.key == key
    assert words in str(error.value)


def test_null_is_kept_where_it_is_allowed():
    made = outer(decay=None, title=None, limits=None)
    assert (made.decay, made.title, made.limits) == (None, None, None)


def test_a_missing_key_and_a_missing_class_are_refused():
    with pytest.raises(ConfigError, match="this key must be set") as error:
        build({key: value for key, value in PLAIN.items() if key != "decay"}, Outer)
    assert error.value.key == "decay"
    with pytest.raises(ConfigError, match="must name its class"):
        build({})
    with pytest.raises(ConfigError, match="section of keys"):
        build([1], Outer)


@pytest.mark.parametrize("value", [1, 2])
def test_integer_choices_are_accepted(value: int):
    assert coerce(value, Literal[1, 2], "count") == value


@hypothesis.given(
    st.floats(allow_nan=False, allow_infinity=False, width=32, allow_subnormal=False) | st.integers(-(2**53), 2**53),
    st.lists(st.integers(1, 99), max_size=4),
)
def test_plain_and_build_are_inverse(number: float, sizes: list[int]):
    made = outer(rate=abs(number), decay=number, sizes=sizes)
    back = build(
        {key: value for key, value in plain(made).items() if key != "_target_"} | {"inner": PLAIN["inner"]}, Outer
    )
    assert back == made
    assert json.loads(json.dumps(plain(made))) == plain(made)


def test_nearest_names():
    assert nearest("learning_rat", ["learning_rate", "beta"]) == " (did you mean 'learning_rate'?)"
    assert nearest("xyz", ["learning_rate", "beta"]) == ""


def test_flatten():
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": {}}) == {"a.b": 1, "a.c.d": [2], "e": {}}


# -------------------------------------------------------------------------------------------------------------- parts


@spec
class Noise:
    kind: Literal["none", "normal"]
    noise_scale: float

    def validate(self) -> None:
        if self.kind == "normal" and self.noise_scale == 0:
            raise ConfigError("kind", self.kind, "set {key}=none")


@spec
class Whole:
    noise: Noise = inline()
    rate: float
    late: float | None = added(before=None)
    share: StaticShareBelow1 = added(before=0.0)

    retired: ClassVar[dict[str, Any]] = {"form": "auto"}

    def validate(self) -> None:
        if self.noise.kind == "none" and self.rate > 1:
            raise ConfigError("rate", self.rate, "too large without noise")


FLAT = {"noise": "normal", "noise_scale": 2, "rate": 3}


def test_the_keys_of_a_part_stand_beside_its_owners():
    made = build(FLAT, Whole)
    assert made == Whole(noise=Noise(kind="normal", noise_scale=2.0), rate=3.0, late=None, share=0.0)
    assert jax.tree.leaves(made) == [2.0, 3.0]
    assert plain(made) == {"_target_": f"{__name__}.Whole", **FLAT, "form": "auto"}
    assert list(hints(Whole)) == ["noise", "noise_scale", "rate", "late", "share"]
    assert value_at(replaced(made, noise_scale=5.0, noise="none"), "noise_scale") == 5
    assert structure(made) == structure(build(FLAT | {"noise_scale": 7}, Whole))
    assert structure(made) != structure(build(FLAT | {"noise": "none", "rate": 1}, Whole))


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"noise": "norml"}, "model.noise", "did you mean 'normal'"),
        ({"noise_scale": 0}, "model.noise", "set model.noise=none"),
        ({"noise_scale": "x"}, "model.noise_scale", "expected a number"),
        ({"noise": "none"}, "model.rate", "too large without noise"),
        ({"kind": "none"}, "model.kind", "unknown key"),
        ({"form": "hoisted"}, "model.form", "this version has no such choice"),
        ({"share": 1.0}, "model.share", "must lie in"),
    ],
)
def test_a_wrong_key_of_a_part_is_refused_as_the_config_spells_it(changes: dict[str, Any], key: str, words: str):
    with pytest.raises(ConfigError) as error:
        build(FLAT | changes, Whole, key="model")
    assert error.value.key == key
    assert words in str(error.value)
    with pytest.raises(ConfigError) as error:
        build({name: value for name, value in FLAT.items() if name != "noise"}, Whole)
    assert error.value.key == "noise"


def test_a_key_that_came_later_or_is_gone_changes_no_hash():
    made = build(FLAT, Whole)
    assert build(FLAT | {"late": None, "share": 0, "form": "auto"}, Whole) == made
    later = build(FLAT | {"late": 1, "share": 0.5}, Whole)
    assert plain(later) == plain(made) | {"late": 1.0, "share": 0.5}
    assert build({name: value for name, value in plain(later).items() if name != "_target_"}, Whole) == later
    assert len(jax.tree.leaves(later)) == 3  # the marked number is compiled
    assert structure(later) != structure(build(FLAT | {"late": 1}, Whole))


@recipe
class Layout:
    kind: Literal["rows", "columns"]
    size: int


@spec
class Arrangement:
    layout: Layout = inline()
    weight: float


@spec
class LaterWhole(Whole):
    other: int


@spec
class NamedAnew(Whole):
    form: str


def test_a_part_without_leaves_is_structure():
    small, large = (build({"layout": "rows", "size": size, "weight": 2}, Arrangement) for size in (3, 4))
    assert jax.tree.leaves(small) == [2.0]
    assert structure(small) != structure(large)
    assert stack([small, small]).layout == Layout(kind="rows", size=3)
    assert build(plain(small) | {"_target_": None}, Arrangement) == small


def test_a_key_that_is_gone_is_gone_from_subclasses_too_unless_they_have_it():
    made = build(FLAT | {"other": 1, "form": "auto"}, LaterWhole)
    assert plain(made)["form"] == "auto"
    anew = build(FLAT | {"form": "hoisted"}, NamedAnew)
    assert (anew.form, plain(anew)["form"]) == ("hoisted", "hoisted")


@pytest.mark.parametrize(
    ("target", "open_parts"), [("vae.Variational", "networks"), ("dense_ae.Autoencoder", "networks, code")]
)
def test_a_class_with_parts_of_no_kind_cannot_be_named(target: str, open_parts: str):
    with pytest.raises(ConfigError, match=f"of what kind its {open_parts} are; name a class that does") as error:
        build({"_target_": f"research.models.{target}", "latent_dim": 2}, key="model")
    assert error.value.key == "model._target_"


def test_a_part_stays_a_part_in_a_subclass():
    with pytest.raises(TypeError, match=r"Forgetful.noise is a part: write noise: \.\.\. = inline\(\)"):
        spec(type("Forgetful", (Whole,), {"__annotations__": {"noise": Noise}, "__module__": __name__}))


def test_two_parts_cannot_have_one_key():
    class Twice:
        one: Whole = inline()
        rate: float

    with pytest.raises(TypeError, match="two parts have the key rate"):
        hints(dataclasses.dataclass(kw_only=True)(Twice))


# ----------------------------------------------------------------------------------------------------- shipped configs


@pytest.mark.parametrize(("group", "name"), SHIPPED)
def test_shipped_configs(group: str, name: str):
    config = shipped(group, name)
    first, second = build(config), build(shipped(group, name))
    assert first == second
    assert build(json.loads(json.dumps(plain(first)))) == first
    assert structure(first) == structure(second)
    assert hash(structure(first)) == hash(structure(second))
    assert config_hash(plain(first)) == config_hash(plain(second))
    # no key has a default of its own: what is not in the file is missing
    known = [name for name, key in keys(type(first)).items() if name in config and key.added is dataclasses.MISSING]
    for key in known:
        with pytest.raises(ConfigError):
            build({name: value for name, value in config.items() if name != key})


def floats(value: Any) -> list[float]:
    """The numbers of a spec, of specs within it and of dictionaries."""
    if dataclasses.is_dataclass(value):
        leaves = [name for name, key in keys(type(value)).items() if "static=True" not in str(key.hint)]
        return [number for name in leaves for number in floats(value_at(value, name))]
    if isinstance(value, dict):
        return [number for inner in value.values() for number in floats(inner)]
    return [value] if type(value) is float else []


@pytest.mark.parametrize(("group", "name"), SHIPPED)
def test_leaves_are_exactly_the_float_fields(group: str, name: str):
    made = build(shipped(group, name))
    numbers = floats(made)
    leaves = jax.tree.leaves(made) if type(made).__tree__ == "spec" else []
    assert sorted(leaves) == (sorted(numbers) if type(made).__tree__ == "spec" else [])
    for key, hint in hints(type(made)).items():
        if "static=True" in str(keys(type(made))[key].hint):
            assert structure(replaced(made, **{key: 0.5})) != structure(made), key
        elif hint is float and leaves:
            moved = replaced(made, **{key: value_at(made, key) + 0.25})
            assert structure(moved) == structure(made), key
        elif hint == float | None and leaves:
            absent, present = (replaced(made, **{key: value}) for value in (None, 0.5))
            assert structure(absent) != structure(present), key
            assert len(jax.tree.leaves(present)) == len(jax.tree.leaves(absent)) + 1


# ---------------------------------------------------------------------------------------------- structure and stacking


def test_structure_is_everything_but_the_numbers():
    assert structure(outer(rate=1, inner={"weight": 2})) == structure(outer(rate=5, inner={"weight": 7}))
    for change in (
        {"sizes": [3]},
        {"decay": 1.0},
        {"inner": {"weight": 2, "kind": "b"}},
        {"extra": {"b": 3}},
        {"flag": True},
    ):
        assert structure(outer(**change)) != structure(outer()), change


def test_stack_and_unstack():
    trees = [outer(rate=rate, decay=0.5) for rate in (1, 2, 3)]
    stacked = stack(trees)
    assert stacked.rate.dtype == np.float32
    np.testing.assert_array_equal(stacked.rate, [1, 2, 3])
    assert stacked.sizes == (3, 2)
    assert unstack(stacked, 1) == trees[1]
    with pytest.raises(ValueError, match=r"[Mm]ismatch|differ|Expected"):
        stack([outer(), outer(sizes=[1])])


def test_stack_keeps_array_types():
    stacked = stack([{"seed": np.uint32(3), "rows": np.arange(2, dtype=np.int32)}] * 2)
    assert stacked["seed"].dtype == np.uint32
    assert stacked["rows"].shape == (2, 2)


@hypothesis.given(st.lists(st.tuples(st.integers(0, 3), st.integers())))
def test_groups_keep_the_order_of_first_appearance(items: list[tuple[int, int]]):
    groups = group(items, key=lambda item: item[0])
    assert [members[0][0] for members in groups] == list(dict.fromkeys(key for key, _ in items))
    for members in groups:
        assert members == [item for item in items if item[0] == members[0][0]]


def test_config_hash():
    assert config_hash({"b": [1, 2.0, None], "a": "x"}) == config_hash({"a": "x", "b": [1, 2.0, None]})
    # sha256 of {"a":1.5}: run folders of earlier versions must be found again
    assert config_hash({"a": 1.5}) == "3b1cb40b22933d83e9242f8ac724f114d812ddd49909917b365375c24b69a455"
    assert config_hash({"a": 1.0}) != config_hash({"a": 2.0})


# --------------------------------------------------------------------------------------------------- what may be named


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "eval",
        "",
        None,
        "researches.models.vae.VAE",
        "research",
        "research.tree.Mapping",
        "research.tree.importlib",
        "research.tree.jax.Array",
        "research.tree.importlib.import_module",
        "research.networks.dense.nn.Dense",
        "research.networks.dense.getattr",
        "research.tree.build",
        "research.tree.ConfigError",
        "research..tree.ConfigError",
        "research.nothing.Thing",
        "flax.linen.Dense",
    ],
)
def test_only_own_specs_and_modules_may_be_named(target: Any):
    with pytest.raises(ConfigError):
        resolve_target(target)


def test_a_foreign_class_in_an_own_module_is_refused(monkeypatch: pytest.MonkeyPatch):
    import flax.linen

    import research.networks.dense

    monkeypatch.setattr(research.networks.dense, "Smuggled", flax.linen.Dense, raising=False)
    with pytest.raises(ConfigError, match="must be a @spec"):
        resolve_target("research.networks.dense.Smuggled")
    foreign = spec(type("Foreign", (), {"__module__": "foreign"}))
    monkeypatch.setattr(research.networks.dense, "Smuggled", foreign)
    with pytest.raises(ConfigError, match="must be a @spec"):
        resolve_target("research.networks.dense.Smuggled")


def test_own_classes_may_be_named():
    from research.models.vae import VAE
    from research.networks.dense import DenseStack

    assert resolve_target("research.models.vae.VAE") is VAE
    assert resolve_target("research.networks.dense.DenseStack") is DenseStack
    with pytest.raises(ConfigError, match=r"did you mean 'research\.models\.vae\.VAE'"):
        resolve_target("research.models.vae.VAEE")


def test_an_untrusted_package_is_not_even_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "stranger"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from research.tree import spec\n@spec\nclass Thing:\n    size: int\n    rate: float\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = {"_target_": "stranger.Thing", "size": 1, "rate": 2}
    with pytest.raises(ConfigError, match="trusted_packages"):
        build(config)
    assert "stranger" not in sys.modules
    made = build(config, trusted=["stranger"])
    assert (made.size, made.rate) == (1, 2.0)
    del sys.modules["stranger"]
