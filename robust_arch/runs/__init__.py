"""What a run is on disk, who it is, and how to read many."""

from robust_arch.runs.folder import RunFacts, RunFolder
from robust_arch.runs.study import COLUMNS, TEXT_COLUMNS, StudyFolder, load_study, open_study, to_frame

__all__ = ["COLUMNS", "TEXT_COLUMNS", "RunFacts", "RunFolder", "StudyFolder", "load_study", "open_study", "to_frame"]
