"""Writing weight files whole or not at all: under a temporary name, renamed when complete."""

import contextlib
import ctypes
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diffedit_jax.checkpoints.read import Weights
from diffedit_jax.checkpoints.safetensors_file import DTYPES
from diffedit_jax.errors import UserError

CODES = {np.dtype(kind): code for code, kind in DTYPES.items()}


def write_safetensors(path: Path, weights: Weights, metadata: dict[str, str] | None = None) -> None:
    """Writes tensors as a .safetensors file, one at a time, header aligned to 8 bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    position = 0
    for key in sorted(weights):
        array = weights[key]
        span = [position, position + array.nbytes]
        entry = {"dtype": CODES[array.dtype], "shape": list(array.shape), "data_offsets": span}
        header[key] = entry
        position = span[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for key in sorted(weights):
            stream.write(np.ascontiguousarray(weights[key]).tobytes())


def write_json(path: Path, value: dict) -> None:
    """Writes a JSON object as diffusers does: indented, keys sorted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`; it becomes `path` when the block ends well.

    Raises: UserError when the place cannot be written or the disk is full; nothing is left.
    """
    with _told(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            sync(temporary)  # or a power cut leaves the new name with nothing in it
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """The same for a folder, which must not be there yet, or be empty.

    Raises: UserError, also when `path` holds something.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} is there already; choose another name or remove it")
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            for part in [*temporary.rglob("*"), temporary]:
                sync(part)
            if path.exists():
                path.rmdir()
            temporary.rename(path)
            sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def exchange(new: Path, place: Path) -> None:
    """Gives the folder `new` the name `place`, and removes the folder that had it.

    Linux exchanges both names in one step, so that the name is never without a folder; elsewhere
    there is a moment in which the old folder is called `.NAME.before`.

    Raises: UserError when the place cannot be written.
    """
    before = new
    with _told(place):
        if not place.exists():
            new.rename(place)
        elif not _exchanged(new, place):
            before = place.with_name(f".{place.name}.before")
            shutil.rmtree(before, ignore_errors=True)
            place.rename(before)
            new.rename(place)
        sync(place.parent)
    shutil.rmtree(before, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether the kernel has exchanged two names: renameat2 with RENAME_EXCHANGE."""
    here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        call = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # another system, or an old C library
        return False
    return call(here, os.fsencode(one), here, os.fsencode(other), both) == 0


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk itself (not on Windows)."""
    if os.name == "nt":  # a folder cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
