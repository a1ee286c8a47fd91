"""What is to be measured: every row of a study's seed, named by what it depends on before it is computed."""

import pkgutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rdmd import baselines, config
from rdmd.code_digest import code_digest
from rdmd.diffusion.samplers import heun, heun_evaluations, karras_sigmas
from rdmd.domains.pixels import to_uint8
from rdmd.domains.shards import read_split
from rdmd.evaluation.evaluator import EvaluationTask, identity_row, score, target_row, translate
from rdmd.evaluation.image_task import ImageTask
from rdmd.evaluation.point_task import PointTask
from rdmd.evaluation.row import GENERATOR, IDENTITY, TARGET, Row, Scores
from rdmd.evaluation.translator import NamedTranslator
from rdmd.pipeline.evaluation import shown
from rdmd.pipeline.model_card import read_card
from rdmd.pipeline.model_folder import load_denoiser
from rdmd.results.cache import Samples
from rdmd.results.studies import BASELINE_REFERENCES
from rdmd.results.tasks import PlanCache, fresh_points
from rdmd.results.workspace import StudyLayout

DATA, TEACHER, EXACT = "data", "teacher", "ot"
# More change nothing that can be measured, on the plane or on 8x8 pictures; 18 leave an error on the plane.
TEACHER_STEPS = 36
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
# What is trained for a baseline beside the teacher, by its name under models/baselines.
TRAINED_FOR = {"egsde": "domain-classifier", "ddib": "source-teacher"}
_EVALUATOR = ("rdmd.evaluation.evaluator", "rdmd.networks.build", "rdmd.diffusion.preconditioning")


@dataclass(frozen=True)
class Candidate:
    """A row that can be measured. `measure` gives it with the samples that figures show."""

    name: str
    identity: dict[str, Any]
    measure: Callable[[], tuple[Row, Samples]]


def references(
    settings: config.Settings, layout: StudyLayout, task: EvaluationTask, task_digest: str, plans: PlanCache
) -> Iterator[Candidate]:
    """What the methods are read against: the source as it is, the target's own samples, the teacher's, and, for
    points, exact transport to other samples than the reference."""

    def candidate(name: str, measure: Callable[[], tuple[Row, Samples]], **depends: Any) -> Candidate:
        code = code_digest((*_EVALUATOR, "rdmd.diffusion.samplers"))
        return Candidate(name, {"method": name, "task": task_digest, "code": code, **depends}, measure)

    yield candidate(IDENTITY, lambda: (identity_row(task), _sources(task)))
    if isinstance(task, PointTask):
        yield candidate(DATA, lambda: _data(settings, task))
        yield candidate(EXACT, lambda: _exact(settings, task, plans))
    else:
        train = read_split(layout.shards / "target", "train")
        yield candidate(
            TARGET, lambda: (target_row(task, train.data, train.scans), {"samples": train.data[: shown(task)]})
        )
    card, denoiser = load_denoiser(layout.teacher, task.device)
    train_seconds = card.train_seconds
    yield candidate(TEACHER, lambda: _teacher(denoiser, task, train_seconds), weights=card.sha256)


def translated(
    translators: Iterable[NamedTranslator], task: EvaluationTask, task_digest: str, layout: StudyLayout
) -> Iterator[Candidate]:
    """A candidate for every translator. On the plane baselines are measured on the first `BASELINE_REFERENCES`."""
    for translator in translators:
        own = task if translator.method == GENERATOR else _first_references(task, BASELINE_REFERENCES)
        identity = {
            "method": translator.method,
            "lambda": translator.lam,
            "settings": translator.settings,
            "weights": _weights_of(translator, layout),
            "task": task_digest,
            "code": code_digest((*_EVALUATOR, *_code_of(translator))),
        } | ({} if own is task else {"sources": len(own.source)})
        dials = ", ".join(f"{key} {value}" for key, value in translator.settings.items() if key != "run")
        lam = "" if translator.lam is None else f" lambda {translator.lam:g}"
        yield Candidate(
            f"{translator.method}{lam} ({dials})",
            identity,
            lambda translator=translator, own=own: _translated(translator, own),
        )


def _first_references(task: EvaluationTask, most: int) -> EvaluationTask:
    """The task with the first of its samples of points, and as many sources as those are compared with."""
    if not isinstance(task, PointTask) or len(task.more) < most:
        return task
    return replace(task, source=task.source[: most * len(task.reference)], more=task.more[: most - 1])


