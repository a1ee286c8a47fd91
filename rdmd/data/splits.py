"""Train or test, decided by a sample's content and not by its name or place.

The samples of a class are ranked by a hash of (seed, content), and the first of them are test samples. Names and the
order of listing therefore have no influence, exact duplicates are never in both splits, and new samples move only those
whose rank is next to the bound. Every class is ranked by itself, so a scan is in the same split of every domain that
holds all of its class.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from rdmd.data.samples import Split


def content_digest(array: np.ndarray) -> str:
    """SHA-256, in hex, of an array's type, shape and values."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(array.tobytes())
    return digest.hexdigest()


def fraction(seed: int, purpose: str, digest: str) -> float:
    """A number in [0, 1), uniform over contents and independent between purposes."""
    hashed = hashlib.sha256(f"{purpose}:{seed}:{digest}".encode()).digest()
    return (int.from_bytes(hashed[:8], "big") >> 11) / 2**53


def splits_of(seed: int, contents: Sequence[tuple[str, Hashable]], test_fraction: float) -> list[Split]:
    """The split of each (digest, class); the class of unlabelled samples is None.

    Of every class, `held_out` samples are test samples: those of the lowest hash.
    """
    classes = defaultdict(list)
    for index, (digest, label) in enumerate(contents):
        classes[label].append((fraction(seed, "split", digest), digest, index))
    splits: list[Split] = ["train"] * len(contents)
    for ranked in classes.values():
        for _, _, index in sorted(ranked)[: held_out(len(ranked), test_fraction)]:
            splits[index] = "test"
    return splits


def held_out(count: int, test_fraction: float) -> int:
    """How many of `count` samples are test samples: the fraction, rounded half up, but one at least, and one at most
    less than all. A single sample is for training."""
    if count < 2:
        return 0
    return min(max(math.floor(count * test_fraction + 0.5), 1), count - 1)
