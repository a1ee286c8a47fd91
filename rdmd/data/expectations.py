"""Great Expectations checks the shards before anything is trained on them."""

import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdmd import files
from rdmd.config import Digits, DomainName, Noise, Settings
from rdmd.data.manifest import Manifest, read_manifest
from rdmd.data.sample_table import domain_table, with_crossings
from rdmd.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.data_context import EphemeralDataContext
    from great_expectations.datasource.fluent import PandasDatasource
    from great_expectations.expectations import Expectation


@dataclass(frozen=True)
class Check:
    """One expectation about a domain, its meaning and the remedy."""

    title: str
    """Completes the sentence "The domain ..."."""
    remedy: str
    expectation: "Expectation"


def checks(settings: Settings, name: DomainName, bits: int = 8) -> list[Check]:
    """The suite of the domain `name`, in the order in which failures are listed. `bits` are those of its images."""
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
    low, high = (-largest, largest) if real else (0, 2**bits - 1)
    dtype = "float32" if real else f"uint{bits}"
    present = expect.ExpectColumnValuesToNotBeNull(column="mean")
    suite = [
        Check("has samples of one shape", again, in_set(column="shape", value_set=[shape])),
        Check("has samples of one type", again, in_set(column="dtype", value_set=[dtype])),
        Check("has no sample that is not a number", mend, present),
        Check("has no value below the range", mend, between(column="min", min_value=low)),
        Check("has no value above the range", mend, between(column="max", max_value=high)),
    ]
    if not real:
        flat = between(column="std", min_value=0, strict_min=True)
        suite.append(Check("has no image of a single colour", mend, flat))
    if isinstance(domain, Digits):
        labels = in_set(column="label", value_set=sorted(domain.classes))
        suite.append(Check("has no label outside `classes`", again, labels))
    for split, least in (("train", settings.validation.min_train), ("test", settings.validation.min_test)):
        # FID needs two test samples.
        lower = "" if (split, least) == ("test", 2) else f"lower validation.min_{split} or "
        add = f"raise domains.{name}.{split}" if real else f"add samples to {place}"
        rows = expect.ExpectTableRowCountToBeBetween(min_value=least, row_condition=Column("split") == split)
        suite.append(Check(f"has at least {least} {split} samples", f"{lower}{add}, and {again}", rows))
    null, unique = expect.ExpectColumnValuesToBeNull, expect.ExpectColumnValuesToBeUnique
    of_pairs = f"remove one of each pair and {again}"
    of_both = "remove it from one of the two and preprocess both again"
    other_domain = "shares no sample with the domain it is translated to or from"
    return [
        *suite,
        Check("shares no sample between train and test", of_pairs, null(column="in_other_split")),
        Check(other_domain, of_both, null(column="in_other_domain")),
        Check("holds no sample twice", f"remove all but one of each and {again}", unique(column="sha256")),
    ]


# Failing samples named per expectation in the report; the count is always exact.
NAMED = 20
# Of training images, under which `few_images` warns.
FEW = 300


@dataclass(frozen=True)
class FailingSample:
    """A sample that an expectation rejects."""

    key: str
    name: str
    value: str


@dataclass(frozen=True)
class Outcome:
    """The result of one expectation."""

    domain: str
    title: str
    expectation: str
    column: str | None
    success: bool
    observed: int | None
    """The number of rows, for expectations about that number."""
    failing: int
    samples: tuple[FailingSample, ...]
    """The first `NAMED` of the failing samples."""
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
    names = list(settings.domains.named)
    manifests = {name: read_manifest(shards / name) for name in names}
    _same_channels(manifests)
    tables = with_crossings({name: domain_table(shards / name) for name in names})
    counts = {
        name: DomainCounts(
            train=int((tables[name]["split"] == "train").sum()),
            test=int((tables[name]["split"] == "test").sum()),
            digest=manifests[name].digest,
        )
        for name in names
    }
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
    source = context.data_sources.add_pandas("shards")
    suites = {
        name: checks(settings.settled(manifest.channels), name, manifest.bits) for name, manifest in manifests.items()
    }
    outcomes = tuple(outcome for name in names for outcome in _run(context, source, name, suites[name], tables[name]))
    result = ValidationReport(all(outcome.success for outcome in outcomes), counts, outcomes)
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


