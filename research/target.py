"""Which classes a config may name by `_target_`."""

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from research.errors import ConfigError, most_similar, nearest


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
    package = module_name.partition(".")[0]
    usable = package.isidentifier() and package != "research" and package not in sys.stdlib_module_names
    packages = ",".join([*trusted, package if usable else "my_package"])
    remedy = f"only classes in {', '.join(allowed)} may be named; add your package: 'trusted_packages=[{packages}]'"
    if not module_name:
        raise ConfigError("_target_", target, f"name its module too, for example my_package.models.{target}")
    if not inside(module_name):
        raise ConfigError("_target_", target, remedy)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        problem = f"no module named {error.name}"
        raise ConfigError("_target_", target, f"{problem}{_not_found(str(error.name), module_name, name)}") from None
    cls = getattr(module, name, None)
    if cls is None:
        known = [f"{module_name}.{key}" for key, value in vars(module).items() if buildable(value)]
        raise ConfigError("_target_", target, f"{module_name} has no class {name}{nearest(str(target), known)}")
    if not buildable(cls) or not inside(cls.__module__):
        raise ConfigError("_target_", target, f"it must be a @spec, a @recipe or a Linen module; {remedy}")
    return cls


def _not_found(missing: str, module_name: str, name: str) -> str:
    """How a module can be found: the end of an error."""
    package, _, inner = missing.rpartition(".")
    if missing != module_name and not module_name.startswith(f"{missing}."):
        return f"; {module_name} imports it: install it"
    if not package:
        here = Path(missing).is_dir() or Path(f"{missing}.py").is_file()
        folder, which = (".", "") if here else ("FOLDER", f", where FOLDER is the one that holds {missing}")
        return f"; put PYTHONPATH={folder} before python{which}"
    modules = [module.name for module in pkgutil.iter_modules(getattr(sys.modules.get(package), "__path__", ()))]
    near = most_similar(inner, modules)
    return "" if near is None else f" (did you mean '{package}.{near}{module_name.removeprefix(missing)}.{name}'?)"
