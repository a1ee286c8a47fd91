"""What a model in use notes of its inputs: how far they lie from its training source, and how far it moves them."""

import logging
from dataclasses import dataclass

from torch import Tensor, nn

from rdmd.data.likeness import SourceStatistics

LOG = logging.getLogger("rdmd.serving")


@dataclass
class Watch:
    """Counts the images that a generator has read, and those of them that are unlike its training source."""

    source: SourceStatistics
    inputs: int = 0
    unlike: int = 0

    def __call__(self, module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        """A forward hook of the generator: logs every batch, and warns of one with images unlike the source.

        The record has for each image its distance from the source, of which more than 1 is unlike, and the cost of its
        translation, the squared difference as the mean over dimensions.
        """
        x, y = arguments[0], output.clamp(-1, 1)
        distances = self.source.distances(x.cpu().numpy())
        unlike = int((distances > 1).sum())
        self.inputs += len(x)
        self.unlike += unlike
        noted = {"distances": distances.tolist(), "costs": (y - x).square().mean((1, 2, 3)).tolist()}
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
