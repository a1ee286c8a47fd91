"""Means over seeds, hypervolumes, bettered shares and drift of the studies, on rows made by hand."""

import statistics

import pytest
import torch

from rdmd import config
from rdmd.evaluation.row import Row
from studies.points import affine_plan
from studies.report import write_report
from studies.statistics import bettered, hypervolumes, reference_point, summarise, table
from tests.conftest import params, tiny_points


def rows(*given: tuple[int, Row], **added: float) -> list[dict]:
    return [{**row.model_dump(mode="json", by_alias=True), "seed": seed, "drift": None, **added} for seed, row in given]


def generator(lam: float, cost: float, fid: float) -> Row:
    return Row(method="rdmd", lam=lam, nfe=1, cost=cost, fid=fid)


def test_front_of_a_hand_example() -> None:
    """Reference (1, 10). RDMD at (0.2, 4) and (0.6, 2): 0.8 * 6 + 0.4 * 2 = 5.6. SDEdit at (0.5, 5): 0.5 * 5 = 2.5."""
    frame = table(rows(
        (0, Row(method="identity", cost=0.0, fid=10.0)),
        (0, generator(0.5, 0.2, 4.0)),
        (0, generator(0.1, 0.6, 2.0)),
        (0, Row(method="sdedit", settings={"sigma": 1.0}, nfe=19, cost=0.5, fid=5.0)),
        (0, Row(method="ilvr", settings={"factor": 2}, nfe=20, cost=0.1, fid=8.0)),
        (0, Row(method="ilvr", settings={"factor": 4}, nfe=20, cost=0.6, fid=2.0)),
        (0, Row(method="ilvr", settings={"factor": 8}, nfe=20, cost=0.7, fid=2.0)),
    ))  # fmt: skip
    volumes = hypervolumes(frame, (1.0, 10.0), "method")
    assert volumes.loc["rdmd", 0] == pytest.approx(5.6)
    assert volumes.loc["sdedit", 0] == pytest.approx(2.5)
    assert "identity" not in volumes.index
    # Bettered: SDEdit's point and ILVR's last (as realistic, dearer). Not: the cheaper one, and the equal one.
    theirs = bettered(frame)
    assert [row["factor"] for row in theirs[~theirs["bettered"]]["settings"]] == [2, 4]
    assert theirs["bettered"].tolist() == [True, False, False, True]


def test_a_generator_of_one_seed_betters_no_point_of_another() -> None:
    sdedit = Row(method="sdedit", nfe=19, cost=0.5, fid=5.0)
    frame = table(rows((0, generator(0.1, 0.1, 1.0)), (0, sdedit), (1, generator(0.1, 0.6, 1.0)), (1, sdedit)))
    assert dict(bettered(frame)[["seed", "bettered"]].to_numpy().tolist()) == {0: True, 1: False}


def test_a_point_is_bettered_beyond_intervals_where_both_are_apart() -> None:
    ours = Row(method="rdmd", lam=0.1, nfe=1, cost=0.1, cost_se=0.01, fid=4.0, fid_ci=(3.0, 5.0))
    theirs = [
        Row(method="ilvr", nfe=9, cost=cost, cost_se=0.01, fid=fid, fid_ci=(fid - 1, fid + 1))
        for cost, fid in ((0.2, 7.0), (0.13, 7.0), (0.2, 5.5))
    ]
    frame = table(rows((0, ours), *((0, one) for one in theirs)))
    # The second is within 1.96 standard errors of both costs, the third within the intervals of FID.
    assert bettered(frame)["bettered"].tolist() == [True, True, True]
    assert bettered(frame)["apart"].tolist() == [True, False, False]


def test_the_reference_point_is_the_mean_over_seeds() -> None:
    by_seed = [{"seed": 0, "cost": 0.9, "fid": 8.0}, {"seed": 1, "cost": 1.1, "fid": 12.0}]
    assert reference_point({"front": {"reference_by_seed": by_seed}}) == (pytest.approx(1.0), 10.0)
    frame = table(rows((0, generator(0.1, 0.5, 5.0)), (1, generator(0.1, 0.5, 7.0))))
    assert hypervolumes(frame, (1.0, 10.0), "method").loc["rdmd"].tolist() == [pytest.approx(2.5), pytest.approx(1.5)]


def test_summaries_are_the_mean_and_deviation_over_seeds() -> None:
    frame = table(rows(
        (0, generator(0.1, 0.5, 5.0)), (1, generator(0.1, 0.6, 7.0)), (2, generator(0.1, 0.7, 6.0)),
        (0, generator(0.2, 0.4, 8.0)),
    ))  # fmt: skip
    summary = summarise(frame).set_index("lambda")
    assert summary["seeds"].to_dict() == {0.1: 3, 0.2: 1}
    assert summary.loc[0.1, "fid"] == pytest.approx(6.0)
    assert summary.loc[0.1, "cost_std"] == pytest.approx(statistics.stdev([0.5, 0.6, 0.7]))
    assert summary.loc[[0.2], "fid_std"].isna().all()
    assert summary["sw2"].isna().all()


def test_a_cost_above_exact_transport_is_called_drift() -> None:
    def row(seed: int, lam: float, cost: float) -> dict:
        made = Row(method="rdmd", lam=lam, nfe=1, sw2=0.1, ot_cost=0.25, cost=cost, cost_sum=2 * cost)
        (found,) = rows((seed, made), over_exact=2 * cost / 0.25 - 1)
        return found | {"drift": 2 * cost > 0.25}

    summary = summarise(table([
        row(0, 0.1, 0.12), row(1, 0.1, 0.15),  # above in the mean, by less than the seeds differ
        row(0, 0.01, 0.14), row(1, 0.01, 0.141),  # above at both
        row(0, 0.02, 0.12), row(0, 0.03, 0.14),  # one seed
    ]))  # fmt: skip
    assert dict(zip(summary["lambda"], summary["drifted"], strict=True)) == {
        0.1: False, 0.01: True, 0.02: False, 0.03: True
    }  # fmt: skip


def test_between_gaussians_the_exact_map_is_affine() -> None:
    """N(0, I) to N(m, S): x -> m + S^(1/2) x, at cost |m|^2 + tr(S) + d - 2 tr S^(1/2) (Bures and Wasserstein)."""
    points = {"reader": "points", "path": "x", "law": "gaussian"}
    covariance = torch.tensor([[1.2, 0.6], [0.6, 0.6]], dtype=torch.float64)
    domains = config.Domains.model_validate(
        {"source": points, "target": points | {"mean": [1.0, -0.5], "covariance": covariance.tolist()}}
    )
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.sqrt() @ vectors.T
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    plan = affine_plan(domains, x)
    expected = torch.tensor([1.0, -0.5]) + x.double() @ root.T
    assert torch.allclose(plan.barycentres, expected, atol=1e-9)  # float64 through two eigendecompositions
    assert plan.cost == pytest.approx(1.25 + 1.8 + 2 - 2 * root.trace().item(), rel=1e-9)
    assert affine_plan(config.parse(params("swissroll", tiny_points), "tiny").domains, x) is None


def test_a_report_without_results_names_the_remedy(tmp_path) -> None:
    from rdmd.errors import UserError

    with pytest.raises(UserError, match="run a study first"):
        write_report(tmp_path)
    (tmp_path / "gaussian.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="is damaged"):
        write_report(tmp_path)
