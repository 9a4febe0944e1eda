"""A job is a tree: its numbers are swept, its structure is compiled.

`@spec` turns a class into a frozen dataclass that is a JAX pytree: fields annotated `float` are leaves (numbers that a
compiled program takes as inputs), nested specs are subtrees, and everything else is structure (part of the program).
`@recipe` is the same without leaves: data, trainer and evaluation settings select a program or run on the host.

`build` is the only way from a config to a spec, `plain` the only way back.
"""

import dataclasses
import difflib
import functools
import hashlib
import importlib
import json
import math
import operator
import types
import typing
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Protocol, TypeVar, dataclass_transform, runtime_checkable

import jax
import numpy as np

from research.ranges import Range, unfit

T = TypeVar("T")


class ConfigError(ValueError):
    """A setting that cannot be used: names the key, the value and the remedy.

    In a remedy `{key}` stands for the full key, `model.beta`, so that it can be pasted as it stands.
    """

    def __init__(self, key: str, value: Any, remedy: str):
        self.key, self.value, self.template = key, value, remedy
        super().__init__(f"{key}={_shown(value)}: {self.remedy}" if key else self.remedy)

    @property
    def remedy(self) -> str:
        return self.template.replace("{key}", self.key)

    def under(self, prefix: str) -> "ConfigError":
        """The same error with its key below `prefix`."""
        key = f"{prefix}.{self.key}" if prefix and self.key else prefix or self.key
        return type(self)(key, self.value, self.template)


