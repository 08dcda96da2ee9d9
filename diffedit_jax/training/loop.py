"""The training loop: batches by step number, logging, checkpoints, resume."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffedit_jax.errors import NotFiniteError
from diffedit_jax.training.checkpoint import Checkpoints


class _Log:
    """Appends one JSON line per report, with the rate since the last one."""

    def __init__(self, folder: Path, quiet: bool):
        self._path, self._quiet, self._time = folder / "log.jsonl", quiet, time.monotonic()

    def write(self, step: int, steps: int, metrics: dict) -> None:
        now = time.monotonic()
        row = {"step": step, "rate": steps / max(now - self._time, 1e-9)}
        row |= {name: float(value) for name, value in metrics.items()}
        self._time = now
        with self._path.open("a") as handle:
            handle.write(json.dumps(row) + "\n")
        if not self._quiet:
            print("  ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
        if row["loss"] != row["loss"]:
            raise NotFiniteError(f"the training loss is not a number at step {step}")


def fit(
    state: Any,
    step: Callable,
    batch: Callable[[int], Any],
    *,
    steps: int,
    folder: str | Path,
    save_every: int = 500,
    log_every: int = 50,
    seconds: float | None = None,
    watch: Callable[[int, Any], None] | None = None,
    quiet: bool = False,
) -> Any:
    """Train to `steps` (or for `seconds`), going on from the newest checkpoint in `folder`.

    `batch(k)` must depend on k alone: then a resumed run is bit-equal to an uninterrupted one.
    `watch(k, state)` is called at every save. Returns the final state, which is saved too.
    """
    folder = Path(folder)
    checkpoints = Checkpoints(folder / "checkpoints")
    state, start = checkpoints.restore(state)
    log, began, k = _Log(folder, quiet), time.monotonic(), start
    while k < steps and (seconds is None or time.monotonic() - began < seconds):
        state, metrics = step(state, batch(k))
        k += 1
        if k % log_every == 0:
            log.write(k, log_every, metrics)
        if k % save_every == 0 and k < steps:
            checkpoints.save(k, state)
            if watch:
                watch(k, state)
    if k > start:
        checkpoints.save(k, state)
    checkpoints.close()
    return state
