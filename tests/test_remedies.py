"""What an error tells to write can be pasted: full keys, and quotes for what a shell would read otherwise."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from research.compose import CONF
from research.tree import ConfigError, build, flatten, spec

ROOT = Path(__file__).parents[1]
FILES = [path for folder in ("research", "hydra_plugins") for path in sorted((ROOT / folder).rglob("*.py"))]
CONFIGS = [path for path in CONF.rglob("*.yaml") if path.parent != CONF]
TRAIN: Any = OmegaConf.to_container(OmegaConf.load(CONF / "train.yaml"), resolve=False)
GROUPS = {path: path.relative_to(CONF).parts[0] for path in CONFIGS}
KEYS = {*TRAIN, *flatten(TRAIN), "hydra/sweeper", *GROUPS.values()}
KEYS |= {f"{group}.{key}" for path, group in GROUPS.items() for key in flatten(yaml.safe_load(path.read_text()))}
SETTING = re.compile(r"(?P<before>\S?)(?P<key>\{key\}|(?<![\w.])[a-z][\w./]*)=(?P<value>[^\s;)]*)")
OTHERS = {"key", "index"}  # `key=value`, and an argument of pandas
NAMES = ("remedy", "problem", "what", "why")  # variables that hold a part of an error
SPECIAL = set('[(~*?"{ ')


def text_of(node: ast.AST) -> str | None:
    """The text of a literal; `{...}` stands for what an f-string fills in, and `{key}` for the key of its error."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)  # type: ignore
    return None


def remedies(path: Path) -> Iterator[tuple[int, str]]:
    """Literal texts of a file that are said when something is refused."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        said: list[ast.expr] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            said = list(node.args) if node.func.id in ("ConfigError", "refused", "Unusable") else []
        elif isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            named = any(isinstance(target, ast.Name) and target.id in NAMES for target in targets)
            said = [node.value] if named else []
        for part in (inner for outer in said for inner in ast.walk(outer)):
            text = text_of(part)
            if text is not None and " " in text:
                yield said[0].lineno, text


def wrong(text: str) -> list[str]:
    """The settings in a text that cannot be pasted."""
    found = []
    for setting in SETTING.finditer(text):
        key, value = setting["key"], setting["value"]
        if key in OTHERS or not value:
            continue
        quoted = setting["before"] in "'" and setting["before"] != ""
        if key not in {*KEYS, "{key}", "data.key"} or (not quoted and SPECIAL & set(value)):
            found.append(setting[0])
    return found


def test_what_a_remedy_says_to_write_can_be_pasted():
    said = {
        f"{path}:{line}: {part} in '{text}'" for path in FILES for line, text in remedies(path) for part in wrong(text)
    }
    assert said == set()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("set model.gamma=1 or {key}=null", []),
        ("set gamma=1", ["gamma=1"]),
        ("set model.gama=1", ["model.gama=1"]),
        ("leave it out: data.columns=[a,b]", ["data.columns=[a,b]"]),
        ("leave it out: 'data.columns=[a,b]'", []),
        ("sweep over seed=range(3)", ["seed=range(3"]),
        ("expected '{key}=[…]'", []),
        ("use data=digits_rows or choose another name=", []),
    ],
)
def test_settings_that_cannot_be_pasted_are_found(text: str, parts: list[str]):
    assert [part.strip() for part in wrong(text)] == parts


@spec
class Part:
    title: str
    sizes: tuple[int, ...]


@spec
class Whole:
    part: Part


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"title": 3}, """expected text; write it in quotes: 'model.part.title="3"'"""),
        ({"sizes": 3}, "expected a list, for example 'model.part.sizes=[3]'"),
    ],
)
def test_a_remedy_names_the_full_key(changes: dict[str, Any], remedy: str):
    with pytest.raises(ConfigError) as error:
        build({"part": {"title": "a", "sizes": [1]} | changes}, Whole, key="model")
    assert error.value.remedy == remedy
    assert str(error.value).endswith(f": {remedy}")


@pytest.mark.parametrize(
    "code",
    [
        "raise ConfigError('a', 1, f'so set gamma={x}')",
        "remedy = f'so set gamma={x}'",
        "problem = f'so set gamma={x}' if x else ''",
        "why += ' so set gamma=1'",
    ],
)
def test_the_texts_of_errors_are_found_in_code(code: str, tmp_path: Path):
    path = tmp_path / "refusing.py"
    path.write_text(code)
    assert any(wrong(text) for _, text in remedies(path))