def _shown(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the closest known name, or the empty string."""
    match = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else ""


@runtime_checkable
class Validated(Protocol):
    """A spec with rules of its own, on plain values.

    Raises:
      ConfigError: naming the key.
    """

    def validate(self) -> None: ...


@runtime_checkable
class Arranged(Protocol):
    """A class that orders its keys otherwise than a config has them; `rearrange` is the way back."""

    @staticmethod
    def arrange(config: dict[str, Any]) -> dict[str, Any]: ...

    def rearrange(self) -> dict[str, Any]: ...


# --------------------------------------------------------------------------------------------------------- specs


def _without_none(hint: Any) -> Any:
    """`X | None` -> `X`, `X | Y | None` -> `X | Y`; anything else unchanged."""
    members = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType) and type(None) in members:
        return typing.Union[tuple(member for member in members if member is not type(None))]  # noqa: UP007
    return hint


def _without_range(hint: Any) -> Any:
    """A type without the marks of its numbers."""
    if typing.get_origin(hint) is Annotated:
        return _without_range(hint.__origin__)
    members = tuple(_without_range(member) for member in typing.get_args(hint))
    if not members or members == typing.get_args(hint):
        return hint
    if isinstance(hint, types.UnionType):
        return functools.reduce(operator.or_, members)
    origin: Any = typing.get_origin(hint)
    return origin[members] if isinstance(hint, types.GenericAlias) else hint.copy_with(members)


def _is_subtree(hint: Any) -> bool:
    """Whether a field of this type belongs to the tree: a number, a spec, or a container of them."""
    hint = _without_none(hint)
    if typing.get_origin(hint) is Annotated:
        static = any(isinstance(mark, Range) and mark.static for mark in hint.__metadata__)
        return not static and _is_subtree(hint.__origin__)
    if hint is float or hint is Any:
        return True
    if typing.get_origin(hint) in (dict, Mapping):
        return _is_subtree(typing.get_args(hint)[1])
    return isinstance(hint, type) and getattr(hint, "__tree__", None) == "spec"


class Key(NamedTuple):
    """Where the value of a config key is held.

    Attributes:
      path: names of fields, each within the one before: `("penalty", "kind")` for the key `penalty`.
      hint: its type, with the ranges of numbers (`research.ranges`).
      added: the value at which the key is not written, or MISSING (see `added`).
    """

    path: tuple[str, ...]
    hint: Any
    added: Any


@functools.cache
def keys(cls: type) -> dict[str, Key]:
    """The keys that a config may set of a class, those of its inline parts among them."""
    all_keys: dict[str, Key] = {}
    linen = ("parent", "name") if _is_module(cls) else ()
    for field in dataclasses.fields(cls):
        if not field.init or field.name in linen or field.metadata.get("from_data"):
            continue
        if field.metadata.get("inline"):
            part = {_beside(key, field.name): value for key, value in keys(_types(cls)[field.name]).items()}
            of_field = {key: value._replace(path=(field.name, *value.path)) for key, value in part.items()}
        else:
            added_at = field.default if field.metadata.get("added") else dataclasses.MISSING
            of_field = {field.name: Key((field.name,), _types(cls)[field.name], added_at)}
        if twice := sorted(all_keys.keys() & of_field.keys()):
            raise TypeError(f"{cls.__name__}: two parts have the key {twice[0]}")
        all_keys |= of_field
    return all_keys


@functools.cache
def _types(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def parts(cls: type) -> dict[str, type]:
    """Name -> class of the inline parts of a class."""
    inlined = (field.name for field in dataclasses.fields(cls) if field.metadata.get("inline"))
    return {name: _types(cls)[name] for name in inlined}


def _beside(key: str, part: str) -> str:
    """How a key of an inline part is spelled beside its owner's: `kind` is called by the name of the part."""
    return part if key == "kind" else key


@functools.cache
def hints(cls: type) -> dict[str, Any]:
    """Key -> type, of the keys that a config may set, without the ranges of numbers."""
    return {name: _without_range(key.hint) for name, key in keys(cls).items()}


@functools.cache
def ranged(cls: type) -> dict[str, Any]:
    """As `hints`, with the ranges of numbers."""
    return {name: key.hint for name, key in keys(cls).items()}


def value_at(made: Any, key: str) -> Any:
    """The value of a config key of a spec."""
    return functools.reduce(getattr, keys(type(made))[key].path, made)


def replaced(made: T, **values: Any) -> T:
    """The same spec with other values at some config keys, which may lie in its parts."""
    for name, value in values.items():
        made = _put(made, keys(type(made))[name].path, value)
    return made


def _put(made: Any, path: tuple[str, ...], value: Any) -> Any:
    first, *deeper = path
    value = _put(getattr(made, first), tuple(deeper), value) if deeper else value
    return dataclasses.replace(made, **{first: value})


def from_data(default: Any) -> Any:
    """A structural field that a model's `bind(facts)` fills in and no config may set."""
    return dataclasses.field(default=default, metadata={"from_data": True})


def inline() -> Any:
    """A part: a spec of its own whose keys stand beside its owner's, so that configs are flat.

    Its field `kind` is spelled by the name of the part: `penalty.kind` is the key `penalty`. A class may declare a part
    by a Protocol, and its subclasses by the specs that satisfy it.
    """
    return dataclasses.field(metadata={"inline": True})


def added(default: Any) -> Any:
    """A field that came after runs were made: at `default` it is not written, so that their hashes stay."""
    return dataclasses.field(default=default, metadata={"added": True})


@dataclass_transform(
    frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field, from_data, inline, added)
)
def spec(cls: type[T]) -> type[T]:
    """A frozen, keyword-only dataclass whose `float` fields are the leaves of a pytree.

    A field `float | None` is absent code when None: the tree then has another structure. Fields of spec type are
    subtrees, parts (`inline`) among them. All other fields are structure and must be hashable; so is a number whose
    range is `static`. An optional method `validate(self)` runs in `build`, on plain values, and never on tracers.
    """
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    cls.__tree__ = "spec"  # type: ignore[attr-defined]
    before = {name for base in cls.__mro__[1:] if dataclasses.is_dataclass(base) for name in parts(base)}
    if lost := sorted(before - parts(cls).keys()):
        raise TypeError(f"{cls.__name__}.{lost[0]} is a part: write {lost[0]}: ... = inline()")
    fields: Any = [field for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]
    belongs = lambda field: not field.metadata.get("from_data") and _is_subtree(_types(cls)[field.name])
    leaves = [field.name for field in fields if belongs(field)]
    jax.tree_util.register_dataclass(cls, leaves, [field.name for field in fields if field.name not in leaves])
    return cls


@dataclass_transform(frozen_default=True, kw_only_default=True)
def recipe(cls: type[T]) -> type[T]:
    """A frozen, keyword-only, hashable dataclass without leaves: structure only."""
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    cls.__tree__ = "recipe"  # type: ignore[attr-defined]
    return cls


def _is_module(cls: Any) -> bool:
    if not (isinstance(cls, type) and any(base.__module__.startswith("flax.") for base in cls.__mro__)):
        return False
    import flax.linen

    return issubclass(cls, flax.linen.Module)


def _buildable(cls: Any) -> bool:
    return isinstance(cls, type) and (getattr(cls, "__tree__", None) is not None or _is_module(cls))


# --------------------------------------------------------------------------------------------- config -> spec -> config


