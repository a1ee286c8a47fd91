"""FID, KID, precision and recall against torch-fidelity on the same features, and against closed forms."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from rdmd.evaluation import realism


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Thousands of tiny matrices: twenty times slower on two threads when the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def features() -> tuple[Tensor, Tensor]:
    """Correlated, shifted features of unequal counts, some of them repeated."""
    rng = torch.Generator().manual_seed(0)
    mix = torch.randn(24, 24, generator=rng, dtype=torch.float64) / 5
    generated = torch.randn(300, 24, generator=rng, dtype=torch.float64) @ mix + 0.4
    reference = torch.randn(420, 24, generator=rng, dtype=torch.float64) @ (mix + 0.05)
    generated[:20] = reference[:20]
    return generated, reference


def test_fid_is_torch_fidelitys(features: tuple[Tensor, Tensor]) -> None:
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    theirs = fid_statistics_to_metric(*(fid_features_to_statistics(side) for side in features), verbose=False)
    # Both in float64; theirs takes roots of a non-symmetric product's eigenvalues, ours of a symmetric one's.
    assert realism.fid(*features) == pytest.approx(theirs[KEY_METRIC_FID], rel=1e-9)


def test_fid_agrees_where_the_covariance_is_rank_deficient() -> None:
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    rng = torch.Generator().manual_seed(1)
    few = torch.randn(20, 64, generator=rng, dtype=torch.float64)
    more = torch.randn(30, 64, generator=rng, dtype=torch.float64) * 1.5
    theirs = fid_statistics_to_metric(fid_features_to_statistics(few), fid_features_to_statistics(more), False)
    # Eigenvalues that should be zero are rounding errors near 1e-15, whose roots are near 3e-8, times 64 of them.
    assert realism.fid(few, more) == pytest.approx(theirs[KEY_METRIC_FID], abs=1e-5)
    by_moments = realism.frechet_distance(realism.moments(few), realism.moments(more))
    assert realism.fid(few, more) == pytest.approx(by_moments, abs=1e-5)


def test_the_interval_of_few_samples_is_that_of_their_moments() -> None:
    rng = torch.Generator().manual_seed(1)
    few, more = (torch.randn(count, 64, generator=rng, dtype=torch.float64) for count in (20, 30))
    groups = realism.Groups(torch.arange(20) // 2, torch.arange(30))
    found = realism.fid_interval(few, more, 20, 0, groups)
    resampled = [
        realism.frechet_distance(realism.moments(few[draw]), realism.moments(more[other]))
        for draw, other in _draws(groups, 20)
    ]
    expected = realism.centred_interval(realism.fid(few, more), torch.tensor(resampled, dtype=torch.float64))
    # The bound on rounding of the test above.
    assert found == pytest.approx(expected, abs=1e-5)


def _draws(groups: realism.Groups, resamples: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The samples, by index and repeated, of each resample of `fid_interval` at seed 0."""
    rng = torch.Generator().manual_seed(0)
    for _ in range(resamples):
        sides = []
        for group in (groups.generated, groups.reference):
            count = int(group.max()) + 1
            drawn = torch.randint(count, (count,), generator=rng)
            sides.append(torch.cat([(group == one).nonzero()[:, 0] for one in drawn]))
        yield sides[0], sides[1]


def test_frechet_distance_of_commuting_gaussians_has_a_closed_form() -> None:
    mean_1, mean_2 = torch.tensor([1.0, 2.0]).double(), torch.tensor([0.0, -1.0]).double()
    angle = torch.tensor(0.7, dtype=torch.float64)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    cov_1 = turn @ torch.diag(torch.tensor([4.0, 0.25]).double()) @ turn.T
    cov_2 = turn @ torch.diag(torch.tensor([1.0, 9.0]).double()) @ turn.T
    expected = (1 + 9) + (2 - 1) ** 2 + (0.5 - 3) ** 2
    found = realism.frechet_distance(realism.Moments(mean_1, cov_1), realism.Moments(mean_2, cov_2))
    assert found == pytest.approx(expected, rel=1e-12)


def test_fid_of_a_set_with_itself_is_zero(features: tuple[Tensor, Tensor]) -> None:
    # tr A + tr B - 2 tr (AB)^(1/2) cancels values of order one, in float64.
    assert realism.fid(features[0], features[0]) == pytest.approx(0.0, abs=1e-8)


def test_kid_on_whole_sets_is_torch_fidelitys(features: tuple[Tensor, Tensor]) -> None:
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    generated, reference = features[0], features[1][:300]
    theirs = kid_features_to_metric(generated, reference, kid_subsets=1, kid_subset_size=300, verbose=False)
    ours = realism.kid(generated, reference, seed=0)
    assert ours.mean == pytest.approx(theirs[KEY_METRIC_KID_MEAN], rel=1e-9)
    assert ours.std == 0.0


