"""One line per stored sample, computed from the shards themselves: what Great Expectations looks at."""

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdmd.data.manifest import read_manifest
from rdmd.data.samples import SPLITS, Split
from rdmd.data.shards import read_rows, stored_samples

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["key", "split", "name", "scan", "shape", "dtype", "min", "max", "mean", "std", "sha256", "label"]
_BLOCK = 256


def domain_table(folder: Path) -> "pd.DataFrame":
    """The samples of one domain, train first: `COLUMNS`, with shape as `8x8x3` and values in stored units.

    `scan` is the content behind the sample, `sha256` that of the stored bytes. A NaN among the values makes
    min, max, mean and std NaN. Raises `UserError` if the shards are missing or altered.
    """
    import pandas as pd

    manifest = read_manifest(folder)
    about = {row.key: row for row in read_rows(folder, manifest)}
    lines = [
        (key, split, about[key].name, about[key].scan, *measures)
        for split in SPLITS
        for key, measures in _measured(stored_samples(folder, manifest, split))
    ]
    return pd.DataFrame(lines, columns=COLUMNS)


def _measured(samples: Iterable[tuple[str, dict[str, bytes]]]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Each key with its shape, dtype, min, max, mean, std, sha256 and label.

    Neighbours with the same npy header are measured together: on points that is ten times quicker than one by
    one.
    """
    for header, group in groupby(samples, key=lambda sample: _header(sample[1]["npy"])):
        while block := tuple(islice(group, _BLOCK)):
            yield from _measured_block(header, block)


def _header(npy: bytes) -> bytes:
    """An npy file (version 1.0, as ours are) up to where its values start."""
    return npy[: 10 + int.from_bytes(npy[8:10], "little")]


def _measured_block(
    header: bytes, block: tuple[tuple[str, dict[str, bytes]], ...]
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    stream = io.BytesIO(header)
    np.lib.format.read_magic(stream)
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    contents = [sample["npy"][len(header) :] for _, sample in block]
    values = np.frombuffer(b"".join(contents), dtype).reshape(len(block), -1)
    # An infinite coordinate makes the mean and deviation NaN, which is the answer, not a fault to warn of.
    with np.errstate(invalid="ignore"):
        lows, highs = values.min(axis=1).tolist(), values.max(axis=1).tolist()
        means = values.mean(axis=1, dtype=np.float64).tolist()
        stds = values.std(axis=1, dtype=np.float64).tolist()
    written_shape = "x".join(map(str, shape))
    for (key, sample), content, *measures in zip(block, contents, lows, highs, means, stds, strict=True):
        label = int(sample["cls"]) if "cls" in sample else None
        sha256 = hashlib.sha256(content).hexdigest()
        yield key, (written_shape, str(dtype), *measures, sha256, label)


def with_crossings(tables: Mapping[str, "pd.DataFrame"]) -> dict[str, "pd.DataFrame"]:
    """The tables with two columns more, each naming a sample of equal content, or None where there is none.

    `in_other_split`: found on the other side of train and test, in this domain or any other.
    `in_other_domain`: found in the target, for a source sample, and the other way round. Equal means the same
    stored bytes or the same scan, so a scan whose copies differ in hue counts too.
    """
    places = {split: _places(tables, split) for split in SPLITS}
    everywhere = {name: _merged(_places({name: table}, split) for split in SPLITS) for name, table in tables.items()}
    other_split: dict[str, Split] = {"train": "test", "test": "train"}
    other_domain = {"source": "target", "target": "source"}
    return {
        name: table.assign(
            in_other_split=_found(table, [places[other_split[split]] for split in table["split"]]),
            in_other_domain=_found(table, [everywhere.get(other_domain.get(name, ""), {})] * len(table)),
        )
        for name, table in tables.items()
    }


def _places(tables: Mapping[str, "pd.DataFrame"], split: str) -> dict[str, str]:
    """Where each content, by either hash, is first found in `split`."""
    return _merged(_contents(name, table[table["split"] == split]) for name, table in tables.items())


def _contents(name: str, table: "pd.DataFrame") -> dict[str, str]:
    places: dict[str, str] = {}
    for key, sample, scan, sha256 in zip(table["key"], table["name"], table["scan"], table["sha256"], strict=True):
        place = f"{sample} ({name} {key})"
        places.setdefault(scan, place)
        places.setdefault(sha256, place)
    return places


def _merged(parts: Iterable[dict[str, str]]) -> dict[str, str]:
    merged: dict[str, str] = {}
    for part in parts:
        merged = part | merged
    return merged


def _found(table: "pd.DataFrame", elsewhere: list[dict[str, str]]) -> "pd.Series":
    import pandas as pd

    hits = [
        places.get(sha256, places.get(scan))
        for scan, sha256, places in zip(table["scan"], table["sha256"], elsewhere, strict=True)
    ]
    return pd.Series(hits, index=table.index, dtype=object)
