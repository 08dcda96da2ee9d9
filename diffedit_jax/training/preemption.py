"""Stopping a run that is told to stop: at a step's end, saved, with exit code 0."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Asked once per step whether the run shall save and leave."""

    def __init__(self):
        self._asked = threading.Event()

    def ask(self) -> None:
        """Stops this run at its next step, as SIGTERM does; for one process only."""
        self._asked.set()

    def requested(self, step: int) -> bool:
        """Whether the run shall stop now, after `step`; every process asks at every step.

        With several processes, JAX carries the notice that any of them gets to all, and names one
        step, the same for all, at which this is True.
        """
        return _agreed(step) if is_distributed() else self._asked.is_set()


def is_distributed() -> bool:
    """Whether jax.distributed is on: JAX's own notifier then holds SIGTERM."""
    import jax

    return jax.distributed.is_initialized()


def _agreed(step: int) -> bool:
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(step)


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """SIGTERM or SIGINT inside the block asks to stop; a second one ends the process at once.

    With jax.distributed no handler is installed: one of ours would silence JAX's notifier, and no
    process would ever learn of the notice. Outside the main thread none can be.

        with stopping() as stop:
            for step in range(1, 1 + steps):
                ...
                if stop.requested(step):
                    break
    """
    stop = Stop()
    if is_distributed() or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    with _watching(stop), _handled(stop):
        yield stop


@contextlib.contextmanager
def _handled(stop: Stop) -> Iterator[None]:
    """Python calls these once the compiler has returned; until then the watcher is alone."""
    before = {number: signal.signal(number, lambda *_: stop.ask()) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _watching(stop: Stop) -> Iterator[None]:
    """A thread that reads the numbers of arriving signals from a pipe, whatever Python is doing."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(read, stop), name="signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(write)
        watcher.join()
        os.close(read)


def _watch(read: int, stop: Stop) -> None:
    seen = 0
    while numbers := os.read(read, 1):
        if numbers[0] not in _SIGNALS:
            continue
        seen += 1
        if seen > 1:
            os.write(2, b"diffedit: stopped by a second signal; the last checkpoint stands\n")
            os._exit(128 + numbers[0])
        stop.ask()
        name = signal.Signals(numbers[0]).name
        print(f"{name}: saving at the end of this step; again to stop at once", file=sys.stderr)
