"""The objective of CUT: a generator and a discriminator, trained against each other."""

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rdmd.baselines.cut import ContrastiveGenerator, Discriminator, discriminator_loss
from rdmd.data.sampling import StepRandom
from rdmd.data.view import open_domain
from rdmd.training.objective import PREVIEW, Objective
from rdmd.training.run_config import CUTRun


class CUTObjective(Objective):
    """min_G max_D L_GAN + lambda_NCE (L_NCE(G, x) + L_NCE(G, y)) / 2, x from the source and y from the target
    (Park et al. 2020, eq. 5)."""

    def __init__(self, run: CUTRun, accelerator: Accelerator) -> None:
        s = self.settings = run.settings
        super().__init__(run, accelerator, decay=s.decay)
        self.nce_weight = run.nce_weight
        self.source = open_domain(run.source.path, "train", accelerator.device)
        self.target = open_domain(run.target.path, "train", accelerator.device)
        contrastive = ContrastiveGenerator(run.network, run.sample_shape, s.patches, s.embedding)
        discriminator = Discriminator(run.network, run.sample_shape)
        self.generator_losses = self.trained("generator", contrastive, lr=s.lr, beta1=s.beta1, ema=s.ema)
        self.D = self.trained("discriminator", discriminator, lr=s.lr, beta1=s.beta1)
        # The opponent in each loss: without the wrapper that averages gradients over processes.
        self.fixed_G, self.fixed_D = self.compute.call(contrastive.generator), self.compute.call(discriminator)

    def update(self, random: StepRandom) -> dict[str, Tensor]:
        """One step of the discriminator, then one of the generator with its patch embeddings, on the same batch."""
        x = self.source.batch(self.batch_size, random, "source")
        y = self.target.batch(self.batch_size, random, "target")
        with torch.no_grad():
            made = self.fixed_G(x)
        judged = discriminator_loss(self.D, made, y).mean()
        judged.backward()
        self.apply_gradients("discriminator")

        # The generator's loss needs no gradient with respect to the discriminator's weights.
        self.modules["discriminator"].requires_grad_(False)
        order = torch.randperm(x[0, 0].numel(), generator=random.stream("patches"), device=self.device)
        gan, nce = self.generator_losses(x, y, self.fixed_D, order).mean(0)
        (gan + self.nce_weight * nce).backward()
        self.apply_gradients("generator")
        self.modules["discriminator"].requires_grad_(True)
        return {"gan_loss": gan.detach(), "nce_loss": nce.detach(), "discriminator_loss": judged.detach()}

    def kept(self) -> nn.Module:
        """The averaged generator without its patch embeddings."""
        return self.ema.averaged.get_submodule("generator")

    @torch.no_grad()
    def samples(self) -> tuple[Tensor, ...]:
        """Sources and the averaged generator's outputs for them."""
        x = self.source.batch(PREVIEW, StepRandom(0, 0, 0, self.device), "preview")
        return x, self.kept()(x)
