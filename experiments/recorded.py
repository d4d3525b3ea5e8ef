"""Where recorded results are, and how an item reads them."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from robust_arch.analysis.groups import Group, main_group
from robust_arch.analysis.reading import read_results
from robust_arch.errors import InputError, invalid

STUDIES = Path(__file__).parent / "studies"
_EVALUATION = ["run_id", "checkpoint", "weights", "threat", "n_test"]


def recorded(names: Sequence[str], studies: Path = STUDIES) -> list[Path]:
    """The folders of those of the studies that are recorded; the first one has to be.

    Raises:
        InputError: if the first study is not recorded.
    """
    folders = [studies / name for name in names if (studies / name / "results.csv").is_file()]
    if names and studies / names[0] not in folders:
        raise InputError(f"no record of study {names[0]}: {shown(studies / names[0] / 'results.csv')} is missing")
    return folders


def shown(path: Path) -> Path:
    """The path as a reader in the current folder would write it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def given(study: str) -> Path:
    """A path as it is; a name as the study of that name in results/.

    Raises:
        InputError: if there is neither.
    """
    for path in (Path(study), Path("results") / study):
        if path.exists():
            return path
    raise invalid("STUDY", study, "a study's folder, a results.csv, or the name of a study in results/")


def read(paths: Sequence[Path]) -> pd.DataFrame:
    """The rows of all these results, an evaluation that several of them hold once."""
    frame = pd.concat([read_results(path) for path in paths], ignore_index=True)
    return frame.drop_duplicates(_EVALUATION, ignore_index=True)


def comparable(paths: Sequence[Path]) -> Group:
    """The largest group of comparable rows at the checkpoint best.

    Raises:
        InputError: if no row has a worst case at best.
    """
    group = main_group(read(paths))
    if group is None:
        raise invalid("results", [str(path) for path in paths], "at least one run with a worst-case accuracy at best")
    return group
