"""Great Expectations between the shards and training."""

import logging
import os
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdmd import files
from rdmd.config import Digits, Domain, Noise, Settings
from rdmd.data.manifest import read_manifest
from rdmd.data.sample_table import domain_table, with_crossings
from rdmd.errors import UserError

if TYPE_CHECKING:
    from great_expectations.expectations import Expectation


@dataclass(frozen=True)
class Check:
    """One expectation about one domain, in words."""

    title: str
    """What should hold, completing "the domain ..."."""
    remedy: str
    expectation: "Expectation"


def checks(settings: Settings, name: str, domain: Domain) -> list[Check]:
    """The suite of the domain `name`, from the settings alone, in the order in which failures are told."""
    from great_expectations import expectations as expect
    from great_expectations.expectations.row_conditions import Column

    points = settings.preprocess.kind == "points"
    real = points or isinstance(domain, Noise)
    side = settings.preprocess.resolution
    largest = float(np.finfo(np.float32).max)
    again = f"preprocess {name} again"
    # The digits and laws that come with the project have a path for DVC's sake alone.
    place = f"domains.{name}" if domain.reader in ("digits", "points", "noise") else str(domain.path)
    mend = f"mend or remove them in {place} and {again}"

    def row_count(split: str, least: int, remedy: str) -> Check:
        return Check(
            f"has at least {least} {split} samples",
            remedy,
            expect.ExpectTableRowCountToBeBetween(min_value=least, row_condition=Column("split") == split),
        )

    suite = [
        Check(
            "has samples of one shape",
            again,
            expect.ExpectColumnValuesToBeInSet(column="shape", value_set=["2" if points else f"{side}x{side}x3"]),
        ),
        Check(
            "has samples of one type",
            again,
            expect.ExpectColumnValuesToBeInSet(column="dtype", value_set=["float32" if real else "uint8"]),
        ),
        Check("has no sample that is not a number", mend, expect.ExpectColumnValuesToNotBeNull(column="mean")),
        Check(
            "has no value below the range",
            mend,
            expect.ExpectColumnValuesToBeBetween(column="min", min_value=-largest if real else 0),
        ),
        Check(
            "has no value above the range",
            mend,
            expect.ExpectColumnValuesToBeBetween(column="max", max_value=largest if real else 255),
        ),
    ]
    if not real:
        suite.append(
            Check(
                "has no picture of one colour all over",
                mend,
                expect.ExpectColumnValuesToBeBetween(column="std", min_value=0, strict_min=True),
            )
        )
    if isinstance(domain, Digits):
        suite.append(
            Check(
                "has no label beyond the classes asked for",
                again,
                expect.ExpectColumnValuesToBeInSet(column="label", value_set=sorted(domain.classes)),
            )
        )
    for split, least in (("train", settings.validation.min_train), ("test", settings.validation.min_test)):
        # FID takes no less than two test samples.
        lower = "" if (split, least) == ("test", 2) else f"lower validation.min_{split} or "
        add = f"raise domains.{name}.{split}" if real else f"add samples to {place}"
        suite.append(row_count(split, least, f"{lower}{add}, and {again}"))
    suite += [
        Check(
            "shares no sample between train and test",
            f"remove one of each pair and {again}",
            expect.ExpectColumnValuesToBeNull(column="in_other_split"),
        ),
        Check(
            "shares no sample with the domain it is translated to or from",
            "remove it from one of the two and preprocess both again",
            expect.ExpectColumnValuesToBeNull(column="in_other_domain"),
        ),
        Check(
            "holds no sample twice",
            f"remove all but one of each and {again}",
            expect.ExpectColumnValuesToBeUnique(column="sha256"),
        ),
    ]
    return suite


if TYPE_CHECKING:
    import pandas as pd

NAMED = 20
"""Failing samples named per expectation in the report; the count is always exact."""


@dataclass(frozen=True)
class FailingSample:
    """A sample that an expectation rejects."""

    key: str
    name: str
    value: str


@dataclass(frozen=True)
class Outcome:
    """One expectation's answer."""

    domain: str
    title: str
    expectation: str
    column: str | None
    success: bool
    observed: int | None
    """The number of rows, for expectations about it."""
    failing: int
    samples: tuple[FailingSample, ...]
    """The first of the failing ones."""
    remedy: str


