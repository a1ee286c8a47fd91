"""Training curves as DVC plots them."""

from rdmd.pipeline.curves import thinned
from rdmd.training.run_folder import Point


def test_a_long_curve_is_averaged_over_equal_parts() -> None:
    points = [Point(10 * (i + 1), {"loss": float(i)}) for i in range(10)]
    assert thinned(points, 2) == [Point(50, {"loss": 2.0}), Point(100, {"loss": 7.0})]
    assert thinned(points, 10) == thinned(points, 50) == points
    assert thinned([]) == []
