"""The report: two figures and one self-contained page, made from the metrics and some samples."""

from rdmd.evaluation.report.contents import (
    Account,
    Curve,
    ImageSamples,
    Panel,
    PointSamples,
    ReportSamples,
    TrainedModel,
)
from rdmd.evaluation.report.write import write_report

__all__ = [
    "Account", "Curve", "ImageSamples", "Panel", "PointSamples", "ReportSamples", "TrainedModel", "write_report",
]
