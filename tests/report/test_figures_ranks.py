"""Demšar's diagram against his own example and hand cases."""

import itertools
import math

import numpy as np
import pytest

from research.report.collect import collect
from research.report.figures import ranks, scene, style
from research.report.table import table

# Demšar (2006), table 6: ranks by AUC of C4.5, with tuned m, cf and both, on 14 data sets
RANKS = np.array(
    [
        *([4, 3, 2, 1], [1, 2, 3, 4], [4, 1, 2, 3], [4, 1, 3, 2], [4, 2, 3, 1], [1, 2.5, 4, 2.5], [3, 2, 4, 1]),
        *([2.5, 2.5, 4, 1], [4, 3, 2, 1], [2.5, 2.5, 2.5, 2.5], [4, 2.5, 1, 2.5], [3, 2, 4, 1], [4, 1, 2, 3]),
        [3, 1, 4, 2],
    ]
)


def test_ranks_of_the_published_example():
    published = [3.143, 2.0, 2.893, 1.964]
    np.testing.assert_allclose(ranks.average_ranks(1 - RANKS / 10, higher=True), published, atol=5e-4)
    np.testing.assert_allclose(ranks.average_ranks(RANKS / 10, higher=False), published, atol=5e-4)


def test_critical_differences_of_the_published_example_and_table():
    assert ranks.critical_difference_of(4, 14) == pytest.approx(1.25, abs=5e-3)  # section 3.2.4
    for methods, quantile in ((2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)):  # table 5
        found = ranks.critical_difference_of(methods, 6) / math.sqrt(methods * (methods + 1) / 36)
        assert found == pytest.approx(quantile, abs=1e-3)
    assert ranks.critical_difference_of(5, 6, level=0.1) == pytest.approx(2.459 * math.sqrt(30 / 36), abs=1e-3)


def test_friedman_by_hand_and_for_methods_that_never_differ():
    # ranks 1, 2, 3 on all of four data sets: chi2 = 12 * 4 / 12 * (1 + 4 + 9 - 12) = 8, and p = exp(-8 / 2)
    scores = np.array([[1.0, 2.0, 3.0]] * 4) * np.arange(1, 5)[:, None]
    assert ranks.friedman(scores) == pytest.approx(math.exp(-4))
    assert ranks.friedman(np.ones((5, 3))) == 1


@pytest.mark.parametrize(
    ("places", "distance", "expected"),
    [
        ([1.0, 1.4, 3.0, 3.2], 1.0, [(0, 1), (2, 3)]),
        ([1.0, 1.8, 2.6, 3.4], 1.0, [(0, 1), (1, 2), (2, 3)]),
        ([1.0, 1.2, 1.4, 3.9], 0.5, [(0, 2)]),  # a run inside another is left out
        ([1.0, 2.0, 3.0], 1.0, []),  # exactly CD apart is significant
        ([1.9, 2.0, 2.1], 5.0, [(0, 2)]),
    ],
)
def test_groups_are_the_largest_runs_within_the_critical_difference(places, distance, expected):
    assert ranks.cliques(places, distance) == expected


def scene_of(sweep):
    return scene.Scene(table(collect(sweep.folder), metrics=["test/accuracy"]), sweep.folder, print)


@pytest.fixture
def problems(sweep):
    """Four data sets and four methods of accuracy .9, .8, .7, .6; two seeds."""

    def make(skip=()):
        for problem in ("A", "B", "C", "D"):
            for size in (1, 2, 3, 4):
                for seed in (0, 1):
                    if (problem, size) not in skip:
                        values = {"model.latent_dim": size, "data.problem": problem, "seed": seed}
                        sweep.add(values, {"test/accuracy": 1 - size / 10 + seed / 100})
        return sweep

    return make


def test_the_diagram_has_every_method_at_its_rank_and_joins_what_is_not_told_apart(problems):
    (plan,) = ranks.critical_difference(scene_of(problems()))
    planned = plan()
    (panel,) = planned.picture.panels
    assert sorted(line.x[0] for line in panel.lines if "marker" in line.look) == [1, 2, 3, 4]
    texts = [text.strip() for _, _, text, _ in panel.texts]
    assert "latent dim 1  1.00" in texts
    assert "CD = 2.35" in texts
    bars = [line.x for line in panel.lines if line.look.get("linewidth") == 2.6]
    assert [[round(x) for x in bar] for bar in bars] == [[1, 3], [2, 4]]  # 3 apart is more than 2.35
    assert "4 methods over 4 data sets" in planned.caption
    assert "Nemenyi" in planned.caption
    assert "Ranks: latent dim 1 1.00, latent dim 2 2.00" in planned.caption
    with style.styled():
        figure = planned.picture.draw()
        figure.draw_without_rendering()
    boxes = [text.get_window_extent().padded(-1) for text in figure.axes[0].texts]
    assert all(figure.bbox.padded(2).fully_containsx(x) for box in boxes for x in (box.x0, box.x1))
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_methods_without_all_data_sets_are_left_out(problems):
    (plan,) = ranks.critical_difference(scene_of(problems(skip={("B", 4)})))
    caption = plan().caption
    assert "3 methods over 4 data sets" in caption
    assert "1 method without" in caption


def test_too_few_data_sets_or_methods_do_not_apply(problems, grid):
    with pytest.raises(scene.UnfitError, match="2 methods on all"):
        ranks.critical_difference(scene_of(problems(skip={("A", 3), ("B", 4)})))


def test_one_data_set_does_not_apply(grid):
    sweep = grid(**{"test/accuracy": 0.5})
    with pytest.raises(scene.UnfitError, match="no data set is swept"):
        ranks.critical_difference(scene_of(sweep))
