"""What a comparison has come to: its variants' rows, and their hypervolumes against the study's reference point."""

from dataclasses import dataclass

from rdmd.evaluation.pareto import Point
from rdmd.results.collect import Collected, collect, collect_variant
from rdmd.results.front import BySeed, front_of, variant_volumes
from rdmd.results.studies import Comparison, variant_key
from rdmd.results.workspace import Workspace


@dataclass(frozen=True)
class CompareResult:
    """The variants that have rows, in their order."""

    comparison: Comparison
    variants: dict[str, Collected]
    volumes: dict[str, BySeed]
    reference: Point

    @property
    def box(self) -> float:
        """The area between the origin and the reference point."""
        return self.reference[0] * self.reference[1]


def compare(workspace: Workspace, comparison: Comparison) -> CompareResult | None:
    """What has been measured of a comparison; None before its first row."""
    front = front_of(collect(workspace, comparison.study))
    every = {variant: collect_variant(workspace, comparison.study, variant_key(comparison, variant))
             for variant in comparison.variants}
    variants = {variant: found for variant, found in every.items() if found.rows}
    if front is None or not variants:
        return None
    volumes = {variant: volume for variant, found in variants.items()
               if (volume := variant_volumes(found, front.reference)) is not None}
    return CompareResult(comparison, variants, volumes, front.reference)
