"""The generators of an evaluation that are registered, and the rules by which the champion is chosen among them.

`front` decides which generators the stage `register` registers; `choose` applies `register.constraints` and
`register.champion`. Numbers are compared only within one `Evaluation`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from rdmd import config
from rdmd.errors import UserError
from rdmd.evaluation.pareto import Rule, nondominated, pick, plane
from rdmd.evaluation.row import GENERATOR, FeaturesRecord, Interval, Metrics, Row

How = Literal["intervals", "points"]
# Half the width of a 95% interval in standard errors, rounded up.
STANDARD_ERRORS = 2.0
# Characters of a digest that messages show.
SHOWN = 8


@dataclass(frozen=True)
class Evaluation:
    """The data (digests of the two domains' shards), the features, the sizes and the seed of an evaluation.

    `features` is `name:sha256`, or `none` for points.
    """

    features: str
    source_digest: str
    target_digest: str
    n_source: int
    n_reference: int
    seed: int

    @property
    def short(self) -> str:
        """One line for messages."""
        return (
            f"features {_shown(self.features)}, {self.n_source} sources against {self.n_reference} references, "
            f"seed {self.seed}, data {_shown(self.source_digest)} to {_shown(self.target_digest)}"
        )


def evaluation_of(metrics: Metrics, source_digest: str, target_digest: str) -> Evaluation:
    """The evaluation behind `metrics`, for generators of these data."""
    return Evaluation(
        features=features_name(metrics.features),
        source_digest=source_digest,
        target_digest=target_digest,
        n_source=metrics.n_source,
        n_reference=metrics.n_reference,
        seed=metrics.seed,
    )


def features_name(features: FeaturesRecord) -> str:
    """`classifier:<sha256>`; `none` for points."""
    return f"{features.name}:{features.sha256}" if features.sha256 else features.name


def differences(before: Evaluation, now: Evaluation) -> list[str]:
    """The fields that differ, such as "n_source (256, now 512)"; empty if the numbers of both may be compared."""
    pairs = [(field.name, getattr(before, field.name), getattr(now, field.name)) for field in fields(Evaluation)]
    return [f"{name} ({_shown(old)}, now {_shown(new)})" for name, old, new in pairs if old != new]


def require_fit_features(metrics: Metrics) -> None:
    """Raise `UserError` if the features of `metrics` may not rank generators."""
    if metrics.features.refused is not None:
        raise UserError(
            f"the features `{metrics.features.name}` rank no generators, so that there is no champion: "
            f"{metrics.features.refused}; set another evaluate.features, such as {{network: efficientnet_lite0}}, and "
            "repeat `dvc repro`."
        )


@dataclass(frozen=True)
class Box:
    """Where a generator may lie: an interval of the transport cost and one of FID (SW2 for points)."""

    cost: Interval
    realism: Interval


def box(row: Row) -> Box:
    """The row's intervals: cost +- 2 `cost_se`, and the bootstrap interval of its realism.

    Without a measured interval it is the measured value alone. A bootstrap interval that misses the measured value is
    widened to hold it. Raises `ValueError` if the row has no cost or no realism.
    """
    cost, realism = plane(row)
    spread = STANDARD_ERRORS * (row.cost_se or 0.0)
    low, high = row.realism_ci or (realism, realism)
    return Box((cost - spread, cost + spread), (min(low, realism), max(high, realism)))


def front(rows: Sequence[Row], how: How) -> list[bool]:
    """For each generator, whether it is on the front of (cost, realism), both to be small: it is registered.

    `points`: no other's measured values are at least as good in both and better in one. `intervals`: no other's whole
    box lies at or below this one's in both. The second front contains the first, and equals it where no interval has
    any width. Raises `UserError` if the test split was too small for realism.
    """
    if any(row.realism is None for row in rows):
        raise UserError(
            "the realism of the generators was not measured, since the test split of the source or of the "
            "target has a single sample; add samples, then repeat `dvc repro`."
        )
    if how == "points":
        return nondominated([plane(row) for row in rows])
    boxes = [box(row) for row in rows]
    return [not any(_surely_better(other, one) for other in boxes) for one in boxes]


def registered(rows: Sequence[Row], how: How) -> list[bool]:
    """For each row of an evaluation, whether the stage `register` registers it: the generators on `front`.

    A generator without a cost (its source is noise) or without a realism is not registered.
    """
    eligible = [row.method == GENERATOR and row.cost is not None and row.realism is not None for row in rows]
    flags = iter(front([row for row, flag in zip(rows, eligible, strict=True) if flag], how))
    return [flag and next(flags) for flag in eligible]


@dataclass(frozen=True)
class Bound:
    """An upper bound on a metric of a row, and the key of params.yaml that sets it."""

    key: str
    metric: str
    limit: float

    def excess(self, row: Row) -> float:
        """The row's value divided by the limit: at most 1 if the bound holds, infinite without a value."""
        value = getattr(row, self.metric)
        return float("inf") if value is None else value / self.limit

    def __str__(self) -> str:
        return f"{self.key} <= {self.limit:g}"


@dataclass(frozen=True)
class Choice:
    """Indices into the rows that were compared. Those in `admissible` are on the front and keep to every bound."""

    front: tuple[int, ...]
    admissible: tuple[int, ...]
    champion: int


def bounds(rules: config.Register) -> list[Bound]:
    """The bounds that a champion keeps to: the constraints, then the bound of the rule itself."""
    limits = {f"constraints.{metric}": limit for metric, limit in rules.constraints}
    limits |= {f"champion.{metric}": limit for metric, limit in rules.champion if metric != "rule"}
    return [Bound(f"register.{key}", key.split(".")[1], limit) for key, limit in limits.items() if limit is not None]


def choose(rows: Sequence[Row], rules: config.Register) -> Choice:
    """The champion among generators: first the front, then the bounds on measured values, then the rule.

    Raises `UserError` that names the key and the nearest generator if none on the front keeps to the bounds, and
    `ValueError` if there are no rows.
    """
    if not rows:
        raise ValueError("there is no champion without generators")
    on_front = [index for index, flag in enumerate(front(rows, rules.front)) if flag]
    limits = bounds(rules)
    admissible = [index for index in on_front if all(bound.excess(rows[index]) <= 1 for bound in limits)]
    if not admissible:
        raise UserError(_none_admissible([rows[index] for index in on_front], limits))
    candidates = [rows[index].model_copy(update={"on_front": True}) for index in admissible]
    champion = admissible[candidates.index(pick(candidates, _END[rules.champion.rule]))]
    return Choice(tuple(on_front), tuple(admissible), champion)


def describe(rules: config.Register) -> str:
    """The rules in a line, such as "knee of the front by intervals, with register.constraints.fid <= 20"."""
    limits = [f", {'with' if number == 0 else 'and'} {bound}" for number, bound in enumerate(bounds(rules))]
    return f"{rules.champion.rule} of the front by {rules.front}{''.join(limits)}"


# The rule for the generators that keep to the bound of the champion's rule.
_END: dict[str, Rule] = {
    "knee": "knee",
    "most-faithful": "most-faithful",
    "most-realistic": "most-realistic",
    "cheapest-under": "most-faithful",
    "most-realistic-under": "most-realistic",
}


def _shown(value: str | int) -> str:
    """A digest, or a name with a digest, cut to `SHOWN` characters of the digest."""
    return value[: value.find(":") + 1 + SHOWN] if isinstance(value, str) else str(value)


def _surely_better(a: Box, b: Box) -> bool:
    not_worse = a.cost[1] <= b.cost[0] and a.realism[1] <= b.realism[0]
    return not_worse and (a.cost[1] < b.cost[0] or a.realism[1] < b.realism[0])


def _none_admissible(rows: Sequence[Row], limits: Sequence[Bound]) -> str:
    nearest = min(rows, key=lambda row: max(bound.excess(row) for bound in limits))
    worst = max(limits, key=lambda bound: bound.excess(nearest))
    value = getattr(nearest, worst.metric)
    has = "was not measured" if value is None else f"has {worst.metric} {value:.4g}"
    others = [bound.key for bound in limits if bound is not worst]
    together = f" together with {', '.join(others)}" if others else ""
    return (
        f"no generator on the front keeps to {worst}{together}: the nearest, lambda {nearest.lam:g}, {has}; raise "
        "the bound, or train other lambdas."
    )
