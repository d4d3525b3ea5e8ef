"""From a study's recorded results to tables, figures and a report; trains and evaluates nothing."""

from robust_arch.analysis.report import StudyDetails, write_report
from robust_arch.analysis.tables import markdown_table

__all__ = ["StudyDetails", "markdown_table", "write_report"]
