"""From evaluated generators to a champion, by the rules of `register` in params.yaml."""

from collections.abc import Sequence
from dataclasses import dataclass

from rdmd import config
from rdmd.errors import UserError
from rdmd.evaluation.pareto import pick
from rdmd.evaluation.row import Row
from rdmd.selection.front import front


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
    return (f"no generator on the front keeps to {worst}{together}: the nearest, lambda {nearest.lam:g}, {has}; raise "
            "the bound, or train other lambdas.")
