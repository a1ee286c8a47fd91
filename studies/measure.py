"""One seed of one study: train and evaluate everything that is missing, and return the rows."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from joblib import Memory
from torch import Tensor

from rdmd import config
from rdmd.baselines.ddib import DDIB
from rdmd.baselines.egsde import EGSDE
from rdmd.baselines.ilvr import ILVR
from rdmd.baselines.neural_ot import TransportMap
from rdmd.baselines.sdedit import SDEdit
from rdmd.code_digest import code_digest
from rdmd.data.manifest import read_manifest
from rdmd.data.preprocess import preprocess
from rdmd.data.shards import read_split
from rdmd.data.transforms import to_uint8, to_unit
from rdmd.diffusion.samplers import heun_evaluations, karras_sigmas, sample_heun
from rdmd.distillation.generator import Generator
from rdmd.evaluation.classifier import train_classifier
from rdmd.evaluation.evaluator import EvaluationTask, NamedTranslator, identity_row, target_row, translate
from rdmd.evaluation.row import GENERATOR, IDENTITY, TARGET, Row
from rdmd.evaluation.selection import mark_front
from rdmd.evaluation.table import drifted
from rdmd.evaluation.task import ImageTask, PointTask
from rdmd.evaluation.transport import exact_plan
from rdmd.files import canonical_json
from rdmd.networks.build import build_denoiser
from rdmd.pipeline.evaluation import evaluate_one, evaluation_task, shown
from rdmd.pipeline.features import train_features
from rdmd.pipeline.launch import TrainingProcesses
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card
from rdmd.pipeline.model_folder import load_denoiser
from rdmd.pipeline.training import Watch, train_baselines, train_generators, train_teacher
from rdmd.pipeline.translators import baselines, generators
from rdmd.progress import run_bar
from rdmd.training.run import device_name
from rdmd.training.run_config import TrainingRun, run_name
from rdmd.training.run_folder import Point, RunFolder
from studies.grids import Part
from studies.points import affine_plan, exact_images, first_references, fresh_points, point_study_task
from studies.statistics import DATA, EXACT, TEACHER

# Enough: more steps change no number, on the plane or on 8x8 images; 18 leave an error on the plane.
TEACHER_STEPS = 36
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
# The model that a baseline needs beside the teacher, by its name under models/baselines.
TRAINED_FOR = {"egsde": "domain-classifier", "ddib": "source-teacher"}
_CODE = (translate, build_denoiser, exact_plan, sample_heun, Generator, TransportMap, SDEdit, ILVR, EGSDE, DDIB)

Say = Callable[[str], None]
# A row, and the first translations, which figures show.
Evaluated = tuple[Row, Tensor]


@dataclass
class StudyLayout(Layout):
    """One seed of one study: data and models of its own, training runs shared by all. A variant of a comparison has
    generators of its own and nothing else."""

    shared_runs: Path = Path("results") / "runs"
    variant: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.runs = self.shared_runs
        if self.variant:
            self.generators = self.root / "variants" / self.variant


@dataclass(frozen=True)
class Bench:
    """One seed of a study with its data, feature network and teacher made, ready to train and measure."""

    settings: config.Settings
    layout: StudyLayout
    task: EvaluationTask
    memory: Memory
    say: Say
    watch: Watch
    processes: TrainingProcesses


@dataclass(frozen=True)
class Job:
    """A row to be measured. `depends` holds its inputs beside the data, the evaluation and the code."""

    name: str
    depends: dict[str, Any]
    measure: Callable[[], Evaluated]


@dataclass(frozen=True)
class Measured:
    """The rows of one part of one seed, the first translations of each, and the training behind them.

    `facts` are the sizes of the measurement, the same at every seed. `random_pairs_cost` is the mean cost over all
    pairs of a source and a reference sample: the cost of a perfectly realistic translator that ignores its input.
    """

    seed: int
    facts: dict[str, Any]
    features: dict[str, Any]
    splits: list[dict[str, Any]]
    random_pairs_cost: float
    device: str
    rows: list[dict[str, Any]]
    samples: list[Tensor]
    training: list[dict[str, Any]]

    def joined(self, other: "Measured") -> "Measured":
        """The rows of both, these first."""
        more = {name: getattr(self, name) + getattr(other, name) for name in ("rows", "samples", "training")}
        return replace(other, **more)


def open_bench(
    study: str, settings: config.Settings, work: Path, say: Say, task: EvaluationTask | None = None
) -> Bench:
    """Make the data, the feature network and the teacher of one seed, as far as they are missing. `task` is that of
    another bench with the same test split, or None for its own."""
    described = {
        "domains": settings.domains.model_dump(mode="json"),
        "preprocess": settings.preprocess.model_dump(mode="json"),
        "features": settings.evaluate.features.model_dump(mode="json"),
        "code": _digest(preprocess, train_classifier),
    }
    digest = hashlib.sha256(canonical_json(described).encode()).hexdigest()[:8]
    layout = StudyLayout(work / study / f"seed-{settings.seed}-{digest}", shared_runs=work / "runs")
    memory, processes, watch = Memory(work / "cache", verbose=0), TrainingProcesses(), partial(_watch, say)
    for name in settings.domains.named:
        if not (layout.shards / name / "manifest.json").exists():
            preprocess(settings, name, layout.shards / name)
    if not layout.features.exists():
        train_features(settings, layout)
    train_teacher(settings, layout, watch, processes)
    if task is None:
        say("reading the test split")
        points = settings.preprocess.kind == "points"
        task = point_study_task(settings, layout, memory) if points else evaluation_task(settings, layout)
    return Bench(settings, layout, task, memory, say, watch, processes)


def measure_references(bench: Bench) -> Measured:
    """The references of methods: the untranslated source, the teacher's samples, and for images the target's train
    split, for points fresh samples of the target and exact transport to them."""
    return _measured(bench, "references", list(_references(bench)), {"teacher": [bench.layout.teacher]})


def measure_teacher(bench: Bench) -> Measured:
    """The teacher's samples alone."""
    jobs = [job for job in _references(bench) if job.name == TEACHER]
    return _measured(bench, "teacher", jobs, {"teacher": [bench.layout.teacher]})