def _weights_of(translator: NamedTranslator, layout: StudyLayout) -> dict[str, str]:
    """The hashes of the models behind a translator, where its settings do not name the run that trained it."""
    if "run" in translator.settings:
        return {}
    folders = [layout.teacher]
    if translator.method in TRAINED_FOR:
        folders.append(layout.baselines / TRAINED_FOR[translator.method])
    return {folder.name: read_card(folder).sha256 for folder in folders}


def _code_of(translator: NamedTranslator) -> tuple[str, ...]:
    """The module of a translator's map; all baselines, where the map is wrapped."""
    if translator.method == GENERATOR:
        return ("rdmd.distillation.generator",)
    module = type(translator.map).__module__
    if module.startswith(f"{baselines.__name__}."):
        return (module,)
    return tuple(f"{baselines.__name__}.{found.name}" for found in pkgutil.iter_modules(baselines.__path__))


def _translated(translator: NamedTranslator, task: EvaluationTask) -> tuple[Row, Samples]:
    translations = translate(translator, task)
    run = translator.settings.get("run")
    row = score(translator, translations, task, str(run) if run else None)
    return row, _kept(translations.samples, task)


def _kept(samples: Tensor, task: EvaluationTask) -> Samples:
    """The first few translations: pictures as uint8, points as they are."""
    first = samples[: shown(task)]
    return {"samples": to_uint8(first) if isinstance(task, ImageTask) else first}


def _sources(task: EvaluationTask) -> Samples:
    """The sources that figures show, with targets, and where exact transport sends them."""
    kept = shown(task)
    samples = {"samples": task.source[:kept], "target": task.reference[:kept]}
    if isinstance(task, PointTask) and task.plan is not None:
        samples["exact"] = task.plan.barycentres[:kept].float()
    return samples


def _data(settings: config.Settings, task: PointTask) -> tuple[Row, Samples]:
    """Fresh samples of the target against the references, as many as there are translations of any method."""
    fresh = fresh_points(settings, "target", len(task.source))
    return _row(DATA, task.score_target(fresh)), _kept(fresh, task)


def _exact(settings: config.Settings, task: PointTask, plans: PlanCache) -> tuple[Row, Samples]:
    """Exact transport of as many sources as a reference has points to a fresh sample of the target, in blocks of
    `n_transport`: what exact transport scores when it is judged as any translator. To the reference itself its distance
    would be 0 by construction."""
    size = settings.evaluate.n_transport
    some = replace(task, source=task.source[: len(task.reference)])
    target = fresh_points(settings, "target", len(some.source))
    blocks = zip(some.source.split(size), target.split(size), strict=True)
    images = torch.cat([plans.plan(x, y).barycentres for x, y in blocks]).float()
    return _row(EXACT, some.score(images), settings={"points": min(size, len(target))}), _kept(images, some)


def _teacher(denoiser: torch.nn.Module, task: EvaluationTask, train_seconds: float) -> tuple[Row, Samples]:
    """As many samples of the teacher as there are sources, by Heun's method from noise (Karras et al. 2022)."""
    sigmas = karras_sigmas(TEACHER_STEPS, SIGMA_MIN, SIGMA_MAX)

    def sample(source: Tensor, rng: torch.Generator) -> Tensor:
        noise = torch.randn(source.shape, generator=rng, device=source.device)
        return heun(denoiser, SIGMA_MAX * noise, sigmas)

    translations = translate(NamedTranslator(sample, TEACHER, heun_evaluations(TEACHER_STEPS)), task)
    samples = translations.samples
    scores = task.score_target(to_uint8(samples) if isinstance(task, ImageTask) else samples)
    row = _row(TEACHER, scores, settings={"steps": TEACHER_STEPS})
    row = row.model_copy(update={
        "nfe": heun_evaluations(TEACHER_STEPS),
        "seconds_per_image": translations.seconds_per_image,
        "train_seconds": train_seconds,
    })
    return row, _kept(samples, task)


def _row(method: str, scores: Scores, settings: dict[str, float | int | str] | None = None) -> Row:
    return Row(method=method, settings=settings or {}, **vars(scores))


def timed(candidate: Candidate) -> tuple[Row, Samples, float]:
    """A candidate's row and samples, with the seconds that measuring took."""
    start = time.perf_counter()
    row, samples = candidate.measure()
    return row, samples, time.perf_counter() - start
