"""scikit-learn's bundled handwritten digits: 1,797 scans of 8x8, ten classes. Nothing is downloaded.

From the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998), CC BY 4.0.
"""

from collections.abc import Iterator

import numpy as np

from rdmd.config import Digits
from rdmd.data.samples import Reading, Sample


def read(domain: Digits) -> Reading:
    """The scans of `domain.classes`: uint8 (8, 8, 3) in 0..255, stored as 0..16; grey, labelled, no split."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    chosen = np.flatnonzero(np.isin(bundle.target, domain.classes))
    scans = np.rint(bundle.images * (255 / 16)).astype(np.uint8)
    return Reading(len(chosen), _samples(scans, bundle.target, chosen))


def _samples(scans: np.ndarray, labels: np.ndarray, chosen: np.ndarray) -> Iterator[Sample]:
    for index in chosen:
        yield Sample(f"digits[{index}]", np.repeat(scans[index][..., None], 3, axis=2), int(labels[index]))
