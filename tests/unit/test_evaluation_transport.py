"""Transport between samples against POT, between Gaussians against the Bures-Wasserstein closed forms."""

import math

import pytest
import torch
from torch import Tensor

from rdmd.evaluation import transport
from rdmd.evaluation.realism import Moments, frechet_distance


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_exact_cost_and_plan_are_pots_dense_solvers() -> None:
    import ot

    x, y = normal(60, 3, 0), 0.5 * normal(45, 3, 1) + 1
    matrix = ot.dist(x.numpy(), y.numpy())
    plan = torch.from_numpy(ot.emd([], [], matrix))
    found = transport.exact_plan(x, y)
    assert found.cost == pytest.approx(float((plan * torch.from_numpy(matrix)).sum()), rel=1e-9)
    assert torch.allclose(found.barycentres, (plan @ y) * 60, atol=1e-9)


def test_exact_map_of_a_shuffled_shift_undoes_the_shuffle() -> None:
    x = normal(50, 2, 2)
    shift = torch.tensor([0.7, -0.3]).double()
    shuffled = (x + shift)[torch.randperm(50, generator=torch.Generator().manual_seed(0))]
    assert torch.allclose(transport.exact_plan(x, shuffled).barycentres, x + shift)
    assert transport.w2(x, shuffled) == pytest.approx(shift.norm().item())
    assert transport.exact_plan(x, shuffled).cost == pytest.approx(0.58)


def test_one_dimensional_distance_is_that_of_sorted_samples() -> None:
    x, y = normal(40, 1, 3), 2 * normal(40, 1, 4) + 1
    expected = (x.sort(dim=0).values - y.sort(dim=0).values).square().mean().sqrt().item()
    assert transport.w2(x, y) == pytest.approx(expected)
    # On a line every direction is +1 or -1.
    assert transport.sliced_w2(x, y, projections=5, seed=0) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "m"), [(30, 30), (30, 40), (40, 30), (7, 5)])
def test_sliced_distance_is_pots_for_equal_and_unequal_sizes(n: int, m: int) -> None:
    import ot

    x, y = normal(n, 3, 5), 1.5 * normal(m, 3, 6) + 0.2
    directions = torch.nn.functional.normalize(
        torch.randn(3, 16, generator=torch.Generator().manual_seed(9), dtype=torch.float64), dim=0
    )
    theirs = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=directions.numpy())
    assert transport.sliced_w2(x, y, projections=16, seed=9) == pytest.approx(float(theirs), rel=1e-9)


def test_sliced_distance_of_a_shift_has_a_closed_form() -> None:
    """A shift by v on the plane: the mean over directions of (v.u)^2 is |v|^2 / 2."""
    x = normal(200, 2, 7)
    found = transport.sliced_w2(x, x + torch.tensor([3.0, 4.0]).double(), projections=4000, seed=0)
    # (v.u)^2 has relative deviation 1/sqrt(2) over directions; four standard errors of 4000, halved by the root.
    assert found == pytest.approx(5 / math.sqrt(2), rel=4 * 0.71 / math.sqrt(4000) / 2)


def test_sliced_interval_holds_the_estimate_and_narrows_with_samples() -> None:
    def width(n: int) -> float:
        x, y = normal(n, 2, 8), normal(n, 2, 9) + 1
        low, high = transport.sliced_w2_interval([(x, y)], projections=32, resamples=60, seed=0)
        assert low < transport.sliced_w2(x, y, 32, 0) < high
        return high - low

    # Sixteen times the samples, a quarter of the width; 60 resamples leave a width uncertain by a fifth or so.
    assert width(1600) == pytest.approx(width(100) / 4, rel=0.5)


def test_sliced_interval_of_a_mean_over_pairs_is_that_of_a_mean() -> None:
    pairs = [(normal(200, 2, 20 + i), normal(200, 2, 40 + i) + 1) for i in range(9)]

    def width(some: list) -> float:
        low, high = transport.sliced_w2_interval(some, projections=32, resamples=60, seed=0)
        return high - low

    # The mean of nine independent distances has a third of the spread; 60 resamples know a width to about a fifth.
    assert width(pairs) == pytest.approx(width(pairs[:1]) / 3, rel=0.5)


