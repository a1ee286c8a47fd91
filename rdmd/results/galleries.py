"""The figures of docs/results.md that show samples: the maps of points, and pictures beside their translations."""

from torch import Tensor

from rdmd.evaluation.pareto import knee, nondominated, plane
from rdmd.evaluation.row import GENERATOR, IDENTITY
from rdmd.report.samples import SHOWN_IMAGES, column_title, image_grid, samples_figure
from rdmd.report.style import png_bytes
from rdmd.report.types import Samples
from rdmd.results.cache import RowCache
from rdmd.results.collect import Collected, SeedRow
from rdmd.results.compare import CompareResult
from rdmd.results.front import REFERENCES
from rdmd.results.refinement import is_own_run

# Generators shown of a longer sweep, the most faithful first.
_SHOWN = 5


def maps_png(collected: Collected, cache: RowCache) -> bytes | None:
    """Source, target, exact transport and a panel for each generator, of the first seed; None before its rows."""
    seed = collected.seeds[0]
    source = _source(collected, cache, seed)
    generators = _rows(collected, GENERATOR, seed)
    maps = [(one.row, kept["samples"]) for one in shown_generators(generators) if (kept := cache.samples(one.key))]
    if not maps or "exact" not in source:
        return None
    samples = Samples(source["samples"], maps, source["target"], source["exact"])
    return png_bytes(samples_figure(samples, [one.row for one in generators]))


def pictures_png(collected: Collected, cache: RowCache) -> bytes | None:
    """A row a source, a column a method, of the first seed: generators by rising cost, then each baseline at the
    knee of its own front. None before there are rows."""
    seed = collected.seeds[0]
    source = _source(collected, cache, seed)
    methods = dict.fromkeys(one.row.method for one in collected.rows if one.seed == seed)
    chosen = shown_generators(_rows(collected, GENERATOR, seed))
    for method in methods:
        rows = _rows(collected, method, seed)
        if method != GENERATOR and method not in REFERENCES and rows:
            chosen.append(rows[knee([plane(one.row) for one in rows])])
    every = [one.row for one in collected.rows if one.seed == seed]
    columns = [(column_title(one.row, every), kept["samples"]) for one in chosen if (kept := cache.samples(one.key))]
    if not columns or not source:
        return None
    return _columns_png([("source", source["samples"]), *columns])


def shown_generators(rows: list[SeedRow]) -> list[SeedRow]:
    """Those of a sweep that a figure has room for, the most faithful first."""
    return _spread(_without_repeats(rows))


def variants_png(result: CompareResult, study: Collected, cache: RowCache) -> bytes | None:
    """A row a source, a column a variant at each of its lambdas, of the first seed."""
    seed = study.seeds[0]
    source = _source(study, cache, seed)
    columns = [
        (f"{variant}\nλ = {one.row.lam:g}", kept["samples"])
        for variant, found in result.variants.items()
        for one in _rows(found, GENERATOR, seed)
        if (kept := cache.samples(one.key))
    ]
    if not columns or not source or source["samples"].ndim != 4:
        return None
    return _columns_png([("source", source["samples"]), *columns])


def _columns_png(columns: list[tuple[str, Tensor]]) -> bytes:
    return png_bytes(image_grid([(title, images[:SHOWN_IMAGES]) for title, images in columns]))


def _rows(collected: Collected, method: str, seed: int) -> list[SeedRow]:
    return [one for one in collected.of(method) if one.seed == seed and one.row.cost is not None]


def _source(collected: Collected, cache: RowCache, seed: int) -> dict:
    found = next((one for one in collected.of(IDENTITY) if one.seed == seed), None)
    return {} if found is None else cache.samples(found.key)


def _spread(rows: list[SeedRow]) -> list[SeedRow]:
    """At most `_SHOWN` rows of a sweep by rising cost, which is by falling lambda where nothing is refined: its ends
    and evenly between; of its front where that is long enough."""
    flags = nondominated([plane(one.row) for one in rows])
    front = [one for one, kept in zip(rows, flags, strict=True) if kept]
    chosen = sorted(front if len(front) >= _SHOWN else rows, key=lambda one: plane(one.row)[0])
    if len(chosen) <= _SHOWN:
        return chosen
    return [chosen[round(i * (len(chosen) - 1) / (_SHOWN - 1))] for i in range(_SHOWN)]


def _without_repeats(rows: list[SeedRow]) -> list[SeedRow]:
    """Where lambda's own runs stand beside refined generators, the refined one of the smallest lambda alone: refinement
    forgets lambda, so they look alike."""
    own = [one for one in rows if is_own_run(one.row.settings)]
    refined = sorted((one for one in rows if one not in own), key=lambda one: one.row.lam or 0.0)
    return own + refined[:1] if own else rows
