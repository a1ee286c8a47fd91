"""docs/results/*.json: every number of docs/results.md, for programs to read."""

import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rdmd.files import write_json
from rdmd.results.collect import Collected, SeedRow
from rdmd.results.compare import CompareResult
from rdmd.results.front import BySeed, Front
from rdmd.results.summary import ADDED, Summary, dials_of, summarise

# What a comparison has for each of its variants.
PARTS = ("rows", "summary", "training")


def write_study(path: Path, study: str, collected: Collected, front: Front | None, realism: str) -> None:
    """One study: the facts, a row for each method, setting and seed, the summaries, and the front."""
    write_json(path, {**_facts(study, collected), **_numbers(collected), "front": _front(front, realism)})


def write_comparisons(path: Path, what: str, found: list[CompareResult], known: Collection[str]) -> None:
    """Several comparisons: what each is, and the rows and summaries of all, each with its comparison and variant.

    Those in `known` that were measured elsewhere stay as the file has them, as their sections stay in the page.
    """
    elsewhere = set(known) - {one.comparison.name for one in found}
    before = _read(path)
    write_json(path, {
        "comparisons": [one for one in before["comparisons"] if one["name"] in elsewhere]
        + [_comparison(what, one) for one in found],
        **{
            part: [one for one in before[part] if one["comparison"] in elsewhere] + _of_variants(found, part)
            for part in PARTS
        },
    })


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    if not path.exists():
        return {part: [] for part in ("comparisons", *PARTS)}
    return json.loads(path.read_text(encoding="utf-8"))


def _comparison(what: str, one: CompareResult) -> dict[str, Any]:
    return {
        "name": one.comparison.name,
        "title": one.comparison.title,
        "study": one.comparison.study,
        "command": f"python -m rdmd.results {what} --only {one.comparison.name}",
        "changes": one.comparison.variants,
        **_measured_on(next(iter(one.variants.values()))),
        "front": {
            "reference": {"cost": one.reference[0], "realism": one.reference[1]},
            "hypervolume": {name: _by_seed(volume, one.box) for name, volume in one.volumes.items()},
        },
    }


def _of_variants(found: list[CompareResult], part: str) -> list[dict[str, Any]]:
    return [
        {"comparison": one.comparison.name, "variant": variant, **entry}
        for one in found
        for variant, collected in one.variants.items()
        for entry in _numbers(collected)[part]
    ]


def _facts(study: str, collected: Collected) -> dict[str, Any]:
    return {"study": study, "command": f"python -m rdmd.results {study}", **_measured_on(collected)}


def _measured_on(collected: Collected) -> dict[str, Any]:
    first = collected.facts[collected.seeds[0]]
    return {
        "experiment": first.experiment,
        "seeds": collected.seeds,
        "pending_rows": collected.pending,
        "date": max((one.date for one in collected.rows), default=None),
        "evaluated_on": sorted({one.device for one in collected.rows}),
        "n_source": first.n_source,
        "n_reference": first.n_reference,
        "references": first.references,
        "n_transport": first.n_transport,
        "n_w2": first.n_w2,
        "exact_transport": first.exact,
        "features": [{"seed": seed, **collected.facts[seed].features} for seed in collected.seeds],
        "splits": [
            {"seed": seed, "domain": name, **facts.model_dump()}
            for seed in collected.seeds
            for name, facts in collected.facts[seed].domains.items()
        ],
    }


def _numbers(collected: Collected) -> dict[str, Any]:
    return {
        "rows": [_row(one) for one in collected.rows],
        "summary": [_summary(one) for one in summarise(collected.rows)],
        "training": [{"seed": one.seed, **one.training.model_dump()} for one in collected.training],
    }


def _row(one: SeedRow) -> dict[str, Any]:
    """The keys of reports/metrics.json, the seed, and what the studies add."""
    row = {**one.row.model_dump(mode="json", by_alias=True), "settings": dials_of(one.row)}
    added = {name: getattr(one, name) for name in (*ADDED, "drift")}
    return {**row, "seed": one.seed, **added}


def _summary(one: Summary) -> dict[str, Any]:
    values = asdict(one)
    return {"lambda" if key == "lam" else key: value for key, value in values.items()}


def _by_seed(values: BySeed, box: float | None = None) -> dict[str, Any]:
    shares = {} if not box else {"share_of_box": values.mean / box}
    return {"by_seed": {str(seed): value for seed, value in values.values.items()},
            "mean": values.mean, "std": values.std, **shares}


def _front(front: Front | None, realism: str) -> dict[str, Any] | None:
    if front is None:
        return None
    return {
        "axes": ["cost", realism],
        "reference": {"cost": front.reference[0], realism: front.reference[1],
                      "what": "cost of random pairs of source and target, realism of the untranslated source; means "
                              "over the seeds"},
        "reference_by_seed": [{"seed": seed, "cost": point[0], realism: point[1]}
                              for seed, point in front.reference_by_seed.items()],
        "hypervolume": {method: _by_seed(volume, front.box) for method, volume in front.hypervolumes.items()},
        "bettered_share": {
            "what": "share of baseline points for which a generator of one network evaluation is better in one "
                    "coordinate and no worse in the other",
            "all": None if front.bettered is None else _by_seed(front.bettered),
            "by_method": {method: _by_seed(share) for method, share in front.bettered_by_method.items()},
        },
        "unbettered": [
            {"seed": one.seed, "method": one.row.method, "settings": dials_of(one.row),
             "cost": one.row.cost, realism: one.row.realism}
            for one in front.unbettered
        ],
    }