def measure_generators(bench: Bench, variant: str = "") -> Measured:
    """The generators: one at every evaluated lambda of its range, or those of a list."""
    bench = replace(bench, layout=replace(bench.layout, variant=variant))
    train_generators(bench.settings, bench.layout, bench.watch, bench.processes)
    found = list(generators(bench.settings, bench.layout, bench.task.device))
    jobs = [_translator_job(bench, translator) for translator in found]
    return _measured(bench, variant or "rdmd", jobs, {"generator": _models(bench.layout.generators)})


def measure_baselines(bench: Bench) -> Measured:
    """Every configured baseline, with what is trained for it."""
    train_baselines(bench.settings, bench.layout, bench.watch, bench.processes)
    found = baselines(bench.settings.baselines, bench.layout, bench.task.device)
    models = {folder.name: [folder] for folder in _models(bench.layout.baselines)}
    return _measured(bench, "baselines", [_translator_job(bench, translator) for translator in found], models)


MEASURE: dict[Part, Callable[[Bench], Measured]] = {
    "references": measure_references,
    "rdmd": measure_generators,
    "baselines": measure_baselines,
}


def _measured(bench: Bench, part: str, jobs: list[Job], models: dict[str, list[Path]]) -> Measured:
    """The rows of the jobs, cached by joblib under all their inputs."""
    evaluate = bench.memory.cache(_evaluate, ignore=["measure"])
    results = []
    for number, job in enumerate(jobs, start=1):
        domains = {name: read_manifest(bench.layout.shards / name).digest for name in ("source", "target")}
        features, settings = bench.task.record().model_dump(), bench.settings.evaluate.model_dump(mode="json")
        judged = {"domains": domains, "features": features, "evaluate": settings, "seed": bench.settings.seed}
        identity = canonical_json({**judged, **job.depends, "method": job.name, "code": _digest(*_CODE)})
        known, start = evaluate.check_call_in_cache(identity, job.measure), time.perf_counter()
        results.append(evaluate(identity, job.measure))
        if not known:
            seconds = time.perf_counter() - start
            bench.say(f"{part}: {job.name} evaluated in {seconds:.1f} s ({number} of {len(jobs)})")
    training = list(_training(bench, models))
    memory = {entry[key]: entry["peak_memory_mib"] for entry in training for key in ("model", "run")}
    rows = [
        {
            **row.model_dump(mode="json", by_alias=True),
            "settings": {key: value for key, value in row.settings.items() if key != "run"},
            "seed": bench.settings.seed,
            "peak_memory_mib": memory.get(row.run or TRAINED_FOR.get(row.method, row.method)),
            "drift": drifted(row) if row.method == GENERATOR and row.ot_cost is not None else None,
        }
        for row in mark_front([row for row, _ in results])
    ]
    manifests = [read_manifest(file.parent) for file in sorted(bench.layout.shards.glob("*/manifest.json"))]
    return Measured(
        seed=bench.settings.seed,
        facts=_facts(bench.settings, bench.task),
        features=bench.task.record().model_dump(),
        splits=[
            {
                "domain": manifest.domain,
                "digest": manifest.digest,
                "train": manifest.counts["train"],
                "test": manifest.counts["test"],
            }
            for manifest in manifests
        ],
        random_pairs_cost=_random_pairs_cost(bench.task),
        device=device_name(bench.task.device),
        rows=rows,
        samples=[samples for _, samples in results],
        training=training,
    )


