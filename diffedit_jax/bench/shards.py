"""Pieces of a long measurement on disk: written whole or not at all, known by what made them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffedit_jax.errors import UserError


@dataclass(frozen=True)
class Piece:
    """What one method did to one set of pictures.

    Attributes:
      pictures: uint8 [n, h, w, 3]; empty where the method refused.
      facts: seconds, notices, refusal, ...; JSON.
    """

    pictures: np.ndarray
    facts: dict


def file_of(folder: Path, key: dict) -> Path:
    """The file of a piece: readable names, and a digest of everything that decides its content."""
    text = json.dumps(key, sort_keys=True)
    name = re.sub(r"[^\w.-]+", "_", f"{key['entrant']}-{key['kind']}")
    return folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.npz"


def save(path: Path, piece: Piece) -> None:
    """Writes a piece beside its name and renames it, so that a killed run leaves no half of one."""
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(hidden, "xb") as file:
            np.savez_compressed(file, pictures=piece.pictures, facts=json.dumps(piece.facts))
            file.flush()
            os.fsync(file.fileno())
        os.replace(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)


def load(path: Path) -> Piece | None:
    """The piece of a file, or None where there is none yet."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return Piece(file["pictures"], json.loads(str(file["facts"])))
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run again") from error


def parse_shard(text: str) -> tuple[int, int]:
    """ "0/2" -> (0, 2)."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not int(found[1]) < int(found[2]):
        raise UserError(f"--shard should look like 0/2 or 1/2, not {text!r}")
    return int(found[1]), int(found[2])


def dealt(costs: Sequence[float], shard: tuple[int, int]) -> list[int]:
    """The positions that belong to a shard: dearest first, each to whoever has least so far."""
    own, loads = [], [0.0] * shard[1]
    for position in sorted(range(len(costs)), key=lambda k: -costs[k]):
        least = loads.index(min(loads))
        loads[least] += costs[position]
        if least == shard[0]:
            own.append(position)
    return sorted(own)
