"""What one part of a study's seed consists of: which rows, which trainings, and the facts that every number needs."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rdmd import config
from rdmd.errors import UserError
from rdmd.files import write_text

# What `Training.model` says of a generator.
GENERATOR_MODEL = "generator"


class SplitFacts(config.Section):
    """One domain: its sizes and the digest of its samples."""

    train: int
    test: int
    digest: str


class Training(config.Section):
    """One training run."""

    model: str
    run: str
    steps: int
    train_seconds: float
    peak_memory_mib: float
    parameters: int
    device: str


class Facts(config.Section):
    """What the numbers of a part were measured on: `references` samples of `n_reference` each. `features` as in
    metrics.json. `random_pairs_cost` is the mean cost over all pairs of a test source and a test target."""

    experiment: str
    seed: int
    n_source: int
    n_reference: int
    references: int = 1
    n_transport: int | None
    n_w2: int | None
    domains: dict[str, SplitFacts]
    features: dict[str, Any]
    random_pairs_cost: float
    exact: str | None


class Listing(config.Section):
    """The file. `keys` name rows in the cache, in the order in which they are shown, measured or not yet."""

    facts: Facts
    keys: list[str]
    training: list[Training]


def write_listing(path: Path, listing: Listing) -> None:
    """Write a listing, whole or not at all."""
    write_text(path, listing.model_dump_json(indent=2) + "\n")


def read_listing(path: Path) -> Listing | None:
    """A listing, or None where that part has not been begun. Raises UserError if the file is damaged."""
    if not path.exists():
        return None
    try:
        return Listing.model_validate_json(path.read_bytes())
    except ValidationError:
        raise UserError(f"{path} is damaged; delete it and repeat the study's command.") from None
