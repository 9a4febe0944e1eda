"""A job is a tree: its numbers are swept, its structure is compiled.

`@spec` turns a class into a frozen dataclass that is also a JAX pytree. Fields of type `float` are leaves: numbers that
a compiled program takes as inputs. Fields that hold another spec are subtrees. All other fields are structure, that
is, part of the compiled program. `@recipe` is the same without leaves: data, trainer and evaluation settings.

`build` makes a spec from a config (nested dicts, as a YAML file has them). `plain` is the way back. The conversion of
single values stands in `research.coercion`, the classes that a config may name in `research.target`.

The keys of a config are the fields of a class. What a class may say beside that:

    @spec
    class Denoiser:
        networks: DenseNetworks = inline()  # a part: its keys stand beside those of this class (hidden_dims, ...)
        noise: float                        # a leaf: it sweeps inside one program
        steps: int                          # structure: other values are other programs
        dropout: float = added(before=0.0)  # a key that runs of earlier versions lack, and how these runs were trained
        classes: int = from_data(0)         # no key: the method `bind` fills it in
        retired = {"form": "auto"}          # a key that only earlier versions had, and the value that it always has now
        depends = {"loss": ("steps",)}      # settings that change what a metric measures (`research.metrics`)
        unscored = ("dropout",)             # numbers that change how the model learns, and not what its loss measures

        def validate(self): ...             # rules of the class; they raise ConfigError

`added` and `retired` exist for `config_hash`: a config has the same hash in the version that wrote it and in this one.
"""

import dataclasses
import functools
import hashlib
import json
import typing
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar, dataclass_transform, runtime_checkable

import jax
import numpy as np

from research.coercion import coerce, type_name, without_none, without_range
from research.errors import ConfigError, nearest_key, shown
from research.ranges import Range
from research.target import buildable, is_module, resolve_target

T = TypeVar("T")


# ------------------------------------------------------------------------------------------------------ spec and recipe


def from_data(default: Any) -> Any:
    """A structural field that a model's `bind(facts)` fills in. No config can set it."""
    return dataclasses.field(default=default, metadata={"from_data": True})


def inline(**fixed: Any) -> Any:
    """A part: a spec whose keys stand beside the keys of its owner, so that configs are flat.

    The part's field `kind` is spelled by the name of the part: `penalty.kind` is the key `penalty`. A class may
    declare a part by a Protocol; its subclasses then name a spec that satisfies it.

    Args:
      fixed: keys of the part that have one value only in this owner, and are no keys of its config.
    """
    return dataclasses.field(metadata={"inline": True, "fixed": fixed})


def added(before: Any) -> Any:
    """A field that is younger than some run folders. Runs that lack the key were trained as at the value `before`.

    `plain` does not write the key at this value, so the hashes of older runs stay what they were. The value with which
    new runs start is another matter: it stands in `conf/`, as for every key.
    """
    return dataclasses.field(metadata={"added": True, "before": before})


@dataclass_transform(
    frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field, from_data, inline, added)
)
def spec(cls: type[T]) -> type[T]:
    """A frozen, keyword-only dataclass whose `float` fields are the leaves of a pytree.

    A field `float | None` is absent code when it is None: the tree then has another structure. Structure must be
    hashable. A number whose range is `static` is structure too. `build` calls a method `validate(self)`, on plain
    values and never on tracers.
    """
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    cls.__tree__ = "spec"  # type: ignore[attr-defined]
    inherited = {name for base in cls.__mro__[1:] if dataclasses.is_dataclass(base) for name in parts(base)}
    if lost := sorted(inherited - parts(cls).keys()):
        raise TypeError(f"{cls.__name__}.{lost[0]} is a part: write {lost[0]}: ... = inline()")
    fields: Any = [field for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]
    leaves = [
        field.name
        for field in fields
        if not field.metadata.get("from_data") and _belongs_to_tree(_types(cls)[field.name])
    ]
    jax.tree_util.register_dataclass(cls, leaves, [field.name for field in fields if field.name not in leaves])
    return cls


@dataclass_transform(frozen_default=True, kw_only_default=True)
def recipe(cls: type[T]) -> type[T]:
    """A frozen, keyword-only, hashable dataclass without leaves: all its fields are structure."""
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    cls.__tree__ = "recipe"  # type: ignore[attr-defined]
    return cls


