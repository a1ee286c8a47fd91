"""The inputs of a report besides the metrics."""

from dataclasses import dataclass

from torch import Tensor

from rdmd.evaluation.row import Row


@dataclass(frozen=True)
class Samples:
    """Sources and their translations by each method, in the same order.

    Images are (n, 3, H, W) uint8. Points are (n, 2) floats, and have `target` (m, 2) and, unless the source is noise,
    `exact` (k, 2): the exact transport of the first k sources.
    """

    source: Tensor
    translations: list[tuple[Row, Tensor]]
    target: Tensor | None = None
    exact: Tensor | None = None

    @property
    def are_images(self) -> bool:
        """Whether the samples are images; they are points otherwise."""
        return self.source.ndim == 4


@dataclass(frozen=True)
class Curve:
    """What one training logged: `values[metric][i]` at optimizer step `steps[i]`."""

    steps: list[int]
    values: dict[str, list[float]]


@dataclass(frozen=True)
class TrainedModel:
    """A trained model: training time in seconds, device, optimizer steps, peak memory in MiB, training curve.

    The last three are None if the folder of the training run no longer exists.
    """

    name: str
    seconds: float
    device: str
    steps: int | None = None
    memory_mib: float | None = None
    curve: Curve | None = None


@dataclass(frozen=True)
class Provenance:
    """How the numbers of a report came about.

    `facts` are pairs (name, sentence). `settings` is YAML. `commit` is the commit of the code, None outside git;
    `edited` tells whether files differed from that commit.
    """

    facts: list[tuple[str, str]]
    settings: str
    models: list[TrainedModel]
    commit: str | None
    edited: bool
