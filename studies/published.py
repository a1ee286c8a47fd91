"""docs/results/*.json: every measured row, for programs to read. Parts of a seed are replaced as they are measured."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rdmd.errors import UserError
from rdmd.evaluation.row import GENERATOR, IDENTITY
from rdmd.files import write_json
from studies.grids import PARTS, Comparison, Part
from studies.measure import Measured
from studies.statistics import DATA, EXACT, REFERENCES

Entry = dict[str, Any]


def read(path: Path) -> Entry:
    """A file of results; empty where there is none. Raises UserError if it is damaged."""
    try:
        found: Entry = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return found
    except ValueError:
        raise UserError(f"{path} is damaged; take it from the repository again.") from None


def publish_part(path: Path, study: str, part: Part, measured: Measured, references: Measured) -> None:
    """Put one part of one seed of a study into its file, in place of what it had."""
    old = read(path)

    def merged(key: str, new: list[Entry]) -> list[Entry]:
        others = [entry for entry in old.get(key, []) if (entry["seed"], _part_of(entry)) != (measured.seed, part)]
        return sorted([*others, *new], key=lambda entry: (entry["seed"], PARTS.index(_part_of(entry))))

    head = {"study": study, "command": f"python -m studies {study}", **_head(path, old, measured, references)}
    rows, training = merged("rows", _related(measured, references)), merged("training", measured.training)
    write_json(path, {**head, "rows": rows, "training": training})


def publish_comparison(
    path: Path, group: str, comparison: Comparison, variants: dict[str, Measured], references: Measured
) -> None:
    """Put one seed of a comparison into the file of all comparisons, in place of what it had."""
    found = read(path) or {"comparisons": [], "rows": [], "training": []}
    old: Entry = next((entry for entry in found["comparisons"] if entry["name"] == comparison.name), {})
    entry = {
        "name": comparison.name,
        "title": comparison.title,
        "study": comparison.study,
        "command": f"python -m studies {group} --only {comparison.name}",
        "changes": comparison.variants,
        **_head(path, old, next(iter(variants.values())), references),
    }

    def merged(key: str, new: dict[str, list[Entry]]) -> list[Entry]:
        others = [
            entry for entry in found[key] if (entry["comparison"], entry["seed"]) != (comparison.name, references.seed)
        ]
        tagged = [
            {"comparison": comparison.name, "variant": name, **entry}
            for name, entries in new.items()
            for entry in entries
        ]
        return [*others, *tagged]

    others = [entry for entry in found["comparisons"] if entry["name"] != comparison.name]
    rows = merged("rows", {name: _related(measured, references) for name, measured in variants.items()})
    training = merged("training", {name: measured.training for name, measured in variants.items()})
    write_json(path, {"comparisons": [*others, entry], "rows": rows, "training": training})


def _part_of(entry: Entry) -> Part:
    """Of a row, or of a training."""
    name = entry.get("method") or entry["model"]
    if name in REFERENCES:
        return "references"
    return "rdmd" if name.startswith((GENERATOR, "generator")) else "baselines"


def _related(measured: Measured, references: Measured) -> list[Entry]:
    """The rows with what the references of their seed say of them."""
    known = {row["method"]: row for row in references.rows}
    data = known[DATA]["sw2"] if DATA in known else None
    # Between Gaussians the exact cost is known; elsewhere it is that of samples, and the row has more of them.
    sampled = measured.facts["exact_transport"] == "discrete"
    exact = known[EXACT]["cost_sum"] if EXACT in known and sampled else None

    def over_exact(row: Entry) -> float | None:
        least = exact or row["ot_cost"]
        return row["cost_sum"] / least - 1 if row["cost_sum"] and least and row["method"] != EXACT else None

    return [
        {**row, "sw2_ratio": row["sw2"] / data if row["sw2"] and data else None, "over_exact": over_exact(row)}
        for row in measured.rows
    ]


def _head(path: Path, old: Entry, measured: Measured, references: Measured) -> Entry:
    """What all numbers were measured on. Raises UserError if it differs from that of the other seeds."""
    seed = measured.seed
    others = [other for other in old.get("seeds", []) if other != seed]
    for key, value in measured.facts.items():
        # How many test images there are depends on the seed's split.
        if others and old[key] != value and (old["n_transport"] or key not in ("n_source", "n_reference")):
            raise UserError(
                f"{path}: seeds {others} have {key} {old[key]}, seed {seed} has {value}; measure all seeds with the "
                "same settings into another folder (--docs), or move the file."
            )
    first = {key: old[key] for key in measured.facts} if others and min(others) < seed else measured.facts

    def with_own(entries: list[Entry], own: list[Entry]) -> list[Entry]:
        before = [entry for entry in entries if entry["seed"] != seed]
        return sorted([*before, *({"seed": seed, **entry} for entry in own)], key=lambda entry: int(entry["seed"]))

    source = next(row for row in references.rows if row["method"] == IDENTITY)
    metric = "sw2" if source["fid"] is None else "fid"
    reference = {"cost": references.random_pairs_cost, metric: source[metric]}
    return {
        **first,
        "seeds": sorted([*others, seed]),
        "date": datetime.now(UTC).date().isoformat(),
        "evaluated_on": sorted({*old.get("evaluated_on", []), measured.device}),
        "features": with_own(old.get("features", []), [measured.features]),
        "splits": with_own(old.get("splits", []), measured.splits),
        "front": {"reference_by_seed": with_own(old.get("front", {}).get("reference_by_seed", []), [reference])},
    }
