"""A run that is told to stop saves at that step and leaves with exit code 0."""

import signal
import subprocess
import sys
import time

import pytest

from diffedit_jax.training import digests

from .harness import ended, until

STEPS = 12
ORDER = dict(network="layer", settings=dict(steps=STEPS, accumulate=2, save_every=100))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    from .harness import running

    with running(tmp_path_factory.mktemp("whole"), cache=cache, **ORDER) as run:
        ended(run.start())
        return run.result()


def test_sigterm_and_sigint_save_at_their_step_and_the_run_goes_on_bit_equal(launch, whole):
    run = launch(**ORDER)
    for number, signalled in enumerate([signal.SIGTERM, signal.SIGINT], 1):
        process = run.start(pause=0.2)
        until(lambda: len(run.asked()) >= 5 * number, process)  # noqa: B023
        process.send_signal(signalled)
        text = ended(process, 0, seconds=60)
        asked = run.asked()[-1][0]
        assert run.steps()[-1] == asked + 1 == run.result()["step"]  # nothing was lost
        assert signalled.name in text
    ended(run.start())
    assert run.result() == whole


def test_a_second_signal_ends_the_run_at_once(launch):
    run = launch(**ORDER)
    process = run.start(pause=30)
    until(lambda: run.asked(), process)
    process.send_signal(signal.SIGTERM)
    until(lambda: "saving at the end" in process.log.read_text(), process)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    ended(process, 128 + signal.SIGTERM, seconds=20)
    assert time.monotonic() - began < 10 and run.steps() == []


COMPILE = """
import sys, time
from diffedit_jax.training.preemption import stopping
with stopping() as stop:
    print("ready", flush=True)
    sum(range(10**{power}))  # one call into C, as the compiler's is
    print("asked" if stop.requested(1) else "not asked", flush=True)
"""


def started(power):
    command = [sys.executable, "-c", COMPILE.format(power=power)]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen(command, **pipes)
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_signal_while_python_is_away_is_heeded_when_it_is_back():
    process = started(8)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=120)[0] == "asked\n" and process.returncode == 0


def test_a_signal_during_the_compilation_stops_after_the_first_step(launch):
    run = launch(**{**ORDER, "network": "unet"})
    run.cache = None  # compile for real
    process = run.start()
    until(lambda: run.asked(), process)  # the first batch is asked for before the step compiles
    process.send_signal(signal.SIGTERM)
    ended(process, 0, seconds=120)
    assert run.result()["step"] == run.steps()[-1] == run.asked()[-1][0] + 1 < 2 * STEPS


def test_a_signal_during_a_save_lets_the_save_end(launch):
    run = launch(network="layer", width=1024, settings=dict(steps=40, save_every=2))
    process = run.start(pause=0.05)
    until(lambda: list(run.checkpoints.glob(".saving-*")), process, pause=0.001)
    process.send_signal(signal.SIGTERM)
    ended(process, 0, seconds=120)
    assert run.result()["step"] == run.steps()[-1]
    assert not list(run.checkpoints.glob(".saving-*"))
    for step in run.steps():
        folder = run.checkpoints / f"{step:08d}"
        files = digests.read_manifest(folder)["files"]
        digests.check_files(folder, files, files)


def test_a_second_run_in_the_folder_is_refused_and_the_first_is_not_disturbed(launch, whole):
    run = launch(**ORDER)
    first = run.start(pause=0.5)
    until(lambda: run.asked(), first)
    text = ended(run.start(), 2)
    assert f"in use by another run (pid {first.pid} on" in text and "Traceback" not in text
    assert first.poll() is None
    first.send_signal(signal.SIGTERM)
    ended(first, 0)
    ended(run.start())
    assert run.result() == whole


def test_handlers_are_given_back():
    from diffedit_jax.training.preemption import stopping

    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with stopping() as stop:
        assert not stop.requested(1)
        stop.ask()
        assert stop.requested(2)
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_outside_the_main_thread_no_handler_is_installed():
    import threading

    from diffedit_jax.training.preemption import stopping

    def body():
        with stopping() as stop:
            seen.append(stop.requested(1))

    seen = []
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [False]


def test_with_several_processes_jax_keeps_its_own_handler(monkeypatch):
    """A handler of ours would silence JAX's notifier, and no process would hear of a preemption."""
    from diffedit_jax.training import preemption

    monkeypatch.setattr(preemption, "is_distributed", lambda: True)
    before = signal.getsignal(signal.SIGTERM)
    with preemption.stopping():
        assert signal.getsignal(signal.SIGTERM) is before
        assert signal.set_wakeup_fd(-1) == -1
