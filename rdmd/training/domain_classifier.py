"""The objective of EGSDE's domain classifier: to tell source from target at every noise level."""

import torch
from accelerate import Accelerator
from torch import Tensor

from rdmd.baselines.egsde import build_domain_classifier, domain_loss
from rdmd.data.sampling import StepRandom
from rdmd.data.view import open_domain
from rdmd.diffusion.loss import noise_like
from rdmd.diffusion.noise import noise_distribution
from rdmd.training.objective import PREVIEW, Objective, at_largest
from rdmd.training.run_config import DomainClassifierRun

# Samples of each domain from which the preview takes the most similar to the other domain.
CANDIDATES = 256


class DomainClassifierObjective(Objective):
    """min E BCE of the logit at x_t = x_0 + sigma_t eps, target against source, over both training splits
    (EGSDE, section 3.2)."""

    def __init__(self, run: DomainClassifierRun, accelerator: Accelerator) -> None:
        super().__init__(run, accelerator)
        self.sigma_data = run.network.sigma_data
        self.source = open_domain(run.source.path, "train", accelerator.device)
        self.target = open_domain(run.target.path, "train", accelerator.device)
        self.noise = noise_distribution(run.noise)
        classifier = build_domain_classifier(run.network, run.sample_shape)
        self.classifier = self.trained("classifier", classifier, lr=run.settings.lr, beta1=0.9, ema=run.settings.ema)

    def update(self, random: StepRandom) -> dict[str, Tensor]:
        """One Adam step on a batch of each domain at the same noise levels."""
        x_source = self.source.batch(self.batch_size, random, "source")
        x_target = self.target.batch(self.batch_size, random, "target")
        sigma = self.noise(self.batch_size, random.stream("sigma"))
        eps_source = noise_like(x_source, random.stream("source eps"))
        eps_target = noise_like(x_target, random.stream("target eps"))
        loss = domain_loss(self.classifier, x_source, x_target, sigma, eps_source, eps_target)
        loss.mean().backward()
        self.apply_gradients("classifier")
        return {"domain_loss": loss.detach().mean(), "worst_sigma": at_largest(loss.detach(), sigma)}

    @torch.no_grad()
    def samples(self) -> tuple[Tensor, ...]:
        """The sources that look most like targets to the averaged classifier, and the targets most like sources."""
        random = StepRandom(seed=0, rank=0, step=0, device=self.device)
        x_source = self.source.batch(CANDIDATES, random, "preview source")
        x_target = self.target.batch(CANDIDATES, random, "preview target")
        rng = random.stream("preview noise")
        return x_source[self._order(x_source, rng).flip(0)][:PREVIEW], x_target[self._order(x_target, rng)][:PREVIEW]

    def _order(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Indices by increasing logit, at noise as strong as the data."""
        sigma = x.new_full((len(x),), self.sigma_data)
        return self.ema.averaged(x + self.sigma_data * noise_like(x, rng), sigma).argsort(stable=True)
