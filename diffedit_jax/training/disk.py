"""What a disk may refuse: room, permission; told in one line, before anything is written."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from diffedit_jax.checkpoints.write import sync
from diffedit_jax.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFull(UserError):
    """There is no room for what has to be written; nothing that was there is touched."""


def check_room(folder: Path, needed: int, what: str = "a checkpoint needs") -> None:
    """Raises DiskFull, naming both numbers, unless `needed` bytes are free where `folder` is."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(
            f"{folder}: {what} {needed:,} bytes, {free:,} are free; make room, or give"
            " another --out; the checkpoints that are there are untouched"
        )


def check_writable(folder: Path) -> None:
    """Makes the folder and writes a byte in it. Raises: UserError in one line."""
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as handle:
            handle.write(b"\0")
            handle.flush()


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals inside the block into one line about `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        kind = DiskFull if error.errno in _FULL else UserError
        raise kind(f"cannot write {path}: {reason}") from None


def is_full(error: BaseException) -> bool:
    """Whether an error, also one that tensorstore raised as text, says that the disk is full."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    return any(os.strerror(code) in str(error) for code in _FULL)


def write_synced(path: Path, text: str) -> None:
    """Writes a small file and waits until its bytes are on the disk."""
    path.write_text(text, encoding="utf-8")
    sync(path)
