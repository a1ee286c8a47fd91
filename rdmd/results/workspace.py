"""Where the studies lie: a work folder that git ignores, and the pages under docs/ that are made from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rdmd.pipeline.layout import Layout

Part = Literal["references", "rdmd", "baselines"]
PARTS: tuple[Part, ...] = ("references", "rdmd", "baselines")


@dataclass(frozen=True)
class StudyLayout(Layout):
    """One seed of one study as the stages see it: data, models and generators of its own, training runs shared by all.

    `variant` names a comparison's setting, which has generators of its own and nothing else.
    """

    shared_runs: Path = Path("results") / "runs"
    variant: str = ""

    @property
    def runs(self) -> Path:
        return self.shared_runs

    @property
    def generators(self) -> Path:
        if not self.variant:
            return self.root / "models" / "generators"
        return self.root / "variants" / self.variant


@dataclass(frozen=True)
class Workspace:
    """The work folder, and where reports go."""

    root: Path = Path("results")
    docs: Path = Path("docs")

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def rows(self) -> Path:
        return self.root / "cache" / "rows"

    @property
    def plans(self) -> Path:
        return self.root / "cache" / "plans"

    @property
    def published(self) -> Path:
        """The JSON files and figures that docs/results.md refers to."""
        return self.docs / "results"

    @property
    def page(self) -> Path:
        return self.docs / "results.md"

    def layout(self, study: str, seed: int, variant: str = "") -> StudyLayout:
        """The layout of one seed of a study."""
        return StudyLayout(self.root / study / f"seed-{seed}", self.runs, variant)

    def listing(self, study: str, seed: int, part: Part, variant: str = "") -> Path:
        """The file that says which rows make a part of a study's seed."""
        folder = self.layout(study, seed).root / "listings"
        return folder / (f"{variant}.json" if variant else f"{part}.json")
