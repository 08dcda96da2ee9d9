"""What it takes to run an edit again, as a plain dict that travels inside the picture.

{"format": 1, "method": str, "model": {"source", "digest", "options"}, "inputs": {name: {"path",
"sha256"}}, "parameters": {name: value}, "versions": {...}, "device": str}
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import UserError

FORMAT = 1
MAX_BYTES = 1 << 20  # of the recipe's text
_MAX_CHUNKS = 10_000
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEY = b"diffedit"


def make(
    method: str,
    model: Mapping[str, Any],
    inputs: Mapping[str, Any],
    parameters: Mapping[str, Any],
) -> dict:
    """The recipe of a run, ready for JSON.

    Args:
      method: registry name.
      model: {"source": what was given to load, "digest": of the weights, "options": of load}.
      inputs: pictures and masks by parameter name: paths, arrays, PIL images, or lists of them.
      parameters: every other argument: prompts, seed, steps, ...

    Example: `make("sdedit", {"source": "emoji"}, {"image": "cat.png"}, {"seed": 0})`.
    """
    return {
        "format": FORMAT,
        "method": method,
        "model": plain(dict(model)),
        "inputs": {name: _source(value) for name, value in inputs.items() if value is not None},
        "parameters": plain(dict(parameters)),
        **_surroundings(),
    }


def inputs_of(recipe: dict, folder: Path | None = None) -> dict[str, Any]:
    """The input files of a recipe, found again and unchanged: {name: path or list of paths}.

    Args:
      folder: where else to look, besides the path as it was given (the folder of the picture).
    Errors: UserError if one is gone, has changed, or was an array that no file holds.
    """
    return {name: _found(name, value, folder) for name, value in recipe["inputs"].items()}


def adapters_of(recipe: dict, folder: Path | None = None) -> dict[str, list[tuple]]:
    """The LoRAs and learned words of a recipe, found again and unchanged, as `load` takes them.

    Errors: UserError if a file is gone or has changed, or if the recipe is damaged.
    """
    found = {}
    for kind, value, types in (("lora", "weight", int | float), ("embedding", "token", str)):
        entries = recipe["model"].get(kind, [])
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise UserError(f"the recipe's {kind} is damaged")
        if not all(isinstance(e.get(value), types) for e in entries):
            raise UserError(f"the recipe's {kind} lacks its {value}")
        found[kind] = [(_found(kind, e, folder), e[value]) for e in entries]
    return found


def to_text(recipe: dict) -> str:
    """The recipe as JSON (`images.write` puts it into the picture)."""
    return json.dumps(recipe, sort_keys=True, allow_nan=False)


def from_text(text: str | bytes, name: str) -> dict:
    """Parses and checks a recipe from an untrusted place; `name` is for the message."""
    if len(text) > MAX_BYTES:
        raise UserError(f"the recipe in {name} is longer than {MAX_BYTES:,} bytes")
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the recipe in {name} is damaged") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        version = found.get("format") if isinstance(found, dict) else None
        raise UserError(f"the recipe in {name} has format {version!r:.20}; this reads {FORMAT}")
    kinds = {"method": str, "model": dict, "inputs": dict, "parameters": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(found.get(key), kind)]
    if wrong or not isinstance(found["model"].get("source"), str):
        raise UserError(f"the recipe in {name} lacks {', '.join(wrong) or 'the model'}")
    return found


def from_png(path: str | Path) -> dict:
    """The recipe inside a PNG, or beside it (NAME.json) for other kinds.

    Only the chunks before the pixels are looked at, nothing is decompressed, and at most
    `MAX_BYTES` are read.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"picture {path} does not exist")
    beside = path.with_name(path.name + ".json")
    with open(path, "rb") as file:
        text = _text_chunk(file) if file.read(8) == _SIGNATURE else None
    if text is None and beside.is_file():
        with open(beside, "rb") as file:
            text = file.read(MAX_BYTES + 1)
    if text is None:
        raise UserError(f"{path} carries no recipe; only pictures written by diffedit do")
    return from_text(text, str(path))


def plain(value: Any) -> Any:
    """A value as JSON knows it; an array becomes its shape and digest."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else repr(float(value))
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(one) for one in value]
    if hasattr(value, "shape"):
        return _array(value)
    return str(value)


def digest(path: str | Path) -> str:
    """sha256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pixel_digest(pixels: np.ndarray) -> str:
    """sha256 of an array's type, shape and bytes, hexadecimal."""
    head = f"{pixels.dtype} {pixels.shape} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _surroundings() -> dict:
    """Versions and device: what may explain a picture that differs."""
    import jax

    from . import __version__

    versions = {"diffedit_jax": __version__, "jax": jax.__version__, "numpy": np.__version__}
    return {"versions": versions, "device": jax.devices()[0].device_kind}


def _source(value: Any) -> Any:
    """Where an input came from: {"path", "sha256"}, or {"array", "sha256"}."""
    if isinstance(value, list | tuple):
        return [_source(one) for one in value]
    path = getattr(value, "path", value)
    if isinstance(path, str | os.PathLike):
        return {"path": os.fspath(path), "sha256": digest(path)}
    return _array(getattr(value, "pixels", value))


def _array(value: Any) -> dict:
    array = np.asarray(value)
    return {"array": list(array.shape), "sha256": pixel_digest(array)}


def _found(name: str, value: Any, folder: Path | None) -> Any:
    if isinstance(value, list):
        return [_found(name, one, folder) for one in value]
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        raise UserError(f"the recipe's {name} was an array, not a file; it cannot be replayed")
    given = Path(value["path"])
    for path in (given, *([folder / given, folder / given.name] if folder else [])):
        if path.is_file():
            if digest(path) == value.get("sha256"):
                return str(path)
            raise UserError(f"{name} {path} has changed since the recipe was written")
    raise UserError(f"{name} {given} of the recipe does not exist any more")


def _text_chunk(file) -> bytes | None:
    """The text of an uncompressed iTXt chunk "diffedit" that stands before the pixels."""
    for _ in range(_MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return None
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"IDAT", b"IEND"):
            return None
        if kind != b"iTXt" or length > MAX_BYTES:
            file.seek(length + 4, os.SEEK_CUR)
            continue
        body, check = file.read(length), file.read(4)
        key, _, rest = body.partition(b"\0")
        intact = check == struct.pack(">I", zlib.crc32(kind + body))
        if key == _KEY and intact and rest[:1] == b"\0":
            return rest[2:].split(b"\0", 2)[-1]
    return None


def _no_constant(name: str):
    raise ValueError(f"{name} is no JSON")
