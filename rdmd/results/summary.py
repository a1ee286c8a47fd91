"""Mean and spread over seeds, for every method at every setting of its dials."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rdmd.evaluation.labels import plus_minus
from rdmd.evaluation.row import Row
from rdmd.results.collect import SeedRow

# Every metric that is one number, with what the studies add to a row.
METRICS = [
    name for name in Row.model_fields
    if name not in ("method", "lam", "settings", "run", "nfe", "on_front") and not name.endswith("_ci")
]
ADDED = ["peak_memory_mib", "sw2_ratio", "over_exact"]
Dials = dict[str, float | int | str]


@dataclass(frozen=True)
class Summary:
    """A method at one setting over `seeds`: `mean` and `std` by metric. The deviation is the sample's (N - 1), and
    None for a single seed. `drifted` says whether the cost passes exact
    transport's."""

    method: str
    lam: float | None
    settings: Dials
    nfe: int
    seeds: tuple[int, ...]
    mean: dict[str, float]
    std: dict[str, float | None]
    drifted: bool

    def shown(self, metric: str, scale: float = 1.0) -> str:
        """ "11.7 ± 0.4", or a dash."""
        if metric not in self.mean:
            return "–"
        std = self.std[metric]
        return plus_minus(scale * self.mean[metric], None if std is None else scale * std)

    def as_row(self) -> Row:
        """The means as a row, for labels and figures."""
        known = {name: self.mean[name] for name in METRICS if name in self.mean}
        return Row(method=self.method, lam=self.lam, settings=self.settings, nfe=self.nfe, **known)


def dials_of(row: Row) -> Dials:
    """A row's settings without where it came from."""
    return {key: value for key, value in row.settings.items() if key != "run"}


def summarise(rows: Sequence[SeedRow]) -> list[Summary]:
    """One summary for each method and setting, in the order in which they first come."""
    groups: dict[tuple[object, ...], list[SeedRow]] = {}
    for one in rows:
        name = (one.row.method, one.row.lam, tuple(sorted(dials_of(one.row).items())))
        groups.setdefault(name, []).append(one)
    return [_summary(group) for group in groups.values()]


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and the sample's deviation (N - 1) where there are two or more."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _summary(group: list[SeedRow]) -> Summary:
    first = group[0].row
    mean: dict[str, float] = {}
    std: dict[str, float | None] = {}
    for metric in METRICS + ADDED:
        values = [getattr(one if metric in ADDED else one.row, metric) for one in group]
        if all(value is not None for value in values):
            mean[metric], std[metric] = mean_std(values)
    return Summary(
        method=first.method,
        lam=first.lam,
        settings=dials_of(first),
        nfe=first.nfe,
        seeds=tuple(one.seed for one in group),
        mean=mean,
        std=std,
        drifted=_drifted(group),
    )


def _drifted(group: list[SeedRow]) -> bool:
    """Whether the cost is above exact transport's by more than two standard errors of the difference over the seeds:
    the exact cost is that of samples and has an error too, which one seed does not tell. With one, the row's flag."""
    over = [one.over_exact for one in group if one.drift is not None and one.over_exact is not None]
    if len(over) < 2:
        return any(one.drift for one in group)
    return statistics.fmean(over) > 2 * statistics.stdev(over) / math.sqrt(len(over))
