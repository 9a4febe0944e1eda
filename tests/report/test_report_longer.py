"""Notes on runs that may have trained too briefly."""

import json

import pytest

from research.report.collect import collect
from research.report.formats import markdown
from research.report.notes import notes
from research.report.table import table


def write(sweep, seed, *, status="completed", epochs=50, batch_size=32, **fields):
    path = sweep.add({"seed": seed}, {"test/loss": 1.0}, status=status)
    trainer = {"epochs": epochs, "batch_size": batch_size, "monitor": "validation/loss"}
    config = json.loads((path / "config.json").read_text())
    config["config"]["trainer"] = trainer
    (path / "config.json").write_text(json.dumps(config))
    content = json.loads((path / "result.json").read_text()) | fields
    (path / "result.json").write_text(json.dumps(content))


def told(sweep, beginning):
    return [text for _, text in notes(table(collect(sweep.folder))) if text.startswith(beginning)]


def test_few_steps_name_what_to_raise(sweep):
    for seed in range(3):
        write(sweep, seed, steps_per_epoch=3)
    (text,) = told(sweep, "Few steps")
    assert text == (
        "Few steps: all 3 runs took 3 steps an epoch and 150 in all. Smaller batches and more epochs train longer:"
        " trainer.batch_size=9 trainer.epochs=100 name=demo_longer."
    )
    assert 96 // 9 >= 10  # 3 steps of 32 rows are 96 rows or more
    assert text in markdown(table(collect(sweep.folder)))  # nothing in it is escaped, so that it can be pasted


@pytest.mark.parametrize(
    "fields",
    [
        {"steps_per_epoch": 10},
        {"steps_per_epoch": 5, "epochs": 200},  # a thousand steps
        {"steps_per_epoch": 3, "status": "stopped"},
        {},  # of an earlier version
        {"steps_per_epoch": "3"},
    ],
)
def test_enough_steps_need_no_note(sweep, fields):
    write(sweep, 0, **fields)
    assert not told(sweep, "Few steps")


def test_runs_that_differ_and_fewer_rows_than_steps(sweep):
    write(sweep, 0, steps_per_epoch=9, batch_size=1)
    write(sweep, 1, steps_per_epoch=2, batch_size=4)
    write(sweep, 2, steps_per_epoch=99)
    (text,) = told(sweep, "Few steps")
    assert "2 of 3 runs took as few as 2 steps an epoch and 100 in all" in text
    assert "longer: trainer.epochs=500 name=demo_longer." in text


def test_a_curve_that_is_not_flat_names_the_epochs(sweep):
    write(sweep, 0, steps_per_epoch=99, still_improves=True)
    write(sweep, 1, steps_per_epoch=99, still_improves=False)
    write(sweep, 2, steps_per_epoch=99, still_improves=None)
    write(sweep, 3, steps_per_epoch=99, still_improves=True, status="stopped")
    (text,) = told(sweep, "Ended early")
    assert text == (
        "Ended early: 1 of 3 runs still improved in validation/loss by more than 5 % of its range over the last tenth"
        " of the epochs. Train longer: trainer.epochs=100 name=demo_longer."
    )
    assert not told(sweep, "Few steps")


def test_a_run_alone_is_the_run(sweep):
    write(sweep, 0, steps_per_epoch=1, still_improves=True)
    assert told(sweep, "Few steps: the run took 1 step an epoch and 50 in all.")
    assert told(sweep, "Ended early: the run still improved in validation/loss")
