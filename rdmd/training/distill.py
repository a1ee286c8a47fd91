"""The transport cost that a run names, with the frozen network that it needs."""

from dataclasses import replace
from itertools import repeat

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rdmd import config
from rdmd.data.sampling import StepRandom
from rdmd.data.view import FreshNoise, OpenDomain, Source, open_domain
from rdmd.diffusion.loss import Denoiser, denoising_error, denoising_loss, noise_like
from rdmd.diffusion.noise import noise_law
from rdmd.distillation.costs import Cost, FeatureCost, Huber, LowPass, l1, squared_l2
from rdmd.distillation.generator import Generator
from rdmd.distillation.matching import WEIGHTINGS
from rdmd.distillation.rdmd import GeneratorLoss, generator_loss
from rdmd.evaluation.classifier_folder import load_classifier
from rdmd.networks.build import build_denoiser, load_weights
from rdmd.networks.lpips import load_lpips
from rdmd.training.compute import execution_of
from rdmd.training.objective import EMA, Noised, adam, at_largest, lr_factor, set_lr
from rdmd.training.run_config import DistillRun, Weights


def build_cost(
    settings: config.TransportCost, weights: Weights | None, sample_shape: tuple[int, ...], device: torch.device
) -> Cost:
    """c(x, y) for batches (B, *sample_shape) on `device`; `weights` are the network's, None for costs without one.

    Raises UserError if the weights are missing or do not fit.
    """
    match settings:
        case config.SquaredL2():
            return squared_l2
        case config.L1():
            return l1
        case config.Huber():
            return Huber(settings.delta)
        case config.LowPass():
            return LowPass(settings.sigma, sample_shape[-1], device)
        case config.FeatureCost():
            assert weights is not None, "the run was planned without its cost's weights"
            classifier, _ = load_classifier(weights.path.parent)
            return FeatureCost(classifier.to(device).net.embed)
        case config.LPIPS():
            assert weights is not None, "the run was planned without its cost's weights"
            return load_lpips(weights.path).to(device)


PREVIEW = 32


