"""The network for points on the plane: a multilayer perceptron on the point, the noise label and lambda."""

import itertools

import torch
from torch import Tensor, nn

from rdmd.networks.lambda_embedding import LambdaEmbedding
from rdmd.networks.unet import NEAR_ZERO, xavier

# In radians per unit of c_noise, which spans about three units from sigma = 0.002 to 80.
FREQUENCIES = (1.0, 2.0, 4.0, 8.0)


class PointMLP(nn.Module):
    """F(x, c_noise): `depth` hidden layers of `width` with SiLU, on x and sines and cosines of c_noise.

    With `lambdas`, the ends of a range, F(x, c_noise, lambda) adds lambda's embedding to the first layer's output.
    """

    frequencies: Tensor

    def __init__(self, dim: int, width: int, depth: int, lambdas: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.tensor(FREQUENCIES), persistent=False)
        widths = [dim + 2 * len(FREQUENCIES)] + [width] * depth
        hidden: list[nn.Module] = []
        for c_in, c_out in itertools.pairwise(widths):
            hidden += [nn.Linear(c_in, c_out), nn.SiLU()]
        self.hidden = nn.Sequential(*hidden)
        self.out = nn.Linear(width, dim)
        xavier(self.out, gain=NEAR_ZERO)
        self.embed_lambda = LambdaEmbedding(width, *lambdas) if lambdas else None

    def forward(self, x: Tensor, c_noise: Tensor, lam: Tensor | None = None) -> Tensor:
        """(B, dim) and (B,), and lambda (B,) where it is an input, give (B, dim)."""
        angles = torch.outer(c_noise, self.frequencies)
        features = torch.cat([angles.sin(), angles.cos()], dim=1).to(x.dtype)
        first, *rest = self.hidden
        h = first(torch.cat([x, features], dim=1))
        if self.embed_lambda is not None:
            h = h + self.embed_lambda(lam)
        for layer in rest:
            h = layer(h)
        return self.out(h)
