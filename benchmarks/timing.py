"""Time candidates in turn, A B A B, so that a slow moment of the machine affects all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Contender = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: tuple[float, ...]) -> "Spread":
        """The spread of one or more values; for fewer than four, the quartiles are the extremes."""
        low, high = min(values), max(values)
        if len(values) >= 4:
            low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return Spread(statistics.median(values), low, high)

    def figures(self, name: str) -> dict[str, float]:
        """The figures `name` (median), `name_low` and `name_high` (quartiles)."""
        return {name: self.median, f"{name}_low": self.low, f"{name}_high": self.high}


@dataclass(frozen=True)
class Timing:
    """Seconds of a call, one value for each round."""

    seconds: tuple[float, ...]

    @property
    def spread(self) -> Spread:
        """Median and quartiles over the rounds."""
        return Spread.of(self.seconds)

    def over(self, other: "Timing") -> Spread:
        """The ratio of this time to another, round by round."""
        return Spread.of(tuple(a / b for a, b in zip(self.seconds, other.seconds, strict=True)))


def interleaved(
    contenders: Mapping[str, Contender], device: torch.device, rounds: int = 7, calls: int = 1, warmup: int = 1
) -> dict[str, Timing]:
    """Time every contender once in each round, in order; the value of a round is the mean over `calls` calls.

    Each first runs `warmup` times `calls` calls, which do not count (compilation, caches, the allocator). On a GPU the
    clock is read after the device has finished.
    """
    for run in contenders.values():
        for _ in range(warmup * calls):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            seconds[name].append(_seconds(run, calls, device))
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(run: Contender, calls: int, device: torch.device) -> float:
    synchronize(device)
    begun = time.perf_counter()
    for _ in range(calls):
        run()
    synchronize(device)
    return (time.perf_counter() - begun) / calls
