"""What one-step generation from noise (DMD) is compared with: the teacher's own samples of the same noise."""

from collections.abc import Iterator

import torch

from rdmd import config
from rdmd.baselines.levels import down_from
from rdmd.diffusion.samplers import heun, heun_evaluations
from rdmd.evaluation.translator import NamedTranslator
from rdmd.pipeline.generator_folder import load_denoiser
from rdmd.pipeline.layout import Layout

# As the previews of the teacher's training: 35 evaluations.
STEPS = 18


def teacher_samples(settings: config.Settings, layout: Layout, device: torch.device) -> Iterator[NamedTranslator]:
    """The teacher's probability-flow ODE from the source's noise down to 0; nothing where the source is no noise."""
    source = settings.domains.source
    if not isinstance(source, config.Noise):
        return
    card, teacher = load_denoiser(layout.teacher, device)
    sigmas = down_from(source.std, STEPS)

    @torch.no_grad()
    def sample(noise: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        return heun(teacher, noise, sigmas)

    yield NamedTranslator(
        sample, "teacher", heun_evaluations(STEPS), settings={"steps": STEPS}, train_seconds=card.train_seconds
    )
