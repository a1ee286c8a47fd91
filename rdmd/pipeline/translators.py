"""The translators of an experiment, from the folders of models: generators, the teacher's samples, and baselines."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product

import torch
from torch import Tensor

from rdmd import config
from rdmd.baselines.ddib import DDIB
from rdmd.baselines.egsde import EGSDE, build_domain_classifier
from rdmd.baselines.ilvr import ILVR
from rdmd.baselines.neural_ot import build_transport_map
from rdmd.baselines.sdedit import SDEdit, SDEditSDE, down_from
from rdmd.diffusion.samplers import heun_evaluations, sample_heun
from rdmd.errors import UserError
from rdmd.evaluation.evaluator import NamedTranslator
from rdmd.evaluation.row import GENERATOR
from rdmd.networks.codec import Codec
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card
from rdmd.pipeline.model_folder import codec_of, load_denoiser, load_generator, load_module
from rdmd.training.run_config import cut_name, neural_ot_name

_Chosen = dict[str, float | int | str]
# The steps of the previews in the teacher's training: 35 evaluations.
STEPS = 18


def translators(settings: config.Settings, layout: Layout, device: torch.device) -> Iterator[NamedTranslator]:
    """Load them one after another. Raises UserError if a generator, the teacher or a baseline's network is missing."""
    yield from generators(settings, layout, device)
    codec = codec_of(layout.teacher, device, read_card(layout.teacher)) if settings.preprocess.codec else None
    if isinstance(settings.domains.source, config.Noise):
        yield teacher_samples(settings.domains.source, layout, device)
    for each in baselines(settings.baselines, layout, device):
        yield each if codec is None else replace(each, map=partial(_in_pixels, codec, each.map))


def generators(settings: config.Settings, layout: Layout, device: torch.device) -> Iterator[NamedTranslator]:
    """The generators under models/generators, by lambda; the one of a range at every evaluated lambda."""
    folders = sorted(layout.generators.glob("*/model.json"))
    if not folders:
        raise UserError(f"{layout.generators} holds no generator; train the sweep with `rdmd distill` or `dvc repro`.")
    loaded = [load_generator(file.parent, device) for file in folders]
    for card, generator in sorted(loaded, key=lambda pair: pair[0].lam or 0.0):
        chosen: _Chosen = {"sigma_init": card.sigma_init or 0.0, "run": card.run}
        if card.input_noise:
            chosen["input_noise"] = str(card.input_noise)
        for lam in settings.evaluated_lambdas if card.lambdas else [card.lam]:
            translate = partial(_at, generator, lam)
            yield NamedTranslator(translate, GENERATOR, 1, lam, chosen, card.train_seconds)


def teacher_samples(source: config.Noise, layout: Layout, device: torch.device) -> NamedTranslator:
    """The teacher's probability-flow ODE from the source's noise down to 0: the comparison for a generator of DMD."""
    card, teacher = load_denoiser(layout.teacher, device)
    sigmas = down_from(source.std, STEPS)
    sample = torch.no_grad()(lambda noise, rng: sample_heun(teacher, noise, sigmas))
    nfe = heun_evaluations(STEPS)
    return NamedTranslator(sample, "teacher", nfe, settings={"steps": STEPS}, train_seconds=card.train_seconds)


def baselines(grids: config.Baselines, layout: Layout, device: torch.device) -> Iterator[NamedTranslator]:
    """Every configured baseline at every combination of its hyperparameters, with the sweep's teacher.

    `train_seconds` is the time of the training for this baseline alone: None if it needs the teacher and nothing else.
    """
    if grids.sdedit or grids.sdedit_sde or grids.ilvr or grids.egsde or grids.ddib:
        yield from _teacher_baselines(grids, layout, device)
    if grids.neural_ot:
        for weight in grids.neural_ot.cost_weights:
            card, transport = load_module(layout.baselines / neural_ot_name(weight), build_transport_map, device)
            yield NamedTranslator(
                _deterministic(transport),
                "neural-ot",
                transport.nfe,
                settings={"cost_weight": weight, "run": card.run},
                train_seconds=card.train_seconds,
            )
    if grids.cut:
        for weight in grids.cut.nce_weights:
            card, generator = load_module(layout.baselines / cut_name(weight), build_transport_map, device)
            chosen: _Chosen = {"nce_weight": weight, "run": card.run}
            translate, spent = _deterministic(generator), card.train_seconds
            yield NamedTranslator(translate, "cut", generator.nfe, settings=chosen, train_seconds=spent)


def _teacher_baselines(grids: config.Baselines, layout: Layout, device: torch.device) -> Iterator[NamedTranslator]:
    chosen: _Chosen
    _, teacher = load_denoiser(layout.teacher, device)
    if ode := grids.sdedit:
        for sigma in ode.sigmas:
            sdedit = SDEdit(teacher, sigma, ode.steps)
            yield NamedTranslator(sdedit, "sdedit", sdedit.nfe, settings={"sigma": sigma, "steps": ode.steps})
    if sde := grids.sdedit_sde:
        for sigma in sde.sigmas:
            sampler = SDEditSDE(teacher, sigma, sde.steps)
            yield NamedTranslator(sampler, "sdedit-sde", sampler.nfe, settings={"sigma": sigma, "steps": sde.steps})
    if low_pass := grids.ilvr:
        for factor, stop in product(low_pass.factors, low_pass.sigma_stops):
            ilvr = ILVR(teacher, factor, stop, low_pass.steps)
            chosen = {"factor": factor, "sigma_stop": stop, "steps": low_pass.steps}
            yield NamedTranslator(ilvr, "ilvr", ilvr.nfe, settings=chosen)
    if energies := grids.egsde:
        card, classifier = load_module(layout.baselines / "domain-classifier", build_domain_classifier, device)
        factor, steps = energies.factor, energies.steps
        for sigma, repel, attract in product(energies.sigmas, energies.repel, energies.attract):
            egsde = EGSDE(teacher, classifier, sigma, steps, repel, attract, factor)
            chosen = {"sigma": sigma, "repel": repel, "attract": attract, "factor": factor, "steps": steps}
            yield NamedTranslator(egsde, "egsde", egsde.nfe, settings=chosen, train_seconds=card.train_seconds)
    if bridges := grids.ddib:
        card, encoder = load_denoiser(layout.baselines / "source-teacher", device)
        for steps in bridges.steps:
            ddib = DDIB(encoder, teacher, steps)
            yield NamedTranslator(ddib, "ddib", ddib.nfe, settings={"steps": steps}, train_seconds=card.train_seconds)


def _deterministic(network: torch.nn.Module) -> Callable[[Tensor, torch.Generator], Tensor]:
    return lambda source, rng: network(source)


def _at(generator: torch.nn.Module, lam: float | None, source: Tensor, rng: torch.Generator) -> Tensor:
    return generator(source, lam)


def _in_pixels(
    codec: Codec, move: Callable[[Tensor, torch.Generator], Tensor], source: Tensor, rng: torch.Generator
) -> Tensor:
    """A map of latents as one of images."""
    return codec.decoded(move(codec.encoded(source), rng))
