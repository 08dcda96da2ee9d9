"""Files that are made once and read again at the next start, if they are of the same things."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..checkpoints.write import whole_file
from ..notices import tell

_PIXELS = 4 * 512 * 512  # of one call of an autoencoder: 1.6 GB of Stable Diffusion's
_MOST = 100


def per_call(size: int) -> int:
    """How many pictures of size x size go through an autoencoder at once: 4 of 512, 1 to 100."""
    return min(max(_PIXELS // size**2, 1), _MOST)


def note_of(path: Path) -> Path:
    """The file beside `path` that says what it was made of."""
    return path.with_name(f"{path.name}.json")


def noted(path: Path) -> dict[str, Any] | None:
    """What `path` was made of, or None if that is not known or `path` is not there."""
    if not path.exists() or not note_of(path).is_file():
        return None
    try:
        found = json.loads(note_of(path).read_text(encoding="utf-8"))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def note(path: Path, about: dict[str, Any]) -> None:
    """Say what `path` is made of."""
    with whole_file(note_of(path)) as temporary:
        temporary.write_text(json.dumps(about, indent=1, sort_keys=True), encoding="utf-8")


def forget(path: Path) -> None:
    """Before `path` is changed: what is said of it is true no more."""
    note_of(path).unlink(missing_ok=True)


def is_of(path: Path, about: dict[str, Any]) -> bool:
    """Whether `path` is there and was made of `about`; one line if it was made of other things."""
    found, wanted = noted(path), json.loads(json.dumps(about))
    if found == wanted:
        return True
    if path.exists():
        names = sorted(set(found or {}) | set(wanted))
        other = [n for n in names if (found or {}).get(n) != wanted.get(n)]
        tell(f"{path} is of another {', '.join(other)}; it is made anew")
    return False


def stamp(files: Iterable[Path]) -> str:
    """A digest of names, sizes and times of change: other pictures have another."""
    found = hashlib.sha256()
    for path in files:
        now = path.stat()
        found.update(f"{path.parent.name}/{path.name} {now.st_size} {now.st_mtime_ns}\n".encode())
    return found.hexdigest()


def digest(value: Any) -> str:
    """A digest of a value of plain types."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
