"""A study's smoothness, errors and bounds, run by run, from its records: writes study.csv.

Usage: python -m experiments.theory.collect results/<study>
The study is evaluated with evaluate.smoothness=200; runs without it keep their errors and have no bounds.
"""

import sys
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.theory.smoothness_columns import FORMS, smoothness_columns
from robust_arch.analysis.decomposition import decomposition
from robust_arch.analysis.groups import Group, main_group
from robust_arch.errors import InputError
from robust_arch.runs import RunFolder, load_study, open_study

RECORD = Path(__file__).with_name("study.csv")
KEPT = (
    *("run_id", "study", "arch", "depths", "widths", "params", "macs", "seed", "epochs", "threat", "checkpoint"),
    *("n_test", "clean_acc", "pgd20_acc", "stability"),
)


def collected(study: Path) -> pd.DataFrame:
    """A row a run of the study's main group, as far as the study has come.

    Raises:
        InputError: for no study, or one without an evaluated run.
    """
    group = main_group(load_study(study))
    if group is None:
        raise InputError(f"study = {str(study)!r}: a study with a run that was evaluated at its best checkpoint")
    rows = group.rows[list(KEPT)]
    folder = open_study(study)
    smooth = [_recorded(folder.run(str(run_id)), group) for run_id in rows["run_id"]]
    return pd.concat([rows, decomposition(rows), pd.DataFrame(smooth, index=rows.index)], axis=1)


def _recorded(run: RunFolder, group: Group) -> dict[str, Any]:
    record = next(record for record in run.evaluation_records() if group.holds(record))
    means = {form: getattr(record, form) for form in FORMS}
    columns = {form: mean.mean if mean else None for form, mean in means.items()}
    return columns | (smoothness_columns(record.smoothness.plain()) if record.smoothness else {})


def main() -> None:
    """The command."""
    collected(Path(sys.argv[1])).to_csv(RECORD, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