def _evaluate(identity: str, measure: Callable[[], Evaluated]) -> Evaluated:
    return measure()


def _digest(*things: Any) -> str:
    return code_digest(tuple(thing.__module__ for thing in things))


def _references(bench: Bench) -> Iterator[Job]:
    task, layout, settings = bench.task, bench.layout, bench.settings
    yield Job(IDENTITY, {}, lambda: (identity_row(task), task.source[: shown(task)].clone()))
    if isinstance(task, PointTask):
        fresh = fresh_points(settings, "target", len(task.source))
        yield Job(DATA, {}, lambda: (Row(method=DATA, **dict(task.score_target(fresh))), _kept(fresh, task)))
        # Exact transport to a fresh sample, judged as any translator: its L2-UVP is the error of the measurement.
        some = replace(task, source=task.source[: len(task.reference)])
        yield Job(EXACT, {}, lambda: _exact(bench, some))
    else:
        train = read_split(layout.shards / "target", "train")
        yield Job(TARGET, {}, lambda: (target_row(task, train.data, train.scans), train.data[: shown(task)]))
    card, denoiser = load_denoiser(layout.teacher, task.device)
    yield Job(TEACHER, {"weights": card.sha256}, lambda: _teacher(denoiser, task, card.train_seconds))


def _exact(bench: Bench, task: PointTask) -> Evaluated:
    images = exact_images(bench.settings, task, bench.memory)
    points = min(bench.settings.evaluate.n_transport, len(task.source))
    return Row(method=EXACT, settings={"points": points}, **dict(task.score(images))), _kept(images, task)


def _teacher(denoiser: torch.nn.Module, task: EvaluationTask, train_seconds: float) -> Evaluated:
    """As many samples of the teacher as there are sources, by Heun's method from noise (Karras et al. 2022)."""
    sigmas = karras_sigmas(TEACHER_STEPS, SIGMA_MIN, SIGMA_MAX)

    def sample(source: Tensor, rng: torch.Generator) -> Tensor:
        return sample_heun(denoiser, SIGMA_MAX * torch.randn(source.shape, generator=rng, device=source.device), sigmas)

    nfe = heun_evaluations(TEACHER_STEPS)
    made = translate(NamedTranslator(sample, TEACHER, nfe), task)
    scores = task.score_target(to_uint8(made.samples) if isinstance(task, ImageTask) else made.samples)
    row = Row(
        method=TEACHER,
        settings={"steps": TEACHER_STEPS},
        nfe=nfe,
        seconds_per_image=made.seconds_per_image,
        train_seconds=train_seconds,
        **dict(scores),
    )
    return row, _kept(made.samples, task)


