"""RDMD's objective: the generator and the fake denoiser, trained in turn (RDMD, section 3)."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rdmd import config
from rdmd.data.sampling import StepRandom
from rdmd.data.view import FreshNoise, OpenDomain, Source, open_domain, varied
from rdmd.diffusion.loss import Denoiser, denoising_loss, noise_like
from rdmd.diffusion.noise import NoisyBatch, noise_distribution
from rdmd.distillation.costs import Cost, FeatureCost, Huber, InPixels, LowPass, l1, squared_l2
from rdmd.distillation.generator import Generator
from rdmd.distillation.matching import WEIGHTINGS
from rdmd.distillation.rdmd import RDMDLoss, draw_lambdas
from rdmd.evaluation.classifier import load_classifier
from rdmd.networks.build import build_denoiser, load_weights
from rdmd.networks.lpips import load_lpips
from rdmd.training.objective import PREVIEW, Objective, Trial, at_largest
from rdmd.training.run_config import DistillRun, Weights


class DistillObjective(Objective):
    """RDMD at one lambda, or at every lambda of a range:

    Generator:  min_G  int omega_t KL(p_t^G || p_t^T) dt + lambda E c(x, G(x))    (`generator_step`)
    Fake:       min_D  E beta_t ||D(G(x) + sigma_t eps, sigma_t) - G(x)||^2       (`fake_step`)

    Generator and fake start from the teacher, which stays frozen. For a range they are G(x, lambda) and
    D(x_t, sigma_t, lambda), and each sample draws its own lambda. Where `fake_draws` is shared, the generator's step is
    also the first step of the fake.
    """

    def __init__(self, run: DistillRun, accelerator: Accelerator, open_domain: OpenDomain = open_domain) -> None:
        s = self.settings = run.settings
        super().__init__(run, accelerator, warmup=s.warmup, decay=s.decay)
        self.from_noise = run.source_noise is not None
        self.shared = s.fake_draws == "shared"
        self.lam = run.lam
        # Where lambda is an input of the networks.
        self.lambdas = run.lam if isinstance(run.lam, config.LambdaRange) else None
        self.source = _source(run, accelerator, open_domain)
        self.noise = noise_distribution(s.noise)
        self.fake_noise = noise_distribution(s.fake_noise or s.noise)
        self.loss = RDMDLoss(
            cost=self._cost(run),
            weighting=WEIGHTINGS[s.weighting],
            sigma_data=run.network.sigma_data,
        )

        def denoiser(weights: Weights | None, lambdas: config.LambdaRange | None) -> nn.Module:
            built = build_denoiser(run.network, run.sample_shape, lambdas)
            if weights is not None:
                load_weights(built, weights.path, of_teacher=True)
            return self.compute.placed(built)

        self.teacher = self.compute.frozen(denoiser(run.teacher, None))
        self.D_teacher = self.compute.call(self.teacher)
        initial = None if s.init == "scratch" else run.teacher
        self.generator = Generator(denoiser(initial, self.lambdas), s.sigma_init, s.input_noise, self.lambdas)
        self.fake = denoiser(run.teacher, self.lambdas)
        self.G = self.trained("generator", self.generator, lr=s.generator_lr, beta1=s.beta1, ema=s.ema)
        self.D_fake = self.trained("fake", self.fake, lr=s.fake_lr, beta1=s.beta1)

    def update(self, random: StepRandom) -> dict[str, Tensor]:
        """One step of the generator, and `fake_steps` steps of the fake denoiser on its outputs."""
        batch = self.draw(random)
        x_0, logged = self.generator_step(batch)
        lam = batch.lam
        # The first fake step learns from the generator step's own outputs; each later one from new sources.
        for k in range(1 if self.shared else 0, self.settings.fake_steps):
            if k > 0:
                x_0, lam = self.generate(random, k)
            logged |= self.fake_step(self.draw_fake(x_0, lam, random, k))
        return logged

    def draw(self, random: StepRandom) -> NoisyBatch:
        """Sources x, the lambda and the noise z that the generator reads them with, and the noise added to G(x)."""
        x = self.source.batch(self.batch_size, random, "source")
        sigma, eps = self.noise(len(x), random.stream("sigma")), noise_like(x, random.stream("eps"))
        return NoisyBatch(x, sigma, eps, self._lam(len(x), random, "lambda"), self._z(x, random, "z"))

    def generator_step(self, batch: NoisyBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """One Adam step of the generator; where draws are shared also one of the fake, from the same passes of both
        networks. Returns G(x) from before the step, without its graph, and scalars to log."""
        trained = ("generator", "fake") if self.shared else ("generator",)
        D_fake = self.D_fake if self.shared else torch.no_grad()(self.compute.call(self.fake))
        outputs, losses = [], []
        for part, share in self.parts(batch, *trained):
            x, lam, sigma, eps = part.x, part.lam, part.sigma, part.eps
            assert lam is not None, "`draw` gives each sample a lambda"
            generated = self.G(x, lam, part.z)
            fake, teacher = self._at(lam, D_fake), self.D_teacher
            loss = self.loss(x, generated, lam, fake=fake, teacher=teacher, sigma=sigma, eps=eps)
            (loss.generator.mean() * share).backward()
            if self.shared:
                (loss.fake.mean() * share).backward()
            outputs.append(generated.detach())
            losses.append(replace(loss, generator=loss.generator.detach(), fake=loss.fake.detach()))
        for name in trained:
            self.apply_gradients(name)

        gradient_norm = torch.cat([loss.gradient_norm for loss in losses])
        logged = {} if self.from_noise else {"cost": torch.cat([loss.cost for loss in losses]).mean()}
        logged |= {"gradient_norm": gradient_norm.mean(), "worst_sigma": at_largest(gradient_norm, batch.sigma)}
        if self.shared:
            logged["fake_loss"] = torch.cat([loss.fake for loss in losses]).mean()
        return torch.cat(outputs), logged

    def draw_fake(self, x_0: Tensor, lam: Tensor | None, random: StepRandom, k: int) -> NoisyBatch:
        """Generated samples x_0 with their lambda, and the noise that the k-th fake step adds to them."""
        sigma = self.fake_noise(len(x_0), random.stream(f"fake sigma {k}"))
        return NoisyBatch(x_0, sigma, noise_like(x_0, random.stream(f"fake eps {k}")), lam)

    def fake_step(self, batch: NoisyBatch) -> dict[str, Tensor]:
        """One Adam step of the fake denoiser on generated samples. Returns scalars to log."""

        def loss(b: NoisyBatch) -> Tensor:
            return denoising_loss(self._at(b.lam, self.D_fake), b.x, b.sigma, b.eps, self.loss.sigma_data)

        return {"fake_loss": self.minimize("fake", batch, loss).mean()}

    @torch.no_grad()
    def generate(self, random: StepRandom, k: int) -> tuple[Tensor, Tensor]:
        """G(x) without a graph for the new sources of the k-th fake step, part by part, and their lambda."""
        x = self.source.batch(self.batch_size, random, f"source {k}")
        lam, z = self._lam(len(x), random, f"lambda {k}"), self._z(x, random, f"z {k}")
        G, unused = self.compute.call(self.generator), x.new_zeros(len(x))
        parts = NoisyBatch(x, unused, unused, lam, z).parts(self.compute.accumulate)
        return torch.cat([G(part.x, part.lam, part.z) for part in parts]), lam

    def _lam(self, n: int, random: StepRandom, name: str) -> Tensor:
        """A lambda for each sample."""
        if isinstance(self.lam, config.LambdaRange):
            return draw_lambdas(*self.lam.drawn, n, random.stream(name))
        return torch.full((n,), self.lam, device=self.device)

    def _at(self, lam: Tensor | None, denoiser: Callable[..., Tensor]) -> Denoiser:
        """D(x_t, sigma, lambda) at the samples' lambdas; the denoiser itself where it takes no lambda."""
        return denoiser if self.lambdas is None else lambda x_t, sigma: denoiser(x_t, sigma, lam)

    def _z(self, x: Tensor, random: StepRandom, name: str) -> Tensor | None:
        """The generator's input noise, new at every step; None where it reads x alone."""
        return noise_like(x, random.stream(name)) if self.settings.input_noise else None

    def _cost(self, run: DistillRun) -> Cost:
        """The transport cost of latents or images, as `cost_on` says."""
        if self.codec is None or run.settings.cost_on == "latents":
            return build_cost(run.settings.cost, run.cost_weights, run.sample_shape, self.device)
        side = run.sample_shape[-1] * self.codec.factor
        cost = build_cost(run.settings.cost, run.cost_weights, (3, side, side), self.device)
        return InPixels(cost, self.compute.call(self.codec))

    def kept(self) -> nn.Module:
        """The averaged generator's denoiser."""
        return self.ema.averaged.get_submodule("denoiser")

    def trial(self, n: int) -> Trial:
        """Translations of n sources at `shown_lambdas`."""
        x = self.source.distinct(n, StepRandom(0, 0, 0, self.device), "evaluated source")
        networks = {lam: partial(self.ema.averaged, lam=lam) for lam in self.shown_lambdas}
        return Trial(x, networks, from_source=not self.from_noise)

    @property
    def shown_lambdas(self) -> tuple[float | None, ...]:
        """The lambdas of previews and evaluations: the ends and the middle of a range; None where it is no input."""
        return (self.lambdas.from_, self.lambdas.middle, self.lambdas.to) if self.lambdas else (None,)

    @torch.no_grad()
    def samples(self) -> tuple[Tensor, ...]:
        """Sources, unless they are noise, and the averaged generator's outputs for them: of a range of lambdas those at
        its ends and in its middle."""
        x = self.source.batch(PREVIEW, StepRandom(0, 0, 0, self.device), "preview")
        generated = [self.ema.averaged(x, lam) for lam in self.shown_lambdas]
        return tuple(generated) if self.from_noise else (x, *generated)


def _source(run: DistillRun, accelerator: Accelerator, open_domain: OpenDomain) -> Source:
    if run.source_noise is not None:
        return FreshNoise(run.sample_shape, run.source_noise)
    return varied(open_domain(run.source.path, "train", accelerator.device), run.settings, run.sample_shape)


def build_cost(
    settings: config.TransportCost, weights: Weights | None, sample_shape: tuple[int, ...], device: torch.device
) -> Cost:
    """The transport cost c(x, y) for batches (B, *sample_shape) on `device`. `weights` are those of the cost's network;
    None for a cost without a network.

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
            assert weights is not None, "the run has no weights for its cost's network"
            classifier, _ = load_classifier(weights.path.parent)
            return FeatureCost(classifier.to(device).net.embed)
        case config.LPIPS():
            assert weights is not None, "the run has no weights for its cost's network"
            return load_lpips(weights.path).to(device)
