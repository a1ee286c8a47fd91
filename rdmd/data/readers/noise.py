"""Gaussian noise of an experiment's sample shape: where DMD's one-step generator starts."""

import hashlib
from collections.abc import Iterator
from itertools import chain

import numpy as np

from rdmd.config import Noise
from rdmd.data.samples import SPLITS, Reading, Sample, Split


def read(domain: Noise, shape: tuple[int, ...], name: str, seed: int) -> Reading:
    """`domain.train` and `domain.test` draws of N(0, std^2 I), float32, for the domain `name`.

    `shape` is that of a stored sample: (H, W, 3) or (2,). The draws are a function of (seed, domain, split).
    """
    counts: dict[Split, int] = {"train": domain.train, "test": domain.test}
    parts = (_draw(domain.std, shape, name, split, counts[split], seed) for split in SPLITS)
    return Reading(sum(counts.values()), chain.from_iterable(parts))


def _draw(std: float, shape: tuple[int, ...], name: str, split: Split, count: int, seed: int) -> Iterator[Sample]:
    hashed = hashlib.sha256(f"noise:{seed}:{name}:{split}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(hashed, "big"))
    for index in range(count):
        draw = (std * rng.standard_normal(shape)).astype(np.float32)
        yield Sample(f"noise/{split}[{index}]", draw, split=split)
