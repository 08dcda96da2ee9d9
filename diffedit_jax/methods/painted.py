"""Paint by Example from another start than noise: a noised picture, or a picture's inversion.

Both ways of an inversion see the hole. The way up is told the learned vector that stands for no
example, the way back the example. Outside the hole the start's own rule for masks keeps the
picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ..core import Cond
from ..images import read_example
from .inpaint import pasted
from .paint_by_example import binary_hole, hole_channels, is_theirs, shown
from .registry import Method
from .run import Draws

STARTS = ("sdedit", "ddim_inversion", "direct_inversion", "edict")
OWN = ("example", "mask", "layout", "compat", "posterior", "paste", "band")
_EXAMPLE = "the example"


class Exemplified(struct.PyTreeNode):
    """A bundle that is told by examples, as methods of texts ask one.

    "" stands for the learned vector and `_EXAMPLE` for the picture's own example; texts come in
    runs of one per picture, as every method has them.
    """

    model: Any
    nothing: Any  # Cond, leaves [b, ...]
    told: Any  # Cond, leaves [b, ...]

    def condition(self, texts: Sequence[str]) -> Cond:
        """Leaves [len(texts), ...]."""
        count = len(jax.tree.leaves(self.told)[0])
        own = np.arange(len(texts)) % count
        told = np.array([text == _EXAMPLE for text in texts])

        def one(nothing, told_):
            where = told.reshape(-1, *[1] * (told_.ndim - 1))
            return jnp.where(where, told_[own], nothing[own])

        return jax.tree.map(one, self.nothing, self.told)

    def __getattr__(self, name: str) -> Any:
        if name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)


def painted(start: Method, model, images, p: dict, watch) -> np.ndarray:
    """Runs a start whose texts are "no example" on the way up and the example on the way back.

    Args:
      p: parameters of the combination; mask [b, h, w], 1 where the example shall be painted.
    """
    count, hole = len(images), binary_hole(p["mask"], images.shape)
    noise = p["noise"] if isinstance(p["noise"], Mapping) else None
    draws = Draws(count, p["seed"], p["index"], noise)
    compat = "" if "compat" in start.parameters else p["compat"]
    theirs = is_theirs(compat)
    both = shown(model, [read_example(one).pixels for one in p["example"]], crop=theirs)
    seen = hole_channels(model, images, hole, p["layout"], p["posterior"], draws, theirs)
    nothing, told = (
        jax.tree.map(lambda a, k=k: a[:, k], both).replace(channels=seen) for k in (0, 1)
    )
    texts = {"source": [""] * count, "prompt": [_EXAMPLE] * count}
    own = {k: (p | texts)[k] for k in start.parameters if k in p or k in texts}
    edited = start.function(Exemplified(model, nothing, told), images, watch=watch,
                            **own | {"mask": hole})  # fmt: skip
    return pasted(edited, images, hole, p["band"]) if p["paste"] else edited
