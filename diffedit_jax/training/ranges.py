"""Numbers in a batch that look something up: refused where they lie outside its table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import UserError

_TABLES = {"ids": "the text encoder's tokens", "t": "the schedule's timesteps"}


def check_ranges(batch: Mapping[str, Any], limits: Mapping[str, int], step: int) -> None:
    """Refuses a batch that would look up what is not there; inside jit JAX clamps without a word.

    0 <= batch[name] < limits[name], for every name that the batch has.

    Args:
      batch: this process's part, as the data gave it: arrays on the host.
      limits: {name: how many rows its table has}, a task's `limits`.
      step: for the message.
    Raises: UserError that names the first number outside, and its place.
    """
    for name, count in limits.items():
        if name not in batch:
            continue
        values = np.asarray(batch[name])
        outside = np.argwhere(~((values >= 0) & (values < count)))  # NaN is outside too
        if len(outside):
            first = tuple(outside[0])
            raise UserError(
                f"batch {step}: {name}[{', '.join(map(str, first))}] is {values[first]}, outside 0 "
                f"to {count - 1}, {_TABLES.get(name, 'its table')} ({len(outside)} such)"
            )
