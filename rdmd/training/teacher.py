"""The teacher's objective: denoising score matching on the target."""

import torch
from accelerate import Accelerator
from torch import Tensor

from rdmd.data.sampling import StepRandom
from rdmd.data.view import OpenDomain, open_domain
from rdmd.diffusion.loss import denoising_loss, noise_like
from rdmd.diffusion.noise import noise_law
from rdmd.diffusion.samplers import heun, karras_sigmas
from rdmd.networks.build import build_denoiser, load_weights
from rdmd.training.compute import execution_of
from rdmd.training.objective import EMA, Noised, adam, at_largest, lr_factor, set_lr
from rdmd.training.run_config import TeacherRun

PREVIEW = 32
PREVIEW_STEPS = 18


class TeacherObjective:
    """min_D E beta_t ||D(x_0 + sigma_t eps, sigma_t) - x_0||^2 over the target's training split."""

    def __init__(self, run: TeacherRun, accelerator: Accelerator, open_domain: OpenDomain = open_domain) -> None:
        self.settings = run.settings
        self.sigma_data = run.network.sigma_data
        self.sample_shape = run.sample_shape
        self.device = accelerator.device
        self.execution = execution_of(run, accelerator)
        self.target = open_domain(run.target.path, "train", accelerator.device)
        self.noise = noise_law(run.settings.noise)
        denoiser = build_denoiser(run.network, run.sample_shape)
        if run.initial is not None:
            load_weights(denoiser, run.initial.path)
        self.execution.placed(denoiser)
        self.ema = EMA(denoiser, run.settings.ema)
        self.denoiser = self.execution.trained(denoiser)
        self.optimizer = adam(denoiser, run.settings.lr, beta1=0.9)
        self.modules = {"denoiser": denoiser}
        self.optimizers = {"denoiser": self.optimizer}
        self.per_rank = run.settings.batch // accelerator.num_processes

    def step(self, t: int, random: StepRandom) -> dict[str, Tensor]:
        """One Adam step."""
        s = self.settings
        self.execution.begin_step()
        set_lr(self.optimizer, s.lr * lr_factor(t, s.steps, s.warmup, s.decay))
        logged = self.denoising_step(self.draw(random))
        self.ema.update(t)
        return logged

    def draw(self, random: StepRandom) -> Noised:
        """Targets, and the noise that a step adds to them."""
        x_0 = self.target.batch(self.per_rank, random, "target")
        return Noised(x_0, self.noise(len(x_0), random.stream("sigma")), noise_like(x_0, random.stream("eps")))

    def denoising_step(self, draws: Noised) -> dict[str, Tensor]:
        """One Adam step on targets. Returns scalars to log."""
        D = self.execution.call(self.denoiser)
        losses = []
        for part, share in self.execution.accumulated(draws, self.denoiser):
            loss = denoising_loss(D, part.x, part.sigma, part.eps, self.sigma_data)
            (loss.mean() * share).backward()
            losses.append(loss.detach())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.cat(losses)
        return {"loss": loss.mean(), "worst_sigma": at_largest(loss, draws.sigma)}

    @torch.no_grad()
    def samples(self) -> tuple[Tensor, ...]:
        """Target samples, and draws of the averaged teacher from pure noise by Heun's method."""
        random = StepRandom(seed=0, rank=0, step=0, device=self.device)
        real = self.target.batch(PREVIEW, random, "preview")
        sigmas = karras_sigmas(PREVIEW_STEPS, 0.002, 80.0)
        noise = noise_like(real, random.stream("preview noise"))
        return real, heun(self.ema.averaged, noise * sigmas[0].item(), sigmas)
