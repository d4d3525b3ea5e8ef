"""A study's report: one HTML file that needs nothing else, with a plot and a table to work with."""

from robust_arch.analysis.report.details import StudyDetails
from robust_arch.analysis.report.page import write_report

__all__ = ["StudyDetails", "write_report"]