def test_kid_over_subsets_agrees_with_torch_fidelity_up_to_the_draw(features: tuple[Tensor, Tensor]) -> None:
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    theirs = kid_features_to_metric(*features, kid_subsets=100, kid_subset_size=300, verbose=False)
    ours = realism.kid(*features, seed=0)
    # Each is a mean over 100 subsets, drawn by different generators: four standard errors of the difference.
    spread = theirs[KEY_METRIC_KID_STD]
    assert abs(ours.mean - theirs[KEY_METRIC_KID_MEAN]) < 4 * spread * math.sqrt(2 / 100)
    # A standard deviation from 100 draws is within 30% of another but once in thousands of times.
    assert ours.std == pytest.approx(spread, rel=0.3)


def test_kid_is_unbiased() -> None:
    rng = torch.Generator().manual_seed(2)
    values = [realism.kid(*torch.randn(2, 60, 4, generator=rng).double(), seed=0).mean for _ in range(300)]
    mean, spread = torch.tensor(values).mean().item(), torch.tensor(values).std().item()
    assert abs(mean) < 4 * spread / math.sqrt(300)
    assert min(values) < 0


def test_kid_of_copies_is_unbiased() -> None:
    """Six near-copies of each of 20 draws: pairs of copies would add about (1 - 0.9) of the kernel's diagonal."""
    rng = torch.Generator().manual_seed(3)
    groups = torch.arange(20).repeat_interleave(6)

    def one(grouped: bool) -> float:
        sets = [torch.randn(20, 4, generator=rng)[groups] + 0.1 * torch.randn(120, 4, generator=rng) for _ in range(2)]
        return realism.kid(*sets, seed=0, groups=realism.Groups(groups, groups) if grouped else None).mean

    values, naive = (torch.tensor([one(grouped) for _ in range(200)]) for grouped in (True, False))
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(200)
    assert naive.mean() > 10 * naive.std() / math.sqrt(200), "as if copies were independent"
    with pytest.raises(ValueError, match="two or more groups"):
        realism.kid(*torch.randn(2, 9, 4), seed=0, groups=realism.Groups(torch.zeros(9).long(), torch.arange(9)))


def test_precision_and_recall_are_torch_fidelitys(features: tuple[Tensor, Tensor]) -> None:
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    theirs = prc_features_to_metric(
        *features, prc_neighborhood=3, prc_batch_size=10000, save_cpu_ram=False, verbose=False
    )
    ours = realism.precision_recall(*features)
    assert ours.precision == pytest.approx(theirs[KEY_METRIC_PRECISION], abs=1e-6)  # theirs is a float32 mean
    assert ours.recall == pytest.approx(theirs[KEY_METRIC_RECALL], abs=1e-6)
    assert 0 < ours.precision < 1
    assert ours.precision != ours.recall


def test_precision_and_recall_tell_lost_modes_from_bad_samples() -> None:
    rng = torch.Generator().manual_seed(3)
    left, right = torch.randn(2, 200, 2, generator=rng).double() * 0.1
    both = torch.cat([left, right + 10])
    one_mode = realism.precision_recall(torch.randn(200, 2, generator=rng).double() * 0.1, both)
    assert one_mode.precision > 0.9
    assert one_mode.recall < 0.55
    stray = realism.precision_recall(both, left)
    assert stray.precision < 0.55


