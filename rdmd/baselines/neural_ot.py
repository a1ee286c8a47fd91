"""Neural optimal transport (NOT, Korotin et al. 2023) with a strong cost: the Monge map as the solution of a game.

    sup_f inf_T  E_x [c(x, T(x)) - f(T(x))] + E_y f(y)

Its value is the optimal cost, and T at the saddle point is the optimal map. Training takes several steps of the map T
for each of the potential f. The public code takes ten, uses Adam at 1e-4 with beta1 0.9 for both, and the mean over
dimensions of the squared difference for c, as `squared_l2` here.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rdmd.config import Network
from rdmd.networks.build import build_denoiser
from rdmd.networks.encoder import build_encoder, encoded_shape


class TransportMap(nn.Module):
    """T(x) = x + F(x, 0): the denoiser's network without its preconditioning. It starts near the identity, because the
    last layer of F starts near zero. One network evaluation per sample."""

    nfe = 1

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) source -> (B, ...) translation, not clamped."""
        return x + self.model(x, x.new_zeros(len(x)))


class Potential(nn.Module):
    """f(y): an encoder and a linear head on all of its outputs, positions included."""

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


# (B, ...) -> (B, ...), and (B, ...) -> (B,)
Map = Callable[[Tensor], Tensor]


def map_loss(f: Map, mapped: Tensor, cost: Tensor) -> Tensor:
    """c(x, T(x)) - f(T(x)), minimised over T alone: (B,). `mapped` is T(x), (B, ...), and `cost` c(x, T(x)), (B,).

    Gradients reach f too; step T only, and clear f's.
    """
    return cost - f(mapped)


def potential_loss(T: Map, f: Map, x: Tensor, y: Tensor, r1: float = 0.0) -> Tensor:
    """f(T(x)) - f(y) + (r1 / 2) ||grad f(y)||^2, minimised over f with T fixed: (B,).

    x: (B, ...) source; y: (B, ...) target. The penalty (R1, Mescheder et al. 2018; a sum over dimensions) damps the
    game, but is not zero at the saddle point, where grad f(T(x)) = grad_y c(x, T(x)): it moves the map to the identity.
    """
    with torch.no_grad():
        mapped = T(x)
    if not r1:
        return f(mapped) - f(y)
    y = y.detach().requires_grad_()
    at_target = f(y)
    (slope,) = torch.autograd.grad(at_target.sum(), y, create_graph=True)
    return f(mapped) - at_target + r1 / 2 * slope.square().flatten(1).sum(1)
