"""The notebook runs from its first cell to its last."""

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "scripts" / "first_steps.ipynb"
CELLS: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text())["cells"]


def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Jupyter, the value of the last line of a cell is shown; here for its HTML."""
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for cell in CELLS:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            continue
        if "research.sweep(" in source:
            small = '"trainer.epochs=2", "model.hidden_dims=[8]", "evaluation.nll_samples=4"'
            source = source.replace("y=y", f"{small}, y=y")
        *_, last = source.rstrip().splitlines()
        exec(compile(source, "cell", "exec"), names)
        if last[0] not in " )" and "=" not in last.split("(")[0]:
            value = eval(last, names)
            shown.append(getattr(value, "_repr_html_", value.__repr__)())
    plt.close("all")
    assert names["codes"].shape[0] == len(names["x"]) == 1797
    assert len(names["sweep"].runs) == 12
    texts = "\n".join(shown)
    assert "12 completed" in texts
    assert "<table>" in texts
    assert "<img" in texts
    assert "page.html" in texts


def test_it_is_committed_without_outputs() -> None:
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
