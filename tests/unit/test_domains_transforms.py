"""Splits, hues, sizes, pixels and laws on the plane: the small pure parts of a domain."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest
import torch

from rdmd.config import Points
from rdmd.data.readers import points
from rdmd.data.splits import content_digest, fraction, splits_of
from rdmd.data.transforms import colour, fit, hues, to_uint8, to_unit

# --- splits -----------------------------------------------------------------------------------------------


def digests(count: int) -> list[str]:
    return [content_digest(np.full((2, 2), i)) for i in range(count)]


@pytest.mark.parametrize(
    ("count", "fraction_", "expected"),
    [(15, 0.4, 6), (10, 0.25, 3), (10, 0.24, 2), (5, 0.1, 1), (3, 0.01, 1), (2, 0.9, 1), (1, 0.5, 0), (0, 0.5, 0)],
)
def test_the_test_split_has_the_fraction_asked_for(count, fraction_, expected):
    assert splits_of(0, [(digest, None) for digest in digests(count)], fraction_).count("test") == expected


def test_a_split_depends_on_the_contents_of_a_class_and_not_on_their_order_or_other_classes():
    two, three = ([(digest, label) for digest in digests(60)[label::4]] for label in (2, 3))
    together = dict(zip([*two, *three], splits_of(0, [*two, *three], 0.2), strict=True))
    alone = dict(zip(two[::-1], splits_of(0, two[::-1], 0.2), strict=True))
    assert {content: together[content] for content in two} == alone
    assert list(together.values()).count("test") == 6
    assert splits_of(1, two, 0.2) != splits_of(0, two, 0.2)


def test_a_content_digest_sees_values_shape_and_type():
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    same = np.asfortranarray(array)
    others = [array + 1, array.reshape(4, 3), array.astype(np.int8)]
    assert content_digest(array) == content_digest(same)
    assert len({content_digest(array), *map(content_digest, others)}) == 4


def test_draws_for_different_purposes_are_independent():
    split = np.array([fraction(0, "split", digest) for digest in digests(2000)])
    limit = np.array([fraction(0, "limit", digest) for digest in digests(2000)])
    # The correlation of 2000 independent pairs has standard deviation 1/sqrt(2000) = 0.022; four of them.
    assert abs(np.corrcoef(split, limit)[0, 1]) < 0.09
    assert split.min() >= 0 and split.max() < 1 and abs(split.mean() - 0.5) < 4 * 0.289 / 2000**0.5


# --- hues -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [1, 2, 16, 360])
def test_the_hues_of_one_scan_are_evenly_spread_and_all_distinct(copies):
    spread = np.sort(hues(7, "some scan", copies))
    gaps = np.diff(np.append(spread, spread[0] + 1))
    assert np.allclose(gaps, 1 / copies, atol=1e-12)
    assert spread[0] >= 0 and spread[-1] < 1


def test_first_hues_are_uniform_over_scans():
    first = [hues(0, digest, 4)[0] for digest in digests(2000)]
    counts = np.histogram(first, bins=10, range=(0, 1))[0]
    # Chi-squared with 9 degrees of freedom exceeds 27.9 once in a thousand.
    assert ((counts - 200) ** 2 / 200).sum() < 27.9


def test_360_copies_of_a_bright_scan_are_360_images():
    scan = np.full((2, 2, 3), 255, np.uint8)
    assert len({colour(scan, hue).tobytes() for hue in hues(3, "x", 360)}) == 360


def test_colouring_is_grey_times_the_saturated_hue():
    grey = np.repeat(np.array([[0, 100, 255]], np.uint8)[..., None], 3, axis=2)
    assert colour(grey, 0.0).tolist() == [[[0, 0, 0], [100, 0, 0], [255, 0, 0]]]
    assert colour(grey, 1 / 3).tolist() == [[[0, 0, 0], [0, 100, 0], [0, 255, 0]]]
    # A twelfth of the circle past red: half green.
    assert colour(grey, 1 / 12).tolist() == [[[0, 0, 0], [100, 50, 0], [255, 128, 0]]]


# --- sizes ------------------------------------------------------------------------------------------------


def test_an_image_of_the_right_size_passes_untouched():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    assert fit(image, 8, "crop") is image and fit(image, 8, "pad") is image


@pytest.mark.parametrize("shape", [(16, 48), (48, 16)])
def test_crop_keeps_the_central_square(shape):
    image = np.zeros((*shape, 3), np.uint8)
    image[(slice(None), slice(16, 32)) if shape[1] == 48 else slice(16, 32)] = 200
    assert (fit(image, 8, "crop") == 200).all()


@pytest.mark.parametrize("shape", [(16, 64), (64, 16)])
def test_pad_keeps_everything_and_fills_with_white(shape):
    fitted = fit(np.full((*shape, 3), 40, np.uint8), 16, "pad")
    fitted = fitted if shape[1] == 64 else fitted.transpose(1, 0, 2)
    assert (fitted[6:10] == 40).all()
    assert (fitted[:6] == 255).all() and (fitted[10:] == 255).all()


def test_shrinking_does_not_alias():
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = fit(np.repeat(checks[..., None], 3, axis=2), 8, "crop")
    # The finest checkerboard has no content below the new Nyquist limit but its mean, 127.5; without
    # antialiasing each pixel would be 0 or 255. Inside, Lanczos leaves rounding; at the border its window is
    # cut off.
    assert np.abs(small[1:-1, 1:-1].astype(int) - 127.5).max() <= 2


def test_a_strip_stays_an_image():
    assert fit(np.full((8, 4000, 3), 9, np.uint8), 16, "pad").shape == (16, 16, 3)


# --- pixels -----------------------------------------------------------------------------------------------


def test_every_level_survives_the_way_to_unit_and_back():
    levels = torch.arange(256, dtype=torch.uint8)
    unit = to_unit(levels)
    assert unit[0] == -1 and unit[255] == 1 and torch.equal(to_uint8(unit), levels)


def test_values_beyond_the_range_are_clamped_and_nan_is_refused():
    assert to_uint8(torch.tensor([-1.2, 0.0, 1.004])).tolist() == [0, 128, 255]
    with pytest.raises(FloatingPointError, match="not finite"):
        to_uint8(torch.tensor([0.0, float("nan")]))


# --- laws on the plane ------------------------------------------------------------------------------------


def drawn(law: str, name: str, split: str, seed: int = 0, count: int = 20_000) -> np.ndarray:
    reading = points.read(Points(reader="points", path="p", law=law, train=count, test=count), name, seed)
    return np.stack([sample.array for sample in reading.items if sample.split == split])


def test_swissroll_is_scikit_learns():
    from sklearn.datasets import make_swiss_roll

    theirs = make_swiss_roll(1000, noise=0.5, random_state=3)[0][:, [0, 2]] / 7.5
    # The same draws in the same order; only the order of floating-point operations may differ.
    assert np.allclose(points.swissroll(np.random.RandomState(3), 1000), theirs, rtol=0, atol=1e-12)


def test_a_gaussian_has_the_mean_and_covariance_that_are_asked_for():
    count, covariance = 50_000, ((1.2, 0.6), (0.6, 0.6))
    domain = Points(reader="points", path="p", law="gaussian", mean=(1.0, -0.5), covariance=covariance)
    drawn = points.draw(domain, count, "test").astype(np.float64)
    # Four standard errors: sqrt(1.2 / N) of a mean, at most sqrt(2) 1.2 / sqrt(N) of a covariance.
    assert np.abs(drawn.mean(axis=0) - [1.0, -0.5]).max() < 4 * (1.2 / count) ** 0.5
    assert np.abs(np.cov(drawn.T) - covariance).max() < 4 * 2**0.5 * 1.2 / count**0.5


def test_the_standard_gaussian_is_the_plain_draw():
    domain = Points(reader="points", path="p", law="gaussian")
    hashed = hashlib.sha256(b"points:0:source:test").digest()
    plain = np.random.default_rng(int.from_bytes(hashed, "big")).standard_normal((5, 2)).astype(np.float32)
    assert np.array_equal(points.draw(domain, 5, 0, "source", "test"), plain)


def swissroll_variance() -> float:
    """E|x|^2 - |E x|^2 of the noiseless roll by quadrature, plus the noise's 2 * 0.5^2, over 7.5^2."""
    t = 1.5 * np.pi * (1 + 2 * (np.arange(1_000_000) + 0.5) / 1_000_000)
    x, y = t * np.cos(t), t * np.sin(t)
    return (np.mean(t**2) - x.mean() ** 2 - y.mean() ** 2 + 0.5) / 7.5**2


