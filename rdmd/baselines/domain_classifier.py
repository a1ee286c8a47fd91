"""The time-dependent domain classifier of EGSDE (Zhao et al. 2022): is x_t a noised source or a noised target?"""

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from rdmd.baselines.encoder import build_encoder, encoded_shape
from rdmd.config import Network
from rdmd.diffusion.shapes import like


class DomainClassifier(nn.Module):
    """An encoder on (c_in x_t, c_noise), scaled as the denoiser's (Karras et al. 2022, table 1), a mean over positions
    and a linear head. At the optimum of `domain_loss` the logit is log p_t^T(x_t) / p_t^S(x_t)."""

    def __init__(self, encoder: nn.Module, channels: int, sigma_data: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(channels, 1)
        self.sigma_data = sigma_data

    def features(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        """What comes before the mean and the head: (B, C, H, W) for images, (B, F) for points."""
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
    classifier: nn.Module, x_source: Tensor, x_target: Tensor, sigma: Tensor, eps_source: Tensor, eps_target: Tensor
) -> Tensor:
    """Binary cross-entropy, the mean of the two domains' at one noise level: (B,), ln 2 for a classifier that knows
    nothing.

    Samples and noise: (B, ...); sigma: (B,), from the denoiser's noise law. Calls the classifier once.
    """
    level = like(sigma, x_source)
    x_t = torch.cat([x_source + level * eps_source, x_target + level * eps_target])
    source, target = classifier(x_t, torch.cat([sigma, sigma])).chunk(2)
    return (softplus(source) + softplus(-target)) / 2