def _hard_to_tell_in_float32(kind: str) -> Tensor:
    """Features (600, 8) whose distances float32 rounds beyond recognition, and easy ones beside them."""
    rng = torch.Generator().manual_seed(len(kind))
    x = torch.randn(600, 8, generator=rng, dtype=torch.float64)
    if kind == "far from the origin":
        return x + 1e5
    if kind == "an outlier":
        x[0] *= 1e4
    if kind == "near copies":
        x = x[torch.arange(600) // 20] + 2e-4 * torch.randn(600, 8, generator=rng, dtype=torch.float64)
    return x


@pytest.mark.parametrize("kind", ["plain", "far from the origin", "an outlier", "near copies"])
def test_float32_decides_nothing_that_it_cannot_tell(kind: str) -> None:
    """The definition in float64, from differences of coordinates."""
    reference = _hard_to_tell_in_float32(kind)
    rng = torch.Generator().manual_seed(0)
    nudge = 2e-4 if kind == "near copies" else 0.5
    generated = reference + nudge * torch.randn(reference.shape, generator=rng, dtype=torch.float64)

    def share(samples: Tensor, manifold: Tensor) -> float:
        exact = "donot_use_mm_for_euclid_dist"
        radii = torch.cdist(manifold, manifold, compute_mode=exact).fill_diagonal_(torch.inf).kthvalue(3, dim=1).values
        return (torch.cdist(samples, manifold, compute_mode=exact) <= radii).any(dim=1).double().mean().item()

    told = realism.precision_recall(generated, reference)
    assert (told.precision, told.recall) == (share(generated, reference), share(reference, generated))


@pytest.mark.parametrize(("dim", "count"), [(7, 33), (64, 2), (513, 7), (2048, 7)])
def test_precision_counts_equal_samples_as_inside(dim: int, count: int) -> None:
    """Where a sample has copies its ball has radius zero, and holds its equals in spite of rounding."""
    rng = torch.Generator().manual_seed(6)
    apart = 1e3 * torch.rand(150, dim, generator=rng, dtype=torch.float64)
    copies = apart.repeat(5, 1)
    assert realism.precision_recall(apart[:count].repeat(2, 1)[: max(count, 4)], copies).precision == 1.0
    assert realism.precision_recall(apart[:count].repeat(2, 1)[: max(count, 4)] + 1, copies).precision == 0.0


def test_bootstrap_interval_covers_the_fid_expected_at_these_sizes() -> None:
    """Sets of 100 from N(0, I) and N((1, 0), I): does the interval hold the mean FID over such sets?"""
    rng = torch.Generator().manual_seed(4)
    shift = torch.tensor([1.0, 0.0]).double()

    def draw() -> tuple[Tensor, Tensor]:
        return torch.randn(100, 2, generator=rng).double() + shift, torch.randn(100, 2, generator=rng).double()

    expected = sum(realism.fid(*draw()) for _ in range(2000)) / 2000
    trials = 100
    covered = 0
    for trial in range(trials):
        low, high = realism.fid_interval(*draw(), resamples=60, seed=trial)
        covered += low <= expected <= high
    # The binomial deviation of 100 trials at 95% is 2%; 60 resamples and the bootstrap itself cost a few percent.
    assert 0.88 <= covered / trials <= 0.995


def test_bootstrap_interval_holds_the_estimate_although_resamples_are_biased() -> None:
    rng = torch.Generator().manual_seed(5)
    generated, reference = torch.randn(2, 80, 16, generator=rng).double()
    low, high = realism.fid_interval(generated, reference, resamples=100, seed=0)
    assert low < realism.fid(generated, reference) < high
    assert realism.fid_interval(generated, reference, resamples=100, seed=0) == (low, high)


@pytest.mark.parametrize("shape", [(1, 4), (5,), (3, 2, 2)])
def test_what_is_no_set_of_features_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="N >= 2"):
        realism.moments(torch.zeros(shape))


def copies(scans: int, each: int, spread: float, seed: int) -> tuple[Tensor, Tensor]:
    """Features (scans * each, 4) in tight groups around N(0, I), and the group of each."""
    rng = torch.Generator().manual_seed(seed)
    centres = torch.randn(scans, 4, generator=rng, dtype=torch.float64)
    groups = torch.arange(scans).repeat_interleave(each)
    return centres[groups] + spread * torch.randn(scans * each, 4, generator=rng, dtype=torch.float64), groups


def test_copies_of_a_scan_do_not_shrink_the_manifold() -> None:
    """Two sets of one law, each of 60 scans in 20 tight copies: neighbours of the same scan would leave hardly
    anything covered."""
    (generated, mine), (reference, theirs) = copies(60, 20, 0.001, seed=7), copies(60, 20, 0.001, seed=8)
    told = realism.precision_recall(generated, reference, realism.Groups(mine, theirs))
    assert realism.precision_recall(generated, reference).precision < 0.05
    # With one sample a scan the same two sets have nothing to do with copies: there the usual definition holds.
    alone = realism.precision_recall(generated[::20], reference[::20])
    # A scan's copies count as neighbours of others up to three times at once, so balls reach the nearest scan, not
    # the third: the cover is smaller than without copies, of the same order.
    assert 0.3 * alone.precision < told.precision <= alone.precision
    assert 0.3 * alone.recall < told.recall <= alone.recall


def test_the_interval_of_copies_is_as_wide_as_that_of_their_scans() -> None:
    (generated, mine), (reference, theirs) = copies(40, 25, 0.01, seed=9), copies(40, 25, 0.01, seed=10)
    groups = realism.Groups(mine, theirs)
    low, high = realism.fid_interval(generated, reference, resamples=200, seed=0, groups=groups)
    naive = realism.fid_interval(generated, reference, resamples=200, seed=0)
    alone = realism.fid_interval(generated[::25], reference[::25], resamples=200, seed=0)
    # 25 copies carry no more than one: the naive interval is too narrow by sqrt(25), and 200 resamples give a width
    # to about 10%.
    assert high - low == pytest.approx(alone[1] - alone[0], rel=0.3)
    assert naive[1] - naive[0] < 0.4 * (high - low)
