"""Evaluations on the way of a training: when they happen, which one is the best, and when they end the run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Trial:
    """What an evaluation computes: the averaged network at each lambda, or at None where lambda is no input.

    `inputs` (n, ...) are the same every time. `from_source`: they are sources, to which outputs should be near.
    """

    inputs: Tensor
    networks: Mapping[float | None, Callable[[Tensor], Tensor]]
    from_source: bool


@dataclass(frozen=True)
class Measured:
    """One evaluation: the values to log, and the distance to the target by which evaluations are compared."""

    values: dict[str, float]
    distance: float


@dataclass(frozen=True)
class Best:
    """The weights of the least distance so far, their step, and how many evaluations came since."""

    step: int
    distance: float
    weights: dict[str, Tensor]
    since: int = 0


@dataclass(frozen=True)
class Evaluations:
    """`measure` is called after every `every` steps and after the last one. With `patience` the run ends after so many
    evaluations in a row without a new best."""

    every: int
    patience: int | None
    measure: Callable[[], Measured]

    def end(self, best: Best | None) -> bool:
        """Whether the patience is used up."""
        return self.patience is not None and best is not None and best.since >= self.patience


def best_of(best: Best | None, step: int, distance: float, weights: Mapping[str, Tensor]) -> Best:
    """The best after one more evaluation: a copy of `weights` on the CPU if its distance is less, else as before."""
    if best is None or distance < best.distance:
        return Best(step, distance, {name: value.detach().to("cpu", copy=True) for name, value in weights.items()})
    return replace(best, since=best.since + 1)
