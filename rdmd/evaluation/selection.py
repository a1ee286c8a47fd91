"""The trade-off between faithfulness (cost) and realism (FID, KID or SW2), and the choice of a champion.

FID is of images, KID of images too few for FID, SW2 of points.

Both are to be small. A generator is on the front if no other has measured values that are at least as small in both and
smaller in one. `choose` applies `register.constraints` and `register.champion` to the front. Numbers are compared only
within one `Evaluation`, and `caution` says when they mean nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from rdmd import config
from rdmd.errors import UserError
from rdmd.evaluation.row import GENERATOR, IDENTITY, TARGET, FeaturesRecord, Interval, Metrics, Row

Point = tuple[float, float]
Rule = Literal["cheapest-near-best", "most-faithful", "most-realistic"]
# Realism worse than the best by more than this factor disqualifies from `cheapest-near-best`.
NEAR = 2.0
# Half the width of a 95% interval in standard errors, rounded up.
STANDARD_ERRORS = 2.0
# Characters of a digest that messages show.
SHOWN = 8
# With fewer test samples on a side, the intervals of realism are wider than the differences between generators, and
# KID takes the place of FID, whose bias grows as samples get fewer.
FEW = 50


def nondominated(points: Sequence[Point]) -> list[bool]:
    """For each point, whether no other is at least as small in both coordinates and smaller in one.

    Equal points do not dominate each other: all copies of a point on the front are on it.
    """
    return [not any(a <= x and b <= y and (a, b) != (x, y) for a, b in points) for x, y in points]


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The area that the points dominate below and to the left of `reference`; larger is better.

    Points that are not smaller than the reference in both coordinates add nothing.
    """
    area, ceiling = 0.0, reference[1]
    for x, y in sorted(set(points)):
        if x < reference[0] and y < ceiling:
            area += (reference[0] - x) * (ceiling - y)
            ceiling = y
    return area


def cheapest_near_best(points: Sequence[Point], factor: float = NEAR, source: float | None = None) -> int:
    """The index of the point of least cost whose realism is at most `factor` times the best realism.

    It is also better than the realism `source` of the untranslated source, unless no point's is.

    The factor is a ratio, so that the far end of the front, where realism is many times the best, does not count:
    adding points of worse realism than `factor` times the best never changes the result. Of equally cheap points it is
    the more realistic one, then the first. Raises `ValueError` without points.
    """
    if not points:
        raise ValueError("there is no front without points")
    best = min(realism for _, realism in points)
    below = source if source is not None and best < source else float("inf")
    near = ((*point, index) for index, point in enumerate(points) if point[1] <= factor * best and point[1] < below)
    return min(near)[2]


def mark_front(rows: Sequence[Row]) -> list[Row]:
    """The rows in their order, with `on_front` set by (cost, realism) among generators and False elsewhere.

    Generators from noise have no cost: their front is the best realism. A generator whose realism could not be measured
    is not on the front.
    """
    generators = [index for index, row in enumerate(rows) if row.method == GENERATOR and row.realism is not None]
    flags = nondominated([_ranked(rows[index]) for index in generators])
    on_front = {index for index, flag in zip(generators, flags, strict=True) if flag}
    return [row.model_copy(update={"on_front": index in on_front}) for index, row in enumerate(rows)]


def pick(rows: Sequence[Row], rule: Rule, factor: float = NEAR) -> Row:
    """The row with `on_front` that `rule` names: `cheapest_near_best`, or the end of least cost or of best realism.

    The realism of the untranslated source is that of its row, if it is among `rows`.
    Raises `ValueError` if no row has `on_front`.
    """
    front = [row for row in rows if row.on_front]
    if not front:
        raise ValueError("no generator is on the front")
    points = [_ranked(row) for row in front]
    match rule:
        case "cheapest-near-best":
            return front[cheapest_near_best(points, factor, source_realism(rows))]
        case "most-faithful":
            return front[points.index(min(points))]
        case "most-realistic":
            return front[points.index(min(points, key=lambda point: point[::-1]))]


def source_realism(rows: Sequence[Row]) -> float | None:
    """The realism of the untranslated source; None where no row has it."""
    return next((row.realism for row in rows if row.method == IDENTITY), None)


def plane(row: Row) -> Point:
    """(cost, realism) of a row. Raises `ValueError` if the row lacks one.

    A KID below 0 counts as 0: the estimate is unbiased, so it falls on either side of a distance of 0.
    """
    if row.cost is None or row.realism is None:
        raise ValueError(f"the row of {row.method!r} has no cost or no realism")
    return row.cost, max(0.0, row.realism)


def _ranked(row: Row) -> Point:
    """`plane`, with a cost of 0 for generators from noise, which have none."""
    return plane(row if row.cost is not None else row.model_copy(update={"cost": 0.0}))


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


