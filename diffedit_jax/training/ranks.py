"""Joining a run of several processes, as its environment says."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time

from diffedit_jax.errors import UserError

# JAX_COORDINATOR_ADDRESS is JAX's own name; it has none for the others that it reads everywhere.
ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
HEARTBEAT, PATIENCE = "DIFFEDIT_HEARTBEAT", "DIFFEDIT_JOIN_TIMEOUT"
SUPERVISOR = "DIFFEDIT_SUPERVISOR"  # the pid of the process that started this one
_PR_SET_PDEATHSIG = 1


def join() -> bool:
    """Joins the run that the environment names; does nothing, and says False, if it names none.

    Reads JAX_COORDINATOR_ADDRESS (host:port), JAX_NUM_PROCESSES and JAX_PROCESS_ID; where only the
    first is set, or JAX_NUM_PROCESSES is "auto", JAX asks the cluster (TPU pod, Slurm, Kubernetes).
    DIFFEDIT_HEARTBEAT: seconds of silence after which a process counts as lost (100).
    DIFFEDIT_JOIN_TIMEOUT: seconds in which all must have come (300).
    Call it before anything else of jax.

    Raises: UserError when the others are not found in time, or their number does not fit.
    """
    import jax

    follow()
    if ADDRESS not in os.environ and os.environ.get(COUNT) != "auto":
        return False
    heartbeat, patience = _seconds(HEARTBEAT, 100), _seconds(PATIENCE, 300)
    named = _named()
    if named.get("process_id"):
        _reach(named["coordinator_address"], patience)
    try:
        jax.distributed.initialize(
            **named,
            initialization_timeout=patience,
            heartbeat_timeout_seconds=heartbeat,
            shutdown_timeout_seconds=max(heartbeat, 10),
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"this process cannot join its run at {os.environ.get(ADDRESS, 'the cluster')}: "
            f"{' '.join(str(error).split())[:200]}; look at {ADDRESS}, {COUNT} and {INDEX}"
        ) from None
    return True


def follow() -> None:
    """If the supervisor of this process is killed, stop as if told to, and do not run on alone.

    Linux only; elsewhere, and without a supervisor, it does nothing.
    """
    parent = os.environ.get(SUPERVISOR)
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if str(os.getppid()) != parent and os.getppid() == 1:  # it was gone before it was asked for
        os.kill(os.getpid(), signal.SIGTERM)


def _named() -> dict:
    """What the environment says of the run; empty where the cluster shall be asked."""
    if os.environ.get(COUNT, "auto") == "auto":
        return {}
    count, index = _number(COUNT), _number(INDEX)
    if not 0 <= index < count:
        raise UserError(f"{INDEX}={index} is not one of 0 .. {count - 1} ({COUNT}={count})")
    return dict(
        coordinator_address=os.environ[ADDRESS],
        num_processes=count,
        process_id=index,
        cluster_detection_method="deactivate",
    )


def _reach(address: str, patience: int) -> None:
    """Waits until somebody listens there: JAX's own client would end the process with a dump."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"{ADDRESS}={address!r} is not host:port")
    end = time.monotonic() + patience
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
            return
        except (OSError, OverflowError):
            if time.monotonic() > end:
                raise UserError(
                    f"this process cannot join its run: in {patience} s nobody answered at"
                    f" {address} ({ADDRESS})"
                ) from None
        time.sleep(0.2)


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    if not text.isdecimal():
        raise UserError(f"{name}={text!r} is not a number")
    return int(text)


def _seconds(name: str, default: int) -> int:
    return _number(name) if name in os.environ else default
