"""Which generators of a refined sweep the figures of docs/results.md show, and under which names."""

from rdmd.evaluation.row import Row
from rdmd.results.collect import SeedRow
from rdmd.results.figures import Plane, _points, fronts_png, methods_as_series
from rdmd.results.galleries import shown_generators
from rdmd.results.summary import Summary


def row(lam: float, cost: float, settings: dict) -> SeedRow:
    measured = Row(method="rdmd", lam=lam, settings=settings, nfe=1, cost=cost, sw2=1 / cost)
    return SeedRow(seed=0, key="", row=measured, seconds=1.0, device="CPU", date="2026-11-24")


def summary(lam: float, cost: float, settings: dict) -> Summary:
    mean = {"cost": cost, "sw2": 1 / cost}
    return Summary("rdmd", lam, settings, 1, (0,), mean, dict.fromkeys(mean), drifted=False)


OWN = {"sigma_init": 0.3, "refinements": 0}
REFINED = {"sigma_init": 0.3}


def test_of_refined_generators_the_smallest_lambda_alone_is_shown_after_lambdas_own_runs():
    rows = [row(0.03, 0.27, REFINED), row(0.5, 0.26, REFINED), row(0.5, 0.02, OWN), row(0.03, 0.17, OWN)]
    shown = [(one.row.lam, one.row.cost) for one in shown_generators(rows)]
    assert shown == [(0.5, 0.02), (0.03, 0.17), (0.03, 0.27)]


def test_without_refinement_every_generator_is_shown_by_rising_cost():
    rows = [row(0.1, 0.3, REFINED), row(0.5, 0.1, REFINED), row(0.2, 0.2, REFINED)]
    assert [one.row.cost for one in shown_generators(rows)] == [0.1, 0.2, 0.3]


def test_lambdas_own_runs_are_a_line_of_their_own():
    series = methods_as_series([summary(0.1, 0.3, REFINED), summary(0.1, 0.1, OWN), summary(0.5, 0.05, OWN)])
    assert [(one.label, [point.lam for point in one.points]) for one in series] == [
        ("RDMD (NFE 1)", [0.1]), ("RDMD, λ's own run (NFE 1)", [0.1, 0.5]),
    ]


def test_points_that_lie_on_one_another_share_a_label():
    points = [summary(0.1, 0.3, REFINED), summary(0.2, 0.3001, REFINED), summary(0.5, 0.05, REFINED)]
    (series,) = methods_as_series(points)
    assert [point.label for point in _points(series, Plane("cost", "sw2"))] == ["λ = 0.1", "", "λ = 0.5"]
    assert fronts_png([series], [], [Plane("cost", "sw2")], "").startswith(b"\x89PNG")
