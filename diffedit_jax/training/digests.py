"""Digests of the files of a checkpoint, and of parameters wherever they are.

Tensorstore's data files carry no checksum: one flipped bit in them is restored without a word.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from diffedit_jax.errors import UserError
from diffedit_jax.training import disk
from diffedit_jax.training.agree import on_host

MANIFEST = "digests.json"
_BLOCK = 1 << 22
_FEW, _LITTLE = 1000, 1 << 28  # files, and bytes of all, that are read for a digest of a folder


class Damaged(UserError):
    """A file of a checkpoint is not what was written; the message names it."""


def sha256(path: Path) -> str:
    """The digest of a file's bytes."""
    found = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def write_manifest(folder: Path, facts: dict) -> None:
    """Writes digests.json last: facts, and bytes and sha256 of every file, all on the disk itself.

    The manifest ends with the digest of its own text, so that it cannot rot unseen either.
    """
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        disk.sync(path)
        name = path.relative_to(folder).as_posix()
        files[name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    for path in [p for p in folder.rglob("*") if p.is_dir()]:
        disk.sync(path)
    body = json.dumps({**facts, "files": files}, sort_keys=True)
    own = hashlib.sha256(body.encode()).hexdigest()
    disk.write_synced(folder / MANIFEST, f"{body}\n{own}\n")
    disk.sync(folder)


def read_manifest(folder: Path) -> dict:
    """The facts and files that `write_manifest` wrote.

    Raises: Damaged when the manifest is missing or was changed.
    """
    path = folder / MANIFEST
    try:
        body, own, nothing = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise Damaged(f"{path} is missing: the checkpoint cannot be trusted") from None
    except (OSError, ValueError):
        raise Damaged(f"{path} is damaged: it cannot be read whole") from None
    if nothing or hashlib.sha256(body).hexdigest().encode() != own:
        raise Damaged(f"{path} is damaged: its text does not have its own digest")
    return json.loads(body)


def check_files(folder: Path, files: dict, names: Iterable[str]) -> None:
    """Compares the named files with the manifest's `files`.

    Raises: Damaged with the name of the first that is gone, cut, grown or changed.
    """
    for name in names:
        path, wanted = folder / name, files[name]
        try:
            size = path.stat().st_size
            if size != wanted["bytes"]:
                raise Damaged(f"{path} is damaged: {size:,} bytes of {wanted['bytes']:,}")
            if sha256(path) != wanted["sha256"]:
                raise Damaged(f"{path} is damaged: its bytes are not those that were written")
        except FileNotFoundError:
            raise Damaged(f"{path} is missing: the checkpoint cannot be trusted") from None
        except OSError as error:
            raise Damaged(f"{path} cannot be read: {error.strerror}") from None


def of_folder(path: Path) -> str:
    """What a folder of data, or a file, holds: "12 files, " and a digest.

    Of names and sizes, and of the bytes too where they are not many: a folder of millions of files
    takes seconds. Hidden files do not count.
    """
    found = hashlib.sha256()
    try:
        files = [path] if path.is_file() else sorted(_shown(path))
        sizes = [file.stat().st_size for file in files]
        small = len(files) <= _FEW and sum(sizes) <= _LITTLE
        for file, size in zip(files, sizes, strict=True):
            own = sha256(file) if small else ""
            found.update(f"{file.relative_to(path).as_posix()} {size} {own}\n".encode())
    except OSError as error:
        raise UserError(f"{error.filename or path} cannot be read: {error.strerror}") from None
    return f"{len(files):,} files, {found.hexdigest()[:16]}"


def _shown(folder: Path) -> Iterator[Path]:
    for place, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith(".")]
        yield from (Path(place) / name for name in names if not name.startswith("."))


def of_tree(tree: Any) -> str:
    """The sha256 of names, types, shapes and bytes of a tree of arrays.

    Arrays that are spread over processes are gathered, one at a time; every process must call it.
    """
    import jax
    import numpy as np

    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(on_host(leaf))
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found.update(f"{name} {array.dtype}{list(array.shape)}\n".encode())
        found.update(array.reshape(-1).view(np.uint8))
    return found.hexdigest()