def resolve_target(target: Any, trusted: Sequence[str] = ()) -> type:
    """The class a `_target_` names, if it may be used.

    It must be a spec, a recipe or a Linen module, and both its address and its own `__module__` must lie in `research`
    or in one of the `trusted` packages: nothing else is imported, and a module attribute cannot smuggle in a foreign
    class.
    """
    allowed = ("research", *trusted)

    def inside(module: str) -> bool:
        return any(module == package or module.startswith(package + ".") for package in allowed)

    module_name, _, name = str(target).rpartition(".")
    remedy = f"only classes in {', '.join(allowed)} may be named; add your package: 'trusted_packages=[my_package]'"
    if not inside(module_name):
        raise ConfigError("_target_", target, remedy)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError("_target_", target, f"no module named {error.name}") from None
    cls = getattr(module, name, None)
    if cls is None:
        known = [key for key, value in vars(module).items() if _buildable(value)]
        raise ConfigError("_target_", target, f"{module_name} has no class {name}{nearest(name, known)}")
    if not _buildable(cls) or not inside(cls.__module__):
        raise ConfigError("_target_", target, f"it must be a @spec, a @recipe or a Linen module; {remedy}")
    if left_open := _open_parts(cls):
        which = ", ".join(left_open)
        raise ConfigError("_target_", target, f"it does not say of what kind its {which} are; name a class that does")
    return cls


def _open_parts(cls: type) -> list[str]:
    """Names of the parts that a class declares by a Protocol: only its subclasses can be made."""
    return [name for name, part in parts(cls).items() if not _buildable(part) or _open_parts(part)]


def build(config: Any, expected: type | None = None, *, trusted: Sequence[str] = (), key: str = "") -> Any:
    """Make the spec that a plain config (nested dicts, lists, numbers, strings) describes.

    `_target_` names the class (see `resolve_target`); without one the class is `expected`. Values are coerced to the
    field types (integers to floats, lists to tuples), unknown keys are refused with the nearest name, then `validate()`
    runs. A class may reorder its keys first with a static method `arrange(config) -> config`; its method `rearrange()`
    is the way back.

    Raises:
      ConfigError: naming the full key, the value and the remedy.
    """
    try:
        if not isinstance(config, Mapping):
            raise ConfigError("", config, f"expected a section of keys, got {_shown(config)}")
        config = dict(config)
        target = config.pop("_target_", None)
        if target is None and expected is None:
            raise ConfigError("_target_", None, "this section must name its class")
        cls = expected if target is None else resolve_target(target, trusted)
        assert cls is not None
        if expected is not None and not issubclass(cls, expected):
            raise ConfigError("_target_", target, f"expected {expected.__module__}.{expected.__qualname__} here")
        return _construct(cls, config, trusted)
    except ConfigError as error:
        raise error.under(key) if key else error from None


def _construct(cls: type, config: dict[str, Any], trusted: Sequence[str]) -> Any:
    if issubclass(cls, Arranged):
        config = cls.arrange(config)
    known, gone = keys(cls), _retired(cls)
    for name in config:
        if name in gone:
            if config[name] != gone[name]:
                remedy = f"this version has no such choice; leave {{key}} out, which is {{key}}={_shown(gone[name])}"
                raise ConfigError(str(name), config[name], remedy)
        elif name not in known:
            remedy = f"unknown key{nearest(name, known)}; known: {', '.join(known)}"
            raise ConfigError(str(name), config[name], remedy)
    return _fill(cls, {name: value for name, value in config.items() if name not in gone}, trusted)


def _fill(cls: type, config: dict[str, Any], trusted: Sequence[str]) -> Any:
    """A spec of known keys: its parts and its own fields, each valid in itself, then the rules between them."""
    values: dict[str, Any] = {}
    known, inlined = ranged(cls), parts(cls)
    for field in dataclasses.fields(cls):
        if field.name in inlined:
            part = inlined[field.name]
            spelled = {_beside(key, field.name): key for key in keys(part)}
            section = {spelled[name]: value for name, value in config.items() if name in spelled}
            try:
                values[field.name] = _fill(part, section, trusted)
            except ConfigError as error:
                raise type(error)(_beside(error.key, field.name), error.value, error.template) from None
        elif field.name in config and field.name in known:
            values[field.name] = coerce(config[field.name], known[field.name], field.name, trusted)
        elif (
            field.name in known
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ):
            raise ConfigError(field.name, None, "this key must be set")
    made = cls(**values)
    if isinstance(made, Validated):
        made.validate()
    return made


@functools.cache
def _retired(cls: type) -> dict[str, Any]:
    """Keys that older versions had, at the value that is all there is now: their hashes stay what they were.

    A class says so in `retired`, also for its subclasses, unless one has a field of that name.
    """
    retired = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).get("retired", {}).items()}
    retired = functools.reduce(operator.or_, map(_retired, parts(cls).values()), retired)
    return {name: value for name, value in retired.items() if name not in keys(cls)}


