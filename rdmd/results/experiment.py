"""One seed of one study: train what is missing, evaluate what is missing, list what there is."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rdmd import config
from rdmd.domains.manifest import read_manifest
from rdmd.evaluation.evaluator import EvaluationTask
from rdmd.evaluation.point_task import PointTask
from rdmd.evaluation.translator import NamedTranslator
from rdmd.pipeline.baselines import train_baselines
from rdmd.pipeline.launch import TrainingProcesses
from rdmd.pipeline.model_card import read_card
from rdmd.pipeline.training import train_sweep
from rdmd.pipeline.translators import baselines, generators
from rdmd.progress import run_bar
from rdmd.results.cache import RowCache
from rdmd.results.candidates import Candidate, references, timed, translated
from rdmd.results.listing import GENERATOR_MODEL, Facts, Listing, SplitFacts, Training, write_listing
from rdmd.results.prepare import prepare
from rdmd.results.refinement import continued, unrefined
from rdmd.results.studies import Comparison, variant_key, variant_settings
from rdmd.results.tasks import PlanCache, affine_plan, random_pairs_cost, study_task, task_identity
from rdmd.results.workspace import Part, StudyLayout, Workspace
from rdmd.training.folder import Point, RunFolder
from rdmd.training.run import device_name
from rdmd.training.spec import TrainingRun, run_name

Say = Callable[[str], None]


@dataclass
class Seed:
    """One seed of a study at work. `task` is made when it is first needed, since exact plans take minutes."""

    study: str
    settings: config.Settings
    workspace: Workspace
    say: Say
    processes: TrainingProcesses = field(default_factory=TrainingProcesses)
    _task: EvaluationTask | None = None

    @property
    def layout(self) -> StudyLayout:
        return self.workspace.layout(self.study, self.settings.seed)

    @property
    def plans(self) -> PlanCache:
        return PlanCache(self.workspace.plans)

    def task(self) -> EvaluationTask:
        if self._task is None:
            self.say("reading the test split and its exact transport")
            self._task = study_task(self.settings, self.layout, self.plans)
        return self._task

    @contextmanager
    def watch(self, folder: RunFolder, run: TrainingRun) -> Iterator[Callable[[list[Point]], None]]:
        """A bar on a terminal, and a line at the end of each run that was trained here."""
        known = folder.result() is not None
        with run_bar(run_name(run), run.settings.steps) as bar:
            yield bar.follow
        result = folder.result()
        if not known and result is not None:
            self.say(f"trained {run_name(run)} in {result.train_seconds:.0f} s ({folder.fingerprint})")


def run_study(
    study: str, settings: config.Settings, parts: Sequence[Part], workspace: Workspace, say: Say
) -> None:
    """Train and evaluate the parts of one seed of a study; what is finished already is left as it is.

    Raises UserError for data or settings that a person can mend; whatever stops it, the same command goes on.
    """
    seed = Seed(study, settings, workspace, lambda text: say(f"{study}, seed {settings.seed}: {text}"))
    prepare(settings, seed.layout, seed.watch, seed.processes)
    for part in parts:
        _PARTS[part](seed)


def run_comparison(
    comparison: Comparison, base: config.Settings, workspace: Workspace, say: Say
) -> None:
    """Train and evaluate every variant of a comparison at one seed, on the study's own data, teacher and features."""
    name = f"{comparison.name}, seed {base.seed}"
    seed = Seed(comparison.study, base, workspace, lambda text: say(f"{name}: {text}"))
    prepare(base, seed.layout, seed.watch, seed.processes)
    _references(seed)
    for variant in comparison.variants:
        settings = variant_settings(base, comparison, variant)
        _variant(seed, settings, variant_key(comparison, variant))


def _references(seed: Seed) -> None:
    task = seed.task()
    digest = task_identity(seed.settings, seed.layout, task)
    candidates = references(seed.settings, seed.layout, task, digest, seed.plans)
    trained = [("teacher", seed.layout.teacher)]
    _measure(seed, "references", "", list(candidates), _training(seed.layout, trained))


def _generators(seed: Seed) -> None:
    train_sweep(seed.settings, seed.layout, seed.watch, seed.processes)
    apart = seed.workspace.layout(seed.study, seed.settings.seed, "unrefined")
    _measure_generators(seed, seed.settings, "", unrefined(seed.settings, seed.layout, apart, seed.task().device))


