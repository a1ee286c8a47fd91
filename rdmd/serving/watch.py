"""What a model in use notes of its inputs: how far they lie from its training source, and how far it moves them."""

import logging
from dataclasses import dataclass

from torch import Tensor

from rdmd.data.likeness import SourceStatistics, numbers_of

LOG = logging.getLogger("rdmd.serving")


@dataclass
class Watch:
    """Counts the images that a model has translated, and those of them that are unlike its training source."""

    source: SourceStatistics
    inputs: int = 0
    unlike: int = 0

    def __call__(self, x: Tensor, y: Tensor, lam: float | None) -> None:
        """Log a batch of whole images x at the scale of training, (B, 3, H, W) in [-1, 1], and their translations y;
        warn of images unlike the source.

        The record has for each image its distance from the source, of which more than 1 is unlike, the numbers behind
        it (`numbers_of`), and the cost of its translation, the squared difference as the mean over dimensions; and the
        batch's lambda, None where nobody gave one.
        """
        numbers = numbers_of(x.cpu().numpy())
        distances = self.source.distances_of(numbers)
        unlike = int((distances > 1).sum())
        self.inputs += len(x)
        self.unlike += unlike
        measured = {
            "lam": lam,
            "distances": distances.tolist(),
            "costs": (y.clamp(-1, 1) - x).square().mean((1, 2, 3)).tolist(),
            "numbers": numbers.tolist(),
        }
        LOG.log(
            logging.WARNING if unlike else logging.INFO,
            "%d of %d images are unlike those that this model was trained on, by up to %.1f times the limit",
            unlike,
            len(x),
            distances.max(),
            extra={"unlike": unlike, **measured},
        )
