"""What a long computation tells while it runs."""

import logging
import threading
import time

import pytest

from robust_arch.common import progress
from robust_arch.common.progress import duration, mention, prefixed, step, tell, watched

log = logging.getLogger("robust_arch.test")


@pytest.fixture(autouse=True)
def shown(caplog):
    """Lines of the level of progress."""
    caplog.set_level(logging.INFO, "robust_arch.test")


def wait_for(found):
    """Until `found()`; fails after ten seconds."""
    deadline = time.monotonic() + 10
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_lines_begin_with_their_subject(caplog):
    tell(log, "%d images", 5)
    with prefixed("run a"), prefixed("best checkpoint"):
        tell(log, "100%%")
    tell(log, "done")
    assert caplog.messages == ["5 images", "run a, best checkpoint: 100%", "done"]


def test_a_step_is_told_with_its_phase(caplog):
    step(log, "alone")
    with prefixed("run a"), watched(log, "diagnostics"):
        step(log, "losses", ", about 5 s left")
        mention("untold")
    assert caplog.messages == ["alone", "run a: diagnostics: losses, about 5 s left"]


def test_silence_is_broken_with_what_is_being_done(caplog, monkeypatch):
    monkeypatch.setattr(progress, "_SILENCE", 0.02)
    with prefixed("run a"), watched(log, "smoothness") as phase:
        wait_for(lambda: "run a: smoothness, for 0 s" in caplog.messages)
        mention("layer 2 of 9")
        wait_for(lambda: "run a: smoothness: layer 2 of 9, for 0 s" in caplog.messages)
        phase.begin("images 1 to 5")
        wait_for(lambda: "run a: images 1 to 5, for 0 s" in caplog.messages)
    told = len(caplog.messages)
    time.sleep(0.1)
    assert len(caplog.messages) == told
    assert all(thread.name != "progress" for thread in threading.enumerate())


def test_a_short_phase_and_one_that_fails_tell_nothing_more(caplog):
    with pytest.raises(ZeroDivisionError), watched(log, "cw40"):
        1 / 0  # noqa: B018
    assert caplog.messages == []
    assert all(thread.name != "progress" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (59.6, "1 min"), (3569, "59 min"), (3599, "1 h 0 min"), (7800, "2 h 10 min"),
     (172_700, "2 d 0 h"), (187_200, "2 d 4 h")],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text
