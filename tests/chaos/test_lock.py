"""Two runs in one folder refuse each other; the lock of a run that is gone does not count."""

import json
import os
import subprocess
import sys

import pytest

from diffedit_jax.errors import UserError
from diffedit_jax.training import lock
from diffedit_jax.training.lock import Lock

HOLD = """
import sys, time, pathlib
from diffedit_jax.training.lock import Lock
lock = Lock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_run_is_refused_and_told_who_is_there(tmp_path, holder):
    with pytest.raises(UserError, match=rf"in use by another run \(pid {holder.pid} on .*since"):
        Lock(tmp_path)


def test_the_lock_of_a_killed_run_is_taken_over(tmp_path, holder):
    holder.kill()
    holder.wait()
    taken = Lock(tmp_path)
    assert json.loads((tmp_path / lock.NAME).read_text())["pid"] == os.getpid()
    taken.release()


def test_one_process_cannot_hold_it_twice_and_can_after_release(tmp_path):
    first = Lock(tmp_path)
    with pytest.raises(UserError, match="in use by another run of this process"):
        Lock(tmp_path)
    first.release()
    first.release()
    Lock(tmp_path).release()


@pytest.fixture
def lockless(monkeypatch):
    """A file system that has no locks: then the text of the file decides."""

    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "lockf", refuse)


def written(folder, **changes):
    holder = {"pid": os.getppid(), "start": lock.started(os.getppid()), "boot": lock._boot(),
              "host": lock._host(), "since": "today", **changes}  # fmt: skip
    (folder / lock.NAME).write_text(json.dumps(holder))


def test_without_kernel_locks_a_living_holder_is_refused(tmp_path, lockless):
    written(tmp_path)
    with pytest.raises(UserError, match=r"remove .*\.lock if that run is gone"):
        Lock(tmp_path)


@pytest.mark.parametrize(
    "gone",
    [{"start": 1}, {"boot": "another"}, {"pid": 2**22 + 1, "start": 5}],
    ids=["number given out again", "machine started again", "no such process"],
)
def test_without_kernel_locks_a_holder_that_is_gone_does_not_count(tmp_path, lockless, gone):
    written(tmp_path, **gone)
    Lock(tmp_path).release()


def test_without_kernel_locks_another_machine_is_believed(tmp_path, lockless):
    written(tmp_path, host="elsewhere", boot="another")
    with pytest.raises(UserError, match="on elsewhere"):
        Lock(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00" * 9])
def test_a_lock_file_that_cannot_be_read_is_no_lock(tmp_path, text):
    (tmp_path / lock.NAME).write_text(text)
    Lock(tmp_path).release()


def test_the_start_of_a_process_is_told_apart():
    assert lock.started(os.getpid()) > lock.started(1)
    assert lock.started(2**22 + 1) is None
