"""What a run and a study are on disk, and how to read them."""

from robust_arch.runs.folder import RecordedRun, RunFolder
from robust_arch.runs.records import Evaluation, RunFacts, RunResult
from robust_arch.runs.study import COLUMNS, SITE_COLUMNS, TEXT_COLUMNS, StudyFolder, load_study, open_study, to_frame

__all__ = [
    "COLUMNS", "SITE_COLUMNS", "TEXT_COLUMNS", "Evaluation", "RecordedRun", "RunFacts", "RunFolder", "RunResult",
    "StudyFolder", "load_study", "open_study", "to_frame",
]  # fmt: skip
