"""What is asked of each domain, as Great Expectations puts it, and what to do where the answer is no."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rdmd.config import Digits, Domain, Noise, Settings

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
            expect.ExpectColumnValuesToBeInSet(
                column="shape", value_set=["2" if points else f"{side}x{side}x3"]
            ),
        ),
        Check(
            "has samples of one type",
            again,
            expect.ExpectColumnValuesToBeInSet(column="dtype", value_set=["float32" if real else "uint8"]),
        ),
        Check(
            "has no sample that is not a number", mend, expect.ExpectColumnValuesToNotBeNull(column="mean")
        ),
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
