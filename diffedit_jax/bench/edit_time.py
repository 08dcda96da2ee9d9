"""How long the command `diffedit edit` takes, from a cold start to a picture on disk."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ..errors import UserError

_SAID = re.compile(r" in [\d.]+ s: (.*)$")
_PART = re.compile(r"(\w+) ([\d.]+)")


def edit_time(model: str, repeats: int, steps: int, threads: int) -> dict:
    """{"cold": parts, "warm": medians of parts}; seconds by part, and "wall" for the whole.

    "import" is what the command does not account for itself: starting Python and reading jax.
    The first run begins with an empty cache of compiled programs, the others find it filled.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picture = folder / "in.png"
        _draw(picture)
        runs = [_run(folder, picture, model, steps, threads) for _ in range(repeats + 1)]
    warm = {key: statistics.median(run.get(key, 0.0) for run in runs[1:]) for key in runs[0]}
    return {"cold": runs[0], "warm": warm, "runs": runs}


def _draw(path: Path) -> None:
    """A picture of soft colours."""
    from ..images import write

    rows = np.arange(64, dtype=np.uint8)
    red, green = np.meshgrid(rows * 3, rows * 2)
    write(path, np.stack([red, green, 255 - red], axis=-1), {})


def _run(folder: Path, picture: Path, model: str, steps: int, threads: int) -> dict[str, float]:
    words = ["edit", str(picture), "--method", "sdedit", "--prompt", "a cat on a blue background"]
    words += ["--model", model, "--steps", str(steps), "--out", str(folder / "out.png")]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder), "OMP_NUM_THREADS": str(threads)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "diffedit_jax", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.perf_counter() - began
    if done.returncode:
        raise UserError(f"bench: diffedit edit failed: {done.stderr.strip().splitlines()[-1]}")
    return parts_of(done.stderr, wall)


def parts_of(said: str, wall: float) -> dict[str, float]:
    """Seconds by part from what the command printed; "import" is the rest of `wall`.

    Example: `parts_of("wrote a.png in 2.0 s: load 0.5, run 1.5", 3.0)["import"] == 1.0`.
    """
    lines = [found.group(1) for found in map(_SAID.search, said.splitlines()) if found]
    if not lines:
        raise UserError("bench: diffedit edit did not say where its time went")
    parts = {name: float(seconds) for name, seconds in _PART.findall(lines[-1])}
    return {"import": wall - sum(parts.values()), **parts, "wall": wall}
