"""The feature cost: pictures compared by what a frozen network sees in them."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import normalize

# (B, C, H, W) in [-1, 1] -> (B, F), differentiable
Embedding = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FeatureCost:
    """2 - 2 cos(f(x), f(y)): the squared distance of the features' directions, for any network f.

    It is the mean over features of the squared difference once each f has a root mean square of 1, so that it lies in
    [0, 4] as `squared_l2` does, whatever the network's scale. (A perceptual loss as of Johnson et al. 2016, on features
    of unit length as in LPIPS.)
    """

    features: Embedding

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Two (B, C, H, W) batches -> (B,)."""
        return (normalize(self.features(x), dim=1) - normalize(self.features(y), dim=1)).square().sum(1)