def _belongs_to_tree(hint: Any) -> bool:
    """Whether a field of this type holds leaves: it is a number, a spec, or a dict of them."""
    hint = without_none(hint)
    if typing.get_origin(hint) is Annotated:
        static = any(isinstance(mark, Range) and mark.static for mark in hint.__metadata__)
        return not static and _belongs_to_tree(hint.__origin__)
    if hint is float or hint is Any:
        return True
    if typing.get_origin(hint) in (dict, Mapping):
        return _belongs_to_tree(typing.get_args(hint)[1])
    return isinstance(hint, type) and getattr(hint, "__tree__", None) == "spec"


@runtime_checkable
class Validated(Protocol):
    """A class with rules of its own, on plain values.

    Raises:
      ConfigError: naming the key.
    """

    def validate(self) -> None: ...


@runtime_checkable
class HasOwnKeys(Protocol):
    """A class whose fields differ from the keys of its config, and which converts both ways (`Optimizer`)."""

    @staticmethod
    def fields_of(config: dict[str, Any]) -> dict[str, Any]: ...

    def to_config(self) -> dict[str, Any]: ...


# ------------------------------------------------------------------------------------------------------ keys of a class


class Key(NamedTuple):
    """Where an object holds the value of a config key.

    Attributes:
      path: names of fields, each within the one before: `("penalty", "kind")` for the key `penalty`.
      hint: the type, with the ranges of numbers (`research.ranges`).
      added: the value at which the key is not written, or MISSING (see the function `added`).
    """

    path: tuple[str, ...]
    hint: Any
    added: Any


@functools.cache
def keys(cls: type) -> dict[str, Key]:
    """The keys that a config may set of a class, with those of its inline parts."""
    all_keys: dict[str, Key] = {}
    of_linen = ("parent", "name") if is_module(cls) else ()
    for field in dataclasses.fields(cls):
        if not field.init or field.name in of_linen or field.metadata.get("from_data"):
            continue
        if field.metadata.get("inline"):
            part = {_spelled(key, field.name): value for key, value in keys(_types(cls)[field.name]).items()}
            free = {key: value for key, value in part.items() if key not in field.metadata["fixed"]}
            of_field = {key: value._replace(path=(field.name, *value.path)) for key, value in free.items()}
        else:
            before = field.metadata.get("before", dataclasses.MISSING)
            of_field = {field.name: Key((field.name,), _types(cls)[field.name], before)}
        if twice := sorted(all_keys.keys() & of_field.keys()):
            raise TypeError(f"{cls.__name__}: two parts have the key {twice[0]}")
        all_keys |= of_field
    return all_keys


@functools.cache
def constant_keys(cls: type) -> dict[str, Any]:
    """Keys that have one value only. A config may have them at this value, and `plain` writes them: hashes stay.

    They are the keys that an owner fixes of a part (`inline`), and those that earlier versions had: a class names the
    latter in `retired`, also for its subclasses, unless a subclass has a field of that name.
    """
    values: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        values |= vars(base).get("retired", {})
    for field in dataclasses.fields(cls):
        if field.metadata.get("inline"):
            values |= constant_keys(_types(cls)[field.name]) | field.metadata["fixed"]
    return {name: value for name, value in values.items() if name not in keys(cls)}