def _variant(seed: Seed, settings: config.Settings, variant: str) -> None:
    layout = seed.workspace.layout(seed.study, settings.seed, variant)
    train_sweep(settings, layout, seed.watch, seed.processes)
    _measure_generators(seed, settings, variant, [])


def _measure_generators(seed: Seed, settings: config.Settings, variant: str, more: Sequence[NamedTranslator]) -> None:
    layout = seed.workspace.layout(seed.study, settings.seed, variant)
    task = seed.task()
    digest = task_identity(settings, layout, task)
    candidates = list(translated([*generators(layout, task.device), *more], task, digest, layout))
    trained = [(GENERATOR_MODEL, file.parent) for file in sorted(layout.generators.glob("*/model.json"))]
    _measure(seed, "rdmd", variant, candidates, _training(layout, trained))


def _baselines(seed: Seed) -> None:
    layout = seed.layout
    train_baselines(seed.settings, layout, seed.watch, seed.processes)
    task = seed.task()
    digest = task_identity(seed.settings, layout, task)
    every = baselines(seed.settings.baselines, layout, task.device)
    candidates = list(translated(every, task, digest, layout))
    trained = [(file.parent.name, file.parent) for file in sorted(layout.baselines.glob("*/model.json"))]
    _measure(seed, "baselines", "", candidates, _training(layout, trained))


_PARTS: dict[Part, Callable[[Seed], None]] = {
    "references": _references, "rdmd": _generators, "baselines": _baselines
}


def _measure(seed: Seed, part: Part, variant: str, candidates: list[Candidate], training: list[Training]) -> None:
    """Evaluate the candidates that the cache lacks, after writing down which there are."""
    cache = RowCache(seed.workspace.rows)
    keys = [cache.key(candidate.identity) for candidate in candidates]
    listing = Listing(facts=_facts(seed), keys=keys, training=training)
    write_listing(seed.workspace.listing(seed.study, seed.settings.seed, part, variant), listing)
    missing = [(key, one) for key, one in zip(keys, candidates, strict=True) if cache.get(key) is None]
    what = f"{part} {variant}".strip()
    seed.say(f"{what}: {len(candidates) - len(missing)} of {len(candidates)} rows are there")
    for number, (key, candidate) in enumerate(missing, start=1):
        row, samples, seconds = timed(candidate)
        cache.put(key, candidate.identity, row, samples, seconds, device_name(seed.task().device))
        seed.say(f"{what}: {candidate.name} evaluated in {seconds:.1f} s ({number} of {len(missing)})")


def _facts(seed: Seed) -> Facts:
    task, settings = seed.task(), seed.settings
    points = isinstance(task, PointTask)
    manifests = {file.parent.name: read_manifest(file.parent)
                 for file in sorted(seed.layout.shards.glob("*/manifest.json"))}
    exact = None
    if points:
        exact = "discrete" if affine_plan(settings.domains, task.source[:1]) is None else "affine"
    return Facts(
        experiment=settings.experiment,
        seed=settings.seed,
        n_source=len(task.source),
        n_reference=len(task.reference),
        references=1 + len(task.more) if points else 1,
        n_transport=len(task.plan.barycentres) if points and task.plan is not None else None,
        n_w2=min(settings.evaluate.n_w2 or settings.evaluate.n_transport, len(task.source)) if points else None,
        domains={name: SplitFacts(train=one.counts["train"], test=one.counts["test"], digest=one.digest)
                 for name, one in manifests.items()},
        features=task.record().model_dump(),
        random_pairs_cost=random_pairs_cost(task),
        exact=exact,
    )


def _training(layout: StudyLayout, models: Iterable[tuple[str, Path]]) -> list[Training]:
    """What the runs behind published models cost, those that they continue included, each once."""
    published = [(name, RunFolder(layout.runs / read_card(folder).run)) for name, folder in models]
    runs = {folder.fingerprint: (name, folder) for name, folder in published}
    for name, folder in published:
        for before in continued(folder):
            runs.setdefault(before.fingerprint, (f"{name}, before refinement", before))
    return [
        Training(model=name, run=folder.fingerprint, **result.model_dump(include=_COSTS))
        for name, folder in runs.values()
        if (result := folder.result()) is not None
    ]


_COSTS = {"steps", "train_seconds", "peak_memory_mib", "parameters", "device"}

