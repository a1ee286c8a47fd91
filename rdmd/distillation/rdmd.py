"""The two losses of RDMD, which training minimises in turn (RDMD, section 3).

Generator:  min_G  int omega_t KL(p_t^G || p_t^T) dt + lambda E c(x, G(x))
Fake:       min_D  E beta_t ||D(G(x) + sigma_t eps, sigma_t) - G(x)||^2

One generator G(x, lambda) for every lambda of a range minimises the mean of these losses over ln(lambda), uniform, as
loss-conditional training does (Dosovitskiy and Djolonga 2020). Its outputs are another distribution at every lambda, so
the fake denoiser D(x_t, sigma_t, lambda) sees lambda too. The teacher does not. This is ours, not the paper's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rdmd.diffusion.loss import Denoiser, denoising_error, like, mean_over_dimensions
from rdmd.distillation.costs import Cost
from rdmd.distillation.matching import Weighting, matching_surrogate


def draw_lambdas(low: float, high: float, n: int, rng: torch.Generator) -> Tensor:
    """(n,) lambdas with ln(lambda) uniform between the ends and stratified: one in each n-th part of the range."""
    u = (torch.arange(n, device=rng.device) + torch.rand(n, generator=rng, device=rng.device)) / n
    return low * (high / low) ** u


@dataclass(frozen=True)
class Losses:
    """Per-sample losses of one batch, all (B,). Training differentiates `generator` and `fake`."""

    generator: Tensor
    fake: Tensor
    cost: Tensor
    # Mean |gradient of the matching term|: it tends to 0 as p^G tends to p^T, up to the denoisers' noise.
    gradient_norm: Tensor


@dataclass(frozen=True)
class RDMDLoss:
    """Both losses at one noise level per sample. The object holds constants alone."""

    cost: Cost
    weighting: Weighting
    sigma_data: float

    def __call__(
        self,
        x: Tensor,
        generated: Tensor,
        lam: Tensor | float,
        *,
        fake: Denoiser,
        teacher: Denoiser,
        sigma: Tensor,
        eps: Tensor,
    ) -> Losses:
        """x: (B, ...); generated: (B, ...) = G(x), with its graph; lam: a number or (B,); sigma: (B,); eps: (B, ...).
        One evaluation of each denoiser at x_t = G(x) + sigma eps serves both losses.

        The gradient of `generator` reaches G alone, and that of `fake` the fake denoiser alone. A caller that does not
        train the fake on these samples passes it without gradients: `torch.no_grad()(fake)`.
        """
        x_0 = generated.detach()
        x_t = x_0 + like(sigma, x_0) * eps
        fake_x0 = fake(x_t, sigma)
        with torch.no_grad():
            teacher_x0 = teacher(x_t, sigma)
            gradient = self.weighting(fake_x0, teacher_x0, x_0, sigma)
        cost = self.cost(x, generated)
        return Losses(
            generator=matching_surrogate(generated, gradient) + lam * cost,
            fake=denoising_error(fake_x0, x_0, sigma, self.sigma_data),
            cost=cost.detach(),
            gradient_norm=mean_over_dimensions(gradient.abs()),
        )
