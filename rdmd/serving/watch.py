"""What a model in use notes of its inputs: how far they lie from its training source, and how far it moves them."""

import logging
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from rdmd.data.likeness import SourceStatistics, numbers_of

LOG = logging.getLogger("rdmd.serving")


@dataclass
class Watch:
    """Counts the images that a generator has read, and those of them that are unlike its training source."""

    source: SourceStatistics
    inputs: int = 0
    unlike: int = 0

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        """A forward hook of the generator: logs every batch, and warns of one with images unlike the source.

        The record has for each image its distance from the source, of which more than 1 is unlike, the numbers behind
        it (`numbers_of`), and the cost of its translation, the squared difference as the mean over dimensions; and the
        batch's lambda, None where nobody gave one.
        """
        x, y = arguments[0], output.clamp(-1, 1)
        numbers = numbers_of(x.cpu().numpy())
        distances = self.source.distances_of(numbers)
        unlike = int((distances > 1).sum())
        self.inputs += len(x)
        self.unlike += unlike
        noted = {
            "lam": arguments[1] if len(arguments) > 1 else None,
            "distances": distances.tolist(),
            "costs": (y - x).square().mean((1, 2, 3)).tolist(),
            "numbers": numbers.tolist(),
        }
        LOG.log(
            logging.WARNING if unlike else logging.INFO,
            "%d of %d images are unlike those that this model was trained on, by up to %.1f times the limit",
            unlike,
            len(x),
            distances.max(),
            extra={"unlike": unlike, **noted},
        )


def watch(generator: nn.Module, source: SourceStatistics | None) -> Watch | None:
    """Watch a generator from now on; None if its card has no statistics, as those of points and of older versions."""
    if source is None:
        return None
    made = Watch(source)
    generator.register_forward_hook(made)
    return made