@pytest.mark.parametrize(
    ("law", "variance"), [("gaussian", 2.0), ("eight_gaussians", 4.08), ("swissroll", swissroll_variance())]
)
def test_total_variances(law, variance):
    cloud = drawn(law, "target", "train").astype(np.float64)
    deviation = np.square(cloud - cloud.mean(0)).sum(1)
    # Four standard errors of the mean square distance.
    assert abs(deviation.mean() - variance) < 4 * deviation.std() / len(cloud) ** 0.5


def test_the_swissrolls_documented_variance():
    assert swissroll_variance() == pytest.approx(1.65, abs=0.005)


def test_eight_gaussians_have_eight_equal_modes():
    cloud = drawn("eight_gaussians", "target", "train")
    centres = 2 * np.stack([(np.cos(a), np.sin(a)) for a in np.arange(8) * np.pi / 4])
    distances = np.linalg.norm(cloud[:, None] - centres, axis=2)
    counts = np.bincount(distances.argmin(1), minlength=8)
    # Chi-squared with 7 degrees of freedom exceeds 24.3 once in a thousand.
    assert ((counts - 2500) ** 2 / 2500).sum() < 24.3
    # Centres are 1.53 apart, so the radius is Rayleigh(0.2), almost unclipped: mean square 2 * 0.2^2.
    assert np.square(distances.min(1)).mean() == pytest.approx(0.08, rel=0.03)


def test_draws_repeat_and_differ_between_domains_splits_and_seeds():
    clouds = [
        drawn("gaussian", "source", "train", count=50),
        drawn("gaussian", "source", "test", count=50),
        drawn("gaussian", "target", "train", count=50),
        drawn("gaussian", "source", "train", seed=1, count=50),
    ]
    assert np.array_equal(clouds[0], drawn("gaussian", "source", "train", count=50))
    assert all(not np.isin(a, b).any() for a, b in pairwise([*clouds, clouds[0]]))
    assert clouds[0].dtype == np.float32
