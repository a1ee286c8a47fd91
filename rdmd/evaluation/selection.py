"""The rules by which the champion is chosen among generators, and whether an evaluation ranks at all.

`choose` applies `register.constraints` and `register.champion`. Numbers are compared only within one `Evaluation`, and
`caution` says when they mean nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from rdmd import config
from rdmd.errors import UserError
from rdmd.evaluation.pareto import NEAR, mark_front, pick
from rdmd.evaluation.row import GENERATOR, IDENTITY, TARGET, FeaturesRecord, Metrics, Row

# Half the width of a 95% interval in standard errors, rounded up.
STANDARD_ERRORS = 2.0
# Characters of a digest that messages show.
SHOWN = 8
# With fewer test samples on either side, the intervals of realism are wider than the differences between generators.
FEW = 50


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
    realism than every generator, or where no generator is at least twice as near to the target as the source itself.
    """
    few = min(metrics.n_source, metrics.n_reference)
    if few < FEW:
        return f"one side of the test split has {few} samples, fewer than {FEW}"

    def realism_of(method: str) -> list[float]:
        return [row.realism for row in metrics.rows if row.method == method and row.realism is not None]

    generators, target, source = (realism_of(method) for method in (GENERATOR, TARGET, IDENTITY))
    if generators and target and max(target) > max(generators):
        return "the target's own samples rank below every generator"
    if generators and source and NEAR * min(generators) > min(source):
        return "no generator is twice as near to the target as the source itself is"
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
    """The index of the champion among generators: on the front, within the bounds, then by the rule.

    Raises `UserError` that names the key and the nearest generator if none on the front keeps to the bounds, and
    `ValueError` if there are no rows.
    """
    if not rows:
        raise ValueError("there is no champion without generators")
    marked = mark_front(rows)
    limits = bounds(rules)
    candidates = [row for row in marked if row.on_front and all(bound.excess(row) <= 1 for bound in limits)]
    if not candidates:
        raise UserError(_none_admissible([row for row in marked if row.on_front], limits))
    rule = "cheapest-near-best" if rules.champion.rule == "manual" else rules.champion.rule
    return marked.index(pick(candidates, rule, rules.champion.factor))


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
    others = [bound.key for bound in limits if bound is not worst]
    together = f" together with {', '.join(others)}" if others else ""
    return (
        f"no generator on the front keeps to {worst}{together}: the nearest, lambda {nearest.lam:g}, {has}; raise "
        "the bound, or train other lambdas."
    )
