"""What one-step generation from noise (DMD) is compared with: the teacher's own samples of the same noise."""

from collections.abc import Iterator
from itertools import product

import torch

from rdmd import config
from rdmd.baselines.ddib import DDIB
from rdmd.baselines.egsde import EGSDE, build_domain_classifier
from rdmd.baselines.ilvr import ILVR
from rdmd.baselines.neural_ot import build_transport_map
from rdmd.baselines.sdedit import SDEdit, SDEditSDE, down_from
from rdmd.diffusion.loss import Denoiser
from rdmd.diffusion.samplers import heun_evaluations, sample_heun
from rdmd.errors import UserError
from rdmd.evaluation.translator import NamedTranslator
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import ModelCard
from rdmd.pipeline.model_folder import load_denoiser, load_generator, load_module
from rdmd.training.run_config import neural_ot_name

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
        return sample_heun(teacher, noise, sigmas)

    yield NamedTranslator(
        sample, "teacher", heun_evaluations(STEPS), settings={"steps": STEPS}, train_seconds=card.train_seconds
    )


def translators(settings: config.Settings, layout: Layout, device: torch.device) -> Iterator[NamedTranslator]:
    """Load them one after another. Raises UserError if a generator, the teacher or a baseline's network is missing."""
    yield from generators(layout, device)
    yield from teacher_samples(settings, layout, device)
    yield from baselines(settings.baselines, layout, device)


def generators(layout: Layout, device: torch.device) -> Iterator[NamedTranslator]:
    """The generators under models/generators, by lambda."""
    folders = sorted(layout.generators.glob("*/model.json"))
    if not folders:
        raise UserError(f"{layout.generators} holds no generator; train the sweep with `rdmd distill` or `dvc repro`.")
    loaded = [load_generator(file.parent, device) for file in folders]
    for card, generator in sorted(loaded, key=lambda pair: pair[0].lam or 0.0):
        yield NamedTranslator(
            map=lambda source, rng, generator=generator: generator(source),
            method="rdmd",
            nfe=1,
            lam=card.lam,
            settings={"sigma_init": card.sigma_init or 0.0, "run": card.run} | _noise_of(card),
            train_seconds=card.train_seconds,
        )


def _noise_of(card: ModelCard) -> dict[str, float]:
    """The noise that a generator reads its source with, where it does."""
    return {"input_noise": card.input_noise} if card.input_noise else {}


def baselines(given: config.Baselines, layout: Layout, device: torch.device) -> Iterator[NamedTranslator]:
    """Every configured baseline at every combination of its dials, with the sweep's teacher.

    `train_seconds` is what training for it alone took: None where there is the teacher and nothing else.
    """
    if given.sdedit or given.sdedit_sde or given.ilvr or given.egsde or given.ddib:
        _, teacher = load_denoiser(layout.teacher, device)
        yield from _untrained(given, teacher)
        yield from _egsde(given.egsde, teacher, layout, device)
        yield from _ddib(given.ddib, teacher, layout, device)
    yield from _neural_ot(given.neural_ot, layout, device)


def _untrained(given: config.Baselines, teacher: Denoiser) -> Iterator[NamedTranslator]:
    """The baselines for which the teacher is enough."""
    for name, grid, build in (("sdedit", given.sdedit, SDEdit), ("sdedit-sde", given.sdedit_sde, SDEditSDE)):
        for sigma in grid.sigmas if grid else []:
            method = build(teacher, sigma, grid.steps)
            yield NamedTranslator(method, name, method.nfe, settings={"sigma": sigma, "steps": grid.steps})
    if given.ilvr is not None:
        grid = given.ilvr
        for factor, stop in product(grid.factors, grid.sigma_stops):
            method = ILVR(teacher, factor, stop, grid.steps)
            dials = {"factor": factor, "sigma_stop": stop, "steps": grid.steps}
            yield NamedTranslator(method, "ilvr", method.nfe, settings=dials)


def _egsde(
    grid: config.EGSDE | None, teacher: Denoiser, layout: Layout, device: torch.device
) -> Iterator[NamedTranslator]:
    if grid is None:
        return
    card, classifier = load_module(layout.baselines / "domain-classifier", build_domain_classifier, device)
    for sigma, repel, attract in product(grid.sigmas, grid.repel, grid.attract):
        method = EGSDE(teacher, classifier, sigma, grid.steps, repel, attract, grid.factor)
        dials = {"sigma": sigma, "repel": repel, "attract": attract, "factor": grid.factor, "steps": grid.steps}
        yield NamedTranslator(method, "egsde", method.nfe, settings=dials, train_seconds=card.train_seconds)


def _ddib(
    grid: config.DDIB | None, teacher: Denoiser, layout: Layout, device: torch.device
) -> Iterator[NamedTranslator]:
    if grid is None:
        return
    card, source_teacher = load_denoiser(layout.baselines / "source-teacher", device)
    for steps in grid.steps:
        method = DDIB(source_teacher, teacher, steps)
        yield NamedTranslator(method, "ddib", method.nfe, settings={"steps": steps}, train_seconds=card.train_seconds)


def _neural_ot(grid: config.NeuralOT | None, layout: Layout, device: torch.device) -> Iterator[NamedTranslator]:
    for weight in grid.cost_weights if grid else []:
        card, transport = load_module(layout.baselines / neural_ot_name(weight), build_transport_map, device)
        yield NamedTranslator(
            map=lambda source, rng, transport=transport: transport(source),
            method="neural-ot",
            nfe=transport.nfe,
            settings={"cost_weight": weight, "run": card.run},
            train_seconds=card.train_seconds,
        )
