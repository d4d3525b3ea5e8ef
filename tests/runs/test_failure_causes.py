import errno

import pytest
import torch

from robust_arch.errors import DivergedError
from robust_arch.runs.failure_causes import how_it_ended


def raised(action):
    try:
        action()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_memory_that_there_is_not():
    assert how_it_ended(raised(lambda: torch.empty(1 << 60, dtype=torch.uint8))) == "out_of_memory"
    assert how_it_ended(raised(lambda: bytearray(1 << 60))) == "out_of_memory"
    assert how_it_ended(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")) == "out_of_memory"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk(number):
    assert how_it_ended(OSError(number, "words")) == "disk_full"


def test_a_full_disk_met_by_torch():
    def save():
        with open("/dev/full", "wb") as full:  # noqa: PTH123
            torch.save({"weights": torch.zeros(100_000)}, full)

    assert how_it_ended(raised(save)) == "disk_full"
    assert how_it_ended(raised(lambda: torch.save(torch.zeros(100_000), "/dev/full"))) == "disk_full"


def test_what_it_was_raised_from_counts():
    def wrapped():
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise ValueError("the checkpoint") from error

    assert how_it_ended(raised(wrapped)) == "disk_full"


def test_the_others():
    assert how_it_ended(None) == "completed"
    assert how_it_ended(DivergedError("the loss is not finite")) == "not_finite"
    assert how_it_ended(KeyboardInterrupt()) == "interrupted"
    assert how_it_ended(SystemExit(143)) == "interrupted"
    assert how_it_ended(ValueError("out of memory is what this is not about")) == "error"
    assert how_it_ended(FileNotFoundError(errno.ENOENT, "no such file")) == "error"
