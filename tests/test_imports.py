"""Layers: imports go down only, and heavy packages are imported in a few packages only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (
    {
        "api",
        "app",
        "config",
        "encode",
        "export",
        "forecast",
        "mirror",
        "compose",
        "explain",
        "command",
        "scripts",
        "hydra_plugins",
    },
    {"sweep", "report"},
    {"evaluation"},
    {"runs", "fit"},
    {"engine"},
    {"scores"},
    {"inputs"},
    {"models"},
    {"networks", "optimizer"},
    {
        "tree",
        "errors",
        "coercion",
        "target",
        "optax_names",
        "ranges",
        "clock",
        "compiling",
        "counts",
        "data",
        "distributions",
        "metrics",
        "environment",
        "precision",
    },
)
LAYER_OF = {part: level for level, parts in enumerate(LAYERS) for part in parts}
IMPORTERS = {  # package -> the only parts of the project that import it
    "hydra": {"api", "app", "compose", "config", "encode", "hydra_plugins", "scripts"},
    "tensorboard": {"runs"},
    "pandas": {"report", "data"},
    "matplotlib": {"report", "scripts"},
}
HEAVY = ("jax", "flax", "optax", "sklearn", "pandas", "matplotlib", "tensorboard")
FILES = [
    path
    for folder in ("research", "hydra_plugins", "scripts")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.name != "__init__.py" or path.read_text().strip()
]


def part_of(path: Path) -> str:
    """The part of the project that a file belongs to."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "research" else parts[0]


def imported(path: Path) -> Iterator[tuple[str, bool]]:
    """Full names of everything a file imports, and whether that happens at module level."""
    tree = ast.parse(path.read_text())
    inner = {node for outer in ast.walk(tree) if isinstance(outer, ast.FunctionDef) for node in ast.walk(outer)}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            yield name, node not in inner


def parts_used(path: Path) -> set[str]:
    """Other parts of the project that a file imports."""
    names = [name.split(".") for name, _ in imported(path)]
    used = {parts[1] if parts[0] == "research" and len(parts) > 1 else parts[0] for parts in names}
    ours = {parts[0] for parts in names if parts[0] in ("research", "hydra_plugins", "scripts")}
    return (used & set(LAYER_OF)) - {part_of(path)} if ours else set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path):
    here = LAYER_OF.get(part_of(path))
    if here is None:  # research/__init__.py offers what people use in a notebook
        assert path == ROOT / "research" / "__init__.py"
        return
    for other in parts_used(path):
        # in the lowest layer they build on each other; what starts commands all goes through the app
        beside = LAYER_OF[other] == here and (other in LAYERS[0] or here == len(LAYERS) - 1)
        assert LAYER_OF[other] > here or beside, f"{part_of(path)} imports {other}, which lies above or beside it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_heavy_package_is_imported_in_few_places(path: Path):
    for name, _ in imported(path):
        package = name.split(".")[0]
        assert part_of(path) in IMPORTERS.get(package, {part_of(path)}), f"{part_of(path)} imports {name}"


def imported_files(path: Path) -> set[Path]:
    """The files of the project that a file imports anywhere: at the top, in functions, or only for type checkers."""
    files = set()
    for name, _ in imported(path):
        parts = name.split(".")
        for length in range(len(parts), 0, -1):
            place = ROOT.joinpath(*parts[:length])
            candidates = [file for file in (place.with_suffix(".py"), place / "__init__.py") if file in FILES]
            if candidates:
                files.add(candidates[0])
                break
    return files - {path}


def test_no_files_import_each_other():
    """Take away files that import none of the rest, or that none of the rest imports: what remains is a circle."""
    rest = {path: imported_files(path) for path in FILES}
    while True:
        rest = {path: files & rest.keys() for path, files in rest.items()}
        used = set().union(*rest.values())
        ends = [path for path, files in rest.items() if not files or path not in used]
        if not ends:
            break
        for path in ends:
            del rest[path]
    assert not rest, {str(path.relative_to(ROOT)): sorted(file.name for file in files) for path, files in rest.items()}


def test_the_engine_knows_no_model_and_the_plugin_starts_without_jax():
    engine = ROOT / "research" / "engine.py"
    assert not {"models", "networks"} & parts_used(engine)
    for path in (ROOT / "hydra_plugins").rglob("*.py"):
        for name, at_module_level in imported(path):
            assert not (at_module_level and name.split(".")[0] in HEAVY), f"{path.name} imports {name}"
    for name, at_module_level in imported(ROOT / "research" / "app.py"):
        assert not (at_module_level and name.split(".")[0] in HEAVY), f"app imports {name}"


def test_every_part_has_a_layer():
    parts = {part_of(path) for path in FILES} - {"__init__"}
    assert parts <= set(LAYER_OF)
    assert {"engine", "models", "networks", "optimizer", "tree", "data", "distributions", "sweep", "app"} <= parts
