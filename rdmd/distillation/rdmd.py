"""The two losses of RDMD, which training minimises in turn (RDMD, section 3).

Generator:  min_G  int omega_t KL(p_t^G || p_t^T) dt + lambda E c(x, G(x))
Fake:       min_D  E beta_t ||D(G(x) + sigma_t eps, sigma_t) - G(x)||^2

At a fixed lambda the minimiser is biased: the cost keeps p^G away from p^T. A proximal step (Rockafellar 1976) replaces
the reference x of the cost by G_k(x), the output of the generator that the step starts from:

    G_{k+1} = argmin_G  int omega_t KL(p_t^G || p_t^T) dt + mu E c(G_k(x), G(x))

Its fixed points have p^G = p^T for every mu, and each step moves the outputs as little as it can, so it keeps the
coupling that lambda made. The proximal step is ours, not the paper's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rdmd.diffusion.loss import Denoiser, denoising_error, like, mean_over_dimensions
from rdmd.distillation.costs import Cost
from rdmd.distillation.matching import Weighting, matching_surrogate


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
    """Both losses at one noise level per sample. The object holds constants alone: `cost_weight` is lambda, or mu in a
    proximal step."""

    cost: Cost
    cost_weight: float
    weighting: Weighting
    sigma_data: float

    def __call__(
        self, reference: Tensor, generated: Tensor, *, fake: Denoiser, teacher: Denoiser, sigma: Tensor, eps: Tensor
    ) -> Losses:
        """reference: (B, ...), the x (or G_k(x)) of the cost; generated: (B, ...) = G(x), with its graph; sigma: (B,);
        eps: (B, ...). One evaluation of each denoiser at x_t = G(x) + sigma eps serves both losses.

        The gradient of `generator` reaches G alone, and that of `fake` the fake denoiser alone. A caller that does not
        train the fake on these samples passes it without gradients: `torch.no_grad()(fake)`.
        """
        x_0 = generated.detach()
        x_t = x_0 + like(sigma, x_0) * eps
        fake_x0 = fake(x_t, sigma)
        with torch.no_grad():
            teacher_x0 = teacher(x_t, sigma)
            gradient = self.weighting(fake_x0, teacher_x0, x_0, sigma)
        cost = self.cost(reference, generated)
        return Losses(
            generator=matching_surrogate(generated, gradient) + self.cost_weight * cost,
            fake=denoising_error(fake_x0, x_0, sigma, self.sigma_data),
            cost=cost.detach(),
            gradient_norm=mean_over_dimensions(gradient.abs()),
        )
