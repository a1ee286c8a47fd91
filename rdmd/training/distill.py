"""RDMD's objective: the generator and the fake denoiser, trained in turn (RDMD, section 3)."""

from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rdmd import config
from rdmd.data.sampling import StepRandom
from rdmd.data.view import FreshNoise, OpenDomain, Source, open_domain
from rdmd.diffusion.loss import denoising_loss, noise_like
from rdmd.diffusion.noise import NoisyBatch, noise_distribution
from rdmd.distillation.costs import Cost, FeatureCost, Huber, LowPass, l1, squared_l2
from rdmd.distillation.generator import Generator
from rdmd.distillation.matching import WEIGHTINGS
from rdmd.distillation.rdmd import RDMDLoss
from rdmd.evaluation.classifier_folder import load_classifier
from rdmd.networks.build import build_denoiser, load_weights
from rdmd.networks.lpips import load_lpips
from rdmd.training.objective import PREVIEW, Objective, at_largest
from rdmd.training.run_config import DistillRun, Weights


class DistillObjective(Objective):
    """RDMD at one lambda:

    Generator:  min_G  int omega_t KL(p_t^G || p_t^T) dt + lambda E c(x, G(x))    (`generator_step`)
    Fake:       min_D  E beta_t ||D(G(x) + sigma_t eps, sigma_t) - G(x)||^2       (`fake_step`)

    Generator and fake start from the teacher, which stays frozen, or from the end of another lambda's run
    (continuation). Where `fake_draws` is shared, the generator's step is also the first step of the fake.
    """

    def __init__(self, run: DistillRun, accelerator: Accelerator, open_domain: OpenDomain = open_domain) -> None:
        s = self.settings = run.settings
        super().__init__(run, accelerator, warmup=s.warmup, decay=s.decay)
        self.from_noise = run.source_noise is not None
        self.shared = s.fake_draws == "shared"
        self.input_noise = s.noise_at(run.lam)
        self.source = _source(run, accelerator, open_domain)
        self.noise = noise_distribution(s.noise)
        self.fake_noise = noise_distribution(s.fake_noise or s.noise)
        self.loss = RDMDLoss(
            cost=build_cost(s.cost, run.cost_weights, run.sample_shape, accelerator.device),
            cost_weight=run.lam if run.proximal is None else run.proximal,
            weighting=WEIGHTINGS[s.weighting],
            sigma_data=run.network.sigma_data,
        )

        def denoiser(weights: Weights | None) -> nn.Module:
            built = build_denoiser(run.network, run.sample_shape)
            if weights is not None:
                load_weights(built, weights.path)
            return self.compute.placed(built)

        initial, initial_fake = (run.start.generator, run.start.fake) if run.start else (run.teacher, run.teacher)
        from_scratch = s.init == "scratch" and run.start is None
        self.teacher = self.compute.frozen(denoiser(run.teacher))
        self.D_teacher = self.compute.call(self.teacher)
        # The reference of the cost is x itself, or the output of a proximal run's first generator, G_k(x).
        self.G_k = None
        if run.proximal is not None:
            frozen = self.compute.frozen(denoiser(initial))
            self.G_k = self.compute.call(Generator(frozen, s.sigma_init, self.input_noise))
        self.cost_name = "cost" if self.G_k is None else "moved"
        self.generator = Generator(denoiser(None if from_scratch else initial), s.sigma_init, self.input_noise)
        self.fake = denoiser(initial_fake)
        self.G = self.trained("generator", self.generator, lr=s.generator_lr, beta1=s.beta1, ema=s.ema)
        self.D_fake = self.trained("fake", self.fake, lr=s.fake_lr, beta1=s.beta1)

    def update(self, random: StepRandom) -> dict[str, Tensor]:
        """One step of the generator, and `fake_steps` steps of the fake denoiser on its outputs."""
        x_0, logged = self.generator_step(self.draw(random))
        # The first fake step learns from the generator step's own outputs; each later one from new sources.
        for k in range(1 if self.shared else 0, self.settings.fake_steps):
            if k > 0:
                x_0 = self.generate(random, k)
            logged |= self.fake_step(self.draw_fake(x_0, random, k))
        return logged

    def draw(self, random: StepRandom) -> NoisyBatch:
        """Sources x, the noise z that the generator reads them with, and the noise that is added to G(x)."""
        x = self.source.batch(self.batch_size, random, "source")
        sigma, eps = self.noise(len(x), random.stream("sigma")), noise_like(x, random.stream("eps"))
        return NoisyBatch(x, sigma, eps, self._z(x, random, "z"))

    def generator_step(self, batch: NoisyBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """One Adam step of the generator; where draws are shared also one of the fake, from the same passes of both
        networks. Returns G(x) from before the step, without its graph, and scalars to log."""
        trained = ("generator", "fake") if self.shared else ("generator",)
        D_fake = self.D_fake if self.shared else torch.no_grad()(self.compute.call(self.fake))
        outputs, losses = [], []
        for part, share in self.parts(batch, *trained):
            generated = self.G(part.x, part.z)
            with torch.no_grad():
                reference = part.x if self.G_k is None else self.G_k(part.x, part.z)
            loss = self.loss(reference, generated, fake=D_fake, teacher=self.D_teacher, sigma=part.sigma, eps=part.eps)
            (loss.generator.mean() * share).backward()
            if self.shared:
                (loss.fake.mean() * share).backward()
            outputs.append(generated.detach())
            losses.append(replace(loss, generator=loss.generator.detach(), fake=loss.fake.detach()))
        for name in trained:
            self.apply_gradients(name)

        gradient_norm = torch.cat([loss.gradient_norm for loss in losses])
        logged = {} if self.from_noise else {self.cost_name: torch.cat([loss.cost for loss in losses]).mean()}
        logged |= {"gradient_norm": gradient_norm.mean(), "worst_sigma": at_largest(gradient_norm, batch.sigma)}
        if self.shared:
            logged["fake_loss"] = torch.cat([loss.fake for loss in losses]).mean()
        return torch.cat(outputs), logged

    def draw_fake(self, x_0: Tensor, random: StepRandom, k: int) -> NoisyBatch:
        """Generated samples x_0, and the noise that the k-th fake step adds to them."""
        sigma = self.fake_noise(len(x_0), random.stream(f"fake sigma {k}"))
        return NoisyBatch(x_0, sigma, noise_like(x_0, random.stream(f"fake eps {k}")))

    def fake_step(self, batch: NoisyBatch) -> dict[str, Tensor]:
        """One Adam step of the fake denoiser on generated samples. Returns scalars to log."""
        sigma_data = self.loss.sigma_data
        loss = self.minimize("fake", batch, lambda b: denoising_loss(self.D_fake, b.x, b.sigma, b.eps, sigma_data))
        return {"fake_loss": loss.mean()}

    @torch.no_grad()
    def generate(self, random: StepRandom, k: int) -> Tensor:
        """G(x) without a graph for the new sources of the k-th fake step, part by part."""
        x = self.source.batch(self.batch_size, random, f"source {k}")
        G, parts = self.compute.call(self.generator), self.compute.accumulate
        z = self._z(x, random, f"z {k}")
        if z is None:
            return torch.cat([G(part) for part in x.chunk(parts)])
        return torch.cat([G(part, own) for part, own in zip(x.chunk(parts), z.chunk(parts), strict=True)])

    def _z(self, x: Tensor, random: StepRandom, name: str) -> Tensor | None:
        """The generator's input noise, new at every step; None where it reads x alone."""
        return noise_like(x, random.stream(name)) if self.input_noise else None

    def kept(self) -> nn.Module:
        """The averaged generator's denoiser."""
        return self.ema.averaged.get_submodule("denoiser")

    @torch.no_grad()
    def samples(self) -> tuple[Tensor, ...]:
        """Sources, unless they are noise, and the averaged generator's outputs for them."""
        x = self.source.batch(PREVIEW, StepRandom(0, 0, 0, self.device), "preview")
        generated = self.ema.averaged(x)
        return (generated,) if self.from_noise else (x, generated)


def _source(run: DistillRun, accelerator: Accelerator, open_domain: OpenDomain) -> Source:
    if run.source_noise is not None:
        return FreshNoise(run.sample_shape, run.source_noise)
    return open_domain(run.source.path, "train", accelerator.device)


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
