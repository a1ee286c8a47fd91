"""What a report is made from, besides the metrics."""

from dataclasses import dataclass

from torch import Tensor

from rdmd.evaluation.row import Row


@dataclass(frozen=True)
class Panel:
    """One method's row and its translations, in the order of the source."""

    row: Row
    samples: Tensor


@dataclass(frozen=True)
class ImageSamples:
    """Source pictures (n, 3, H, W) uint8 and every method's translations of them, alike.

    The first eight are shown in samples.png; the most and the least changed are looked for among all n.
    """

    source: Tensor
    panels: list[Panel]


@dataclass(frozen=True)
class PointSamples:
    """Source points (n, 2), target points (m, 2), and every method's translations (n, 2).

    `exact` (k, 2) is where exact transport sends the first k source points: `PointTask.plan.barycentres`; None where
    the source is noise.
    """

    source: Tensor
    target: Tensor
    exact: Tensor | None
    panels: list[Panel]


ReportSamples = ImageSamples | PointSamples


@dataclass(frozen=True)
class Curve:
    """The training curves of one run: `values[metric][i]` was logged at optimiser step `steps[i]`."""

    name: str
    steps: list[int]
    values: dict[str, list[float]]


@dataclass(frozen=True)
class TrainedModel:
    """What a model's training took. `steps` and `memory_mib` (peak) are None where the run's folder is gone."""

    name: str
    seconds: float
    device: str
    steps: int | None = None
    memory_mib: float | None = None


@dataclass(frozen=True)
class Account:
    """What was run, on what code, and what it took.

    `facts` are pairs of a name and a sentence; `settings` is YAML. `commit` is that of the code, None outside git;
    `edited` says that the work tree differed from it. `without_curves` names the models whose curves are gone.
    """

    facts: list[tuple[str, str]]
    settings: str
    trained: list[TrainedModel]
    without_curves: list[str]
    commit: str | None
    edited: bool
