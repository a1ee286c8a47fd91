"""Work that can be carried to another machine: what it reads, as files by where they go below any folder there."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rdmd import config
from rdmd.config import Section
from rdmd.evaluation.classifier_folder import CARD
from rdmd.pipeline.layout import Layout
from rdmd.training.spec import Shards, TrainingRun, Weights

AnySection = TypeVar("AnySection", bound=Section)
INPUTS = Path("inputs")


@dataclass(frozen=True)
class PortableRun:
    """A run whose inputs are named by relative paths, and where each of its files is here, by such a path."""

    run: TrainingRun
    files: dict[Path, Path]


@dataclass(frozen=True)
class PortableEvaluation:
    """Settings whose files are named by relative paths, and where each file of the evaluation is here, by such a
    path."""

    settings: config.Settings
    files: dict[Path, Path]


def portable_run(run: TrainingRun) -> PortableRun:
    """All that training reads: shards, weights and the descriptions beside them. The fingerprint stays."""
    files: dict[Path, Path] = {}

    def move(name: str, read: Shards | Weights) -> Path:
        to = INPUTS / name
        if isinstance(read, Shards):
            files.update(_below(read.path, to))
            return to
        # A feature network is described beside its weights.
        every = [read.path, read.path.with_name(CARD)]
        files.update({to / file.name: file for file in every if file.is_file()})
        return to / read.path.name

    return PortableRun(relocated(run, move), files)


def relocated(section: AnySection, move: Callable[[str, Shards | Weights], Path]) -> AnySection:
    """A run whose shards and weights lie where `move` says, which is given their dotted name in the run."""
    return _relocated(section, "", move)


def _relocated(section: AnySection, above: str, move: Callable[[str, Shards | Weights], Path]) -> AnySection:
    changed: dict[str, object] = {}
    for key, value in section:
        name = f"{above}.{key}" if above else key
        if isinstance(value, Shards | Weights):
            changed[key] = value.model_copy(update={"path": move(name, value)})
        elif isinstance(value, Section):
            changed[key] = _relocated(value, name, move)
    return section.model_copy(update=changed)


def portable_evaluation(settings: config.Settings, layout: Layout) -> PortableEvaluation:
    """All that the evaluation reads: the shards of source and target, the models, and Inception where it is a file."""
    files: dict[Path, Path] = {}
    there = Layout(Path())
    for folder, to in (
        (layout.shards / "source", there.shards / "source"),
        (layout.shards / "target", there.shards / "target"),
        (layout.features, there.features),
        (layout.teacher, there.teacher),
        (layout.generators, there.generators),
        (layout.baselines, there.baselines),
    ):
        files.update(_below(folder, to))
    features = settings.evaluate.features
    if isinstance(features, config.InceptionFeatures) and features.weights is not None:
        to = INPUTS / features.weights.name
        files[to] = features.weights
        moved = settings.evaluate.model_copy(update={"features": features.model_copy(update={"weights": to})})
        settings = settings.model_copy(update={"evaluate": moved})
    return PortableEvaluation(settings, files)


def _below(folder: Path, to: Path) -> dict[Path, Path]:
    """Every file below a folder, by where it goes."""
    return {to / file.relative_to(folder): file for file in sorted(folder.rglob("*")) if file.is_file()}
