"""Neural optimal transport (NOT, Korotin et al. 2023) with a strong cost: the Monge map as the solution of a game.

    sup_f inf_T  E_x [c(x, T(x)) - f(T(x))] + E_y f(y)

Its value is the optimal cost, and T at the saddle the optimal map. The potential f and the map T are trained in turn, T
for several steps to each of f. The public code takes ten, Adam at 1e-4 for both, and the mean over dimensions of the
squared difference for c, as `squared_l2` here.
"""

import torch
from torch import Tensor, nn

from rdmd.config import Network
from rdmd.distillation.costs import Cost
from rdmd.networks.build import build_denoiser
from rdmd.networks.encoder import build_encoder, encoded_shape


class TransportMap(nn.Module):
    """T(x) = x + F(x, 0): the denoiser's network without its preconditioning. It starts at the identity, for the last
    layer of F starts near zero. One network evaluation a sample."""

    nfe = 1

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) source -> (B, ...) translation, not clamped."""
        return x + self.model(x, x.new_zeros(len(x)))


class Potential(nn.Module):
    """f(y): an encoder and a linear head on all that it gives, positions included."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, 1)

    def forward(self, y: Tensor) -> Tensor:
        """(B, ...) -> (B,), unbounded."""
        return self.head(self.encoder(y, y.new_zeros(len(y))).flatten(1))[:, 0]


def build_transport_map(network: Network, sample_shape: tuple[int, ...]) -> TransportMap:
    """A fresh map of the generator's size. Raises `UserError` if `network` has an odd width."""
    return TransportMap(build_denoiser(network, sample_shape).model)


def build_potential(network: Network, sample_shape: tuple[int, ...]) -> Potential:
    """A fresh potential for samples of `sample_shape`: (C, R, R) for images, (d,) for points."""
    return Potential(build_encoder(network, sample_shape), torch.Size(encoded_shape(network, sample_shape)).numel())


def map_loss(T: nn.Module, f: nn.Module, x: Tensor, cost: Cost) -> Tensor:
    """c(x, T(x)) - f(T(x)), minimised over T alone: (B,). Gradients reach f too; step T only, and clear f's."""
    mapped = T(x)
    return cost(x, mapped) - f(mapped)


def potential_loss(T: nn.Module, f: nn.Module, x: Tensor, y: Tensor, r1: float = 0.0) -> Tensor:
    """f(T(x)) - f(y) + (r1 / 2) ||grad f(y)||^2, minimised over f with T fixed: (B,).

    x: (B, ...) source; y: (B, ...) target. The penalty (R1, Mescheder et al. 2018; a sum over dimensions) damps the
    game, but is not zero at the saddle, where grad f(T(x)) = grad_y c(x, T(x)): it draws the map to the identity.
    """
    with torch.no_grad():
        mapped = T(x)
    if not r1:
        return f(mapped) - f(y)
    y = y.detach().requires_grad_()
    at_target = f(y)
    (slope,) = torch.autograd.grad(at_target.sum(), y, create_graph=True)
    return f(mapped) - at_target + r1 / 2 * slope.square().flatten(1).sum(1)
