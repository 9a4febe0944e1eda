"""A trained encoder and decoder as files of `jax.export`, which load without this project.

Parameters and scaling are inside the functions: a user feeds rows as stored and gets codes, and no file can be
combined with the parameters of another run. They stand behind an `optimization_barrier`. Without it XLA folds them into
the program as constants, and the last digits of an LSTM's codes become others than those of `run.encode`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research import compiling, environment
from research.data.examples import FAR, Examples, prepare
from research.models.abilities import is_conditional, lack, latent_dim_of, takes_masks
from research.runs.files import ALONE, write_atomically
from research.runs.run import BATCH, Run
from research.tree import ConfigError

FACTS, ENCODER, DECODER = "export.json", "encoder.jaxexport", "decoder.jaxexport"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
Shapes = Mapping[str, tuple[tuple[Any, ...], Any, str]]  # name of an input -> shape without B, type, meaning


def write_export(run: Run, folder: Path | str) -> dict[str, Any]:
    """Write `encoder.jaxexport`, `decoder.jaxexport` and `export.json` into a folder.

    Returns:
      The content of `export.json`.

    Raises:
      ConfigError: the run has no encoder or no decoder, its rows need what a function of arrays cannot do, the folder
        is that of a run, or flatbuffers is not installed.
    """
    folder = Path(folder)
    check(run, folder)
    encoder, decoder = encoder_of(run), decoder_of(run)
    facts = facts_of(run)
    for name, exported, inputs, output in (
        (ENCODER, encoder, encoder_inputs(run), "z"),
        (DECODER, decoder, decoder_inputs(run), "x"),
    ):
        content = bytes(exported.serialize())
        (result,) = exported.out_avals
        facts[name.partition(".")[0]] = {
            "file": name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "inputs": [
                {"name": key, "shape": ["B", *shape], "dtype": np.dtype(kind).name, "meaning": meaning}
                for key, (shape, kind, meaning) in inputs.items()
            ],
            "output": {"name": output, "shape": ["B", *result.shape[1:]], "dtype": result.dtype.name},
        }
        facts["calling_convention_version"] = exported.calling_convention_version
        write_atomically(folder / name, content, ALONE)
    write_atomically(folder / FACTS, (json.dumps(facts, indent=1, allow_nan=False) + "\n").encode(), ALONE)
    return facts


def check(run: Run, folder: Path) -> None:
    """Refuse what cannot be exported, before any work."""
    try:
        import flatbuffers  # noqa: F401  # jax.export writes its files with it
    except ModuleNotFoundError:
        raise ConfigError("--export", folder, "it needs flatbuffers: pip install flatbuffers") from None
    for ability in ("encode", "decode"):
        if why := lack(run.model, ability):
            problem = f"a {type(run.model).__name__} cannot {ability}"
            raise ConfigError("--export", run.folder, f"{problem}; {why}")
    if getattr(getattr(run.model, "networks", None), "stepwise", False):
        remedy = (
            "its decoder reads a code at every step, and `encode` gives one for a row; train with model.code=sequence"
        )
        raise ConfigError("--export", run.folder, remedy)
    if run.preparation.series is not None:
        remedy = "each series has a scale of its own, by its name; train with data.scale_by=panel, or use research.load"
        raise ConfigError("--export", run.folder, remedy)
    if run.facts is None or run.preparation.stored_shape is None:
        remedy = "this run of an older version did not record what its rows look like; train it anew"
        raise ConfigError("--export", run.folder, remedy)
    if (folder / "config.json").exists():
        raise ConfigError("--export", folder, "this is the folder of a run; name another one")


def encoder_of(run: Run) -> Any:
    """The exported function of rows as stored, and of what else `encoder_inputs` names, that gives codes [B, L]."""
    inputs, preparation = encoder_inputs(run), run.preparation
    masked = _masked(run)

    def rows_of(numbers: Mapping[str, Any], *values: Any) -> Examples:
        rows = Examples(**dict(zip(inputs, values, strict=True)))
        x = rows.x
        if preparation.missing:
            x = jnp.where(jnp.isin(x, jnp.asarray(preparation.missing, x.dtype)), jnp.nan, x)
        rows = dataclasses.replace(rows, x=x, observed=jnp.isfinite(x) if masked else None)
        return prepare(preparation.arrange(rows), numbers["shift"], numbers["scale"])

    def encode(params: Any, rows: Examples) -> Any:
        codes = run.model.encode(params, rows)
        if not preparation.binarize:
            return codes
        binary = ((rows.x == 0) | (rows.x == 1)).reshape(rows.x.shape[0], -1).all(1)
        return jnp.where(binary[:, None], codes, jnp.nan)

    return _exported(run, inputs, before=rows_of, network=encode, after=lambda _, codes: codes)


def decoder_of(run: Run) -> Any:
    """The exported function of codes [B, L], and of labels for a conditional model, that gives rows as stored."""

    def stored(numbers: Mapping[str, Any], y: Any) -> Any:
        shift, scale = (numbers[name][(None,) * (y.ndim - numbers[name].ndim)] for name in ("shift", "scale"))
        return run.preparation.restore(y.astype(_precision(run)) / scale + shift)

    decode = lambda params, values: run.model.decode(params, *values)
    return _exported(run, decoder_inputs(run), before=lambda _, *values: values, network=decode, after=stored)


def _exported(run: Run, inputs: Shapes, before: Callable[..., Any], network: Any, after: Callable[..., Any]) -> Any:
    """`after(numbers, network(params, before(numbers, *inputs)))` for any number of rows B.

    The network is traced on its own, in 32 bits, so that its numbers are those of training whatever the precision of
    the rows.
    """
    from jax import export

    (rows,) = export.symbolic_shape("B")
    barrier, precision = jax.lax.optimization_barrier, _precision(run)
    of_network = lambda values: network(barrier(jax.tree.map(jnp.asarray, run.params)), values)
    numbers = {name: np.asarray(getattr(run.preparation, name), precision) for name in ("shift", "scale")}
    shapes = [jax.ShapeDtypeStruct((rows, *shape), kind) for shape, kind, _ in inputs.values()]

    def whole(*values: Any) -> Any:
        held = barrier(jax.tree.map(jnp.asarray, numbers))
        prepared = barrier(before(held, *values))
        if precision == np.float32:
            return after(held, barrier(of_network(prepared)))
        leaves, structure = jax.tree.flatten(prepared)
        with jax.enable_x64(False):
            flat = lambda *leaves: of_network(jax.tree.unflatten(structure, leaves))
            small = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
            inner = export.export(jax.jit(flat), platforms=PLATFORMS)(*small)
        return after(held, barrier(inner.call(*leaves)))

    with jax.enable_x64(precision == np.float64):
        return export.export(jax.jit(whole), platforms=PLATFORMS)(*shapes)


# ------------------------------------------------------------------------------------------------------ what is written


def _precision(run: Run) -> Any:
    """float32, or float64 where float32 rows would lose digits: far from 0, or z-scored one by one."""
    far = np.any(np.abs(run.preparation.shift * run.preparation.scale) > FAR)
    return np.float64 if far or run.preparation.zscore else np.float32


def _masked(run: Run) -> bool:
    """Whether NaN is a missing value. Without padding, gaps or hidden values in training, rows are whole."""
    hidden = run.config.get("data", {}).get("hide_train") is not None
    return takes_masks(run.model) and (run.preparation.masked or hidden)


def encoder_inputs(run: Run) -> Shapes:
    """The inputs of the encoder, in order."""
    shape = run.preparation.stored_shape
    assert shape is not None  # `check` refuses it
    gaps = "NaN is a missing value" if _masked(run) else "no value is missing"
    inputs: dict[str, Any] = {"x": (shape, _precision(run), f"rows as stored; {gaps}")}
    if _masked(run) and run.preparation.kind == "sequence" and run.preparation.layout == "image":
        inputs["length"] = ((), np.int32, f"time steps of each row, 1 to {shape[0]}; values behind them do not matter")
    return {**inputs, **_label(run)}


def decoder_inputs(run: Run) -> Shapes:
    """The inputs of the decoder, in order."""
    latent_dim = latent_dim_of(run.model)
    assert latent_dim is not None
    return {"z": ((latent_dim,), np.float32, "codes"), **_label(run)}


def _label(run: Run) -> Shapes:
    meaning = "number of the class of each row, from 0 (its place in `classes`)"
    return {"label": ((), np.int32, meaning)} if is_conditional(run.model) else {}


def facts_of(run: Run) -> dict[str, Any]:
    """What `export.json` says beside the two functions."""
    preparation = run.preparation
    return {
        "model": type(run.model).__name__,
        "run": run.folder.absolute().name,
        "config_hash": run.result.get("config_hash"),
        "jax": jax.__version__,
        "platforms": list(PLATFORMS),
        "x64": _precision(run) == np.float64,
        "batch_size": BATCH,
        "compiler_options": {"cpu": compiling.options("cpu")},
        "threads": environment.threads(),
        "scaling": {
            "inside": True,
            "formula": "(x - shift) * scale",
            "shift": preparation.shift.tolist(),
            "scale": preparation.scale.tolist(),
        },
        "columns": preparation.columns,
        "classes": preparation.classes,
        "notes": list(_notes(run)),
    }


def _notes(run: Run) -> Sequence[str]:
    """What a user must know of the rows, one sentence each."""
    notes = []
    if run.preparation.binarize:
        notes.append("the run draws grey values as black or white; feed black and white rows, others have codes of NaN")
    if run.preparation.zscore:
        notes.append("series are z-scored inside the encoder, and those of the decoder stay z-scored")
    return notes
