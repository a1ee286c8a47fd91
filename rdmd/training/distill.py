"""The objective of distillation: the generator and the fake denoiser, trained in turn."""

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rdmd.diffusion.loss import denoising_loss, noise_like
from rdmd.diffusion.noise import noise_law
from rdmd.distillation.generator import Generator
from rdmd.distillation.matching import WEIGHTINGS
from rdmd.distillation.rdmd import generator_loss
from rdmd.networks.build import build_denoiser, load_weights
from rdmd.training.costs import build_cost
from rdmd.training.data import FreshNoise, Source, open_domain
from rdmd.training.ema import EMA
from rdmd.training.objective import set_lr
from rdmd.training.random import StepRandom
from rdmd.training.schedule import lr_factor
from rdmd.training.spec import DistillRun, Weights

PREVIEW = 32


class DistillObjective:
    """RDMD at one lambda. Generator and fake both start from the teacher, which stays frozen, or from where the run of
    another lambda ended (continuation)."""

    def __init__(self, run: DistillRun, accelerator: Accelerator) -> None:
        s = run.settings
        self.settings = s
        self.lam = run.lam
        self.sigma_data = run.network.sigma_data
        self.accelerator = accelerator
        self.source = _source(run, accelerator)
        self.from_noise = run.source_noise is not None
        self.noise = noise_law(s.noise)
        self.fake_noise = noise_law(s.fake_noise or s.noise)
        self.cost = build_cost(s.cost, run.cost_weights, run.sample_shape, accelerator.device)
        self.weighting = WEIGHTINGS[s.weighting]

        def denoiser(weights: Weights | None) -> nn.Module:
            built = build_denoiser(run.network, run.sample_shape)
            if weights is not None:
                load_weights(built, weights.path)
            return built.to(accelerator.device)

        self.teacher = denoiser(run.teacher).eval().requires_grad_(False)
        if run.start is not None:
            begun, faked = run.start.generator, run.start.fake
        else:
            begun, faked = run.teacher if s.init == "teacher" else None, run.teacher
        generator, fake = Generator(denoiser(begun), s.sigma_init), denoiser(faked)
        self.ema = EMA(generator, s.ema)
        self.generator, self.generator_optimizer = accelerator.prepare(
            generator, torch.optim.Adam(generator.parameters(), lr=s.generator_lr, betas=(s.beta1, 0.999), fused=True)
        )
        self.fake, self.fake_optimizer = accelerator.prepare(
            fake, torch.optim.Adam(fake.parameters(), lr=s.fake_lr, betas=(s.beta1, 0.999), fused=True)
        )
        self.modules = {"generator": generator, "fake": fake}
        self.optimizers = {"generator": self.generator_optimizer, "fake": self.fake_optimizer}
        self.per_rank = s.batch // accelerator.num_processes

    def step(self, t: int, random: StepRandom) -> dict[str, Tensor]:
        """One generator step, then `fake_steps` steps of the fake; the first of them reuses the generator's forward."""
        s = self.settings
        factor = lr_factor(t, s.steps, s.warmup, s.decay)
        set_lr(self.generator_optimizer, s.generator_lr * factor)
        set_lr(self.fake_optimizer, s.fake_lr * factor)
        x = self.source.batch(self.per_rank, random, "source")
        with self.accelerator.autocast():
            generated = self.generator(x)
        logged = self._generator_step(x, generated, random)
        for k in range(self.settings.fake_steps):
            if k == 0:
                x_0 = generated.detach()
            else:
                with torch.no_grad(), self.accelerator.autocast():
                    x_0 = self.generator(self.source.batch(self.per_rank, random, f"source {k}"))
            logged |= self._fake_step(x_0, random, k)
        self.ema.update(t)
        return logged

    def _generator_step(self, x: Tensor, generated: Tensor, random: StepRandom) -> dict[str, Tensor]:
        sigma = self.noise(len(x), random.stream("sigma"))
        eps = noise_like(x, random.stream("eps"))
        with self.accelerator.autocast():
            loss = generator_loss(
                x, generated, self.fake, self.teacher, sigma, eps, self.lam, self.cost, self.weighting
            )
        self.accelerator.backward(loss.total.mean())
        self.generator_optimizer.step()
        self.generator_optimizer.zero_grad(set_to_none=True)
        logged = {"discrepancy": loss.discrepancy.mean(), "worst_sigma": sigma[loss.discrepancy.argmax()]}
        return logged if self.from_noise else {"cost": loss.cost.mean(), **logged}

    def _fake_step(self, x_0: Tensor, random: StepRandom, k: int) -> dict[str, Tensor]:
        sigma = self.fake_noise(len(x_0), random.stream(f"fake sigma {k}"))
        eps = noise_like(x_0, random.stream(f"fake eps {k}"))
        with self.accelerator.autocast():
            loss = denoising_loss(self.fake, x_0, sigma, eps, self.sigma_data)
        self.accelerator.backward(loss.mean())
        self.fake_optimizer.step()
        self.fake_optimizer.zero_grad(set_to_none=True)
        return {"fake_loss": loss.detach().mean()}

    @torch.no_grad()
    def samples(self) -> tuple[Tensor, ...]:
        """Sources, unless they are noise, and what the averaged generator makes of them."""
        x = self.source.batch(PREVIEW, StepRandom(0, 0, 0, self.accelerator.device), "preview")
        generated = self.ema.averaged(x)
        return (generated,) if self.from_noise else (x, generated)


def _source(run: DistillRun, accelerator: Accelerator) -> Source:
    if run.source_noise is not None:
        return FreshNoise(run.sample_shape, run.source_noise)
    return open_domain(run.source.path, "train", accelerator, run.data)
