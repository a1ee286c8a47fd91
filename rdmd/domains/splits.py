"""Train or test, decided by what a sample is rather than by its name or place.

The decision is a hash of (seed, content). The same scan therefore lands in the same split of every domain it
is used in, exact duplicates never straddle the two, and adding or renaming files moves none of the others.
"""

import hashlib

import numpy as np

from rdmd.domains.samples import Split


def content_digest(array: np.ndarray) -> str:
    """SHA-256, in hex, of an array's type, shape and values."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def fraction(seed: int, purpose: str, digest: str) -> float:
    """A number in [0, 1), uniform over contents and independent between purposes."""
    hashed = hashlib.sha256(f"{purpose}:{seed}:{digest}".encode()).digest()
    return (int.from_bytes(hashed[:8], "big") >> 11) / 2**53


def split_of(seed: int, digest: str, test_fraction: float) -> Split:
    """The split of the content `digest`: test with probability `test_fraction`."""
    return "test" if fraction(seed, "split", digest) < test_fraction else "train"
