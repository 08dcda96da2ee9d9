"""Opening files that people call checkpoints: mapped into memory, and refused in one line."""

import json
import mmap
from pathlib import Path

from diffedit_jax.errors import UserError

LFS_POINTER = b"version https://git-lfs"
JSON_LIMIT = 64 * 2**20  # a shard index of a real model is under 1 MB


def map_file(path: str | Path) -> mmap.mmap:
    """Maps a whole file read-only; nothing is read until it is used.

    Raises: UserError for a missing, unreadable or empty file, a folder, and for the two things
    that downloads leave in place of weights: an HTML page and a git-LFS pointer.
    """
    path = Path(path)
    refuse_absent(path)
    try:
        with path.open("rb") as stream:
            refuse_disguise(path, stream.read(256))
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def refuse_absent(path: Path) -> None:
    """Raises UserError unless `path` is a regular file (links are followed)."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the weight file inside it")
    if not path.exists():
        kind = "is a link to a file that is gone" if path.is_symlink() else "does not exist"
        raise UserError(f"{path} {kind}; check the path")
    if not path.is_file():
        raise UserError(f"{path} is not a regular file")


def refuse_disguise(path: Path, head: bytes) -> None:
    """Raises UserError when the first bytes show that this cannot be a weight file."""
    text = head.lstrip().lower()
    if not head:
        raise UserError(f"{path} is empty; download it again")
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise UserError(f"{path} is a web page, not weights; download it again (logged in?)")
    if head.startswith(LFS_POINTER):
        raise UserError(f"{path} is a git-LFS pointer, not weights; run `git lfs pull` beside it")


def read_json(path: Path) -> dict:
    """Reads a JSON object, refusing duplicate keys and anything that is not an object.

    Raises: UserError naming the file.
    """
    refuse_absent(path)
    data = path.read_bytes()
    refuse_disguise(path, data[:256])
    if len(data) > JSON_LIMIT:
        raise UserError(f"{path} is too large for a JSON description ({len(data)} bytes)")
    return parse_json(data, str(path))


def parse_json(data: bytes, where: str) -> dict:
    """Parses a JSON object given as bytes; `where` names it in the error."""
    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not valid JSON: {str(error)[:120]}") from None
    if not isinstance(found, dict):
        raise UserError(f"{where} must hold a JSON object, not a {type(found).__name__}")
    return found


def _unique(pairs: list[tuple]) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"the key {twice!r} appears twice")
    return found
