"""Great Expectations checks the shards before anything is trained on them."""

import io
import logging
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdmd import files
from rdmd.config import Digits, DomainName, Noise, Settings
from rdmd.data.manifest import Manifest, read_manifest
from rdmd.data.samples import SPLITS
from rdmd.data.shards import read_rows, stored_samples
from rdmd.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.data_context import EphemeralDataContext
    from great_expectations.expectations import Expectation

# Failing samples named per expectation in the report; the count is always exact.
NAMED = 20
# Of training images, under which `few_images` warns.
FEW = 300


@dataclass(frozen=True)
class Outcome:
    """The result of one expectation.

    `title` completes the sentence "The domain ...". `observed` is the number of rows, for expectations about that
    number. `samples` are the first `NAMED` of the `failing` samples: their keys, their names and the values.
    """

    domain: str
    title: str
    expectation: str
    column: str | None
    success: bool
    observed: int | None
    failing: int
    samples: tuple[dict[str, str], ...]
    remedy: str


@dataclass(frozen=True)
class DomainCounts:
    """The samples of a domain that were checked."""

    train: int
    test: int
    digest: str


@dataclass(frozen=True)
class ValidationReport:
    """reports/validation.json. Equal shards and settings give an equal report."""

    success: bool
    domains: dict[DomainName, DomainCounts]
    outcomes: tuple[Outcome, ...]


def validate(settings: Settings, shards: Path, report: Path, docs: Path) -> ValidationReport:
    """Check `shards/source`, `shards/target` and, if there is such a domain, `shards/features`.

    Writes `report` (JSON) and `docs` (Great Expectations' Data Docs, a folder of HTML) in any case. Raises `UserError`
    if expectations failed: with each of them, its samples' names and the remedy.
    """
    manifests = {name: read_manifest(shards / name) for name in settings.domains.named}
    _same_channels(manifests)
    tables = _with_crossings({name: _table(shards / name, manifest) for name, manifest in manifests.items()})
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    # Imported late, because it takes seconds.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig
    # Its messages about each run are not for a pipeline's log; warnings still come through.
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    counts: dict[DomainName, DomainCounts] = {}
    outcomes: list[Outcome] = []
    for name, manifest in manifests.items():
        of_split = tables[name]["split"].value_counts()
        counts[name] = DomainCounts(int(of_split.get("train", 0)), int(of_split.get("test", 0)), manifest.digest)
        suite = checks(settings.settled(manifest.channels), name, manifest.bits)
        outcomes += _run(context, name, suite, tables[name])
    result = ValidationReport(all(outcome.success for outcome in outcomes), counts, tuple(outcomes))
    files.write_json(report, asdict(result))
    with files.replacing_folder(docs) as folder:
        backend = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.resolve())}
        site: Any = {"class_name": "SiteBuilder", "store_backend": backend}
        context.add_data_docs_site("reports", site)
        context.build_data_docs(site_names=["reports"])
    failures = [_failure(outcome) for outcome in outcomes if not outcome.success]
    if failures:
        raise UserError(f"validation (see {report}): {' '.join(failures)}")
    return result


def checks(settings: Settings, name: DomainName, bits: int = 8) -> "list[Expectation]":
    """The suite of the domain `name`, in the order in which failures are listed. `bits` are those of its images.

    The meta data of an expectation are the fields `title` and `remedy` of its `Outcome`.
    """
    from great_expectations import expectations as expect
    from great_expectations.expectations.row_conditions import Column

    domain = settings.domains.named[name]
    real = settings.preprocess.kind == "points" or isinstance(domain, Noise)
    largest = float(np.finfo(np.float32).max)
    again = f"preprocess {name} again"
    # Generated domains have a path for DVC alone.
    place = f"domains.{name}" if domain.reader in ("avatars", "digits", "points", "noise") else str(domain.path)
    mend = f"mend or remove them in {place} and {again}"
    shape = "x".join(map(str, settings.stored_shape))
    between, in_set = expect.ExpectColumnValuesToBeBetween, expect.ExpectColumnValuesToBeInSet
    null, unique = expect.ExpectColumnValuesToBeNull, expect.ExpectColumnValuesToBeUnique
    low, high = (-largest, largest) if real else (0, 2**bits - 1)
    dtype = "float32" if real else f"uint{bits}"
    suite: list[Expectation] = []

    def check(title: str, remedy: str, kind: "type[Expectation]", **limits: Any) -> None:
        suite.append(kind(notes=f"The domain {title}.", meta={"title": title, "remedy": remedy}, **limits))

    check("has samples of one shape", again, in_set, column="shape", value_set=[shape])
    check("has samples of one type", again, in_set, column="dtype", value_set=[dtype])
    check("has no sample that is not a number", mend, expect.ExpectColumnValuesToNotBeNull, column="mean")
    check("has no value below the range", mend, between, column="min", min_value=low)
    check("has no value above the range", mend, between, column="max", max_value=high)
    if not real:
        check("has no image of a single colour", mend, between, column="std", min_value=0, strict_min=True)
    if isinstance(domain, Digits):
        check("has no label outside `classes`", again, in_set, column="label", value_set=sorted(domain.classes))
    for split, least in (("train", settings.validation.min_train), ("test", settings.validation.min_test)):
        # FID needs two test samples.
        lower = "" if (split, least) == ("test", 2) else f"lower validation.min_{split} or "
        add = f"raise domains.{name}.{split}" if real else f"add samples to {place}"
        of_split = {"min_value": least, "row_condition": Column("split") == split}
        title, remedy = f"has at least {least} {split} samples", f"{lower}{add}, and {again}"
        check(title, remedy, expect.ExpectTableRowCountToBeBetween, **of_split)
    of_pairs, of_both = (
        f"remove one of each pair and {again}",
        "remove it from one of the two and preprocess both again",
    )
    other_domain = "shares no sample with the domain it is translated to or from"
    check("shares no sample between train and test", of_pairs, null, column="in_other_split")
    check(other_domain, of_both, null, column="in_other_domain")
    check("holds no sample twice", f"remove all but one of each and {again}", unique, column="sha256")
    return suite


