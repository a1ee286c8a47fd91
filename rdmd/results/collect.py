"""What has been measured of a study so far: the rows of its listings that the cache holds."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rdmd.evaluation.pareto import mark_front
from rdmd.evaluation.row import GENERATOR, Row
from rdmd.evaluation.table import drifted
from rdmd.results.cache import RowCache
from rdmd.results.candidates import DATA, EXACT, TRAINED_FOR
from rdmd.results.listing import GENERATOR_MODEL, Facts, Listing, Training, read_listing
from rdmd.results.workspace import PARTS, Workspace


@dataclass(frozen=True)
class SeedRow:
    """A row of one seed. `peak_memory_mib` is of the training behind the method alone; `sw2_ratio` is SW2 over that of
    data against data. On points: `over_exact` is the cost over that of the row of exact transport (over the exact cost
    where that is known in closed form, or there is no row), less 1, and `drift` whether the cost passes the exact one
    by more than its own error."""

    seed: int
    key: str
    row: Row
    seconds: float
    device: str
    date: str
    peak_memory_mib: float | None = None
    sw2_ratio: float | None = None
    over_exact: float | None = None
    drift: bool | None = None


@dataclass(frozen=True)
class SeedTraining:
    """A training run of one seed."""

    seed: int
    training: Training


@dataclass(frozen=True)
class Collected:
    """A study (or a variant of a comparison) over its seeds. `pending` counts rows listed but not yet measured."""

    facts: dict[int, Facts]
    rows: list[SeedRow]
    training: list[SeedTraining]
    pending: int

    @property
    def seeds(self) -> list[int]:
        return sorted(self.facts)

    def of(self, *methods: str) -> list[SeedRow]:
        """The rows of some methods."""
        return [one for one in self.rows if one.row.method in methods]


def collect(workspace: Workspace, study: str) -> Collected:
    """All parts of a study, over the seeds that have been begun."""
    return _collected(workspace, {seed: [read_listing(workspace.listing(study, seed, part)) for part in PARTS]
                                  for seed in _seeds(workspace, study)})


def collect_variant(workspace: Workspace, study: str, variant: str) -> Collected:
    """The generators of one variant, over the seeds that have been begun."""
    listings = {}
    for seed in _seeds(workspace, study):
        own = read_listing(workspace.listing(study, seed, "rdmd", variant))
        # The study's references are what the variant's rows are related to.
        listings[seed] = [] if own is None else [own, read_listing(workspace.listing(study, seed, "references"))]
    found = _collected(workspace, listings)
    generators = [one for one in found.training if one.training.model == GENERATOR_MODEL]
    return replace(found, rows=found.of(GENERATOR), training=generators)


def _seeds(workspace: Workspace, study: str) -> list[int]:
    return sorted(int(path.name.removeprefix("seed-")) for path in (workspace.root / study).glob("seed-*"))


def _collected(workspace: Workspace, listings: dict[int, list[Listing | None]]) -> Collected:
    cache = RowCache(workspace.rows)
    facts: dict[int, Facts] = {}
    rows: list[SeedRow] = []
    training: list[SeedTraining] = []
    pending = 0
    for seed, every in listings.items():
        found = [one for one in every if one is not None]
        if not found:
            continue
        facts[seed] = found[0].facts
        trained = [one for listing in found for one in listing.training]
        training += [SeedTraining(seed, one) for one in trained]
        measured = list(_measured(cache, seed, found))
        pending += sum(len(listing.keys) for listing in found) - len(measured)
        rows += _with_context(measured, trained, found[0].facts)
    return Collected(facts, rows, training, pending)


def _measured(cache: RowCache, seed: int, listings: list[Listing]) -> Iterator[SeedRow]:
    for listing in listings:
        for key in listing.keys:
            kept = cache.get(key)
            if kept is not None:
                yield SeedRow(seed, key, kept.row, kept.seconds, kept.device, kept.date)


def _with_context(rows: list[SeedRow], trained: list[Training], facts: Facts) -> list[SeedRow]:
    """The rows of one seed with what other rows and the trainings say of them."""
    marked = mark_front([one.row for one in rows])
    data = next((one.row.sw2 for one in rows if one.row.method == DATA), None)
    # Between Gaussians the exact cost is known; elsewhere it is that of samples, and the row has more of them.
    sampled = facts.exact != "affine"
    exact = next((one.row.cost_sum for one in rows if one.row.method == EXACT and sampled), None)
    memory = {one.run: one.peak_memory_mib for one in trained} | {one.model: one.peak_memory_mib for one in trained}
    return [
        replace(
            one,
            row=row,
            peak_memory_mib=memory.get(row.run or TRAINED_FOR.get(row.method, row.method)),
            sw2_ratio=None if row.sw2 is None or not data else row.sw2 / data,
            over_exact=_over_exact(row, exact or row.ot_cost),
            drift=None if row.method != GENERATOR or row.ot_cost is None else drifted(row),
        )
        for one, row in zip(rows, marked, strict=True)
    ]


def _over_exact(row: Row, exact: float | None) -> float | None:
    return row.cost_sum / exact - 1 if row.cost_sum and exact and row.method != EXACT else None
