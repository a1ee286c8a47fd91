"""How far ahead a front is: hypervolumes against one reference point, and the share of points that RDMD betters."""

from collections.abc import Sequence
from dataclasses import dataclass

from rdmd.evaluation.pareto import Point, hypervolume, nondominated, plane
from rdmd.evaluation.row import GENERATOR, IDENTITY, TARGET
from rdmd.results.candidates import DATA, EXACT, TEACHER
from rdmd.results.collect import Collected, SeedRow
from rdmd.results.summary import mean_std

# Rows that others are read against; they are in no comparison of methods.
REFERENCES = (IDENTITY, TARGET, DATA, TEACHER, EXACT)


@dataclass(frozen=True)
class BySeed:
    """A number for every seed, with its mean and deviation."""

    values: dict[int, float]

    @property
    def mean(self) -> float:
        return mean_std(list(self.values.values()))[0]

    @property
    def std(self) -> float | None:
        return mean_std(list(self.values.values()))[1]


@dataclass(frozen=True)
class Front:
    """The comparison of a study's methods on the plane of (cost, realism).

    `reference` is the cost of random pairs and the realism of the untranslated source, both means over the seeds, so
    that one point serves all; `reference_by_seed` has each seed's own. `bettered` is the share of baseline points for
    which a generator of one evaluation is better in one coordinate and no worse in the other; `unbettered` are the
    other baseline points.
    """

    reference: Point
    reference_by_seed: dict[int, Point]
    hypervolumes: dict[str, BySeed]
    bettered: BySeed | None
    bettered_by_method: dict[str, BySeed]
    unbettered: list[SeedRow]

    @property
    def box(self) -> float:
        """The area between the origin and the reference point."""
        return self.reference[0] * self.reference[1]


def front_of(collected: Collected) -> Front | None:
    """The comparison, or None until a seed's references have been measured. Only seeds that have both generators and
    references count."""
    references = {one.seed: (collected.facts[one.seed].random_pairs_cost, one.row.realism)
                  for one in collected.of(IDENTITY)}
    own = {seed: (cost, realism) for seed, (cost, realism) in references.items() if realism is not None}
    if not own:
        return None
    reference = (mean_std([cost for cost, _ in own.values()])[0], mean_std([real for _, real in own.values()])[0])
    methods = list(dict.fromkeys(one.row.method for one in collected.rows if one.row.method not in REFERENCES))
    placed = {method: {seed: rows for seed in own if (rows := _of(collected, method, seed))} for method in methods}
    volumes = {method: BySeed({seed: hypervolume([plane(one.row) for one in rows], reference)
                               for seed, rows in by_seed.items()})
               for method, by_seed in placed.items() if by_seed}
    ours = {seed: [plane(one.row) for one in rows if one.row.nfe == 1]
            for seed, rows in placed.get(GENERATOR, {}).items()}
    theirs = {method: by_seed for method, by_seed in placed.items() if method != GENERATOR}
    by_method = {method: _share(by_seed, ours) for method, by_seed in theirs.items()}
    every = {seed: [one for by_seed in theirs.values() for one in by_seed.get(seed, [])] for seed in ours}
    return Front(
        reference=reference,
        reference_by_seed=own,
        hypervolumes=volumes,
        bettered=_share(every, ours),
        bettered_by_method={method: share for method, share in by_method.items() if share is not None},
        unbettered=[one for seed, rows in every.items() for one in rows if not _bettered(plane(one.row), ours[seed])],
    )


def variant_volumes(variant: Collected, reference: Point) -> BySeed | None:
    """The hypervolume of a variant's generators against its study's reference point."""
    seeds = dict.fromkeys(one.seed for one in variant.rows)
    volumes = {seed: hypervolume([plane(one.row) for one in variant.rows if one.seed == seed], reference)
               for seed in seeds}
    return BySeed(volumes) if volumes else None


def _of(collected: Collected, method: str, seed: int) -> list[SeedRow]:
    return [one for one in collected.of(method) if one.seed == seed and one.row.cost is not None]


def _share(theirs: dict[int, list[SeedRow]], ours: dict[int, list[Point]]) -> BySeed | None:
    shares = {
        seed: sum(_bettered(plane(one.row), ours[seed]) for one in rows) / len(rows)
        for seed, rows in theirs.items()
        if rows and seed in ours
    }
    return BySeed(shares) if shares else None


def _bettered(point: Point, ours: Sequence[Point]) -> bool:
    """Whether one of ours is better in one coordinate and no worse in the other."""
    return not nondominated([point, *ours])[0]
