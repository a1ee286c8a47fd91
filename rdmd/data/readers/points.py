"""Laws on the plane, sampled. One draw is float32 (2,).

The draws are a function of (seed, domain, split): train and test differ, and so do a source and a target of
one law.
"""

import hashlib
from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np

from rdmd.config import Points
from rdmd.data.samples import SPLITS, Reading, Sample, Split

Rng = np.random.Generator | np.random.RandomState


def gaussian(rng: Rng, count: int) -> np.ndarray:
    """N(0, I), (count, 2). Total variance 2. `draw` gives it the domain's mean and covariance."""
    return rng.standard_normal((count, 2))


def eight_gaussians(rng: Rng, count: int) -> np.ndarray:
    """Eight Gaussians of standard deviation 0.2 on a circle of radius 2, equally likely, (count, 2).

    The centres are 2 (cos k pi/4, sin k pi/4), k = 0..7. Total variance 2^2 + 2 * 0.2^2 = 4.08.
    """
    angle = np.floor(8 * rng.uniform(size=count)) * (np.pi / 4)
    centres = 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return centres + 0.2 * rng.standard_normal((count, 2))


def swissroll(rng: Rng, count: int) -> np.ndarray:
    """The plane of scikit-learn's Swiss roll: `make_swiss_roll(noise=0.5)[:, [0, 2]] / 7.5`, (count, 2).

    t (cos t, sin t) with t = 3/2 pi (1 + 2u), u uniform, plus N(0, 0.5^2 I), all over 7.5. Total variance
    1.65. The draws come in scikit-learn's order (the roll's third dimension included), so equal states give
    equal points.
    """
    t = 1.5 * np.pi * (1 + 2 * rng.uniform(size=count))
    rng.uniform(size=count)
    noise = rng.standard_normal((3, count))
    roll = np.stack([t * np.cos(t) + 0.5 * noise[0], t * np.sin(t) + 0.5 * noise[2]], axis=1)
    return roll / 7.5


LAWS: dict[str, Callable[[Rng, int], np.ndarray]] = {
    "gaussian": gaussian,
    "eight_gaussians": eight_gaussians,
    "swissroll": swissroll,
}


def read(domain: Points, name: str, seed: int) -> Reading:
    """`domain.train` and `domain.test` draws of `domain.law` for the domain `name` (source, target)."""
    counts: dict[Split, int] = {"train": domain.train, "test": domain.test}
    parts = (_samples(domain, name, split, counts[split], seed) for split in SPLITS)
    return Reading(sum(counts.values()), chain.from_iterable(parts))


def draw(domain: Points, count: int, *purpose: str | int) -> np.ndarray:
    """`count` points of the domain's law, (count, 2) float32: a function of the law and `purpose`."""
    hashed = hashlib.sha256(":".join(map(str, ("points", *purpose))).encode()).digest()
    points = LAWS[domain.law](np.random.default_rng(int.from_bytes(hashed, "big")), count)
    if domain.law == "gaussian":
        points = np.array(domain.mean) + points @ np.linalg.cholesky(np.array(domain.covariance)).T
    return points.astype(np.float32)


def _samples(domain: Points, name: str, split: Split, count: int, seed: int) -> Iterator[Sample]:
    for index, point in enumerate(draw(domain, count, seed, name, split)):
        yield Sample(f"{domain.law}/{split}[{index}]", point, split=split)
