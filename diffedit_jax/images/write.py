"""Writes a picture whole or not at all: a temporary name in the same folder, then a rename."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import UserError

KEY = "diffedit"  # of the PNG's text chunk
_KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def write(path: str | Path, pixels: np.ndarray, recipe: dict | None = None) -> list[str]:
    """Writes uint8 [h, w, 3]; returns notices.

    PNG carries the recipe in an iTXt chunk "diffedit". JPEG and WebP (quality 95) have no such
    place, so the recipe goes into a file beside them, NAME.json. Nothing of the source's own
    metadata is passed on.

    Errors: UserError for another ending, a folder that does not exist or refuses, a full disk;
    then no part of the picture is left behind.
    Example: `write("out.png", result.image, result.recipe)`.
    """
    path = Path(path)
    kind = _kind(path)
    _write_bytes(path, _encoded(pixels, kind, recipe))
    if kind == "PNG" or recipe is None:
        return []
    beside = path.with_name(path.name + ".json")
    _write_bytes(beside, _text(recipe).encode())
    return [f"{kind} holds no recipe; it is in {beside}"]


def check_writable(path: str | Path) -> None:
    """Refuses, before a long run, a path that `write` would refuse after it."""
    path = Path(path)
    _kind(path)
    with _temporary(path):
        pass


def _kind(path: Path) -> str:
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"{path} should end in .png (or .jpg, .webp)")
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder; give the name of a file")
    return kind


def _encoded(pixels: np.ndarray, kind: str, recipe: dict | None) -> bytes:
    from PIL import Image

    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3:
        raise ValueError(f"pixels must be uint8 [h, w, 3], not {pixels.dtype} {pixels.shape}")
    image, memory = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    rest = dict(pnginfo=_chunk(recipe)) if kind == "PNG" else dict(quality=95)
    image.save(memory, kind, **rest)
    return memory.getvalue()


def _text(recipe: dict) -> str:
    return json.dumps(recipe, sort_keys=True, allow_nan=False)


def _chunk(recipe: dict | None):
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    if recipe is not None:
        info.add_itxt(KEY, _text(recipe))
    return info


def _write_bytes(path: Path, data: bytes) -> None:
    with _temporary(path) as (file, keep):
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        keep()


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[tuple]:
    """(open file, rename to `path`); whatever happens, no temporary file stays."""
    hidden = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        with contextlib.suppress(FileNotFoundError):
            os.lstat(path)  # refuses a name that the later rename would refuse
        with open(hidden, "xb") as file:
            yield file, lambda: os.replace(hidden, path)
    except OSError as error:
        raise UserError(_reason(path, error)) from error
    finally:
        with contextlib.suppress(OSError):
            hidden.unlink()


def _reason(path: Path, error: OSError) -> str:
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EFBIG: "the file is larger than this system allows",
        errno.ENOENT: f"the folder {path.parent} does not exist",
        errno.ENOTDIR: f"{path.parent} is not a folder",
        errno.EACCES: f"the folder {path.parent} is not writable",
        errno.EPERM: f"the folder {path.parent} is not writable",
        errno.EROFS: "the file system is read-only",
        errno.ENAMETOOLONG: "the name is too long",
    }
    return f"cannot write {path}: {reasons.get(error.errno, str(error))}"
