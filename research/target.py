"""Which classes a config may name by `_target_`."""

import importlib
from collections.abc import Sequence
from typing import Any

from research.errors import ConfigError, nearest


def is_module(cls: Any) -> bool:
    """Whether a class is a Linen module. Flax is imported only where the class comes from it."""
    if not (isinstance(cls, type) and any(base.__module__.startswith("flax.") for base in cls.__mro__)):
        return False
    import flax.linen

    return issubclass(cls, flax.linen.Module)


def buildable(cls: Any) -> bool:
    """Whether a config can describe an object of this class: a spec, a recipe or a Linen module."""
    return isinstance(cls, type) and (getattr(cls, "__tree__", None) is not None or is_module(cls))


def resolve_target(target: Any, trusted: Sequence[str] = ()) -> type:
    """The class that a `_target_` names, if it may be used.

    The class must be a spec, a recipe or a Linen module. Both its address and its own `__module__` must lie in
    `research` or in one of the `trusted` packages. So nothing else is imported, and a module cannot offer a class that
    it has imported from elsewhere.

    Raises:
      ConfigError: the class may not be used, or does not exist.
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
        known = [key for key, value in vars(module).items() if buildable(value)]
        raise ConfigError("_target_", target, f"{module_name} has no class {name}{nearest(name, known)}")
    if not buildable(cls) or not inside(cls.__module__):
        raise ConfigError("_target_", target, f"it must be a @spec, a @recipe or a Linen module; {remedy}")
    return cls
