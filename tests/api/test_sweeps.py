"""What a sweep shows of its folder, and which run it calls the best."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import research
from research.metrics import direction
from research.tree import ConfigError


def test_the_frame_has_a_row_for_each_run(swept: Any) -> None:
    frame = swept.frame()
    assert len(frame) == 6
    assert list(frame["model.latent_dim"]) == [1, 1, 1, 2, 2, 2]
    assert list(frame["seed"]) == [0, 1, 2] * 2
    assert set(frame["status"]) == {"completed"}
    assert repr(swept) == f"Sweep({str(swept.folder)!r}): 6 completed"


def test_runs_are_loaded_when_they_are_asked_for(swept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names, loaded = list(swept.frame()["run_id"]), []
    from research.api import sweeps

    def counted(folder: Path, trusted: Any) -> Any:
        loaded.append(folder.name)
        return research.load(folder, trusted)

    monkeypatch.setattr(sweeps, "load", counted)
    runs = swept.runs
    assert len(runs) == 6
    assert not loaded
    assert runs[-1].folder.name == runs[names[-1]].folder.name == names[-1]
    assert loaded == [names[-1]] * 2
    assert [run.folder.name for run in runs[1:3]] == names[1:3]
    with pytest.raises(KeyError, match="no finished run"):
        runs["another"]


def test_the_table_is_that_of_the_report(swept: Any) -> None:
    from research.report.collect import collect
    from research.report.formats import markdown
    from research.report.table import table

    names = ["test/reconstruction_mse", "test/elbo_nats"]
    shown = swept.table(rows="model.latent_dim", metrics=names)
    assert str(shown) == markdown(table(collect(swept.folder), ["model.latent_dim"], [], names)) == repr(shown)
    assert shown._repr_markdown_() == str(shown)
    across = swept.table(rows=[], columns="model.latent_dim", metrics=names)
    assert across.content.columns == ((1,), (2,))
    assert "latent_dim=1</th>" in across._repr_html_()
    for each, cells in ((shown, 3), (across, 5)):
        text = each._repr_html_()
        assert ("<strong>" in text) == ("**" in str(each))
        assert "unseen" not in text
        (body,) = re.findall("<tbody>(.*)</tbody>", text)
        counts = {len(re.findall("<t[dh]", row)) for row in re.findall("<tr>(.*?)</tr>", body) if "colspan" not in row}
        assert counts == {cells}
    for wrong, key in (({"rows": ["model.latent"]}, "rows"), ({"metrics": ["test/lss"]}, "metrics")):
        with pytest.raises(ConfigError, match="did you mean") as refused:
            swept.table(**wrong)
        assert refused.value.key == key


def test_the_best_run_is_the_best_of_the_validation_rows(swept: Any) -> None:
    frame = swept.frame()
    for name in ("validation/reconstruction_mse", "validation/elbo_nats", "validation/loss"):
        value = frame[name].max() if direction(name) == "higher" else frame[name].min()
        best = swept.best(name)
        assert best.result["metrics"][name] == value
        assert list(frame.loc[frame[name] == value, "run_id"]) == [best.folder.name]
    assert swept.best().folder.name in set(frame["run_id"])


def test_test_rows_and_metrics_without_direction_choose_nothing(swept: Any) -> None:
    for metric, text in (
        ("test/reconstruction_mse", "chosen by the validation rows; give 'validation/reconstruction_mse'"),
        ("validation/kl_nats", "give 'validation/"),
        (["validation/loss"], "chosen by the validation rows"),
        ("validation/reconstruction_mes", "did you mean 'validation/reconstruction_mse'"),
    ):
        with pytest.raises(ConfigError) as refused:
            swept.best(metric)
        assert refused.value.key == "metric"
        assert text in str(refused.value)


def test_runs_of_other_objectives_are_not_compared_by_their_loss(x: np.ndarray, tiny: tuple[str, ...]) -> None:
    sweep = research.sweep(x, *tiny, "model.beta=1,4", name="betas")
    with pytest.raises(ConfigError, match=r"measures something else where model\.beta differ; give 'validation/"):
        sweep.best("validation/loss")
    assert sweep.best().folder.parent == sweep.folder


def test_runs_that_did_not_finish_are_never_the_best(swept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    collected = swept._collected()
    best = swept.best("validation/loss").folder.name
    records = [
        dataclasses.replace(run, status="interrupted") if run.run_id == best else run for run in collected.records
    ]
    monkeypatch.setattr(swept, "_collected", lambda: dataclasses.replace(collected, records=tuple(records)))
    assert swept.best("validation/loss").folder.name != best


def test_figures_and_page(swept: Any) -> None:
    (first, *_) = figures = swept.figure("metric_over_key")
    assert first.png.startswith(b"\x89PNG")
    assert figures._repr_html_().count("<img") == len(figures)
    with pytest.raises(ConfigError, match="no such kind"):
        swept.figure("metric_over_keys")
    with pytest.raises(ConfigError, match="no such kind"):
        swept.figure(["metric_over_key"])
    with pytest.raises(ConfigError, match="does not apply"):
        swept.figure("forecasts")
    page = swept.page()
    assert page == swept.folder / "report" / "page.html"
    assert "<table" in page.read_text()


def test_a_sweep_is_opened_again_by_its_folder(swept: Any, tmp_path: Path) -> None:
    assert research.Sweep(swept.folder).frame().equals(swept.frame())
    with pytest.raises(ConfigError, match="no such folder"):
        research.Sweep(tmp_path / "none").frame()
