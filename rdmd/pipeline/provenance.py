"""The provenance of the report's numbers: settings, code, trained models and their training curves."""

import contextlib
import platform
from collections.abc import Iterator
from typing import Any

import torch
import yaml

from rdmd import config
from rdmd.evaluation.table import method_name
from rdmd.pipeline.layout import Layout, git_commit
from rdmd.pipeline.model_card import ModelCard, read_card
from rdmd.report.page import Provenance, TrainedModel
from rdmd.training.run_folder import RunFolder

# The sections of params.yaml that the report shows. `evaluate` in dvc.yaml names the same ones, so that none is stale.
SECTIONS = ("experiment", "seed", "domains", "preprocess", "network", "teacher", "distill", "baselines", "evaluate")


def provenance_of(settings: config.Settings, layout: Layout) -> Provenance:
    """The provenance of an evaluation. Steps, memory and curves come from `runs/` where the run is still there."""
    models = list(_models(layout))
    commit = git_commit(layout.root)
    sha, edited = (commit.sha, commit.edited) if commit else (None, False)
    return Provenance(
        facts=list(_facts(settings, [card for _, card in models], sha, edited)),
        settings=_yaml(settings),
        models=[_trained(name, card, RunFolder(layout.runs / card.run)) for name, card in models],
        commit=sha,
        edited=edited,
    )


def _models(layout: Layout) -> Iterator[tuple[str, ModelCard]]:
    """The teacher, the generators by their lambda, and what was trained for the baselines, by name."""
    yield layout.teacher.name, read_card(layout.teacher)
    generators = [(file.parent.name, read_card(file.parent)) for file in layout.generators.glob("*/model.json")]
    yield from sorted(generators, key=lambda pair: (pair[1].lam or 0.0, pair[0]))
    for file in sorted(layout.baselines.glob("*/model.json")):
        yield file.parent.name, read_card(file.parent)


def _trained(name: str, card: ModelCard, folder: RunFolder) -> TrainedModel:
    result = None
    # The file may be of another version; the card is enough then.
    with contextlib.suppress(ValueError):
        result = folder.result()
    return TrainedModel(
        name,
        card.train_seconds,
        card.trained_on,
        None if result is None else result.steps,
        None if result is None else result.peak_memory_mib,
        folder.curves(),
    )


def _facts(
    settings: config.Settings, cards: list[ModelCard], commit: str | None, edited: bool
) -> Iterator[tuple[str, str]]:
    teacher, distill = settings.teacher, settings.distill
    shape = " × ".join(str(size) for size in (cards[0] if cards else settings).sample_shape)
    yield "experiment", f"{settings.experiment}, seed {settings.seed}"
    yield "source", _inline(settings.domains.source)
    yield "target", _inline(settings.domains.target)
    yield "samples", f"{settings.preprocess.kind}, {shape}"
    yield "network", _inline(settings.network)
    start = f"from {teacher.init}" if teacher.init else "from scratch"
    yield "teacher", f"{teacher.steps} steps of {teacher.batch} samples, learning rate {teacher.lr:g}, {start}"
    begun = "the teacher" if distill.init == "teacher" else "scratch"
    yield (
        "generators",
        (
            f"λ = {distill.described}; {distill.steps} steps of {distill.batch} samples, learning rate "
            f"{distill.generator_lr:g}, cost {distill.cost.name}, from {begun}"
        ),
    )
    grids = [(method_name(name.replace("_", "-")), grid) for name, grid in settings.baselines]
    baselines = [f"{name} ({_inline(grid)})" for name, grid in grids if grid]
    yield "baselines", "; ".join(baselines) or "none"
    machines = ", ".join(dict.fromkeys(card.trained_on for card in cards))
    yield "trained on", f"{machines}, {settings.launch.precision}"
    yield "software", f"Python {platform.python_version()}, torch {torch.__version__}; requirements.lock pins the rest"
    changed = ", with changes that are not committed" if edited else ""
    yield "code", f"commit {commit}{changed}" if commit else "outside git"


def _inline(section: config.Section) -> str:
    """A section in one line, without what is null, empty or a section itself."""
    values = section.model_dump(mode="json", exclude_none=True)
    shown = {key: value for key, value in values.items() if not isinstance(value, dict)}
    return ", ".join(f"{key} {_plain(value)}" for key, value in shown.items())


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(_plain(each) for each in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _yaml(settings: config.Settings) -> str:
    values = settings.model_dump(mode="json", by_alias=True, include=set(SECTIONS))
    return yaml.safe_dump(
        {name: values[name] for name in SECTIONS},
        sort_keys=False,
        default_flow_style=None,
        allow_unicode=True,
        width=100,
    )