def test_resampling_without_sorting_anew_is_resampling() -> None:
    x = normal(30, 2, 10)
    directions = torch.eye(2, dtype=torch.float64)
    values, order = (directions @ x.T).sort(dim=1)
    drawn = torch.randint(30, (30,), generator=torch.Generator().manual_seed(3))
    found = transport._resampled_sorted(values, order, torch.Generator().manual_seed(3))
    assert torch.equal(found, (directions @ x[drawn].T).sort(dim=1).values)


def test_affine_map_carries_one_gaussian_onto_the_other_at_the_bures_cost() -> None:
    factor_1, factor_2 = normal(3, 3, 11), normal(3, 3, 12)
    cov_1, cov_2 = factor_1 @ factor_1.T + 0.1 * torch.eye(3), factor_2 @ factor_2.T
    mean_1, mean_2 = normal(2, 3, 13)
    monge = transport.affine_monge_map(mean_1, cov_1, mean_2, cov_2)
    assert torch.allclose(monge.matrix @ cov_1 @ monge.matrix.T, cov_2, atol=1e-9)
    assert torch.allclose(monge.matrix, monge.matrix.T, atol=1e-9)
    assert torch.linalg.eigvalsh(monge.matrix).min() > -1e-9
    assert torch.allclose(monge(mean_1[None])[0], mean_2)
    # E|x - Tx|^2 over N(mean_1, cov_1), which must be the squared Bures-Wasserstein distance.
    rest = torch.eye(3, dtype=torch.float64) - monge.matrix
    cost = (rest @ cov_1 @ rest.T).trace() + (mean_1 - mean_2).square().sum()
    assert cost.item() == pytest.approx(frechet_distance(Moments(mean_1, cov_1), Moments(mean_2, cov_2)))


def test_discrete_map_nears_the_affine_one_between_gaussians() -> None:
    zero, cov_1 = torch.zeros(2).double(), torch.eye(2).double()
    cov_2 = torch.tensor([[0.6, 0.2], [0.2, 0.3]]).double()
    monge = transport.affine_monge_map(zero, cov_1, zero, cov_2)
    x, target = normal(1000, 2, 14), monge(normal(1000, 2, 15))
    # Over a dozen draws of 1,000 points: 1.8% with deviation 0.3%; the identity is at 38%.
    plan = transport.exact_plan(x, target)
    assert transport.l2_uvp(plan.barycentres, monge(x), target) < 3
    # Over the same draws: biased upward by 0.03, with deviation 0.04.
    closed_form = frechet_distance(Moments(zero, cov_1), Moments(zero, cov_2))
    assert plan.cost == pytest.approx(closed_form + 0.03, abs=0.16)


def test_uvp_of_the_exact_map_of_the_identity_and_of_a_constant() -> None:
    x = normal(4000, 2, 16)
    target = 3 * x + 1
    assert transport.l2_uvp(target, target, target) == 0.0
    # G = id, G* = 3x + 1: E|2x + 1|^2 / Var(3x + 1) = (4 * 2 + 2) / 18 in the limit; the sample's moments in place.
    expected = 100 * (2 * x + 1).square().sum(dim=1).mean().item() / target.var(dim=0).sum().item()
    assert transport.l2_uvp(x, target, target) == pytest.approx(expected)
    assert expected == pytest.approx(100 * 10 / 18, rel=0.1)
    mean = target.mean(dim=0).expand_as(target)
    # The mean squared distance has N in the denominator, the variance N - 1.
    assert transport.l2_uvp(mean, target, target) == pytest.approx(100 * 3999 / 4000)


def test_a_point_that_is_not_finite_stops_the_measuring() -> None:
    broken = normal(10, 2, 17)
    broken[3, 1] = math.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        transport.sliced_w2(broken, normal(10, 2, 18), 4, 0)
