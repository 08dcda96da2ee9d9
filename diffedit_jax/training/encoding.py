"""Pictures become latents, and texts states, inside a run instead of before it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from .ranges import check_ranges


def encoder_of(model: Any, *, scaled: bool = True) -> Callable:
    """`picture_encoder` of a model.

    Args:
      scaled: latents as the UNet takes them; otherwise as the autoencoder gives them.
    """
    return picture_encoder(model.vae.module, model.scaling_factor if scaled else 1.0)


def picture_encoder(vae: Any, scale: float) -> Callable:
    """(params, pictures [n, H, W, 3] in 0 .. 255) -> (mean, deviation) [n, h, w, c] of latents.

    params["vae"] are the autoencoder's. Pure, for the training step.
    """

    def encode(params, pictures):
        unit = pictures.astype(jnp.float32) / 127.5 - 1
        mean, logvar = vae.apply({"params": params["vae"]}, unit, method="encode")
        mean, deviation = (x.astype(jnp.float32) for x in (mean, jnp.exp(0.5 * logvar)))
        return scale * mean, scale * deviation

    return encode


class KnownTexts:
    """A change of batches for `data.Changed`: "ids" become "context", each text being read once.

    Args:
      text: the text encoder with its parameters, which nobody trains.
      most: states that are kept; those that were not asked for the longest are forgotten first.
    """

    def __init__(self, text: Any, most: int):
        self._text, self._most = text, most
        self._states: OrderedDict[bytes, np.ndarray] = OrderedDict()

    def __call__(self, step: int, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with "context" [n, tokens, d] in place of "ids" [n, tokens]."""
        others = {name: x for name, x in batch.items() if name != "ids"}
        check_ranges(batch, {"ids": self._text.module.vocab_size}, step)
        return {**others, "context": self._of(batch["ids"])}

    def _of(self, ids):
        """States of ids; if one is not known the whole batch is read, which is one program."""
        names = [row.tobytes() for row in ids]
        if any(name not in self._states for name in names):
            states = [np.array(state) for state in self._text(ids)[0]]
            self._states.update(zip(names, states, strict=True))
        for name in names:
            self._states.move_to_end(name)
        found = np.stack([self._states[name] for name in names])
        while len(self._states) > self._most:
            self._states.popitem(last=False)
        return found
