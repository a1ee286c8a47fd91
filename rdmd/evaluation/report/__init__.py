"""The report: two figures and one self-contained page, made from the metrics and some samples."""

from rdmd.evaluation.report.contents import Curve, ImageSamples, Panel, PointSamples, ReportSamples
from rdmd.evaluation.report.write import write_report

__all__ = ["Curve", "ImageSamples", "Panel", "PointSamples", "ReportSamples", "write_report"]
