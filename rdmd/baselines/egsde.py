"""EGSDE (Zhao et al. 2022): SDEdit's reverse SDE under two energies, against the source's domain and for its content.

The public code is variance-preserving: y_i = sqrt(abar_i) x_i, and step i adds -w beta_i / sqrt(alpha_i) dE/dy_i to
the mean of y_{i-1}. As 1 + sigma_i^2 = 1 / abar_i, hence sigma_i^2 - sigma_{i-1}^2 = beta_i / abar_i, the same step is

    x_{i-1} += -w (sigma_i^2 - sigma_{i-1}^2) dE/dx_i

in x_i = x_0 + sigma_i eps. Nothing was neglected: the public weights hold as they stand for samples in [-1, 1], if E is
the same function of the same picture. As a function of x, the public attracting energy ||phi(y) - phi(y^s)||^2 has the
factor abar = 1 / (1 + sigma^2): `attracting`. The public starting point, t = 500 of 1000, is sigma_0 = 3.42.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from rdmd.baselines.levels import down_from
from rdmd.baselines.low_pass import low_pass
from rdmd.diffusion.loss import Denoiser, noise_like
from rdmd.diffusion.samplers import ancestral_step


class FeatureExtractor(Protocol):
    """The part of the domain classifier that is used here."""

    def features(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        """(B, ...) at noise levels (B,) -> (B, F) or (B, C, H, W)."""
        ...


def repelling(classifier: FeatureExtractor, x_t: Tensor, source_t: Tensor, sigma: float) -> Tensor:
    """Cosine similarity of the domain classifier's features of x_t and of the noised source: (B,) in [-1, 1].

    The cosine runs over channels; positions, if there are any, are averaged (as in the public code).
    """
    levels = x_t.new_full((len(x_t),), sigma)
    with torch.no_grad():
        wanted = classifier.features(source_t, levels)
    return cosine_similarity(classifier.features(x_t, levels), wanted, dim=1).view(len(x_t), -1).mean(1)


def attracting(x_t: Tensor, source_t: Tensor, sigma: float, factor: int) -> Tensor:
    """||phi_N(x_t) - phi_N(source_t)||^2 / (1 + sigma^2), a sum over dimensions: (B,)."""
    return low_pass(x_t - source_t, factor).square().flatten(1).sum(1) / (1 + sigma**2)


@dataclass(frozen=True)
class EGSDE:
    """y = the reverse SDE from x + sigma_0 eps at sigma_0 down to 0 by `steps` ancestral steps, each followed by

        x_then += -(now^2 - then^2) grad_{x_now} [repel * E_repel + attract * E_attract](x_now),

    where both energies compare x_now with the source noised to the same level by the one eps of the start (algorithm 1
    and the public code). Weights of 0 leave `SDEditSDE`. The public weights are repel = 500, attract = 2 and
    factor = 32 at 256x256; the gradient of E_repel in one pixel falls with their number, so that smaller pictures want
    a smaller `repel`. On points phi is the identity.

    The drift is explicit: the attraction overshoots where 2 attract (now^2 - then^2) / (1 + now^2) > 1. With the public
    weight and sigma_0, `steps` >= 40 stays under 1.

    `nfe` counts evaluations of the teacher alone: each step also costs two forward passes and a backward pass of the
    classifier, unless `repel` is 0. The classifier is not changed and collects no gradients.
    """

    teacher: Denoiser
    classifier: FeatureExtractor
    sigma_0: float
    steps: int
    repel: float
    attract: float
    factor: int

    @property
    def nfe(self) -> int:
        """Evaluations of the teacher a sample."""
        return self.steps

    @torch.no_grad()
    def __call__(self, source: Tensor, rng: torch.Generator) -> Tensor:
        """(B, ...) source -> (B, ...) translation. Raises ValueError if `factor` does not divide H and W."""
        eps = noise_like(source, rng)
        x = source + self.sigma_0 * eps
        for now, then in pairwise(down_from(self.sigma_0, self.steps).tolist()):
            drift = -(now**2 - then**2) * self.energy_gradient(x, source + now * eps, now)
            x = ancestral_step(self.teacher, x, now, then, rng) + drift
        return x

    def energy_gradient(self, x_t: Tensor, source_t: Tensor, sigma: float) -> Tensor:
        """The gradient with respect to x_t of repel * E_repel + attract * E_attract, of x_t's shape."""
        x_t = x_t.detach().requires_grad_()
        with torch.enable_grad():
            energy = self.attract * attracting(x_t, source_t, sigma, self.factor)
            if self.repel:
                energy = energy + self.repel * repelling(self.classifier, x_t, source_t, sigma)
            return torch.autograd.grad(energy.sum(), x_t)[0]
