"""What a refined generator comes from: the runs that it continues, and lambda's own run as a generator too."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch

from rdmd import config
from rdmd.evaluation.translator import NamedTranslator
from rdmd.pipeline.model_card import read_card
from rdmd.pipeline.training import publish_generators
from rdmd.pipeline.translators import generators
from rdmd.results.workspace import StudyLayout
from rdmd.training.folder import RunFolder
from rdmd.training.spec import DistillRun


def continued(folder: RunFolder) -> Iterator[RunFolder]:
    """The runs that led to this one, the latest first."""
    run = folder.read_run()
    while isinstance(run, DistillRun) and run.start is not None:
        before = RunFolder(folder.path.parent / run.start.generator.path.parent.name)
        yield before
        run = before.read_run()


def unrefined(
    settings: config.Settings, published: StudyLayout, apart: StudyLayout, device: torch.device
) -> list[NamedTranslator]:
    """The generators of `published` as lambda's own runs left them, published in `apart`; none of a sweep without
    refinement.

    Proximal steps forget lambda, so a refined sweep shows no front: its faithful end is the method as the paper has it.
    """
    if not settings.distill.refine:
        return []
    cards = (read_card(file.parent) for file in sorted(published.generators.glob("*/model.json")))
    publish_generators(settings, apart, [_own_run(RunFolder(published.runs / card.run)) for card in cards])
    return [replace(one, settings=one.settings | {"refinements": 0}) for one in generators(apart, device)]


def is_own_run(settings: Mapping[str, object]) -> bool:
    """Whether a row's settings are those that `unrefined` gives."""
    return settings.get("refinements") == 0


def _own_run(refined: RunFolder) -> RunFolder:
    """The first run at the lambda of this one: in a continued sweep the run before it is the next larger lambda's."""
    lam = _lam(refined)
    return [folder for folder in (refined, *continued(refined)) if _lam(folder) == lam][-1]


def _lam(folder: RunFolder) -> float | None:
    run = folder.read_run()
    return run.lam if isinstance(run, DistillRun) else None
