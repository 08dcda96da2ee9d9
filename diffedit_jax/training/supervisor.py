"""Runs a training command as one or several processes, and brings it back when one is lost.

    python -m diffedit_jax.training.supervisor --max-restarts 3 --ranks 2 -- python train/x.py ...

A lost process cannot be replaced alone: JAX ends the others too, without a chance to clean up. So
all are started anew and go on from the newest checkpoint, which makes the result the same, bit for
bit. A run that ended well (exit code 0, also when it was told to stop), or through a mistake of the
user or NaN (2), is not started again.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from diffedit_jax.training.ranks import ADDRESS, COUNT, HEARTBEAT, INDEX, SUPERVISOR

_POLL = 0.05  # seconds between looks
_FINAL = (0, 2)  # exit codes that another start would not change


def supervise(
    command: Sequence[str],
    *,
    max_restarts: int = 0,
    ranks: int = 1,
    heartbeat: int | None = None,
    grace: float = 600.0,
    pause: float = 1.0,
    tell: Callable[[str], None] = lambda text: print(f"supervisor: {text}", file=sys.stderr),
) -> int:
    """Runs `command` until it ends well, starting it again at most `max_restarts` times.

    Args:
      command: the words of one process.
      ranks: processes on this machine; each gets JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
        JAX_PROCESS_ID (see ranks.join). 1: the environment stays as it is, so that on a cluster one
        supervisor per host brings back its own process.
      heartbeat: seconds of silence after which a rank is lost; None leaves it to `ranks.join`.
      grace: seconds that a run which was told to stop (SIGTERM, SIGINT) has to save.
      pause: seconds before the first restart, doubled up to a minute for every further one.
    Returns:
      the exit code of the run: 0, or that of the process that failed first (128 + signal).
    """
    with _Forwarded() as told:
        for attempt in range(max_restarts + 1):
            code = _attempt(command, ranks, heartbeat, grace, told)
            if code in _FINAL or told.number or attempt == max_restarts:
                return code
            tell(f"ended with {code}; restart {attempt + 1} of {max_restarts}")
            time.sleep(min(pause * 2**attempt, 60))
    return code


def _attempt(command, ranks, heartbeat, grace, told) -> int:
    """Starts all ranks and waits until all have ended; when one fails, the others are ended."""
    processes = [_start(command, env) for env in _environments(ranks, heartbeat)]
    try:
        told.targets = processes
        return _wait(processes, told, grace)
    finally:
        told.targets = []
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def _wait(processes, told, grace) -> int:
    """The exit code of all together; returns while others still run if one has failed."""
    while True:
        codes = [process.poll() for process in processes]
        failed = [code for code in codes if code]
        if failed or None not in codes:
            break
        if told.number and time.monotonic() - told.time > grace:
            return 128 + told.number
        time.sleep(_POLL)
    if failed and None in codes:  # who failed for a reason of its own says so within a moment
        time.sleep(min(1.0, grace))
        failed = [code for p in processes if (code := p.poll())]
    if not failed:
        return 0
    return 2 if 2 in failed else failed[0] if failed[0] > 0 else 128 - failed[0]


def _environments(ranks: int, heartbeat: int | None) -> list[dict[str, str]]:
    common = dict(os.environ) | ({HEARTBEAT: str(heartbeat)} if heartbeat else {})
    if ranks == 1:
        return [common]
    address = f"127.0.0.1:{_free_port()}"
    return [
        {**common, ADDRESS: address, COUNT: str(ranks), INDEX: str(index)} for index in range(ranks)
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _start(command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen:
    """A child in a session of its own: Ctrl-C reaches the supervisor alone, which passes it on."""
    told = {**environment, SUPERVISOR: str(os.getpid())}
    return subprocess.Popen(list(command), env=told, start_new_session=True)


class _Forwarded:
    """SIGTERM and SIGINT go on to the children as SIGTERM; a second one kills them.

    The run is then not started again.
    """

    def __init__(self):
        self.number, self.time, self.targets = 0, 0.0, []

    def __enter__(self):
        self._before = {n: signal.signal(n, self._pass) for n in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass(self, number, frame) -> None:
        passed_on = signal.SIGKILL if self.number else signal.SIGTERM
        self.number, self.time = number, time.monotonic()
        for process in self.targets:
            if process.poll() is None:
                process.send_signal(passed_on)


def main(arguments: list[str] | None = None) -> int:
    """The command line: options, then `--`, then the command."""
    parser = argparse.ArgumentParser(
        prog="python -m diffedit_jax.training.supervisor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--max-restarts", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=1, help="processes on this machine")
    parser.add_argument("--heartbeat", type=int, help="seconds after which a silent rank is lost")
    parser.add_argument("command", nargs="+", help="the training command, after --")
    found = parser.parse_args(arguments)
    return supervise(
        found.command,
        max_restarts=found.max_restarts,
        ranks=found.ranks,
        heartbeat=found.heartbeat,
    )


if __name__ == "__main__":
    sys.exit(main())
