"""EGSDE (Zhao et al. 2022), and its time-dependent domain classifier, which tells noised sources from targets."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, softplus

from rdmd.baselines.low_pass import low_pass
from rdmd.baselines.sdedit import down_from
from rdmd.config import Network
from rdmd.diffusion.loss import Denoiser, like, noise_like
from rdmd.diffusion.samplers import ancestral_step, denoise
from rdmd.networks.encoder import build_encoder, encoded_shape


class DomainClassifier(nn.Module):
    """An encoder on (c_in x_t, c_noise), scaled as the denoiser's (Karras et al. 2022, table 1), a mean over positions
    and a linear head. At the optimum of `domain_loss` the logit is log p_t^T(x_t) / p_t^S(x_t)."""

    def __init__(self, encoder: nn.Module, channels: int, sigma_data: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(channels, 1)
        self.sigma_data = sigma_data

    def features(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        """The encoder's output: (B, C, H, W) for images, (B, F) for points."""
        c_in = (sigma.square() + self.sigma_data**2).rsqrt()
        return self.encoder(like(c_in, x_t) * x_t, sigma.log() / 4)

    def forward(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        """(B, ...) at noise levels (B,) -> logits (B,), positive for the target."""
        h = self.features(x_t, sigma)
        if h.ndim == 4:
            h = h.mean(dim=(2, 3))
        return self.head(h)[:, 0]


def build_domain_classifier(network: Network, sample_shape: tuple[int, ...]) -> DomainClassifier:
    """A fresh classifier for samples of `sample_shape`: (C, R, R) for images, (d,) for points."""
    channels = encoded_shape(network, sample_shape)[0]
    return DomainClassifier(build_encoder(network, sample_shape), channels, network.sigma_data)


def domain_loss(
    classifier: Callable[[Tensor, Tensor], Tensor],
    x_source: Tensor,
    x_target: Tensor,
    sigma: Tensor,
    eps_source: Tensor,
    eps_target: Tensor,
) -> Tensor:
    """Binary cross-entropy, the mean of the two domains' at one noise level: (B,), ln 2 for a constant
    classifier.

    Samples and noise: (B, ...); sigma: (B,), from the denoiser's noise distribution. Calls the classifier once.
    """
    level = like(sigma, x_source)
    x_t = torch.cat([x_source + level * eps_source, x_target + level * eps_target])
    source, target = classifier(x_t, torch.cat([sigma, sigma])).chunk(2)
    return (softplus(source) + softplus(-target)) / 2


class FeatureExtractor(Protocol):
    """The part of the domain classifier that EGSDE uses."""

    def features(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        """(B, ...) at noise levels (B,) -> (B, F) or (B, C, H, W)."""
        ...


def repelling(classifier: FeatureExtractor, x_t: Tensor, source_t: Tensor, sigma: float) -> Tensor:
    """Cosine similarity of the domain classifier's features of x_t and of the noised source: (B,) in [-1, 1].

    The similarity is over channels, and its mean over positions, as in the public code.
    """
    levels = x_t.new_full((len(x_t),), sigma)
    with torch.no_grad():
        wanted = classifier.features(source_t, levels)
    return cosine_similarity(classifier.features(x_t, levels), wanted, dim=1).view(len(x_t), -1).mean(1)


def attracting(x_t: Tensor, source_t: Tensor, sigma: float, factor: int) -> Tensor:
    """||phi_N(x_t) - phi_N(source_t)||^2 / (1 + sigma^2), a sum over dimensions: (B,). phi_N is the linear `low_pass`
    of the public code."""
    return low_pass(x_t - source_t, factor, "linear").square().flatten(1).sum(1) / (1 + sigma**2)


@dataclass(frozen=True)
class EGSDE:
    """y = the reverse SDE from x + sigma_0 eps at sigma_0 down to 0 by `steps` ancestral steps, each followed by

        x_next += -(sigma^2 - sigma_next^2) grad_{x_t} [repel * E_repel + attract * E_attract](x_t),

    where both energies compare x_t with the source at the same noise level, always with the eps of the start (algorithm
    1 and the public code). With weights of 0 it is `SDEditSDE`. The public weights are repel = 500, attract = 2 and
    factor = 32 at 256x256. The gradient of E_repel in one pixel decreases with the number of pixels, so smaller images
    need a smaller `repel`. On points phi is the identity.

    The drift is explicit: the attraction overshoots where 2 attract (sigma^2 - sigma_next^2) / (1 + sigma^2) > 1. With
    the public weight and sigma_0, `steps` >= 40 stays below 1.

    `nfe` counts evaluations of the teacher alone: each step also costs two forward passes and a backward pass of the
    classifier, unless `repel` is 0. The classifier collects no gradients.
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
        for sigma, sigma_next in pairwise(down_from(self.sigma_0, self.steps).tolist()):
            drift = -(sigma**2 - sigma_next**2) * self.energy_gradient(x, source + sigma * eps, sigma)
            x = ancestral_step(x, denoise(self.teacher, x, sigma), sigma, sigma_next, rng) + drift
        return x

    def energy_gradient(self, x_t: Tensor, source_t: Tensor, sigma: float) -> Tensor:
        """The gradient with respect to x_t of repel * E_repel + attract * E_attract, of x_t's shape."""
        x_t = x_t.detach().requires_grad_()
        with torch.enable_grad():
            energy = self.attract * attracting(x_t, source_t, sigma, self.factor)
            if self.repel:
                energy = energy + self.repel * repelling(self.classifier, x_t, source_t, sigma)
            return torch.autograd.grad(energy.sum(), x_t)[0]
