"""Lambda, the weight of the transport cost, as an input of a network."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

# Sines and cosines of lambda's place in its range. The fastest turns by SPAN radians over the range.
CHANNELS, SPAN = 32, 8.0


class LambdaEmbedding(nn.Module):
    """lambda (B,) -> (B, channels): a perceptron of two layers on sines and cosines of ln(lambda).

    `low` and `high` are the ends of the range that training draws lambda from. The last layer is zero at the start, so
    a network that adds the embedding to its own features begins as the network without it.
    """

    def __init__(self, channels: int, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.layer0 = nn.Linear(CHANNELS, channels)
        self.layer1 = nn.Linear(channels, channels)
        nn.init.zeros_(self.layer1.weight)
        nn.init.zeros_(self.layer1.bias)

    def forward(self, lam: Tensor | None) -> Tensor:
        """lam: (B,), positive; None is an error of the caller, whose network takes lambda as an input."""
        assert lam is not None, "this network takes lambda as an input"
        place = (lam.float() / self.low).log() / math.log(self.high / self.low)
        frequencies = SPAN * 10_000 ** -torch.linspace(0, 1, CHANNELS // 2, device=lam.device)
        angles = torch.outer(place, frequencies)
        features = torch.cat([angles.sin(), angles.cos()], dim=1).to(self.layer0.weight.dtype)
        return self.layer1(silu(self.layer0(features)))
