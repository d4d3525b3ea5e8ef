"""The lock, held by other processes; these load its file alone, which takes no time."""

import fcntl
import os
import signal
import subprocess
import sys

import pytest

from robust_arch.runs import lock

HOLD = """
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("lock", sys.argv[1])
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
lock._PATIENCE = 0.0
with lock.held(pathlib.Path(sys.argv[2])) as mine:
    print(mine, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / ".lock"


@pytest.fixture
def start(path):
    """Starts a process that tries to take the lock; returns it and whether it got the lock."""
    processes = []

    def run():
        command = [sys.executable, "-c", HOLD, lock.__file__, str(path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process, process.stdout.readline().strip() == "True"

    yield run
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def impatient(monkeypatch):
    """A lock that is not free is given up at once."""
    monkeypatch.setattr(lock, "_PATIENCE", 0.0)


@pytest.fixture
def other(start):
    """Another process that holds the lock."""
    process, got_it = start()
    assert got_it
    return process


def test_another_process_blocks(path, other, impatient):
    assert lock.is_held(path)
    with lock.held(path) as mine:
        assert mine is False
    # the failed attempt has not taken it away
    assert lock.is_held(path)


def test_a_process_that_ends_releases(path, other):
    other.communicate("\n")
    assert not lock.is_held(path)
    with lock.held(path) as mine:
        assert mine is True


def test_a_process_that_is_killed_releases(path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert path.is_file()  # it had no time to clean up
    assert not lock.is_held(path)
    with lock.held(path) as mine:
        assert mine is True


def test_an_exception_releases(path):
    with pytest.raises(ValueError, match="inside"), lock.held(path):
        raise ValueError("inside")
    assert not lock.is_held(path)


def test_the_lock_is_not_inherited_by_a_child(path, impatient):
    with lock.held(path) as mine:
        assert mine
        command = [sys.executable, "-c", "print('started', flush=True); input()"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False)
        assert child.stdout.readline() == b"started\n"
    try:
        # a worker that outlives its run does not keep the run locked
        assert not lock.is_held(path)
    finally:
        child.communicate(b"\n")


def test_asking_never_creates_the_file(path):
    assert not lock.is_held(path)
    assert not path.parent.exists()
    path.parent.mkdir()
    assert not lock.is_held(path)
    assert not path.exists()


def test_asking_does_not_take_the_lock_away(path, start):
    with lock.held(path) as mine:
        assert mine
        assert [lock.is_held(path) for _ in range(3)] == [True] * 3
        assert not start()[1]


def test_someone_who_asks_at_the_same_moment_does_not_disturb_a_taker(path, monkeypatch):
    path.parent.mkdir()
    path.touch()
    asking = os.open(path, os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as is_held does, for a moment
    waits = []

    def the_moment_passes(seconds):
        waits.append(seconds)
        if len(waits) == 1:
            os.close(asking)

    monkeypatch.setattr(lock.time, "sleep", the_moment_passes)
    with lock.held(path) as mine:
        assert mine is True
    assert len(waits) == 1


def test_two_who_ask_at_the_same_moment_do_not_see_each_other(path):
    path.parent.mkdir()
    path.touch()
    asking = os.open(path, os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH | fcntl.LOCK_NB)
    try:
        assert not lock.is_held(path)
    finally:
        os.close(asking)
