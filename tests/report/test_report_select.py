"""Settings chosen on validation rows, and values that others published."""

import csv
import dataclasses
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from research import compose
from research import config as composed
from research.report.collect import Run, Runs, collect
from research.report.formats import latex, markdown, spreadsheet
from research.report.formats import published as published_lines
from research.report.notes import notes
from research.report.run import frozen, values_of
from research.report.spec import Report, recorded
from research.report.table import table, table_of
from research.tree import ConfigError, build


@pytest.fixture
def tuned(sweep):
    """For beta 1 the rate 0.1 is best on validation rows; on test rows 0.2 would look better. For beta 4 it is 0.2."""
    validation = {(1.0, 0.1): 1.0, (1.0, 0.2): 2.0, (4.0, 0.1): 6.0, (4.0, 0.2): 5.0}
    for (beta, rate), loss in validation.items():
        for seed in range(3):
            metrics = {"validation/mse": loss + seed / 100, "test/mse": 10 - loss + seed / 100}
            sweep.add({"model.beta": beta, "optimizer.learning_rate": rate, "seed": seed}, metrics)
    return sweep


def test_a_setting_is_chosen_on_validation_rows_and_shown_on_test_rows(tuned):
    summary = table(collect(tuned.folder), choose=["optimizer.learning_rate"])
    assert summary.row_keys == ("model.beta",)
    assert {row[0]: cell.mean for (row, _, _), cell in summary.cells.items()} == pytest.approx({1.0: 9.01, 4.0: 5.01})
    assert summary.selection.chosen == {((1.0,), ()): (0.1,), ((4.0,), ()): (0.2,)}
    assert (summary.selection.by, summary.n) == ("validation/mse", 3)
    text = "Chosen by the mean of validation/mse among up to 2 settings (6 runs of others not shown): "
    assert ("", text + "1: optimizer.learning_rate=0.1; 4: optimizer.learning_rate=0.2.") in notes(summary)
    lines = list(csv.DictReader(spreadsheet(summary).splitlines()))
    assert [line["chosen optimizer.learning_rate"] for line in lines] == ["0.1", "0.2"]


def test_test_rows_never_choose(tuned):
    runs = collect(tuned.folder)
    with pytest.raises(ConfigError, match="by=test/mse: settings are chosen on the validation rows"):
        table(runs, choose=["optimizer.learning_rate"], by="test/mse")
    with pytest.raises(ConfigError, match="select=seed"):
        table(runs, choose=["seed"])
    with pytest.raises(ConfigError, match=r"select=optimizer.rate: .*learning_rate"):
        table(runs, choose=["optimizer.rate"])


def test_a_setting_that_diverged_for_a_seed_stands_back(tuned):
    tuned.add({"model.beta": 1.0, "optimizer.learning_rate": 0.1, "seed": 3}, status="diverged")
    summary = table(collect(tuned.folder), choose=["optimizer.learning_rate"])
    assert summary.selection.chosen[(1.0,), ()] == (0.2,)
    tuned.add({"model.beta": 1.0, "optimizer.learning_rate": 0.2, "seed": 3}, status="diverged")
    summary = table(collect(tuned.folder), choose=["optimizer.learning_rate"])
    assert summary.selection.chosen[(1.0,), ()] == (0.1,)
    assert any("each without validation/mse for some seed or fold: 1: optimizer" in text for _, text in notes(summary))


def test_incomplete_settings_are_compared_at_the_folds_that_all_of_them_have(sweep):
    """Fold 0 is easy; one setting diverged there, the other on fold 2: fold 1 decides."""
    difficulty = (0.0, 5.0, 10.0)
    for rate, gain, missing in ((0.1, 1.0, 2), (0.2, 0.0, 0)):
        for fold, base in enumerate(difficulty):
            diverged = fold == missing
            metrics = {} if diverged else {f"{part}/mse": base + gain for part in ("validation", "test")}
            status = "diverged" if diverged else "completed"
            sweep.add({"optimizer.learning_rate": rate, "data.fold": fold}, metrics, status=status)
    summary = table(collect(sweep.folder), choose=["optimizer.learning_rate"])
    assert list(summary.selection.chosen.values()) == [(0.2,)]
    assert any("Chosen among incomplete settings only" in text for _, text in notes(summary))


def test_nothing_is_called_chosen_without_a_number(sweep):
    for model in ("vae", "dense_ae"):
        for rate in (0.1, 0.2):
            number = None if model == "vae" else rate
            metrics = {"validation/mse": number, "test/mse": 1.0}
            sweep.add({"model": model, "optimizer.learning_rate": rate}, metrics, model=model)
    summary = table(collect(sweep.folder), rows=["model"], choose=["optimizer.learning_rate"])
    texts = [text for _, text in notes(summary)]
    assert any("not shown): dense_ae: optimizer.learning_rate=0.1." in text for text in texts)
    shown = (
        "Shown without a choice, because no setting has a number of validation/mse: vae: optimizer.learning_rate=0.1."
    )
    assert shown in texts


