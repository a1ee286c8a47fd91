"""Fronts, hypervolumes and knees small enough to work out by hand."""

import pytest

from rdmd.evaluation.pareto import hypervolume, knee, mark_front, nondominated, pick
from rdmd.evaluation.row import Row


def test_front_of_a_staircase() -> None:
    points = [(1.0, 5.0), (2.0, 3.0), (2.5, 3.5), (4.0, 1.0), (4.0, 2.0), (5.0, 1.0)]
    assert nondominated(points) == [True, True, False, True, False, False]


def test_equal_points_share_the_front() -> None:
    assert nondominated([(1.0, 1.0), (1.0, 1.0), (2.0, 1.0)]) == [True, True, False]
    assert nondominated([]) == []


def test_hypervolume_of_a_staircase() -> None:
    # Below (4, 4), the columns [1, 2] x [3, 4] and [2, 4] x [1, 4].
    assert hypervolume([(1.0, 3.0), (2.0, 1.0)], (4.0, 4.0)) == pytest.approx(1 + 6)
    assert hypervolume([(1.0, 3.0), (2.0, 1.0), (3.0, 2.0)], (4.0, 4.0)) == pytest.approx(7)
    assert hypervolume([(1.0, 3.0), (2.0, 1.0), (2.0, 1.0)], (4.0, 4.0)) == pytest.approx(7)
    assert hypervolume([(5.0, 0.0), (0.0, 4.0)], (4.0, 4.0)) == 0.0


def test_knee_is_measured_in_the_fronts_own_units() -> None:
    # Scaled to the front's box the distances are 1, sqrt(0.2^2 + 0.3^2) and 1, although raw FID dwarfs the cost.
    assert knee([(0.0, 1000.0), (0.2, 300.0), (1.0, 0.0)]) == 1
    # A dominated point near the corner of the raw box is not on the front, so it cannot be the knee.
    assert knee([(0.0, 10.0), (0.5, 5.0), (0.4, 2.0), (1.0, 0.0)]) == 2


def test_knee_of_a_front_without_extent() -> None:
    assert knee([(2.0, 3.0)]) == 0
    assert knee([(2.0, 3.0), (2.0, 3.0), (9.0, 9.0)]) == 0
    # Both ends are at distance one: the more faithful is taken.
    assert knee([(1.0, 0.0), (0.0, 1.0)]) == 1
    with pytest.raises(ValueError, match="without points"):
        knee([])


def test_only_generators_are_on_the_front_and_picked_from_it() -> None:
    rows = mark_front(
        [
            Row(method="identity", cost=0.0, fid=600.0),
            Row(method="target", fid=20.0),
            Row(method="sdedit", cost=0.01, fid=1.0),
            Row(method="rdmd", lam=0.5, cost=0.05, fid=120.0),
            Row(method="rdmd", lam=0.1, cost=0.06, fid=60.0),
            Row(method="rdmd", lam=0.05, cost=0.20, fid=70.0),
            Row(method="rdmd", lam=0.02, cost=0.30, fid=40.0),
        ]
    )
    assert [row.on_front for row in rows] == [False, False, False, True, True, False, True]
    assert pick(rows, "most-faithful").lam == 0.5
    assert pick(rows, "most-realistic").lam == 0.02
    assert pick(rows, "knee").lam == 0.1


def test_points_are_ranked_by_sliced_distance() -> None:
    rows = mark_front([Row(method="rdmd", lam=1.0, cost=0.1, sw2=0.5), Row(method="rdmd", lam=2.0, cost=0.2, sw2=0.5)])
    assert [row.on_front for row in rows] == [True, False]
