import csv

import pytest

from robust_arch.runs.metrics import append_row, keep_epochs_before, read_rows


def row(epoch):
    return {"epoch": epoch, "loss": 1 / (epoch + 3), "val_robust_acc": 10.0 * epoch}


@pytest.fixture
def path(tmp_path):
    """Four epochs."""
    path = tmp_path / "run" / "metrics.csv"
    for epoch in range(4):
        append_row(path, row(epoch))
    return path


def test_rows_are_appended_under_one_header(path):
    with path.open(newline="") as handle:
        lines = list(csv.reader(handle))
    assert lines[0] == ["epoch", "loss", "val_robust_acc"]
    assert [line[0] for line in lines[1:]] == ["0", "1", "2", "3"]


def test_numbers_come_back_exactly(path):
    assert read_rows(path) == [row(epoch) for epoch in range(4)]


def test_wherever_a_file_is_torn_the_whole_rows_remain(path):
    content = path.read_bytes()
    # a line ends in two bytes; with the first of them every number of the row is there
    ends = [i + 1 for i in range(len(content)) if content[i : i + 1] == b"\r"]
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        whole = sum(end <= length for end in ends)
        assert read_rows(path) == [row(epoch) for epoch in range(max(0, whole - 1))], content[:length]


def test_wherever_a_file_is_torn_a_resumed_run_goes_on_in_whole_rows(path):
    content = path.read_bytes()
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        kept = keep_epochs_before(path, 2)
        append_row(path, row(2))
        assert read_rows(path) == [*kept, row(2)]
        assert kept == [row(epoch) for epoch in range(min(2, len(kept)))]
        assert path.read_text().count("epoch") == 1


def test_a_row_with_fields_missing_or_too_many_is_no_row(path):
    with path.open("a", newline="") as handle:
        handle.write("4,0.5\r\n5,0.5,50.0,7\r\n6,half,60.0\r\n7,0.1,70.0\r\n")
    assert [found["epoch"] for found in read_rows(path)] == [0, 1, 2, 3, 7]


@pytest.mark.parametrize(("epoch", "kept"), [(0, 0), (1, 1), (3, 3), (4, 4), (9, 4)])
def test_epochs_that_are_done_again_are_dropped(path, epoch, kept):
    assert keep_epochs_before(path, epoch) == [row(e) for e in range(kept)]
    assert read_rows(path) == [row(e) for e in range(kept)]
    assert [file.name for file in path.parent.iterdir()] == ["metrics.csv"]


def test_a_resumed_run_writes_the_bytes_of_one_that_was_not_interrupted(tmp_path):
    # a whole number stays one (0, not 0.0), a float keeps its digits
    numbers = {"steps": 12, "lr": 0.1 + 0.2, "count": 0, "loss": 1e-07, "big": 10**16}
    rows = [{"epoch": epoch, **numbers} for epoch in range(4)]
    whole, resumed = tmp_path / "whole.csv", tmp_path / "resumed.csv"
    for row in rows:
        append_row(whole, row)
        append_row(resumed, row)
    assert keep_epochs_before(resumed, 2) == rows[:2]
    for row in rows[2:]:
        append_row(resumed, row)
    assert resumed.read_bytes() == whole.read_bytes()


def test_cutting_a_missing_file_creates_nothing(tmp_path):
    assert keep_epochs_before(tmp_path / "metrics.csv", 3) == []
    assert list(tmp_path.iterdir()) == []
