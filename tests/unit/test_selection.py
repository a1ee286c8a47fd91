"""The rules of the registry on rows made by hand."""

import pytest

from rdmd import config
from rdmd.errors import UserError
from rdmd.evaluation.pareto import mark_front
from rdmd.evaluation.row import FeaturesRecord, Metrics, Row
from rdmd.evaluation.selection import Box, box, choose, describe, differences, evaluation_of, front, registered


def row(lam: float, cost: float, fid: float, cost_se: float | None = None, spread: float | None = None) -> Row:
    interval = None if spread is None else (fid - spread, fid + spread)
    return Row(method="rdmd", lam=lam, cost=cost, cost_se=cost_se, fid=fid, fid_ci=interval, seconds_per_image=lam / 10)


def rules(**given: object) -> config.Register:
    return config.Register.model_validate(given)


# Falling lambda: the cost rises and FID falls.
SWEEP = [row(0.5, 0.05, 120.0), row(0.1, 0.10, 40.0), row(0.05, 0.20, 30.0), row(0.02, 0.30, 28.0)]


def chosen(rows: list[Row], **given: object) -> float:
    return rows[choose(rows, rules(**given)).champion].lam


def test_a_box_holds_two_standard_errors_the_interval_and_the_measured_value():
    assert box(row(0.1, 1.0, 40.0, cost_se=0.1, spread=3.0)) == Box((0.8, 1.2), (37.0, 43.0))
    assert box(row(0.1, 1.0, 40.0)) == Box((1.0, 1.0), (40.0, 40.0))
    # A bootstrap interval is of resampled sets, which may all be worse than the set itself.
    assert box(row(0.1, 1.0, 40.0).model_copy(update={"fid_ci": (41.0, 44.0)})).realism == (40.0, 44.0)
    points = Row(method="rdmd", lam=0.1, cost=1.0, sw2=0.5, sw2_ci=(0.4, 0.7))
    assert box(points).realism == (0.4, 0.7)


def test_only_disjoint_intervals_dominate():
    sure = [row(0.1, 1.0, 40.0, 0.01, 2.0), row(0.2, 1.1, 50.0, 0.01, 2.0)]
    assert front(sure, "intervals") == [True, False]
    # The costs are 1.00 +- 0.06 and 1.10 +- 0.06: they overlap.
    assert front([one.model_copy(update={"cost_se": 0.03}) for one in sure], "intervals") == [True, True]
    # FID 40 +- 6 and 50 +- 6 overlap, and so the second may be the better one.
    unsure = [one.model_copy(update={"fid_ci": (one.fid - 6, one.fid + 6)}) for one in sure]
    assert front(unsure, "intervals") == [True, True]
    assert front(unsure, "points") == [True, False]
    # 40 +- 5 and 50 +- 5 touch: nothing of the second lies below anything of the first.
    touching = [one.model_copy(update={"fid_ci": (one.fid - 5, one.fid + 5)}) for one in sure]
    assert front(touching, "intervals") == [True, False]


def test_without_intervals_both_fronts_are_the_front_of_the_report():
    rows = [*SWEEP, row(0.3, 0.06, 130.0), row(0.4, 0.10, 40.0), row(0.6, 0.10, 41.0)]
    expected = [one.on_front for one in mark_front(rows)]
    assert front(rows, "points") == front(rows, "intervals") == expected
    assert expected == [True, True, True, True, False, True, False]


@pytest.mark.parametrize(
    ("champion", "lam"),
    [
        ("knee", 0.1),
        ("most-faithful", 0.5),
        ("most-realistic", 0.02),
        ({"rule": "cheapest-under", "fid": 35}, 0.05),
        ({"rule": "cheapest-under", "fid": 40}, 0.1),
        ({"rule": "most-realistic-under", "cost": 0.25}, 0.05),
        ({"rule": "most-realistic-under", "cost": 0.05}, 0.5),
    ],
)
def test_each_rule_picks_what_a_person_would(champion: object, lam: float):
    assert chosen(SWEEP, champion=champion) == lam
    assert chosen(SWEEP[::-1], champion=champion) == lam


def test_constraints_come_before_the_rule():
    assert chosen(SWEEP, constraints={"fid": 35}, champion="most-faithful") == 0.05
    assert chosen(SWEEP, constraints={"cost": 0.2}, champion="most-realistic") == 0.05
    assert chosen(SWEEP, constraints={"seconds_per_image": 0.004}, champion="knee") == 0.02
    choice = choose(SWEEP, rules(constraints={"fid": 100, "cost": 0.2}))
    assert (choice.front, choice.admissible) == ((0, 1, 2, 3), (1, 2))