def test_where_no_metric_has_a_number_nothing_is_chosen(sweep):
    for rate in (0.1, 0.2):
        sweep.add({"optimizer.learning_rate": rate}, {"validation/mse": None, "test/mse": 1.0})
    with pytest.raises(ConfigError, match=r"no metric of the validation rows has numbers .*--rows optimizer.learning_"):
        table(collect(sweep.folder), choose=["optimizer.learning_rate"])


@pytest.mark.parametrize(
    ("by", "words"),
    [
        ("test/mse", "settings are chosen on the validation rows; choose by another metric, --by validation/mse"),
        ("validation/kl_nats", "neither low nor high values of it are better; .*--by validation/mse"),
        ("validation/r2", "gives it no direction.*; choose by another metric, --by validation/mse"),
        ("validation/msee", r"by=validation/msee: no run has this metric \(did you mean 'validation/mse'"),
    ],
)
def test_a_metric_that_cannot_choose_is_refused_with_one_that_can(sweep, by, words):
    for rate in (0.1, 0.2):
        metrics = dict.fromkeys(("validation/mse", "validation/kl_nats", "validation/r2", "test/mse"), rate)
        sweep.add({"optimizer.learning_rate": rate}, metrics)
    with pytest.raises(ConfigError, match=words):
        table(collect(sweep.folder), choose=["optimizer.learning_rate"], by=by)


def test_pruned_runs_are_averaged_only_when_asked_for(sweep):
    for seed, status in enumerate(["completed", "completed", "completed", "pruned"]):
        sweep.add({"seed": seed}, {"test/mse": float(seed)}, status=status)
    runs = collect(sweep.folder)
    (cell,) = table(runs).cells.values()
    assert (cell.mean, cell.n) == (1.0, 3)
    asked = table(runs.including(["pruned"]))
    (cell,) = asked.cells.values()
    assert (cell.mean, cell.n, cell.complete) == (1.5, 4, False)
    assert ("", "Averaged as asked: 1 run pruned.") in notes(asked)
    with pytest.raises(ConfigError, match="include=prunned"):
        runs.including(["prunned"])


# ----------------------------------------------------------------------------------------------------------- published


def entry(**changes):
    one = {"label": "theirs", "metric": "test/mse", "where": {"data": "digits"}, "value": 3.0, "error": None}
    return one | {"tolerance": 0.5, "source": "a paper, table 1", "comparable": "yes"} | changes


def report(*entries, **changes):
    section = {"rows": None, "columns": [], "metrics": None, "select": [], "by": None, "published": list(entries)}
    return build(section | changes, Report, key="report")


@pytest.mark.parametrize(
    ("entries", "verdict", "reason"),
    [
        (entry(), "reproduced", ""),
        (entry(value=4.6), "not reproduced", ""),
        (entry(value=4.6, comparable="other test rows"), "not comparable", "other test rows"),
        (entry(tolerance=None, error=0.1, value=5.0), "reproduced", ""),  # 2 sqrt(.01 + 1/3) = 1.17
        (entry(tolerance=None, error=0.1, value=5.3), "not reproduced", ""),
    ],
)
def test_published_values_have_a_verdict(sweep, entries, verdict, reason):
    for seed, value in enumerate((3.0, 4.0, 5.0)):
        sweep.add({"seed": seed}, {"test/mse": value - 0.0 if verdict != "reproduced" or entries["error"] else 3.2})
    (one,) = table_of(collect(sweep.folder), report(entries)).published
    assert (one.verdict, one.reason) == (verdict, reason)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"where": {"data": "mnist", "data.horizon": 96}}, "1 published value of another data set."),
        ({"where": {"data": "digits", "data.fold": 3}}, "1 published value of another data.fold."),
        ({"where": {"data": "digits", "model.latent_dim": 32}}, "1 published value of another model.latent_dim."),
        ({"where": {"model.latent_dim": 2}}, "without a data set (add data: NAME to where in report.published)."),
        ({"metric": "test/mae"}, "1 published value of test/mae, which no run has."),
    ],
)
def test_a_value_of_other_data_or_another_protocol_is_not_printed(sweep, changes, reason):
    for latent_dim in (2, 8):
        sweep.add({"model.latent_dim": latent_dim}, {"test/mse": 3.0})
    summary = table_of(collect(sweep.folder), report(entry(**changes)))
    assert summary.published == ()
    assert [text for _, text in notes(summary) if reason in text and text.startswith("Not shown: ")]
    for text in (markdown(summary), latex(summary)):
        assert "theirs" not in text
        assert "reproduced" not in text


def experiments() -> list[str]:
    paths = sorted((Path(__file__).parents[2] / "conf" / "experiment").glob("*.yaml"))
    return [path.stem for path in paths if "  published:\n" in path.read_text()]