def _run(
    context: "EphemeralDataContext", name: str, suite: "list[Expectation]", table: "pd.DataFrame"
) -> Iterable[Outcome]:
    """Run one domain's suite; the result stays in `context`, from which the Data Docs are built."""
    import great_expectations as gx

    batch = context.data_sources.add_pandas(name).add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    stored = context.suites.add(gx.ExpectationSuite(name=name, expectations=suite))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=stored))
    results = definition.run(
        batch_parameters={"dataframe": table},
        result_format={
            # A shorter format leaves the samples' names out of the pages.
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["key", "name"],
            "partial_unexpected_count": NAMED,
        },
        run_id=gx.RunIdentifier(run_name=name),
    ).results
    # Great Expectations returns them in an order of its own.
    found = {outcome.title: outcome for outcome in (_outcome(name, result) for result in results)}
    return [found[check.meta["title"]] for check in suite if check.meta]


def _outcome(name: str, result: "ExpectationValidationResult") -> Outcome:
    config, found = result.expectation_config, result.result
    assert config is not None
    column = config.kwargs.get("column")
    if result.exception_info and result.exception_info.get("raised_exception"):
        raise RuntimeError(f"{name}: {config.type} could not run: {result.exception_info['exception_message']}")
    rejected = found.get("partial_unexpected_index_list") or []
    return Outcome(
        domain=name,
        title=config.meta["title"],
        expectation=config.type,
        column=column,
        success=bool(result.success),
        observed=found.get("observed_value"),
        failing=int(found.get("unexpected_count", 0)),
        samples=tuple(
            {"key": str(row["key"]), "name": str(row["name"]), "value": str(row.get(column))}
            for row in rejected[:NAMED]
        ),
        remedy=config.meta["remedy"],
    )


def _failure(outcome: Outcome) -> str:
    """A failed expectation as a sentence with the first samples and the remedy."""
    if outcome.samples:
        names = "; ".join(_described(outcome.column, **sample) for sample in outcome.samples[:3])
        evidence = f"{outcome.failing} {'sample fails' if outcome.failing == 1 else 'samples fail'}: {names}"
        evidence += "; ..." if outcome.failing > 3 else ""
    else:
        evidence = f"it has {outcome.observed}"
    return f"expected that the {outcome.domain} domain {outcome.title}, but {evidence}; {outcome.remedy}."


def _described(column: str | None, name: str, key: str, value: str) -> str:
    match column:
        case "in_other_split" | "in_other_domain":
            return f"{name} ({key}) equals {value}"
        case "sha256":
            return f"{name} ({key})"
        case _:
            return f"{name} ({key}) has {column} {value}"


def few_images(report: ValidationReport, settings: Settings) -> str | None:
    """A warning that says what to expect, if a domain has fewer than `FEW` training images."""
    few = {name: counts.train for name, counts in report.domains.items() if counts.train < FEW}
    if not few or settings.preprocess.kind != "images":
        return None
    held = " and ".join(f"{name} has {count} training images" for name, count in few.items())
    return (
        f"FEW IMAGES: {held}. From fewer than {FEW} a network memorises instead of learning: expect translations that "
        "resemble single training images, and metrics with wide intervals (docs/images.md)"
    )


def _same_channels(manifests: Mapping[DomainName, Manifest]) -> None:
    """Raise `UserError` if source and target differ in their channels: networks have those of both."""
    source, target = manifests["source"].channels, manifests["target"].channels
    if source != target:
        grey, coloured = ("source", "target") if source == 1 else ("target", "source")
        raise UserError(
            f"every image of the {grey} is grey, and the {coloured} has colours; set preprocess.channels to 3, which "
            "repeats grey, or to 1, which drops colours, and preprocess both again."
        )


def _table(folder: Path, manifest: Manifest) -> "pd.DataFrame":
    """A line for each sample of one domain, train first, with its shape as `8x8x3` and values in stored units.

    `scan` is the hash of the content before resizing and colouring, `sha256` that of the stored values. A NaN among the
    values makes min, max, mean and std NaN. Raises `UserError` if the shards are missing or altered.
    """
    import pandas as pd

    rows, lines = {row.key: row for row in read_rows(folder, manifest)}, []
    for split in SPLITS:
        for key, sample in stored_samples(folder, manifest, split):
            row, values = rows[key], np.load(io.BytesIO(sample["npy"]), allow_pickle=False)
            # An infinite coordinate gives a NaN mean and deviation, which the expectations report.
            with np.errstate(invalid="ignore"):
                mean, std = values.mean(dtype=np.float64).item(), values.std(dtype=np.float64).item()
            lines.append(
                {
                    "key": key,
                    "split": split,
                    "name": row.name,
                    "scan": row.scan,
                    "shape": "x".join(map(str, values.shape)),
                    "dtype": str(values.dtype),
                    "min": values.min().item(),
                    "max": values.max().item(),
                    "mean": mean,
                    "std": std,
                    "sha256": row.sha256,
                    "label": int(row.label) if row.label else None,
                }
            )
    return pd.DataFrame(lines)


def _with_crossings(tables: Mapping[DomainName, "pd.DataFrame"]) -> dict[DomainName, "pd.DataFrame"]:
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