def test_points_are_bound_by_sw2():
    rows = [Row(method="rdmd", lam=lam, cost=lam, sw2=1 - lam) for lam in (0.1, 0.5, 0.9)]
    assert chosen(rows, champion={"rule": "cheapest-under", "sw2": 0.6}) == 0.5
    assert chosen(rows, constraints={"sw2": 0.2}, champion="most-faithful") == 0.9


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"constraints": {"fid": 20}}, "register.constraints.fid <= 20: the nearest, lambda 0.02, has fid 28"),
        ({"champion": {"rule": "cheapest-under", "fid": 14}}, "register.champion.fid <= 14: the nearest, lambda 0.02"),
        (
            {"champion": {"rule": "most-realistic-under", "cost": 0.01}},
            "register.champion.cost <= 0.01: the nearest, lambda 0.5, has cost 0.05",
        ),
        # 0.10 / 0.08 = 1.25 and 40 / 32 = 1.25 at lambda 0.1; elsewhere one bound is missed by more.
        (
            {"constraints": {"fid": 32, "cost": 0.081}},
            "register.constraints.fid <= 32 together with register.constraints.cost: the nearest, lambda 0.1, "
            "has fid 40",
        ),
    ],
)
def test_unmet_bounds_are_said_with_their_key_and_the_nearest(given: dict, said: str):
    with pytest.raises(UserError) as raised:
        choose(SWEEP, rules(**given))
    assert f"no generator on the front keeps to {said}" in str(raised.value)
    assert str(raised.value).endswith("; raise the bound, or train other lambdas.")


def test_what_was_not_measured_keeps_to_no_bound():
    rows = [one.model_copy(update={"seconds_per_image": None}) for one in SWEEP]
    with pytest.raises(UserError, match=r"lambda 0\.5, was not measured"):
        choose(rows, rules(constraints={"seconds_per_image": 1}))
    with pytest.raises(ValueError, match="without generators"):
        choose([], rules())


def test_the_rules_read_as_a_line():
    given = rules(front="points", constraints={"cost": 0.2}, champion={"rule": "cheapest-under", "fid": 35})
    assert describe(given) == (
        "cheapest-under of the front by points, with register.constraints.cost <= 0.2, and register.champion.fid <= 35"
    )
    assert describe(rules()) == "knee of the front by intervals"


def test_evaluations_are_told_apart_by_what_numbers_depend_on():
    metrics = Metrics(
        experiment="digits",
        seed=0,
        features=FeaturesRecord(name="classifier", sha256="c" * 64, dim=64),
        n_source=128,
        n_reference=256,
        rows=[],
    )
    today = evaluation_of(metrics, "a" * 64, "b" * 64)
    assert differences(today, evaluation_of(metrics, "a" * 64, "b" * 64)) == []
    assert differences(evaluation_of(metrics, "d" * 64, "b" * 64), today) == ["source_digest (dddddddd, now aaaaaaaa)"]
    for change in ({"seed": 1}, {"n_source": 64}, {"n_reference": 64}):
        (found,) = differences(evaluation_of(metrics.model_copy(update=change), "a" * 64, "b" * 64), today)
        assert found.startswith(next(iter(change)))
    other = metrics.model_copy(update={"features": FeaturesRecord(name="classifier", sha256="e" * 64, dim=64)})
    (found,) = differences(evaluation_of(other, "a" * 64, "b" * 64), today)
    assert found == "features (classifier:eeeeeeee, now classifier:cccccccc)"


def test_registered_are_the_generators_of_the_front_alone():
    sweep = [row(0.1, 1.0, 40.0, 0.01, 2.0), row(0.2, 1.1, 41.0, 0.01, 2.0), row(0.3, 2.0, 50.0, 0.01, 2.0)]
    rows = [
        *sweep,
        Row(method="sdedit", cost=0.1, fid=1.0),
        sweep[0].model_copy(update={"fid": None, "fid_ci": None}),
        sweep[0].model_copy(update={"cost": None}),
    ]
    assert registered(rows, "intervals") == [True, True, False, False, False, False]
    assert registered(rows, "points") == [True, False, False, False, False, False]