OTHERS = {  # settings for which nothing was published
    "forecast_ett": {"data.file": "ETTh2", "data.months": (12, 4), "data.horizon": 24, "data.scaling": "none"},
    "forecast_ett_all": {"data.months": (12, 4), "data.horizon": 24, "data.scaling": "none", "data.window": 96},
    "forecast_m4_hourly": {"data.frequency": "Daily"},
    "polyphonic_nll": {"data.task": "model", "data.problem": "other"},
    "cluster_mnist": {"data.layout": "rows", "data.binarize": "once"},
    "impute_ett": {
        "data.file": "ETTh2",
        "data.months": None,
        "data.window": 24,
        "data.scaling": "minmax",
        "data.hide": 0.5,
        "data.hide_by": "blocks",
    },
}


@pytest.mark.parametrize("name", experiments())
def test_published_values_of_shipped_experiments_hold_for_their_own_data_only(name):
    composed.register_resolvers()
    config = compose.compose([f"experiment={name}"])
    job = composed.job_of_config(config)
    section = build(OmegaConf.to_container(config.report), Report)
    values = values_of(job.tree(), job.choices)
    swept = config.hydra.sweeper.params or {}

    def held(**other):
        runs = []
        for number, one in enumerate(section.published):
            mine = Run("mine", "completed", values=values)
            where = {key: frozen(value) for key, value in one.where.items() if key not in {"data", *swept}}
            assert {key: mine.value(key) for key in where} == where
            settings = {key: value for key, value in one.where.items() if key in {"data", *swept}}
            runs.append(
                Run(str(number), "completed", values={**values, **settings, **other}, metrics={one.metric: 1.0})
            )
        return table_of(
            Runs(name, tuple(runs)), dataclasses.replace(section, rows=None, columns=(), select=(), metrics=None)
        ).published

    assert {one.published.label for one in held()} == {one.label for one in section.published}
    assert held(data="other") == ()
    for key, value in OTHERS.get(name, {}).items():
        assert held(**{key: value}) == (), key


def test_ours_theirs_and_the_difference_stand_in_every_format(sweep):
    for latent_dim in (2, 8):
        for seed in range(3):
            sweep.add({"model.latent_dim": latent_dim, "seed": seed}, {"test/mse": latent_dim + seed})
    wheres = [{"data": "digits", "model.latent_dim": size} for size in (2, 8)]
    entries = [entry(where=wheres[0], value=3.25), entry(where=wheres[1], label="A & B")]
    summary = table_of(collect(sweep.folder), report(*entries))
    text = markdown(summary)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "allowed" in line]
    first, second = "model.latent_dim=2", "model.latent_dim=8"
    assert lines == [
        ["theirs¹", "test/mse", first, "3.0 ± 1.0 (n=3)", "3.25", "-0.25 (allowed 0.5)", "reproduced"],
        ["A & B¹", "test/mse", second, "9.0 ± 1.0 (n=3)", "3.00", "+6.00 (allowed 0.5)", "not reproduced"],
    ]
    assert "- ¹ a paper, table 1." in text
    assert r"A \& B\textsuperscript{1} & test/mse & model.latent\_dim=8 & 9.0 $\pm$ 1.0 (n=3) & 3.00 & +6.00" in latex(
        summary
    )
    lines = list(csv.DictReader(published_lines(summary).splitlines()))
    assert [(line["ours"], line["theirs"], line["verdict"]) for line in lines] == [
        ("3.0", "3.25", "reproduced"),
        ("9.0", "3.0", "not reproduced"),
    ]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (entry(tolerance=None), r"published\[0\].tolerance"),
        (entry(source=" "), "say where the value was read"),
        (entry(metrics="x"), "unknown key"),
        (entry(value="85.4"), "expected a number"),
    ],
)
def test_a_published_value_needs_what_makes_a_verdict_honest(entries, words):
    with pytest.raises(ConfigError, match=words):
        report(entries)


def test_a_key_that_no_run_has_is_refused(sweep):
    sweep.add({"seed": 0}, {"test/mse": 1.0})
    with pytest.raises(ConfigError, match=r"report.published.where=model.latentdim: .*'model.latent_dim'"):
        table_of(collect(sweep.folder), report(entry(where={"data": "digits", "model.latentdim": 2})))


def test_a_damaged_section_is_refused(sweep):
    sweep.add({"seed": 0}, {"test/mse": 1.0})
    assert recorded(collect(sweep.folder).plan, sweep.folder) == report()
    path = sweep.folder / "sweep.json"
    path.write_text(path.read_text().replace('"name"', '"report": {"rows": 3}, "name"'))
    with pytest.raises(ConfigError, match="is damaged"):
        recorded(collect(sweep.folder).plan, sweep.folder)


def test_metrics_of_a_section_that_no_run_has_are_told(sweep):
    sweep.add({"seed": 0}, {"test/mse": 1.0})
    summary = table_of(collect(sweep.folder), report(metrics=["test/active_units", "test/mse"]))
    assert summary.metrics == ("test/mse",)
    assert ("", "the report section names test/active_units, which no run has.") in notes(summary)
    assert table_of(collect(sweep.folder), report(metrics=["test/active_units"])).metrics == ("test/mse",)
