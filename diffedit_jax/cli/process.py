"""What the command line sets for its whole process, before jax starts. The library sets none of it.

A user's own environment variables win over every one of these.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

_CACHE_BYTES = 4 << 30


def prepare_process(debug: bool = False) -> None:
    """Quiet logs, a private compilation cache, compiler flags."""
    if not debug:  # XLA's C++ log would break the promise of one line on stderr
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _set_compiler_flags()
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        folder = private_folder(cache_folder())
    except OSError as error:
        print(f"diffedit: no compilation cache: {error}", file=sys.stderr)
        return
    _set_cache(folder)


def cache_folder() -> Path:
    """Where compiled programs are kept: $XDG_CACHE_HOME/diffedit_jax/xla or under ~/.cache."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    return home / "diffedit_jax" / "xla"


def private_folder(folder: Path) -> Path:
    """Creates the folder for this user alone, or refuses one that somebody else can write to.

    Who can write into a cache of programs can run code as the user who reads it.
    Errors: OSError that says why.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(f"{folder} is not a folder of its own")
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        raise OSError(f"{folder} belongs to another user")
    if found.st_mode & 0o022:
        raise OSError(f"{folder} can be written to by other users; remove it or chmod 700 it")
    return folder


def _set_cache(folder: Path) -> None:
    """jax reads these when it is imported, or has read them already and is told."""
    settings = dict(
        jax_compilation_cache_dir=str(folder),
        jax_persistent_cache_min_compile_time_secs=0.0,  # an edit is many small programs
        jax_compilation_cache_max_size=_CACHE_BYTES,
    )
    for name, value in settings.items():
        os.environ.setdefault(name.upper(), str(value))
    if "jax" in sys.modules:
        import jax

        for name, value in settings.items():
            jax.config.update(name, value)


def _set_compiler_flags() -> None:
    """Adds XLA options that were measured to be faster here; the place to add more."""
    measured: tuple[str, ...] = ()
    present = os.environ.get("XLA_FLAGS", "")
    added = [flag for flag in measured if flag.split("=")[0] not in present]
    if added:
        os.environ["XLA_FLAGS"] = " ".join([present, *added]).strip()