@functools.cache
def _types(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def parts(cls: type) -> dict[str, type]:
    """Name -> class of the inline parts of a class."""
    names = (field.name for field in dataclasses.fields(cls) if field.metadata.get("inline"))
    return {name: _types(cls)[name] for name in names}


def _spelled(key: str, part: str) -> str:
    """How a config spells a key of a part: `kind` is called by the name of the part."""
    return part if key == "kind" else key


@functools.cache
def hints(cls: type) -> dict[str, Any]:
    """Key -> type, of the keys that a config may set, without the ranges of numbers."""
    return {name: without_range(key.hint) for name, key in keys(cls).items()}


# --------------------------------------------------------------------------------------------- config -> spec -> config


def build(config: Any, expected: type | None = None, *, trusted: Sequence[str] = (), key: str = "") -> Any:
    """Make the spec that a plain config (nested dicts, lists, numbers, texts) describes.

    Values are converted to the types of the fields, unknown keys are refused with the nearest known name, and then
    `validate()` is called.

    Args:
      config: may name its class by `_target_` (see `research.target`).
      expected: the class without a `_target_`, and otherwise a base of the class that is named.
      trusted: packages whose classes may be named, beside `research`.
      key: where the config stands, for errors.

    Raises:
      ConfigError: naming the full key, the value and the remedy.
    """
    try:
        if not isinstance(config, Mapping):
            raise ConfigError("", config, f"expected a section of keys, got {shown(config)}")
        config = dict(config)
        target = config.pop("_target_", None)
        cls = expected if target is None else resolve_target(target, trusted)
        if cls is None:
            raise ConfigError("_target_", None, "this section must name its class")
        if expected is not None and not issubclass(cls, expected):
            raise ConfigError("_target_", target, f"expected {expected.__module__}.{expected.__qualname__} here")
        if target is not None and (names := open_parts(cls)):
            remedy = f"it does not say of what kind its {', '.join(names)} are; name a class that does"
            raise ConfigError("_target_", target, remedy)
        if issubclass(cls, HasOwnKeys):
            config = cls.fields_of(config)
        return _fill(cls, _known(cls, config), trusted)
    except ConfigError as error:
        raise error.under(key) if key else error from None


def open_parts(cls: type) -> list[str]:
    """Names of the parts that a class declares by a Protocol only: nobody can make an object of this class."""
    return [name for name, part in parts(cls).items() if not buildable(part) or open_parts(part)]


def _known(cls: type, config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a config that are keys of the class; constant keys are compared and left out."""
    known, constant = keys(cls), constant_keys(cls)
    for name, value in config.items():
        if name in constant and value != constant[name]:
            remedy = f"this version has no such choice; leave {{key}} out, which is {{key}}={shown(constant[name])}"
            raise ConfigError(str(name), value, remedy)
        if name not in constant and name not in known:
            near = nearest_key(name, known, config)
            raise ConfigError(str(name), value, f"unknown key{near}; known: {', '.join(known)}")
    return {name: value for name, value in config.items() if name not in constant}


def _fill(cls: type, config: dict[str, Any], trusted: Sequence[str]) -> Any:
    """An object of known keys: first its parts and fields, each valid in itself, then the rules between them."""
    values: dict[str, Any] = {}
    known, inlined = keys(cls), parts(cls)
    section = functools.partial(build, trusted=trusted)
    for field in dataclasses.fields(cls):
        if field.name in inlined:
            part, fixed = inlined[field.name], field.metadata["fixed"]
            spelled = {_spelled(key, field.name): key for key in keys(part)}
            of_part = {spelled[name]: value for name, value in (config | fixed).items() if name in spelled}
            try:
                values[field.name] = _fill(part, of_part, trusted)
            except ConfigError as error:
                raise type(error)(_spelled(error.key, field.name), error.value, error.template) from None
        elif field.name not in known:
            continue
        elif field.name in config:
            values[field.name] = coerce(config[field.name], known[field.name].hint, field.name, section)
        elif field.metadata.get("added"):
            values[field.name] = field.metadata["before"]
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            remedy = f"this key must be set to {type_name(known[field.name].hint)}; add +{{key}}=VALUE"
            raise ConfigError(field.name, None, remedy)
    owner = cls(**values)
    if isinstance(owner, Validated):
        owner.validate()
    return owner


def plain(value: Any) -> Any:
    """A spec as nested plain values, `build(plain(x)) == x`. They are hashed, and written to `config.json`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        section = {"_target_": f"{cls.__module__}.{cls.__qualname__}"}
        if isinstance(value, HasOwnKeys):
            fields = value.to_config()
        else:
            items = {name: (functools.reduce(getattr, key.path, value), key.added) for name, key in keys(cls).items()}
            fields = {name: item for name, (item, unwritten) in items.items() if item != unwritten} | constant_keys(cls)
        return section | {name: plain(item) for name, item in fields.items()}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one level of dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def canonical(config: Any) -> str:
    """The JSON text of a plain config with sorted keys and without spaces: equal configs have equal texts."""
    return json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=True)


def config_hash(config: Any) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON text of a plain config."""
    return hashlib.sha256(canonical(config).encode()).hexdigest()


# ----------------------------------------------------------------------------------------------- structure and stacking


def structure(tree: Any) -> Hashable:
    """Everything that is compiled. Trees of equal structure can be trained by one program."""
    return jax.tree.structure(tree)


def group(items: Sequence[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    """Items of equal key together, groups and members in order of first appearance."""
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def stack(trees: Sequence[T]) -> T:
    """Trees of one structure as one tree with a leading `jobs` axis (numpy arrays, float leaves as float32)."""

    def array(value: Any) -> np.ndarray:
        return np.asarray(value, np.float32 if isinstance(value, float | int) else None)

    return jax.tree.map(lambda *values: np.stack([array(value) for value in values]), *trees)


def unstack(tree: T, index: int) -> T:
    """Member `index` of a stacked tree."""
    return jax.tree.map(lambda leaf: leaf[index], tree)
