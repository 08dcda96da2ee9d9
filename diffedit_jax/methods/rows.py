"""Rows of one edit: a source and its targets, walked together. Host code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core import Cond
from ..errors import UserError
from .run import Draws


class Edits:
    """A batch in which pictures that share all but their prompt become targets of one edit.

    Args:
      count: number of pictures of the batch.
      seed, index, noise: as `Draws` takes them.
      values: what must agree for two pictures to be targets of one edit: one value for all, or one
        per picture.

    Attributes:
      targets: how many targets every edit has; 1 unless the batch is blocks of equal pictures.
      count: number of edits.
      draws: one draw per edit.
    """

    def __init__(self, count: int, *, seed, index, noise, **values: Any):
        first = np.zeros(count, int) if np.ndim(seed) else np.arange(count)
        index = index if np.ndim(index) else index + first
        given = noise if isinstance(noise, Mapping) else {"start": noise}
        drawn = {f"noise {k}": np.asarray(v) for k, v in given.items() if v is not None}
        columns = values | drawn | {"seed": seed, "index": index}
        self._columns = {name: each(value, count, name) for name, value in columns.items()}
        keys = list(zip(*map(_hashable, self._columns.values()), strict=True))
        self.targets = block_size(keys)
        self.count = count // self.targets
        own = {k.removeprefix("noise "): np.stack(self.own(k)) for k in drawn}
        self.draws = Draws(self.count, np.asarray(self.own("seed")), np.asarray(self.own("index")),
                           own)  # fmt: skip

    def own(self, name: str) -> list:
        """[count] one value per edit."""
        return self._columns[name][:: self.targets]


def block_size(keys: Sequence[Any]) -> int:
    """The largest g such that the keys come in blocks of g equal ones.

    Example: block_size(["a", "a", "b", "b"]) is 2, block_size(["a", "b"]) is 1.
    """
    count = len(keys)
    sizes = (g for g in range(count, 0, -1) if count % g == 0)
    return next(g for g in sizes if all(keys[i] == keys[i - i % g] for i in range(count)))


def each(value: Any, count: int, name: str) -> list:
    """One value per picture from one value, or from a list of them."""
    if not isinstance(value, list | tuple | np.ndarray) or np.ndim(value) == 0:
        return [value] * count
    if len(value) != count:
        raise UserError(f"{name} has {len(value)} values for {count} pictures")
    return list(value)


def rows_condition(model, sources: Sequence[str], prompts: Sequence[str],
                   negatives: Sequence[str]) -> Cond:  # fmt: skip
    """Leaves [edits, 2, 1 + targets, ...]: the negative prompt for all rows, then their texts.

    Args:
      sources, negatives: one per edit.
      prompts: [edits * targets], the targets of the first edit first.
    """
    edits = len(sources)
    told = model.condition([*negatives, *sources, *prompts])

    def arranged(a):
        null, source, target = jnp.split(a, [edits, 2 * edits])
        target = target.reshape(edits, -1, *a.shape[1:])
        text = jnp.concatenate([source[:, None], target], axis=1)
        return jnp.stack([jnp.broadcast_to(null[:, None], text.shape), text], axis=1)

    return jax.tree.map(arranged, told)


def source_condition(cond: Cond) -> Cond:
    """The source row's text alone, leaves [edits, ...]: for an inversion without guidance."""
    return jax.tree.map(lambda a: a[:, -1, 0], cond)


def in_rows(z, targets: int):
    """[edits, h, w, c] -> [edits, 1 + targets, h, w, c], the same latent in every row."""
    return jnp.broadcast_to(z[:, None], (z.shape[0], 1 + targets, *z.shape[1:]))


def from_source_row(x):
    """Every row becomes the source row, leaf by leaf, in the precision that it has."""
    return jax.tree.map(lambda a: np.broadcast_to(np.asarray(a)[:, :1], a.shape), x)


def of_targets(x):
    """[edits, 1 + targets, h, w, c] -> [edits * targets, h, w, c]; of a pair, its first."""
    x = jax.tree.leaves(x)[0]
    return x[:, 1:].reshape(-1, *x.shape[2:])


def _hashable(column: list) -> list:
    return [v.tobytes() if isinstance(v, np.ndarray) else repr(v) for v in column]
