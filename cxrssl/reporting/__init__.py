"""The report card: what an encoder is and is worth, in one HTML file."""

from cxrssl.reporting.options import ReportOptions
from cxrssl.reporting.report import report_card

__all__ = ["ReportOptions", "report_card"]
