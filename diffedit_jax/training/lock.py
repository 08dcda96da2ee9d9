"""One run per folder: a lock that says who holds it, and that dies with its holder."""

import fcntl
import json
import os
import socket
import time
from pathlib import Path

from diffedit_jax.errors import UserError
from diffedit_jax.training import disk

NAME = ".lock"
_ours: set[Path] = set()  # the kernel does not refuse a process its own lock


class Lock:
    """Holds `folder` for this process until `release`, or until the process is gone.

    The kernel's record lock decides where the file system has them; the text of the file (pid,
    start time of the process, boot id, host) decides elsewhere, and is what a refusal shows. A lock
    whose process is gone is taken over.

    Raises: UserError when another living run holds the folder.
    """

    def __init__(self, folder: Path):
        self._path = Path(folder).absolute() / NAME
        if self._path in _ours:
            raise UserError(f"{folder} is in use by another run of this process")
        with disk.told(self._path):
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._take(Path(folder))
        except BaseException:
            os.close(self._handle)
            raise
        _ours.add(self._path)

    def _take(self, folder: Path) -> None:
        holder = _read(self._handle)
        try:
            fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise UserError(f"{folder} is in use by another run{_named(holder)}") from None
        except OSError:  # a file system without locks
            if holder and holder != _self() and _may_live(holder):
                raise UserError(
                    f"{folder} is in use by another run{_named(holder)};"
                    f" remove {self._path} if that run is gone"
                ) from None
        with disk.told(self._path):
            text = json.dumps({**_self(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}).encode()
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, text, 0)
            os.fsync(self._handle)

    def release(self) -> None:
        """Gives the folder back; a second call does nothing."""
        if self._path in _ours:
            _ours.discard(self._path)
            os.ftruncate(self._handle, 0)
            os.close(self._handle)


def _self() -> dict:
    return {"pid": os.getpid(), "start": started(os.getpid()), "boot": _boot(), "host": _host()}


def started(pid: int) -> int | None:
    """When a process began, in the kernel's ticks since boot; None if there is none (or no /proc).

    With the pid it names a process for good: numbers are given out again, moments are not.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _host() -> str:
    return socket.gethostname()


def _read(handle: int) -> dict:
    """What the file says, or {} where it says nothing that can be read."""
    try:
        found = json.loads(os.pread(handle, 4096, 0) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _may_live(holder: dict) -> bool:
    """Whether the named process may still run: only this machine, in this boot, can be asked."""
    if holder.get("host") != _host():
        return True
    if holder.get("boot") != _boot():
        return False
    start = started(holder.get("pid", 0))
    return start is not None and start == holder.get("start")


def _named(holder: dict) -> str:
    if "pid" not in holder:
        return ""
    return f" (pid {holder['pid']} on {holder.get('host')}, since {holder.get('since')})"
