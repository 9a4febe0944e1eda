"""Parameters, scaling and cluster centres as the bytes of safetensors files, which hold arrays and no code."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from research.networks.earlier import gates_apart


def pack_parameters(params: Mapping[str, Any], scaling: Mapping[str, Any]) -> bytes:
    """A nested dict of arrays as `params/<path>`, and `scaling/<name>`."""
    import safetensors.numpy

    return safetensors.numpy.save(dict(_flat(params, "params")) | dict(_flat(scaling, "scaling")))


def unpack_parameters(content: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The parameters as a nested dict of arrays, in the form of the present version, and the scaling.

    Raises:
      ValueError: the content is damaged.
    """
    tree = _nested(_load(content))
    return gates_apart(tree.get("params", {})), tree.get("scaling", {})


def pack_centres(centres: np.ndarray) -> bytes:
    """Cluster centres [K, L] as `centres`."""
    import safetensors.numpy

    return safetensors.numpy.save({"centres": np.ascontiguousarray(centres)})


def unpack_centres(content: bytes) -> np.ndarray:
    """Cluster centres [K, L].

    Raises:
      ValueError: the content is damaged.
    """
    centres = _load(content).get("centres")
    if centres is None or centres.ndim != 2 or not np.isfinite(centres).all():
        raise ValueError("it holds no finite centres [K, L]")
    return centres


def _load(content: bytes) -> dict[str, np.ndarray]:
    import safetensors.numpy

    try:
        return safetensors.numpy.load(content)
    except (safetensors.SafetensorError, KeyError, TypeError) as error:
        raise ValueError(str(error)) from None


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in tree.items():
        if "/" in str(name):
            raise ValueError(f"parameter name {name!r} holds the separator '/'")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}/{name}")
        else:
            yield f"{prefix}/{name}", np.array(value, order="C")


def _nested(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *sections, name = path.split("/")
        section: Any = tree
        for step in sections:
            section = section.setdefault(step, {})
            if not isinstance(section, dict):
                raise ValueError(f"{path} lies below an array")
        if name in section:
            raise ValueError(f"{path} is both an array and a section")
        section[name] = value
    return tree
