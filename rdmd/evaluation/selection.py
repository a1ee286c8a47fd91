"""On what a generator was measured: two numbers are compared only where this is the same."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from rdmd import config
from rdmd.errors import UserError
from rdmd.evaluation.pareto import nondominated, pick, plane
from rdmd.evaluation.row import GENERATOR, FeaturesRecord, Interval, Metrics, Row

# Enough of a digest to tell two apart in a sentence.
SHOWN = 8


@dataclass(frozen=True)
class Evaluation:
    """The data (digests of the two domains' shards), the features, the sizes and the seed of an evaluation."""

    features: str
    source_digest: str
    target_digest: str
    n_source: int
    n_reference: int
    seed: int

    @property
    def short(self) -> str:
        """In a line, for people."""
        return (
            f"features {self.features[: _cut(self.features)]}, {self.n_source} sources against "
            f"{self.n_reference} references, seed {self.seed}, data {self.source_digest[:SHOWN]} to "
            f"{self.target_digest[:SHOWN]}"
        )


def evaluation_of(metrics: Metrics, source_digest: str, target_digest: str) -> Evaluation:
    """What the rows of `metrics` were measured on, for generators of these data."""
    return Evaluation(
        features=features_name(metrics.features),
        source_digest=source_digest,
        target_digest=target_digest,
        n_source=metrics.n_source,
        n_reference=metrics.n_reference,
        seed=metrics.seed,
    )


def require_fit_features(metrics: Metrics) -> None:
    """Raise `UserError` if the realism in `metrics` was measured on features that may not rank."""
    if metrics.features.refused is not None:
        raise UserError(
            f"the features `{metrics.features.name}` rank no generators, so that there is no champion: "
            f"{metrics.features.refused}; set another evaluate.features, such as {{network: efficientnet_lite0}}, and "
            "repeat `dvc repro`."
        )


def features_name(features: FeaturesRecord) -> str:
    """`classifier:<sha256>`; `none` for points."""
    return f"{features.name}:{features.sha256}" if features.sha256 else features.name


def differences(before: Evaluation, now: Evaluation) -> list[str]:
    """What differs, such as "n_source (256, now 512)"; empty where the numbers of both may be compared."""
    found = []
    for field in fields(Evaluation):
        old, new = getattr(before, field.name), getattr(now, field.name)
        if old != new:
            found.append(f"{field.name} ({_shown(old)}, now {_shown(new)})")
    return found


def _shown(value: str | int) -> str:
    return value[: _cut(value)] if isinstance(value, str) else str(value)


def _cut(text: str) -> int:
    """The length at which a name with a digest, or a digest, is cut."""
    return text.find(":") + 1 + SHOWN


How = Literal["intervals", "points"]
# Half the width of a 95% interval in standard errors, rounded up.
STANDARD_ERRORS = 2.0


@dataclass(frozen=True)
class Box:
    """Where a generator may lie: an interval of the transport cost and one of FID (SW2 for points)."""

    cost: Interval
    realism: Interval


def box(row: Row) -> Box:
    """The row's intervals: cost +- 2 `cost_se`, and the bootstrap interval of its realism.

    Either shrinks to the measured value where no interval was measured, and is widened to hold the measured value,
    which a bootstrap interval may miss. Raises `ValueError` if the row has no cost or no realism.
    """
    cost, realism = plane(row)
    spread = STANDARD_ERRORS * (row.cost_se or 0.0)
    low, high = row.realism_ci or (realism, realism)
    return Box((cost - spread, cost + spread), (min(low, realism), max(high, realism)))


def front(rows: Sequence[Row], how: How) -> list[bool]:
    """For each row, whether it is on the front of (cost, realism), both to be small.

    `points`: no other's measured values are at least as good in both and better in one. `intervals`: no other's whole
    box lies at or below this one's in both. The second front holds the first, and equals it where no interval has
    any width. Raises `UserError` if the test split was too small for the realism of any.
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
    """For each row of an evaluation, whether the stage `register` makes a version of it: the generators on `front`.

    A generator without a cost (its source is noise) or without a realism is not registered.
    """
    candidates = [
        index
        for index, row in enumerate(rows)
        if row.method == GENERATOR and row.cost is not None and row.realism is not None
    ]
    flags = front([rows[index] for index in candidates], how)
    chosen = {index for index, flag in zip(candidates, flags, strict=True) if flag}
    return [index in chosen for index in range(len(rows))]


def _surely_better(a: Box, b: Box) -> bool:
    not_worse = a.cost[1] <= b.cost[0] and a.realism[1] <= b.realism[0]
    return not_worse and (a.cost[1] < b.cost[0] or a.realism[1] < b.realism[0])


@dataclass(frozen=True)
class Bound:
    """An upper bound on a metric of a row, and the key of params.yaml that sets it."""

    key: str
    metric: str
    limit: float

    def excess(self, row: Row) -> float:
        """The row's value over the limit, as a ratio: at most 1 where the bound holds, infinite where nothing was
        measured."""
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
    """What a champion keeps to: the constraints, then the bound of the rule itself."""
    found = [
        Bound(f"register.constraints.{metric}", metric, limit)
        for metric, limit in rules.constraints
        if limit is not None
    ]
    match rules.champion:
        case config.CheapestUnder(fid=fid, sw2=sw2):
            metric, limit = ("fid", fid) if fid is not None else ("sw2", sw2)
            found.append(Bound(f"register.champion.{metric}", metric, limit))
        case config.MostRealisticUnder(cost=limit):
            found.append(Bound("register.champion.cost", "cost", limit))
    return found


def choose(rows: Sequence[Row], rules: config.Register) -> Choice:
    """The champion among generators: the front first, then the bounds on measured values, then the rule.

    Raises `UserError` if none on the front keeps to the bounds, naming the key and the nearest, and `ValueError` if
    there are no rows.
    """
    if not rows:
        raise ValueError("there is no champion without generators")
    on_front = [index for index, flag in enumerate(front(rows, rules.front)) if flag]
    limits = bounds(rules)
    admissible = [index for index in on_front if all(bound.excess(rows[index]) <= 1 for bound in limits)]
    if not admissible:
        raise UserError(_none_admissible([rows[index] for index in on_front], limits))
    candidates = [rows[index].model_copy(update={"on_front": True}) for index in admissible]
    champion = admissible[candidates.index(pick(candidates, _end(rules)))]
    return Choice(tuple(on_front), tuple(admissible), champion)


def describe(rules: config.Register) -> str:
    """The rules in a line, such as "knee of the front under intervals, with register.constraints.fid <= 20"."""
    limits = "".join(f", {'with' if number == 0 else 'and'} {bound}" for number, bound in enumerate(bounds(rules)))
    return f"{rules.champion.rule} of the front by {rules.front}{limits}"


def _end(rules: config.Register) -> str:
    """The rule that is left once its bound has been kept to."""
    return {"cheapest-under": "most-faithful", "most-realistic-under": "most-realistic"}.get(
        rules.champion.rule, rules.champion.rule
    )


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