def _translator_job(bench: Bench, translator: NamedTranslator) -> Job:
    task, run = bench.task, translator.settings.get("run")
    if isinstance(task, PointTask) and translator.method != GENERATOR:
        task = first_references(task)

    def measure() -> Evaluated:
        found = evaluate_one(translator, task)
        return found.row, _kept(found.samples, task)

    # A run determines its weights; other baselines use the teacher and the models trained for baselines.
    folders = [] if run else [bench.layout.teacher, *_models(bench.layout.baselines)]
    weights = {folder.name: read_card(folder).sha256 for folder in folders}
    depends = {"settings": translator.settings, "weights": weights, "sources": len(task.source)}
    chosen = ", ".join(f"{key} {value}" for key, value in translator.settings.items() if key != "run")
    lam = "" if translator.lam is None else f" lambda {translator.lam:g}"
    return Job(f"{translator.method}{lam} ({chosen})", depends, measure)


def _kept(samples: Tensor, task: EvaluationTask) -> Tensor:
    """The first translations: images as uint8, points as they are."""
    first = samples[: shown(task)]
    return to_uint8(first) if isinstance(task, ImageTask) else first.clone()


def _models(folder: Path) -> list[Path]:
    return [file.parent for file in sorted(folder.glob("*/model.json"))]


def _training(bench: Bench, models: dict[str, list[Path]]) -> Iterator[dict[str, Any]]:
    """Steps, time and memory of the runs behind models."""
    for name, found in models.items():
        for model in found:
            folder = RunFolder(bench.layout.runs / read_card(model).run)
            result = folder.result()
            if result is not None:
                costs = result.model_dump(include={"steps", "train_seconds", "peak_memory_mib", "parameters", "device"})
                yield {"seed": bench.settings.seed, "model": name, "run": folder.fingerprint, **costs}


def _facts(settings: config.Settings, task: EvaluationTask) -> dict[str, Any]:
    facts = {"experiment": settings.experiment, "n_source": len(task.source), "n_reference": len(task.reference)}
    if not isinstance(task, PointTask) or task.plan is None:
        return {**facts, "references": 1, "n_transport": None, "n_w2": None, "exact_transport": None}
    return {
        **facts,
        "references": 1 + len(task.more),
        "n_transport": len(task.plan.barycentres),
        "n_w2": min(settings.evaluate.n_w2 or settings.evaluate.n_transport, len(task.source)),
        "exact_transport": "discrete" if affine_plan(settings.domains, task.source[:1]) is None else "affine",
    }


def _random_pairs_cost(task: EvaluationTask) -> float:
    reference = task.reference if isinstance(task, PointTask) else to_unit(task.reference)
    x, y = task.inputs().double().flatten(1), reference.double().flatten(1)
    squares = x.square().sum(dim=1).mean() + y.square().sum(dim=1).mean()
    return ((squares - 2 * x.mean(dim=0) @ y.mean(dim=0)) / x.shape[1]).item()


@contextmanager
def _watch(say: Say, folder: RunFolder, run: TrainingRun) -> Iterator[Callable[[list[Point]], None]]:
    """A bar on a terminal, and a line at the end of each run that was trained here."""
    finished = folder.result() is not None
    with run_bar(run_name(run), run.settings.steps) as bar:
        yield bar.follow
    result = folder.result()
    if not finished and result is not None:
        say(f"trained {run_name(run)} in {result.train_seconds:.0f} s ({folder.fingerprint})")