class DistillObjective:
    """RDMD at one lambda. Generator and fake both start from the teacher, which stays frozen, or from where the run of
    another lambda ended (continuation)."""

    def __init__(self, run: DistillRun, accelerator: Accelerator, open_domain: OpenDomain = open_domain) -> None:
        s = run.settings
        self.settings = s
        self.sigma_data = run.network.sigma_data
        self.device = accelerator.device
        self.execution = execution_of(run, accelerator)
        self.source = _source(run, accelerator, open_domain)
        self.from_noise = run.source_noise is not None
        self.noise = noise_law(s.noise)
        self.fake_noise = noise_law(s.fake_noise or s.noise)
        self.cost = build_cost(s.cost, run.cost_weights, run.sample_shape, accelerator.device)
        self.weighting = WEIGHTINGS[s.weighting]

        def denoiser(weights: Weights | None) -> nn.Module:
            built = build_denoiser(run.network, run.sample_shape)
            if weights is not None:
                load_weights(built, weights.path)
            return self.execution.placed(built)

        self.teacher = self.execution.frozen(denoiser(run.teacher))
        if run.start is not None:
            begun, faked = run.start.generator, run.start.fake
        else:
            begun, faked = run.teacher if s.init == "teacher" else None, run.teacher
        # What c pulls G(x) towards, how hard, and what the curves call it: the source, or where a proximal run began.
        self.anchor: nn.Module = _Source()
        self.pull, self.pulled = run.lam, "cost"
        if run.proximal is not None:
            assert run.start is not None, "a proximal run starts from another"
            self.anchor = Generator(self.execution.frozen(denoiser(begun)), s.sigma_init, s.input_noise)
            self.pull, self.pulled = run.proximal, "moved"
        generator, fake = Generator(denoiser(begun), s.sigma_init, s.input_noise), denoiser(faked)
        self.ema = EMA(generator, s.ema)
        self.generator, self.fake = self.execution.trained(generator), self.execution.trained(fake)
        self.generator_optimizer = adam(generator, s.generator_lr, s.beta1)
        self.fake_optimizer = adam(fake, s.fake_lr, s.beta1)
        self.modules = {"generator": generator, "fake": fake}
        self.optimizers = {"generator": self.generator_optimizer, "fake": self.fake_optimizer}
        self.per_rank = s.batch // accelerator.num_processes

    def step(self, t: int, random: StepRandom) -> dict[str, Tensor]:
        """One generator step and `fake_steps` steps of the fake; the first of them reuses the generator's forward, and
        where draws are shared its own too."""
        s = self.settings
        self.execution.begin_step()
        factor = lr_factor(t, s.steps, s.warmup, s.decay)
        set_lr(self.generator_optimizer, s.generator_lr * factor)
        set_lr(self.fake_optimizer, s.fake_lr * factor)
        shared = s.fake_draws == "shared"
        x_0, logged = (self.joint_step if shared else self.generator_step)(self.draw(random))
        for k in range(int(shared), s.fake_steps):
            if k > 0:
                x = self.source.batch(self.per_rank, random, f"source {k}")
                x_0 = self._generate(x, self._input_noise(x, random, f"z {k}"))
            logged |= self.fake_step(self.draw_fake(x_0, random, k))
        self.ema.update(t)
        return logged

    def draw(self, random: StepRandom) -> Noised:
        """Sources, the noise that they are read with, and that which a generator step adds to what becomes of them."""
        x = self.source.batch(self.per_rank, random, "source")
        sigma, eps = self.noise(len(x), random.stream("sigma")), noise_like(x, random.stream("eps"))
        return Noised(x, sigma, eps, self._input_noise(x, random, "z"))

    def draw_fake(self, x_0: Tensor, random: StepRandom, k: int) -> Noised:
        """Generated samples, and the noise that the k-th fake step of a step adds to them."""
        sigma = self.fake_noise(len(x_0), random.stream(f"fake sigma {k}"))
        return Noised(x_0, sigma, noise_like(x_0, random.stream(f"fake eps {k}")))

    def generator_step(self, draws: Noised) -> tuple[Tensor, dict[str, Tensor]]:
        """One Adam step of the generator on sources. Returns G(x), from before it, and scalars to log."""
        fake = self.execution.call(self.modules["fake"])
        made, losses = [], []
        for part, share in self.execution.accumulated(draws, self.generator):
            generated, loss = self._generator_backward(part, share, fake)
            made.append(generated)
            losses.append(loss)
        _update(self.generator_optimizer)
        return torch.cat(made), self._logged(losses, draws.sigma)

    def joint_step(self, draws: Noised) -> tuple[Tensor, dict[str, Tensor]]:
        """One Adam step of the generator and one of the fake denoiser, each network passed once: the fake learns from
        the noised samples at which the generator's loss looks. Returns G(x), from before it, and scalars to log."""
        fake = _Kept(self.execution.call(self.fake))
        made, losses, fake_losses = [], [], []
        for part, share in self.execution.accumulated(draws, self.generator, self.fake):
            generated, loss = self._generator_backward(part, share, fake)
            fake_loss = denoising_error(fake.take(), generated, part.sigma, self.sigma_data)
            (fake_loss.mean() * share).backward()
            made.append(generated)
            losses.append(loss)
            fake_losses.append(fake_loss.detach())
        _update(self.generator_optimizer)
        _update(self.fake_optimizer)
        return torch.cat(made), self._logged(losses, draws.sigma) | {"fake_loss": torch.cat(fake_losses).mean()}

    def _generator_backward(self, part: Noised, share: float, fake: Denoiser) -> tuple[Tensor, GeneratorLoss]:
        """Add the gradients of a part of a batch to the generator's. Returns G(x) without its graph, and the loss."""
        G, real, anchor = (self.execution.call(net) for net in (self.generator, self.teacher, self.anchor))
        generated = G(part.x, part.z)
        with torch.no_grad():
            near = anchor(part.x, part.z)
        loss = generator_loss(near, generated, fake, real, part.sigma, part.eps, self.pull, self.cost, self.weighting)
        (loss.total.mean() * share).backward()
        return generated.detach(), replace(loss, total=loss.total.detach())

    def _logged(self, losses: list[GeneratorLoss], sigma: Tensor) -> dict[str, Tensor]:
        discrepancy = torch.cat([loss.discrepancy for loss in losses])
        logged = {"discrepancy": discrepancy.mean(), "worst_sigma": at_largest(discrepancy, sigma)}
        return logged if self.from_noise else {self.pulled: torch.cat([loss.cost for loss in losses]).mean(), **logged}

    def fake_step(self, draws: Noised) -> dict[str, Tensor]:
        """One Adam step of the fake denoiser on generated samples. Returns scalars to log."""
        D = self.execution.call(self.fake)
        losses = []
        for part, share in self.execution.accumulated(draws, self.fake):
            loss = denoising_loss(D, part.x, part.sigma, part.eps, self.sigma_data)
            (loss.mean() * share).backward()
            losses.append(loss.detach())
        _update(self.fake_optimizer)
        return {"fake_loss": torch.cat(losses).mean()}

    @torch.no_grad()
    def _generate(self, x: Tensor, z: Tensor | None) -> Tensor:
        """G(x, z) without a graph, part by part."""
        G = self.execution.call(self.modules["generator"])
        parts = self.execution.accumulate
        noise = repeat(None) if z is None else z.chunk(parts)
        return torch.cat([G(part, own) for part, own in zip(x.chunk(parts), noise, strict=False)])

    def _input_noise(self, x: Tensor, random: StepRandom, name: str) -> Tensor | None:
        """z for a generator that reads x with noise: new at every step."""
        return noise_like(x, random.stream(name)) if self.settings.input_noise else None

    @torch.no_grad()
    def samples(self) -> tuple[Tensor, ...]:
        """Sources, unless they are noise, and what the averaged generator makes of them."""
        x = self.source.batch(PREVIEW, StepRandom(0, 0, 0, self.device), "preview")
        generated = self.ema.averaged(x)
        return (generated,) if self.from_noise else (x, generated)


class _Kept:
    """A denoiser read without a graph, which is kept for one backward pass of its own."""

    def __init__(self, D: Denoiser) -> None:
        self._D = D
        self._denoised: Tensor | None = None

    def __call__(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            self._denoised = self._D(x_t, sigma)
        return self._denoised.detach()

    def take(self) -> Tensor:
        """What it made last, with its graph, once."""
        denoised, self._denoised = self._denoised, None
        assert denoised is not None, "it is read before it is taken"
        return denoised


def _update(optimizer: torch.optim.Optimizer) -> None:
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


class _Source(nn.Module):
    """(x, z) -> x."""

    def forward(self, x: Tensor, z: Tensor | None) -> Tensor:
        return x


def _source(run: DistillRun, accelerator: Accelerator, open_domain: OpenDomain) -> Source:
    if run.source_noise is not None:
        return FreshNoise(run.sample_shape, run.source_noise)
    return open_domain(run.source.path, "train", accelerator.device)
