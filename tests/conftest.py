"""Strict settings for the whole suite, one compile cache, and small things to test on."""

import importlib.metadata
import os

# Most of the suite's time is compilation. These options compile in half the time, to slower programs, here and in the
# commands that tests start. Set XLA_FLAGS (to an empty text, say) to test the programs that users get.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + (  # later versions may not know them
        " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        if importlib.metadata.version("jax") < "0.11"
        else ""
    ),
)

# it settles the environment before JAX is imported
import research  # noqa: F401, I001

import gc
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import jax
import numpy as np
import pytest
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception
from configs import shipped
from jaxtyping import install_import_hook

TOOLS = {
    "git": "git",
    "chromium": "chromium",
    "pdflatex": "texlive-latex-base texlive-latex-recommended",
}  # Debian's packages
INTEGERS_ARE_FLOATS = BeartypeConf(is_pep484_tower=True)


def check_arrays(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check the annotations of a function, but not of a spec's fields: a traced or stacked leaf stands for a float."""
    if function.__name__ == "__init__":
        return function
    try:
        return beartype(conf=INTEGERS_ARE_FLOATS)(function)
    except BeartypeDecorHintPep673Exception:  # a method that returns Self
        return function


# the import hook takes the checker by an importable name, and test folders are no packages
sys.modules["array_checks"] = types.ModuleType("array_checks")
sys.modules["array_checks"].check_arrays = check_arrays  # type: ignore[attr-defined]
CHECKED = [
    *("research.distributions", "research.networks", "research.models", "research.optimizer"),
    *("research.engine", "research.inputs", "research.scores"),
]
install_import_hook(CHECKED, "array_checks.check_arrays")


def pytest_configure(config: pytest.Config) -> None:
    """Settings that catch what is easily overlooked: they hold for every test of the suite."""
    config.addinivalue_line("filterwarnings", "error")
    hypothesis.settings.register_profile("suite", max_examples=20, deadline=None, derandomize=True)
    hypothesis.settings.load_profile("suite")
    jax.config.update("jax_legacy_prng_key", "error")
    use_compile_cache()
    gc.freeze()  # the libraries stay; looking through them again and again takes a tenth of the time of tracing
    gc.set_threshold(50_000, 20, 50)


def use_compile_cache() -> None:
    """Share compiled programs between tests, runs of the suite and the commands that tests start."""
    from research.sweep import device

    device.use_compile_cache()
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or jax.config.jax_compilation_cache_dir
    settings = {
        "jax_compilation_cache_dir": folder,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ.setdefault(name.upper(), str(value))


def builder(group: str, default: str | None = None) -> Callable[..., Any]:
    """A function that builds a shipped config with some keys replaced."""
    from research.tree import build

    def make(name: str | None = default, **overrides: Any) -> Any:
        return build(shipped(group, str(name)) | overrides, key=group)

    return make


@pytest.fixture(autouse=True, scope="module")
def few_programs() -> Iterator[None]:
    """Unload compiled programs before their memory maps run out (Linux: 65,530 a process), which crashes XLA."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 15_000:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def strict_ranks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Arrays of different ranks never combine silently."""
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(autouse=True)
def needed_tools(request: pytest.FixtureRequest) -> None:
    """Skip a test whose `needs` are not installed, or fail it where LOOM_REQUIRE_TOOLS is set, as in .ci/run."""
    for tool in [name for marker in request.node.iter_markers("needs") for name in marker.args]:
        if shutil.which(tool) is None:
            end = pytest.fail if os.environ.get("LOOM_REQUIRE_TOOLS") else pytest.skip
            end(f"{tool} is not installed; on Debian: apt-get install {TOOLS[tool]}")


@pytest.fixture(scope="session")
def shipped_config() -> Callable[..., dict[str, Any]]:
    """`shipped_config("data", "digits_rows")`: the plain config with what it builds on."""
    return shipped


@pytest.fixture(scope="session")
def build_model() -> Callable[..., Any]:
    """`build_model("vae", latent_dim=2)`: a shipped model, not yet bound to data."""
    return builder("model")


@pytest.fixture(scope="session")
def build_optimizer() -> Callable[..., Any]:
    """`build_optimizer("adam", learning_rate=0.1)`."""
    return builder("optimizer")


@pytest.fixture(scope="session")
def build_trainer() -> Callable[..., Any]:
    """`build_trainer(epochs=3)`."""
    return builder("trainer", "default")


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., Any]:
    """A data set of a few labelled rows; `x` gives them, or they are drawn in [0, 1] (0 or 1 if `binary`)."""
    from research.data import Examples, Source, Splitting
    from research.data.loading import assemble
    from research.tree import recipe

    @recipe
    class Rows(Splitting):
        test_fraction: float
        binarize: str

    def make(
        x: np.ndarray | None = None,
        *,
        rows: int = 24,
        shape: tuple[int, ...] = (5,),
        classes: int = 3,
        folds: int | None = None,
        binary: bool = False,
        binarize: str = "none",
        scaling: str = "none",
    ) -> Any:
        if x is None:
            x = np.random.default_rng(0).random((rows, *shape), np.float32)
            x = (x < 0.4).astype(np.float32) if binary else x
        label = np.arange(len(x), dtype=np.int32) % classes if classes else None
        recipe = Rows(
            root=None,
            split_seed=0,
            validation_fraction=0.25,
            test_fraction=0.2,
            folds=folds,
            fold=None if folds is None else 0,
            scaling=scaling,  # type: ignore[arg-type]
            train_size=None,
            validation_size=None,
            test_size=None,
            hide=None,
            hide_by="points",
            hide_length=8,
            hide_seed=0,
            hide_train=None,
            binarize=binarize,
        )
        kind = "image" if x.ndim > 2 else "vector"
        return assemble(recipe, Source("rows", kind, Examples(x.copy(), label=label)))

    return make
