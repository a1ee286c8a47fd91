"""The teacher's objective: denoising score matching on the target."""

import torch
from accelerate import Accelerator
from torch import Tensor

from rdmd import config
from rdmd.data.augmentation import draw_labels, transformed
from rdmd.data.sampling import StepRandom
from rdmd.data.view import OpenDomain, open_domain, varied
from rdmd.diffusion.loss import denoising_loss, noise_like
from rdmd.diffusion.noise import NoisyBatch, noise_distribution
from rdmd.diffusion.samplers import karras_sigmas, sample_heun
from rdmd.networks.build import build_denoiser, load_weights
from rdmd.networks.unet2d import load_checkpoint
from rdmd.training.objective import PREVIEW, Objective, Trial, at_largest
from rdmd.training.run_config import TeacherRun

PREVIEW_STEPS = 18


class TeacherObjective(Objective):
    """min_D E beta_t ||D(x_0 + sigma_t eps, sigma_t) - x_0||^2 over the target's training split."""

    def __init__(self, run: TeacherRun, accelerator: Accelerator, open_domain: OpenDomain = open_domain) -> None:
        s = self.settings = run.settings
        super().__init__(run, accelerator, warmup=s.warmup, decay=s.decay)
        self.sigma_data, self.sample_shape = run.network.sigma_data, run.sample_shape
        self.target = varied(open_domain(run.target.path, "train", accelerator.device), s, run.sample_shape)
        self.noise = noise_distribution(s.noise)
        denoiser = build_denoiser(run.network, run.sample_shape, dropout=True, augmented=s.augment > 0)
        if run.initial is not None:
            from_diffusers = isinstance(run.network, config.DiffusersNetwork)
            (load_checkpoint if from_diffusers else load_weights)(denoiser, run.initial.path)
        self.D = self.trained("denoiser", denoiser, lr=s.lr, beta1=0.9, ema=s.ema)

    def update(self, random: StepRandom) -> dict[str, Tensor]:
        """One Adam step on targets."""
        return self.denoising_step(self.draw(random))

    def draw(self, random: StepRandom) -> NoisyBatch:
        """Targets x_0, augmented where the settings ask for it, and their noise."""
        x_0, labels = self.target.batch(self.batch_size, random, "target"), None
        if self.settings.augment:
            labels = draw_labels(len(x_0), self.settings.augment, random.stream("augmentation"))
            x_0 = transformed(x_0, labels)
        sigma, eps = self.noise(len(x_0), random.stream("sigma")), noise_like(x_0, random.stream("eps"))
        return NoisyBatch(x_0, sigma, eps, labels=labels)

    def denoising_step(self, batch: NoisyBatch) -> dict[str, Tensor]:
        """One Adam step of D on `batch`. Returns scalars to log."""

        def loss_of(b: NoisyBatch) -> Tensor:
            labels = b.labels
            D = self.D if labels is None else lambda x_t, sigma: self.D(x_t, sigma, None, labels)
            return denoising_loss(D, b.x, b.sigma, b.eps, self.sigma_data)

        loss = self.minimize("denoiser", batch, loss_of)
        return {"loss": loss.mean(), "worst_sigma": at_largest(loss, batch.sigma)}

    @torch.no_grad()
    def samples(self) -> tuple[Tensor, ...]:
        """Target samples, and samples of the averaged teacher from pure noise by Heun's method."""
        random = StepRandom(seed=0, rank=0, step=0, device=self.device)
        real = self.target.batch(PREVIEW, random, "preview")
        return real, self.sampled(noise_like(real, random.stream("preview noise")))

    def trial(self, n: int) -> Trial:
        """n samples from noise."""
        rng = StepRandom(0, 0, 0, self.device).host_stream("evaluated noise")
        return Trial(torch.randn(n, *self.sample_shape, generator=rng), {None: self.sampled}, from_source=False)

    def sampled(self, noise: Tensor) -> Tensor:
        """Samples of the averaged teacher from standard normal noise (B, ...) by Heun's method."""
        sigmas = karras_sigmas(PREVIEW_STEPS, 0.002, 80.0)
        return sample_heun(self.ema.averaged, noise * sigmas[0].item(), sigmas)
