"""What a training run is: networks, an objective, what is trained, conditions, placement."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jax.sharding import PartitionSpec


class Selection(Protocol):
    """Which part of the parameters is trained; nothing else has gradients or is saved."""

    def init(self, params: Any, key: Any) -> Any:
        """What is trained, a pytree of arrays, at its start."""

    def join(self, params: Any, trained: Any) -> Any:
        """The whole tree with the trained part in place: pure and differentiable in `trained`."""


@dataclasses.dataclass(frozen=True)
class Task:
    """The arguments of the trainer.

    loss = mean_i weight_i objective(join(params, trained), condition(...), batch, key, step)_i,
    with `weight` [n] from the batch, or 1. Batches are dicts of arrays that begin with the
    examples; "noise" [n, h, w, c] and "t" [n] in a batch replace what an objective would draw.

    Args:
      name: what the run is called in its files.
      params: one nested dict of all networks that take part, frozen and trained alike.
      objective: (params, cond, batch, key, step) -> (loss [n] float32, {name: scalar}).
      selection: what is trained.
      condition: (params, batch, key) -> Cond, or whatever the objective takes.
      rules: (pattern over the "/"-joined path, PartitionSpec over data, fsdp, tensor), first match.
      limits: {name in a batch: n}, numbers that look something up and lie in 0 .. n - 1.
    """

    name: str
    params: Any
    objective: Callable
    selection: Selection
    condition: Callable = lambda params, batch, key: None
    rules: tuple[tuple[str, PartitionSpec], ...] = ()
    limits: Mapping[str, int] = dataclasses.field(default_factory=dict)