@dataclass(frozen=True)
class DomainCounts:
    """How many samples of a domain were looked at, and which."""

    train: int
    test: int
    digest: str


@dataclass(frozen=True)
class ValidationReport:
    """What reports/validation.json holds. Equal shards and settings give an equal report."""

    success: bool
    domains: dict[str, DomainCounts]
    outcomes: tuple[Outcome, ...]


def validate(settings: Settings, shards: Path, report: Path, docs: Path) -> ValidationReport:
    """Check `shards/source`, `shards/target` and, where there is such a domain, `shards/features`.

    Writes `report` (JSON) and `docs` (Great Expectations' Data Docs, a folder of HTML), whether or not all is
    well, and then raises `UserError` with the first failed expectation, its samples' names and the remedy.
    """
    named = {
        "source": settings.domains.source,
        "target": settings.domains.target,
        "features": settings.domains.features,
    }
    domains = {name: domain for name, domain in named.items() if domain is not None}
    tables = with_crossings({name: domain_table(shards / name) for name in domains})
    counts = {
        name: DomainCounts(
            train=int((table["split"] == "train").sum()),
            test=int((table["split"] == "test").sum()),
            digest=read_manifest(shards / name).digest,
        )
        for name, table in tables.items()
    }
    gx = _great_expectations()
    suites = {name: checks(settings, name, domain) for name, domain in domains.items()}
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("shards")
    outcomes = tuple(
        outcome for name, suite in suites.items() for outcome in _run(gx, context, source, name, suite, tables[name])
    )
    result = ValidationReport(all(outcome.success for outcome in outcomes), counts, outcomes)
    files.write_json(report, asdict(result))
    with files.replacing_folder(docs) as folder:
        backend = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.resolve())}
        context.add_data_docs_site("reports", {"class_name": "SiteBuilder", "store_backend": backend})
        context.build_data_docs(site_names=["reports"])
    _raise_first(result, report)
    return result


def _great_expectations() -> Any:
    """The library, imported late (it takes seconds), with its telemetry off."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx
    # Its per-run chatter is not for a pipeline's log; warnings still come through.
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    return gx


def _run(gx: Any, context: Any, source: Any, name: str, suite: list[Check], table: "pd.DataFrame") -> list[Outcome]:
    """Run one domain's suite; the result stays in `context`, from which the Data Docs are built."""
    batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    for index, check in enumerate(suite):
        check.expectation.notes = f"The domain {check.title}."
        check.expectation.meta = {"index": index}
    stored = context.suites.add(gx.ExpectationSuite(name=name, expectations=[check.expectation for check in suite]))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=stored))
    results = definition.run(
        batch_parameters={"dataframe": table},
        result_format={
            # Anything less leaves the samples' names out of the pages.
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["key", "name"],
            "partial_unexpected_count": NAMED,
        },
        run_id=gx.RunIdentifier(run_name=name),
    ).results
    ordered = sorted(results, key=lambda result: result.expectation_config.meta["index"])
    return [_outcome(name, check, result) for check, result in zip(suite, ordered, strict=True)]


def _outcome(name: str, check: Check, result: Any) -> Outcome:
    config, found = result.expectation_config, result.result
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


def _raise_first(result: ValidationReport, report: Path) -> None:
    failed = [outcome for outcome in result.outcomes if not outcome.success]
    if not failed:
        return
    first = failed[0]
    if first.samples:
        names = "; ".join(_described(first, sample) for sample in first.samples[:3])
        evidence = f"{first.failing} {'sample fails' if first.failing == 1 else 'samples fail'}: {names}"
        evidence += "; ..." if first.failing > 3 else ""
    else:
        evidence = f"it has {first.observed}"
    others = f"; failed expectations in all: {len(failed)}" if len(failed) > 1 else ""
    raise UserError(
        f"validation: expected that the {first.domain} domain {first.title}, but {evidence} "
        f"({first.expectation}{others}, see {report}); {first.remedy}."
    )


def _described(outcome: Outcome, sample: FailingSample) -> str:
    match outcome.column:
        case "in_other_split" | "in_other_domain":
            return f"{sample.name} ({sample.key}) equals {sample.value}"
        case "sha256":
            return f"{sample.name} ({sample.key})"
        case _:
            return f"{sample.name} ({sample.key}) has {outcome.column} {sample.value}"
