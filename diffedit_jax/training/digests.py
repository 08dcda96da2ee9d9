"""Digests of the files of a checkpoint, and of parameters wherever they are.

Tensorstore's data files carry no checksum: one flipped bit in them is restored without a word.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from diffedit_jax.errors import UserError
from diffedit_jax.training import disk

MANIFEST = "digests.json"
_BLOCK = 1 << 22


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
        body, own = path.read_bytes().removesuffix(b"\n").split(b"\n")
    except FileNotFoundError:
        raise Damaged(f"{path} is missing: the checkpoint cannot be trusted") from None
    except (OSError, ValueError):
        raise Damaged(f"{path} is damaged: it cannot be read whole") from None
    if hashlib.sha256(body).hexdigest().encode() != own:
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


def of_tree(tree: Any) -> str:
    """A digest of names, shapes, types and bits of a tree of arrays, sharded in whatever way.

    Per leaf: sum_i mix(bits_i + c mix(i)) mod 2^32 for two constants c, in integers, so that order
    and number of devices change nothing; then the sha256 of all of them. It tells trees apart; it
    is no protection against somebody who wants them to look alike.
    """
    import jax
    import numpy as np

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    sums = [_sums(leaf) for _, leaf in leaves]
    found = hashlib.sha256()
    for (path, leaf), pair in zip(leaves, jax.device_get(sums), strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found.update(f"{name} {leaf.shape} {leaf.dtype} {np.asarray(pair).tolist()}\n".encode())
    return found.hexdigest()


def _sums(leaf):
    import jax
    import jax.numpy as jnp

    @jax.jit
    def both(x):
        wide = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[x.dtype.itemsize]
        x = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
        bits = jax.lax.bitcast_convert_type(x, wide).astype(jnp.uint32)
        place = jnp.uint32(0)
        for axis, size in enumerate(bits.shape):
            row = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
            place = _mix(place * jnp.uint32(size) + row)
        constants = (jnp.uint32(0x9E3779B1), jnp.uint32(0x85EBCA77))
        return jnp.stack([_mix(bits + c * place).sum(dtype=jnp.uint32) for c in constants])

    return both(jnp.asarray(leaf))


def _mix(x):
    """A bijection of 32-bit words in which every bit reaches every other."""
    import jax.numpy as jnp

    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