def require_ranking(metrics: Metrics) -> None:
    """Raise `UserError` if nothing ranks the generators: features that may not, or no measured realism."""
    if metrics.features.refused is not None:
        raise UserError(
            f"the features `{metrics.features.name}` rank no generators, so that there is no champion: "
            f"{metrics.features.refused}; set another evaluate.features, such as {{network: efficientnet_lite0}}, and "
            "repeat `dvc repro`."
        )
    if any(row.realism is None for row in metrics.rows if row.method == GENERATOR):
        raise UserError(
            "the realism of the generators was not measured, since the test split of the source or of the "
            "target has a single sample; add samples, then repeat `dvc repro`."
        )


def caution(metrics: Metrics) -> str | None:
    """Why the ranking of the generators means nothing, as a clause; None if it may mean something.

    It means nothing with fewer than `FEW` test samples on either side, where the target's own samples have a worse
    realism than every generator, or where the 95% intervals of the best generator and of the source as it is overlap.
    """
    few = min(metrics.n_source, metrics.n_reference)
    if few < FEW:
        return f"one side of the test split has {few} samples, fewer than {FEW}"

    def realism_of(method: str) -> list[tuple[float, Interval]]:
        rows = [row for row in metrics.rows if row.method == method]
        return [(row.realism, row.realism_ci or (row.realism, row.realism)) for row in rows if row.realism is not None]

    generators, target, source = (realism_of(method) for method in (GENERATOR, TARGET, IDENTITY))
    if generators and target and max(target) > max(generators):
        return "the target's own samples rank below every generator"
    if not generators or not source:
        return None
    (_, (_, high_of_best)), (_, (low_of_source, _)) = min(generators), min(source)
    if high_of_best >= low_of_source:
        return "by the 95% intervals, no generator is nearer to the target than the source itself is"
    return None


@dataclass(frozen=True)
class Bound:
    """An upper bound on a metric of a row, from `register.constraints` of params.yaml."""

    metric: str
    limit: float

    @property
    def key(self) -> str:
        return f"register.constraints.{self.metric}"

    def excess(self, row: Row) -> float:
        """The row's value divided by the limit: at most 1 if the bound holds, infinite without a value."""
        value = getattr(row, self.metric)
        return float("inf") if value is None else value / self.limit

    def __str__(self) -> str:
        return f"{self.key} <= {self.limit:g}"


def bounds(rules: config.Register) -> list[Bound]:
    """The bounds that a champion keeps to."""
    return [Bound(metric, limit) for metric, limit in rules.constraints if limit is not None]


def choose(rows: Sequence[Row], rules: config.Register) -> int:
    """The index of the champion: a generator on the front, within the bounds, then by the rule.

    `rows` may have that of the untranslated source, for `pick`. Raises `UserError` that names the key and the nearest
    generator if none on the front keeps to the bounds, and `ValueError` if there are no rows.
    """
    if not rows:
        raise ValueError("there is no champion without generators")
    marked = mark_front(rows)
    limits = bounds(rules)
    candidates = [row for row in marked if row.on_front and all(bound.excess(row) <= 1 for bound in limits)]
    if not candidates:
        raise UserError(_none_admissible([row for row in marked if row.on_front], limits))
    rule = "cheapest-near-best" if rules.champion.rule == "manual" else rules.champion.rule
    sources = [row for row in marked if row.method == IDENTITY]
    return marked.index(pick([*candidates, *sources], rule, rules.champion.factor))


def describe(rules: config.Register) -> str:
    """The rules in a line, such as "most-faithful, with register.constraints.fid <= 20"."""
    champion = rules.champion
    factor = f" (factor {champion.factor:g})" if champion.rule == "cheapest-near-best" else ""
    limits = [f", {'with' if number == 0 else 'and'} {bound}" for number, bound in enumerate(bounds(rules))]
    return f"{champion.rule}{factor}{''.join(limits)}"


def _shown(value: str | int) -> str:
    """A digest, or a name with a digest, cut to `SHOWN` characters of the digest."""
    return value[: value.find(":") + 1 + SHOWN] if isinstance(value, str) else str(value)


def _none_admissible(rows: Sequence[Row], limits: Sequence[Bound]) -> str:
    nearest = min(rows, key=lambda row: max(bound.excess(row) for bound in limits))
    worst = max(limits, key=lambda bound: bound.excess(nearest))
    value = getattr(nearest, worst.metric)
    has = "was not measured" if value is None else f"has {worst.metric} {value:.4g}"
    if value is None and worst.metric in ("fid", "kid"):
        has += f" (fid bounds {FEW} test samples or more, kid fewer)"
    others = [bound.key for bound in limits if bound is not worst]
    together = f" together with {', '.join(others)}" if others else ""
    return (
        f"no generator on the front keeps to {worst}{together}: the nearest, lambda {nearest.lam:g}, {has}; raise "
        "the bound, or train other lambdas."
    )
