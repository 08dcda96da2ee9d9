"""Remembers, beside the compilation cache, which programs a batch used, so that `plan` can tell.

A batch's key holds all that its programs depend on: versions, device, flags, the networks' shapes,
method, canvas, length, and which parameters are set; not the numbers that a user turns.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from .. import __version__
from .batches import Batch
from .jobs import FILES, TEXTS

_BEGAN = time.time_ns()  # a program once compiled is not asked of the cache again


def key_of(model: Any, batch: Batch) -> str:
    """sha256 of what decides whether a batch compiles anew."""
    job = batch.jobs[0]
    given = {**model.defaults, **job.rest, **dict.fromkeys(job.own, True)}
    given = {k: v for k, v in given.items() if k in job.method.parameters}
    parameters = job.method.complete(given)
    facts = dict(
        versions=[__version__, jax.__version__],
        device=[jax.devices()[0].device_kind, jax.device_count(), os.environ.get("XLA_FLAGS", "")],
        model=[model.configs, str(model.denoiser.module), model.denoiser.kind],
        method=job.method.name,
        canvas=[batch.canvas, batch.length],
        parameters={name: _kind(name, value) for name, value in parameters.items()},
    )
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def is_compiled(model: Any, batch: Batch) -> bool:
    """Whether such a batch has run before and every program it used is still in the cache."""
    folder = _folder()
    if folder is None:
        return False
    try:
        used = (folder / "seen" / key_of(model, batch)).read_text().split()
    except OSError:
        return False
    return bool(used) and all((folder / f"{name}-cache").is_file() for name in used)


@contextlib.contextmanager
def recorded(model: Any, batch: Batch) -> Iterator[None]:
    """Notes which entries of the cache this process has touched, once the batch has run."""
    folder = _folder()
    yield
    if folder is None:
        return
    with contextlib.suppress(OSError):  # a full disk must not spoil a finished edit
        used = [p.name.removesuffix("-atime") for p in folder.glob("*-atime") if _touched(p)]
        (folder / "seen").mkdir(exist_ok=True)
        (folder / "seen" / key_of(model, batch)).write_text("\n".join(sorted(used)))


def _folder() -> Path | None:
    """The compilation cache; only with a size limit does jax note when an entry was used."""
    folder = jax.config.jax_compilation_cache_dir
    limited = jax.config.jax_compilation_cache_max_size != -1
    return Path(folder) if folder and limited else None


def _touched(path: Path) -> bool:
    return int.from_bytes(path.read_bytes()[:8], "little") >= _BEGAN


def _kind(name: str, value: Any) -> Any:
    """What of a parameter decides the program: words, switches, and whether a number is zero."""
    if name in (*TEXTS, *FILES, "seed", "index"):
        return value is not None
    if name in ("height", "width"):
        return value
    if value is None or isinstance(value, bool | str):
        return value
    return bool(value)
