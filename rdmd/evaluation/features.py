"""Feature networks: what realism metrics see instead of pixels."""

from typing import Protocol

import torch
from torch import Tensor


class FeatureNetwork(Protocol):
    """A fixed network whose features a realism metric compares.

    Attributes:
        name: "classifier", "efficientnet_lite0", "inception".
        sha256: of its weights; numbers are comparable only under one hash.
        dim: features a picture.
    """

    name: str
    dim: int

    @property
    def sha256(self) -> str:
        """The SHA-256 of the weights, in hex."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 to (B, dim), on the device of the network."""
        ...


def features_of(network: FeatureNetwork, images: Tensor, batch: int, device: torch.device) -> Tensor:
    """The features of (N, 3, H, W) uint8 pictures, `batch` at a time on `device`: (N, dim) float64 on the
    CPU.

    Raises `FloatingPointError` if a feature is not finite.
    """
    return network_features(network, images, batch, device).double()


@torch.no_grad()
def network_features(network: FeatureNetwork, images: Tensor, batch: int, device: torch.device) -> Tensor:
    """As `features_of`, in the numbers that the network gives."""
    features = torch.cat([network(part.to(device)).cpu() for part in images.split(batch)])
    if not torch.isfinite(features).all():
        raise FloatingPointError(f"the feature network {network.name!r} gave a value that is not finite")
    return features
