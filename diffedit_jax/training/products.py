"""What a run leaves behind: written by one process, whole or not at all."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..bundles import save
from ..checkpoints.export import FLOATS
from ..checkpoints.write import exchange
from ..errors import UserError
from .agree import by_first, on_host
from .disk import check_room
from .loop import finished
from .state import TrainState
from .tasks.shared import learned


def produce(write: Callable[..., None], *trees: Any) -> None:
    """The first process calls write(*trees), the trees being whole and on the host.

    Every process must call it, with trees that may be spread over all of them; all wait until it is
    written, and a UserError of the first is one of all.
    """
    found = on_host(trees)
    by_first(lambda: write(*found))


def at_saves(write: Callable[[Any], None]) -> Callable[[int, TrainState], None]:
    """`watch` for fit: at every save, what the run has learned by then is given to `write`."""
    return lambda step, state: produce(write, learned(state))


def at_end(write: Callable[[Any], None], state: TrainState, config: Any) -> None:
    """What a run has learned is given to `write`, unless it was cut off and is to go on."""
    if finished(state, config):
        produce(write, learned(state))


def model_bytes(model: Any, dtype: str | None) -> int:
    """Bytes of the files of `write_model`, up to a few kilobytes.

    Raises: UserError for a dtype that is none.
    """
    if dtype and dtype not in FLOATS:
        raise UserError(f"dtype must be one of {', '.join(FLOATS)}, not {dtype!r}")
    width = np.dtype(FLOATS[dtype]).itemsize if dtype else 0
    leaves = [leaf for leaf in jax.tree.leaves(model) if hasattr(leaf, "dtype")]
    return sum(math.prod(leaf.shape) * (width or leaf.dtype.itemsize) for leaf in leaves)


def write_model(model: Any, folder: Path, dtype: str | None) -> None:
    """A whole diffusers folder, in place of one that is there from an earlier end of this run.

    The earlier one stays until the new one is whole, and the new one takes its name at once.

    Raises: UserError when there is no room, or something else is there.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "model_index.json").is_file():
        raise UserError(f"{folder} is there already and is no model; remove it")
    for lost in folder.parent.glob(f".*{folder.name}.new*"):  # of a run that was killed here
        shutil.rmtree(lost, ignore_errors=True)
    check_room(folder.parent, model_bytes(model, dtype), f"the {folder.name} needs")
    new = folder.with_name(f".{folder.name}.new")
    save(model, new, dtype=dtype or None)
    exchange(new, folder)
