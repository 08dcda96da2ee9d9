"""Several processes: they stop together, a lost one ends all, and a supervisor brings them back."""

import os
import signal
import time

import pytest

from .harness import ended, free_port, kill, running, until

STEPS, HEARTBEAT = 12, 10
ORDER = dict(network="layer", settings=dict(steps=STEPS, save_every=3))
GONE = HEARTBEAT + 5  # seconds after which nobody may be left


def undisturbed(base, cache, order):
    """What two processes that nobody disturbs end with."""
    with running(base, cache=cache, **order) as run:
        for process in run.start_ranks(2, HEARTBEAT):
            ended(process)
        return run.result()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    return undisturbed(tmp_path_factory.mktemp("whole"), cache, ORDER)


def failed(code):
    return code != 0


@pytest.mark.parametrize("told", [pytest.param(0, marks=pytest.mark.heavy), 1])
def test_a_notice_to_one_rank_stops_all_at_the_same_step(launch, whole, told):
    run = launch(**ORDER)
    ranks = run.start_ranks(2, HEARTBEAT, pause=0.3)
    until(lambda: len(run.asked(told)) >= 3, ranks[told])
    ranks[told].send_signal(signal.SIGTERM)
    for process in ranks:
        ended(process, 0, seconds=90)
    assert run.asked(0)[-1][0] == run.asked(1)[-1][0] == run.result()["step"] - 1 < STEPS - 1
    assert run.steps()[-1] == run.result()["step"]
    for process in run.start_ranks(2, HEARTBEAT):
        ended(process)
    assert run.result() == whole


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_rank_ends_the_other_and_the_supervisor_brings_both_back(launch, whole, lost):
    run = launch(**ORDER)
    options = ["--ranks", "2", "--heartbeat", str(HEARTBEAT), "--max-restarts", "3"]
    supervisor = run.supervised(*options, pause=0.3)
    until(lambda: len(run.asked(lost)) >= 5, supervisor)
    os.kill(run.asked(lost)[-1][1], signal.SIGKILL)
    text = ended(supervisor, 0)
    assert "restart 1 of 3" in text and "restart 2" not in text
    assert run.result() == whole
    lives = {pid for _, pid in run.asked(1 - lost)}
    assert len(lives) == 2  # the survivor was started anew too


WIDE = dict(network="layer", width=1024, settings=dict(steps=STEPS, save_every=2))


@pytest.fixture(scope="module")
def wide(tmp_path_factory, cache):
    """Of a state of 16 MB, whose saves take their time."""
    return undisturbed(tmp_path_factory.mktemp("wide"), cache, WIDE)


@pytest.mark.parametrize("lost", [0, pytest.param(1, marks=pytest.mark.heavy)])
def test_a_rank_killed_in_the_middle_of_a_save_is_brought_back(launch, wide, lost):
    run = launch(**WIDE)
    options = ["--ranks", "2", "--heartbeat", str(HEARTBEAT), "--max-restarts", "3"]
    supervisor = run.supervised(*options, pause=0.1)
    until(lambda: run.steps() and list(run.checkpoints.glob(".saving-*")), supervisor)
    os.kill(run.asked(lost)[-1][1], signal.SIGKILL)
    before = run.steps()
    assert "restart 1 of 3" in ended(supervisor, 0)
    assert run.result() == wide
    again = [step for step, pid in run.asked(lost) if pid == run.asked(lost)[-1][1]]
    assert again[0] in (before[-1], before[-1] + 2)  # that save was not yet, or just, whole
    assert not list(run.checkpoints.glob(".saving-*"))


def test_without_a_supervisor_the_survivor_is_gone_within_heartbeat_and_five_seconds(launch):
    run = launch(**ORDER)
    ranks = run.start_ranks(2, HEARTBEAT, pause=0.3)
    until(lambda: len(run.asked(1)) >= 4, ranks[1])
    kill(ranks[1])
    began = time.monotonic()
    ended(ranks[0], failed, seconds=60)
    assert time.monotonic() - began < GONE
    assert run.steps()[-1:] in ([], [3])


def test_a_slow_rank_is_waited_for(launch, whole):
    run = launch(**ORDER)
    ranks = run.start_ranks(2, HEARTBEAT, pause=0.1)
    until(lambda: len(run.asked(1)) >= 3, ranks[1])
    ranks[1].send_signal(signal.SIGSTOP)
    time.sleep(3)
    ranks[1].send_signal(signal.SIGCONT)
    for process in ranks:
        ended(process)
    assert run.result() == whole


@pytest.mark.heavy
def test_a_rank_that_sleeps_beyond_the_heartbeat_ends_the_run_cleanly(launch, whole):
    run = launch(**ORDER)
    ranks = run.start_ranks(2, HEARTBEAT, pause=0.3)
    until(lambda: len(run.asked(1)) >= 4, ranks[1])
    ranks[1].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    ended(ranks[0], failed, seconds=60)
    assert time.monotonic() - began < GONE
    ranks[1].send_signal(signal.SIGCONT)
    ended(ranks[1], failed, seconds=60)
    for process in run.start_ranks(2, HEARTBEAT):
        ended(process)
    assert run.result() == whole


@pytest.mark.parametrize("lost", [pytest.param(0, marks=pytest.mark.heavy), 1])
def test_an_error_in_one_rank_does_not_leave_the_other_hanging(launch, lost):
    """It waits in a product over both for what will never come."""
    run = launch(**ORDER)
    ranks = run.start_ranks(2, HEARTBEAT, fails=[lost, 3])
    for process in ranks:
        ended(process, failed, seconds=90)


def alone(run, **changed):
    address = f"127.0.0.1:{free_port()}"
    names = dict(JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES="2", JAX_PROCESS_ID="1",
                 DIFFEDIT_JOIN_TIMEOUT="4", DIFFEDIT_HEARTBEAT="10")  # fmt: skip
    return run.start(run.environment(**{**names, **changed}))


def test_a_coordinator_that_is_not_there_is_told_in_time(launch):
    """Nobody listens; nobody else comes; a number or an address that is none."""
    run = launch(**ORDER)
    absent, lonely = alone(run), alone(run, JAX_PROCESS_ID="0")
    wrong, odd = alone(run, JAX_PROCESS_ID="2"), alone(run, JAX_COORDINATOR_ADDRESS="nowhere")
    text = ended(wrong, 2, seconds=90)
    assert "JAX_PROCESS_ID=2 is not one of 0 .. 1 (JAX_NUM_PROCESSES=2)" in text
    assert "'nowhere' is not host:port" in ended(odd, 2, seconds=90)
    assert "cannot join its run: in 4 s nobody answered" in ended(absent, 2, seconds=90)
    ended(lonely, failed, seconds=90)  # JAX ends it, with a dump
    assert run.asked() == []
