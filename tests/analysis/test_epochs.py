"""Epochs are the same from the runs' files and from the one file that holds them all."""

from pathlib import Path

import pandas as pd
import pytest
from planted_studies import epochs

from robust_arch.analysis.epochs import COLUMNS, read_epochs
from robust_arch.errors import InputError


def test_the_runs_files_and_their_record_are_the_same(tmp_path: Path) -> None:
    planted = epochs()
    for run, rows in planted.groupby("run_id"):
        folder = tmp_path / "study" / "runs" / str(run)
        folder.mkdir(parents=True)
        rows.drop(columns="run_id").assign(step=1.0).to_csv(folder / "metrics.csv", index=False)
    (tmp_path / "record").mkdir()
    planted.to_csv(tmp_path / "record" / "metrics.csv", index=False)
    from_runs, from_record = read_epochs(tmp_path / "study"), read_epochs(tmp_path / "record")
    assert list(from_runs) == list(COLUMNS)
    pd.testing.assert_frame_equal(from_runs, from_record, check_dtype=False)
    pd.testing.assert_frame_equal(from_record, planted[list(COLUMNS)])


def test_no_epochs_and_another_file_of_that_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(InputError, match="trained epoch"):
        read_epochs(tmp_path)
    (tmp_path / "metrics.csv").write_text("epoch,loss\n0,1\n")
    with pytest.raises(InputError, match="run_id, lr"):
        read_epochs(tmp_path)
