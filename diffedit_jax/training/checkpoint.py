"""Saving and resuming runs with orbax, asynchronous and atomic."""

from pathlib import Path
from typing import Any

import jax


class Checkpoints:
    """The checkpoints of one run: the newest `keep` steps under a folder.

    Example: `runs = Checkpoints("runs/vae"); state, step = runs.restore(state)`.
    """

    def __init__(self, folder: str | Path, *, keep: int = 2):
        import orbax.checkpoint as ocp

        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(Path(folder).absolute(), options=options)
        self._arguments = ocp.args

    def save(self, step: int, state: Any) -> None:
        """Write the state; returns once the arrays are copied, the disk follows."""
        self._manager.save(step, args=self._arguments.StandardSave(state))

    def restore(self, state: Any) -> tuple[Any, int]:
        """The newest saved state with its step, or the given state and 0 when there is none."""
        step = self._manager.latest_step()
        if step is None:
            return state, 0
        shape = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
        )
        return self._manager.restore(step, args=self._arguments.StandardRestore(shape)), step

    def close(self) -> None:
        """Wait until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()
