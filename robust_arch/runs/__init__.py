"""What a run is on disk, who it is, and how to read many."""

from robust_arch.runs.folder import RunFacts, RunFolder
from robust_arch.runs.study import StudyFolder, load_study, open_study

__all__ = ["RunFacts", "RunFolder", "StudyFolder", "load_study", "open_study"]
