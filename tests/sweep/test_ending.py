"""Whether a curve is flat where it ends."""

import numpy as np
import pytest

from research.sweep.train.ending import still_improves


def curve(values, name="validation/loss", every=1):
    return [{"epoch": (at + 1) * every, name: float(value)} for at, value in enumerate(values)]


EPOCHS = np.arange(1, 101)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (-EPOCHS, True),  # a straight line gains a tenth of its range
        (np.exp(-EPOCHS / 100), True),  # of a time constant of 100 epochs, 6 %
        (np.exp(-EPOCHS / 50), False),  # of 50 epochs, 3 %
        (np.exp(-EPOCHS / 10), False),
        (np.where(EPOCHS == 100, 3.0, 100 - EPOCHS), False),  # the best value is an earlier one
        (
            np.where(EPOCHS == 100, 0.8, 1 + 0.1 * (EPOCHS % 2)),
            False,
        ),  # flat, and the last of its ups and downs is deep
        (EPOCHS, False),
        (np.ones(100), False),
        ([3.0, 2.0], None),  # two points are always a straight line
        ([np.nan, 3.0, 2.0], None),
        ([], None),
    ],
)
def test_a_curve_that_still_falls(values, expected):
    assert still_improves(curve(values), "validation/loss") is expected


def test_few_evaluations_are_joined_by_straight_lines():
    assert still_improves(curve([9.0, 5.0, 1.0], every=10), "validation/loss")  # the last 3 epochs gain .3 of 4 of 8
    assert not still_improves(curve([9.0, 1.5, 1.0], every=10), "validation/loss")  # .15 of 8


def test_a_metric_of_which_more_is_better():
    name = "validation/elbo_nats"
    assert still_improves(curve(EPOCHS, name), name)
    assert still_improves(curve(-EPOCHS, name), name) is False
    assert still_improves([{"step": 3.0}, *curve(EPOCHS, name)], name)
