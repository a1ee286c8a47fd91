"""A table with a line for each stored sample, computed from the shards: the input of Great Expectations."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rdmd.data.manifest import read_manifest
from rdmd.data.samples import SPLITS
from rdmd.data.shards import read_rows, stored_samples

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["key", "split", "name", "scan", "shape", "dtype", "min", "max", "mean", "std", "sha256", "label"]


def domain_table(folder: Path) -> "pd.DataFrame":
    """The samples of one domain, train first: `COLUMNS`, with shape as `8x8x3` and values in stored units.

    `scan` is the hash of the content before resizing and colouring, `sha256` that of the stored values. A NaN among the
    values makes min, max, mean and std NaN. Raises `UserError` if the shards are missing or altered.
    """
    import pandas as pd

    manifest = read_manifest(folder)
    about = {row.key: row for row in read_rows(folder, manifest)}
    lines = []
    for split in SPLITS:
        for key, sample in stored_samples(folder, manifest, split):
            row = about[key]
            label = int(row.label) if row.label else None
            lines.append((key, split, row.name, row.scan, *_measured(sample["npy"]), row.sha256, label))
    return pd.DataFrame(lines, columns=COLUMNS)


def _measured(npy: bytes) -> tuple[str | float, ...]:
    """Shape, dtype, min, max, mean and std of a stored sample."""
    values = np.load(io.BytesIO(npy), allow_pickle=False)
    # An infinite coordinate gives a NaN mean and deviation, which the expectations report.
    with np.errstate(invalid="ignore"):
        mean, std = values.mean(dtype=np.float64).item(), values.std(dtype=np.float64).item()
    return "x".join(map(str, values.shape)), str(values.dtype), values.min().item(), values.max().item(), mean, std


def with_crossings(tables: Mapping[str, "pd.DataFrame"]) -> dict[str, "pd.DataFrame"]:
    """Add two columns, which name a sample of equal content, or hold None.

    `in_other_split`: a sample of the other split (train or test), in this domain or any other. `in_other_domain`: a
    sample of the target for a source sample, and of the source for a target sample. Samples are equal if they have the
    same stored bytes or the same scan, so copies of a scan in different hues are equal.
    """
    by_split = {
        split: _first_places((name, table[table["split"] == split]) for name, table in tables.items())
        for split in SPLITS
    }
    by_domain = {name: _first_places([(name, table)]) for name, table in tables.items()}
    other_split = {"train": by_split["test"], "test": by_split["train"]}
    other_domain = {"source": by_domain.get("target", {}), "target": by_domain.get("source", {})}
    return {
        name: table.assign(
            in_other_split=_found(table, [other_split[split] for split in table["split"]]),
            in_other_domain=_found(table, [other_domain.get(name, {})] * len(table)),
        )
        for name, table in tables.items()
    }


def _first_places(tables: Iterable[tuple[str, "pd.DataFrame"]]) -> dict[str, str]:
    """The first place of each content, by either hash."""
    places: dict[str, str] = {}
    for domain, table in tables:
        for key, name, scan, sha256 in zip(table["key"], table["name"], table["scan"], table["sha256"], strict=True):
            for digest in (scan, sha256):
                places.setdefault(digest, f"{name} ({domain} {key})")
    return places


def _found(table: "pd.DataFrame", elsewhere: list[dict[str, str]]) -> "pd.Series":
    import pandas as pd

    hits = [
        places.get(sha256, places.get(scan))
        for scan, sha256, places in zip(table["scan"], table["sha256"], elsewhere, strict=True)
    ]
    return pd.Series(hits, index=table.index, dtype=object)