def _same_channels(manifests: Mapping[DomainName, Manifest]) -> None:
    """Raise `UserError` if source and target differ in their channels: networks have those of both."""
    source, target = manifests["source"].channels, manifests["target"].channels
    if source != target:
        grey, coloured = ("source", "target") if source == 1 else ("target", "source")
        raise UserError(
            f"every image of the {grey} is grey, and the {coloured} has colours; set preprocess.channels to 3, which "
            "repeats grey, or to 1, which drops colours, and preprocess both again."
        )


def few_images(report: ValidationReport, settings: Settings) -> str | None:
    """A warning that says what to expect, if a domain has fewer than `FEW` training images."""
    few = {name: counts.train for name, counts in report.domains.items() if counts.train < FEW}
    if not few or settings.preprocess.kind != "images":
        return None
    held = " and ".join(f"{name} has {count} training images" for name, count in few.items())
    return (
        f"FEW IMAGES: {held}. From fewer than {FEW} a network rather remembers than learns: expect translations that "
        "resemble single training images, and metrics with wide intervals (docs/images.md)"
    )


def _run(
    context: "EphemeralDataContext", source: "PandasDatasource", name: str, suite: list[Check], table: "pd.DataFrame"
) -> list[Outcome]:
    """Run one domain's suite; the result stays in `context`, from which the Data Docs are built."""
    import great_expectations as gx

    batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    for index, check in enumerate(suite):
        check.expectation.notes = f"The domain {check.title}."
        check.expectation.meta = {"index": index}
    stored = context.suites.add(gx.ExpectationSuite(name=name, expectations=[check.expectation for check in suite]))
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
    of_index = {config.meta["index"]: result for result in results if (config := result.expectation_config)}
    return [_outcome(name, check, of_index[index]) for index, check in enumerate(suite)]


def _outcome(name: str, check: Check, result: "ExpectationValidationResult") -> Outcome:
    config, found = result.expectation_config, result.result
    assert config is not None
    column = config.kwargs.get("column")
    if result.exception_info and result.exception_info.get("raised_exception"):
        raise RuntimeError(f"{name}: {config.type} could not run: {result.exception_info['exception_message']}")
    rejected = found.get("partial_unexpected_index_list") or []
    return Outcome(
        domain=name,
        title=check.title,
        expectation=config.type,
        column=column,
        success=bool(result.success),
        observed=found.get("observed_value"),
        failing=int(found.get("unexpected_count", 0)),
        samples=tuple(
            FailingSample(key=str(row["key"]), name=str(row["name"]), value=str(row.get(column)))
            for row in rejected[:NAMED]
        ),
        remedy=check.remedy,
    )


def _failure(outcome: Outcome) -> str:
    """A failed expectation as a sentence with the first samples and the remedy."""
    if outcome.samples:
        names = "; ".join(_described(outcome.column, sample) for sample in outcome.samples[:3])
        evidence = f"{outcome.failing} {'sample fails' if outcome.failing == 1 else 'samples fail'}: {names}"
        evidence += "; ..." if outcome.failing > 3 else ""
    else:
        evidence = f"it has {outcome.observed}"
    return f"expected that the {outcome.domain} domain {outcome.title}, but {evidence}; {outcome.remedy}."


def _described(column: str | None, sample: FailingSample) -> str:
    match column:
        case "in_other_split" | "in_other_domain":
            return f"{sample.name} ({sample.key}) equals {sample.value}"
        case "sha256":
            return f"{sample.name} ({sample.key})"
        case _:
            return f"{sample.name} ({sample.key}) has {column} {sample.value}"
