"""The supervisor by itself: exit codes, how often it starts again, what it passes on."""

import signal
import subprocess
import sys
import time

import pytest

from diffedit_jax.training.supervisor import supervise

COUNTED = """
import pathlib, sys
path = pathlib.Path(sys.argv[1])
lives = len(path.read_text()) if path.exists() else 0
path.write_text("x" * (lives + 1))
codes = [int(code) for code in sys.argv[2:]]
sys.exit(codes[min(lives, len(codes) - 1)])
"""


def lives(tmp_path, *codes, **options):
    path, told = tmp_path / "lives", []
    command = [sys.executable, "-c", COUNTED, str(path), *map(str, codes)]
    code = supervise(command, pause=0, tell=told.append, **options)
    return code, len(path.read_text()), len(told)


@pytest.mark.parametrize(
    ("codes", "restarts", "wanted"),
    [
        ((0,), 3, (0, 1, 0)),
        ((1, 134, 0), 3, (0, 3, 2)),
        ((1,), 2, (1, 3, 2)),
        ((1,), 0, (1, 1, 0)),
        ((2, 0), 3, (2, 1, 0)),  # the user's mistake, or NaN: another start would not help
    ],
)
def test_how_often_a_command_is_started(tmp_path, codes, restarts, wanted):
    assert lives(tmp_path, *codes, max_restarts=restarts) == wanted


def test_a_signal_is_told_as_shells_do():
    command = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    assert supervise(command) == 137


RANKS = """
import os, sys, time
index = int(os.environ["JAX_PROCESS_ID"])
assert os.environ["JAX_NUM_PROCESSES"] == "3" and os.environ["DIFFEDIT_HEARTBEAT"] == "7"
if index == 1:
    sys.exit({code})
time.sleep(120)
"""


@pytest.mark.parametrize("code", [2, 5])
def test_when_one_rank_fails_the_others_are_ended(code):
    began = time.monotonic()
    command = [sys.executable, "-c", RANKS.format(code=code)]
    assert supervise(command, ranks=3, heartbeat=7) == code
    assert time.monotonic() - began < 60


WAITING = """
import signal, sys, time
from diffedit_jax.training.ranks import follow
follow()
def leave(*_):
    print("told", flush=True)
    if {obeys}:
        sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("ready", flush=True)
for _ in range(1200):
    time.sleep(0.1)
"""


def supervised(obeys):
    command = [sys.executable, "-c", WAITING.format(obeys=obeys)]
    return subprocess.Popen([sys.executable, "-m", "diffedit_jax.training.supervisor", "--",
                             *command], stdout=subprocess.PIPE, text=True)  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_notice_is_passed_on_and_the_run_is_not_started_again(number):
    process = supervised(True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=60)[0] == "told\n" and process.returncode == 0


def test_a_second_notice_kills():
    process = supervised(False)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "told\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 137


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells children")
def test_when_the_supervisor_is_killed_the_run_is_told_to_stop():
    process = supervised(True)
    assert process.stdout.readline() == "ready\n"
    process.kill()
    assert process.communicate(timeout=60)[0] == "told\n"
