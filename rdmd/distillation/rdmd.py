"""The two losses of RDMD, trained in turn (RDMD, section 3).

Generator:  min_G  int omega_t KL(p_t^G || p_t^T) dt + lambda E c(x, G(x))
Fake:       min_D  E beta_t ||D(G(x) + sigma_t eps, sigma_t) - G(x)||^2   (`diffusion.loss.denoising_loss`)

At a fixed lambda the minimiser is biased: the pull towards x keeps p^G off p^T. A proximal step (Rockafellar 1976)
pulls towards G_k(x), where the last one ended, instead:

    G_{k+1} = argmin_G  int omega_t KL(p_t^G || p_t^T) dt + mu E c(G_k(x), G(x))

Its fixed points have p^G = p^T for every mu, and each step moves the outputs as little as it can, so the coupling that
lambda made is kept. The step is ours, not the paper's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rdmd.diffusion.loss import Denoiser, like
from rdmd.distillation.costs import Cost
from rdmd.distillation.matching import Weighting, matching_surrogate


@dataclass(frozen=True)
class GeneratorLoss:
    """Per-sample terms of the generator's loss, all (B,). `total` is what is differentiated."""

    total: Tensor
    cost: Tensor
    # Mean |gradient of the matching term|: it goes to 0 as p^G reaches p^T, up to the denoisers' noise.
    gradient_norm: Tensor


def generator_loss(
    anchor: Tensor,
    generated: Tensor,
    fake: Denoiser,
    real: Denoiser,
    sigma: Tensor,
    eps: Tensor,
    pull: float,
    cost: Cost,
    weighting: Weighting,
) -> GeneratorLoss:
    """The loss of the generator on one batch.

    anchor: (B, ...), what `cost` compares with: the source x, with lambda as `pull`, or G_k(x), with mu. generated:
    (B, ...) = G(x), with its graph; sigma: (B,); eps: (B, ...). The denoisers are read without a graph: the estimator
    needs only the difference of their outputs at x_t = G(x) + sigma eps.
    """
    with torch.no_grad():
        x_0 = generated.detach()
        x_t = x_0 + like(sigma, x_0) * eps
        gradient = weighting(fake(x_t, sigma), real(x_t, sigma), x_0, sigma)
    c = cost(anchor, generated)
    return GeneratorLoss(
        total=matching_surrogate(generated, gradient) + pull * c,
        cost=c.detach(),
        gradient_norm=gradient.abs().flatten(1).mean(1),
    )