def coerce(value: Any, hint: Any, key: str, trusted: Sequence[str] = ()) -> Any:
    """`value` as the type `hint`, or a ConfigError that says what was expected."""
    plain_hint = _without_none(hint)
    origin = typing.get_origin(plain_hint)
    if value is None:
        if plain_hint is not hint or hint is Any or hint is type(None):
            return None
        raise ConfigError(key, value, f"expected {_named(hint)}; null is not allowed here")
    if origin in (typing.Union, types.UnionType):
        for member in typing.get_args(plain_hint):
            try:
                return coerce(value, member, key, trusted)
            except ConfigError:
                if typing.get_origin(member) is Annotated and type(value) is member.__origin__:
                    raise  # a number outside its range, which no other member takes
        raise ConfigError(key, value, f"expected {_named(hint)}")
    if origin is Annotated:
        bare, *marks = typing.get_args(plain_hint)
        held = [mark for mark in marks if isinstance(mark, Range)]
        made = _number(value, key) if bare is float and held else coerce(value, bare, key, trusted)
        for mark in held:
            if problem := mark.problem(made):
                raise ConfigError(key, value, problem + (" (or null)" if plain_hint is not hint else ""))
        return made
    if origin is Literal:
        choices = typing.get_args(plain_hint)
        if not any(type(value) is type(choice) and value == choice for choice in choices):  # True == 1, but is not 1
            remedy = f"expected one of {', '.join(map(str, choices))}{nearest(value, map(str, choices))}"
            raise ConfigError(key, value, remedy)
        return value
    named = isinstance(value, Mapping) and "_target_" in value and origin is None
    if isinstance(value, Mapping) and (_buildable(plain_hint) or (named and plain_hint not in (float, int, bool, str))):
        return build(value, plain_hint if _buildable(plain_hint) else None, trusted=trusted, key=key)
    if plain_hint is float:
        number = _number(value, key)
        if problem := unfit(number):
            raise ConfigError(key, value, problem)
        return number
    if plain_hint is int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(key, value, "expected an integer")
        return value
    if plain_hint is bool:
        if not isinstance(value, bool):
            raise ConfigError(key, value, "expected true or false")
        return value
    if plain_hint is str:
        if not isinstance(value, str):
            raise ConfigError(key, value, f"expected text; write it in quotes: '{{key}}=\"{value}\"'")
        return value
    if origin is tuple:
        if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
            raise ConfigError(key, value, f"expected a list, for example '{{key}}=[{_shown(value)}]'")
        members = typing.get_args(plain_hint)
        member = members[0]
        if len(members) == 2 and members[1] is Ellipsis:
            return tuple(coerce(item, member, f"{key}[{index}]", trusted) for index, item in enumerate(value))
        if len(members) != len(value):
            raise ConfigError(key, value, f"expected a list of {len(members)}")
        pairs = enumerate(zip(value, members, strict=True))
        return tuple(coerce(item, member, f"{key}[{index}]", trusted) for index, (item, member) in pairs)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(key, value, "expected a section of keys")
        member = typing.get_args(plain_hint)[1]
        return {str(name): coerce(item, member, f"{key}.{name}", trusted) for name, item in value.items()}
    if plain_hint is Any:
        return tuple(value) if isinstance(value, list) else value
    if _buildable(plain_hint):
        if isinstance(value, plain_hint):
            return value
        raise ConfigError(key, value, f"expected a section of keys for {plain_hint.__name__}")
    raise TypeError(f"field {key}: the builder does not know the type {hint}")


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(key, value, "expected a number")
    try:
        return float(value) + 0.0  # -0.0 is 0.0, and has its hash
    except OverflowError:
        return math.inf


def _named(hint: Any) -> str:
    if typing.get_origin(hint) is Annotated:
        return _named(hint.__origin__)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join("null" if member is type(None) else _named(member) for member in typing.get_args(hint))
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    named = {float: "a number", int: "an integer", bool: "true or false", str: "text"}
    return named.get(hint) or getattr(hint, "__name__", None) or str(hint).replace("typing.", "")


def plain(value: Any) -> Any:
    """A spec as nested plain values, `build(plain(x)) == x`: what is hashed and written to `config.json`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        section = {"_target_": f"{cls.__module__}.{cls.__qualname__}"}
        if isinstance(value, Arranged):
            fields = value.rearrange()
        else:
            held = {name: (value_at(value, name), key.added) for name, key in keys(cls).items()}
            fields = {name: item for name, (item, absent) in held.items() if item != absent} | _retired(cls)
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
    """The one JSON text of a plain config: sorted keys, no spaces, numbers as Python prints them."""
    return json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=True)


def config_hash(config: Any) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of a plain config."""
    return hashlib.sha256(canonical(config).encode()).hexdigest()


# ----------------------------------------------------------------------------------------------- structure and stacking


def structure(tree: Any) -> Hashable:
    """What is compiled: two trees of equal structure can be trained as one program."""
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

    def leaf(*values: Any) -> np.ndarray:
        return np.stack([array(value) for value in values])

    return jax.tree.map(leaf, *trees)


def unstack(tree: T, index: int) -> T:
    """Member `index` of a stacked tree."""
    return jax.tree.map(lambda leaf: leaf[index], tree)
