"""The report of an evaluation: `write_report` writes two figures and one page that needs no network.

`figures` draws numbers and `samples` draws samples, both from rows or plain data; `style` holds their look; `page`
fills `templates/page.html.j2`.
"""

from rdmd.report.page import write_report
from rdmd.report.types import Curve, Provenance, Samples, TrainedModel

__all__ = ["Curve", "Provenance", "Samples", "TrainedModel", "write_report"]
